"""An opened image: which dimension is what, and how to read any part of it.

From here on, the axes of every image are in the order t, z, y, x (as far as it has them), followed
by one to three color channels, whatever their order in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.parameters import AXES
from napari_pixseg.slices import ChunkIndex, PixelSlices, Samples, SampleType, box_at_origin
from napari_pixseg.sources.channels import resolve_channels
from napari_pixseg.sources.damaged_chunks import read_box, read_chunks
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.read_options import DEFAULT_OPTIONS, ReadOptions
from napari_pixseg.sources.source import ChunkedArray, Source

if TYPE_CHECKING:
    import dask.array as da


# NumPy and Dask arrays, which are transposed and indexed in the same way.
_AnyArray: TypeAlias = Any


# Returns any part of a tile.
PartOf: TypeAlias = Callable[[PixelSlices], Samples]


# Pixels of a chunk. It is faster to assemble smaller chunks into tiles than to handle each alone.
_SMALLEST_PART = 1 << 16


@dataclass(frozen=True, eq=False)
class Image:
    """A source whose axes and channels are known.

    Attributes
    ----------
    source : Source
    axes : str
        One letter for each dimension of the source, in its own order.
    channels : tuple of int or None
        Indices along axis c of the colors; None if there is no axis c.
    alpha : int or None
        Index along axis c of alpha.
    notes : tuple of str
        Sentences for the user about what was guessed or left out.
    missing : frozenset of chunk indices
        Damaged chunks of the source, which are not read: their pixels are no data.
    allows_absence : bool
        Whether an image without any chunk is accepted as its fill value.
    """

    source: Source
    axes: str
    channels: tuple[int, ...] | None
    alpha: int | None
    notes: tuple[str, ...]
    missing: frozenset[ChunkIndex] = frozenset()
    allows_absence: bool = False

    @property
    def dtype(self) -> SampleType:
        """Type of the samples."""
        dtype: SampleType = np.dtype(self.source.array.dtype)
        return dtype

    @property
    def highest_sample(self) -> int | None:
        """Largest possible value of a sample; None for floats."""
        if self.dtype.kind not in "ui":
            return None
        bits = self.source.used_bits
        return int(np.iinfo(self.dtype).max) if bits is None else 2**bits - 1

    @property
    def gray(self) -> bool:
        """Whether there is one color channel."""
        return self.channels is None or len(self.channels) == 1

    @property
    def own_axes(self) -> str:
        """The axes without c in the source's own order."""
        return self.axes.replace("c", "")

    @property
    def label_axes(self) -> str:
        """The axes without c in the order t, z, y, x."""
        return "".join(axis for axis in AXES if axis in self.own_axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each of ``label_axes``."""
        return tuple(self.source.array.shape[self.axes.index(axis)] for axis in self.label_axes)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Storage chunks along ``label_axes``."""
        if self.source.chunks is None:
            return None
        return tuple(int(self.source.chunks[self.axes.index(axis)]) for axis in self.label_axes)

    @property
    def color_channels(self) -> int:
        """Number of channels that :meth:`read` gives, 1 to 3."""
        return 1 if self.channels is None else len(self.channels)

    def read(self, region: PixelSlices) -> Samples:
        """Read the colors of a box of ``label_axes``, (..., c).

        The array is masked where chunks are missing.
        """
        return self._read_channels(region, self.channels)

    def read_parts(self, region: PixelSlices) -> list[tuple[PixelSlices, Samples]]:
        """Read the colors of a box in parts, if this saves a copy.

        Returns
        -------
        list of (box, (..., c) ndarray)
            Where in the box each part is, and its colors. Parts that follow each other along x
            are next to each other. There is one part, masked, where chunks are missing.
        """
        array = self.source.array
        if not (isinstance(array, ChunkedArray) and self._has_usable_chunks):
            return [(box_at_origin(region), self.read(region))]
        box = self._source_box(region, self.channels)
        return [(there[:-1], part) for there, part in read_chunks(self.source, array, box)]

    @property
    def _has_usable_chunks(self) -> bool:
        """Whether chunks are large enough, and all channels are colors in the last axis."""
        source = self.source
        array = source.array
        return (
            not self.missing
            and self.axes == self.label_axes + "c"
            and self.channels == tuple(range(array.shape[-1]))
            and source.chunks is not None
            and source.chunks[-1] >= array.shape[-1]
            and math.prod(source.chunks[:-1]) >= _SMALLEST_PART
        )

    def read_alpha(self, region: PixelSlices) -> Samples:
        """Read the alpha of a box, without a channel axis."""
        if self.alpha is None:
            raise ValueError("This image has no alpha.")
        alpha: Samples = self._read_channels(region, (self.alpha,))[..., 0]
        return alpha

    def _read_channels(self, region: PixelSlices, members: tuple[int, ...] | None) -> Samples:
        part = read_box(self.source, self._source_box(region, members), self.missing)
        colors: Samples = _pick_channels(_in_label_order(part, self.axes), members)
        return colors

    def without(self, chunks: frozenset[ChunkIndex]) -> Image:
        """Return the image without some chunks of its source."""
        return replace(self, missing=chunks)

    def source_parts(self, region: PixelSlices) -> list[PixelSlices]:
        """Return the boxes of the source with the colors of a box, and with its alpha."""
        colors = self._source_box(region, self.channels)
        alpha = [] if self.alpha is None else [self._source_box(region, (self.alpha,))]
        return [colors, *alpha]

    def _source_box(self, region: PixelSlices, members: tuple[int, ...] | None) -> PixelSlices:
        wanted = dict(zip(self.label_axes, region, strict=True))
        if members is not None:
            # One slice is cheap for every array; channels in between are dropped after reading.
            wanted["c"] = slice(min(members), max(members) + 1)
        return tuple(wanted[axis] for axis in self.axes)

    def blocks(self, tiles: tuple[tuple[int, ...], ...]) -> da.Array:
        """Return the colors as a Dask array (..., c), one block for each tile."""
        # Runs that read their tiles directly do not need a Dask array.
        import dask.array as da

        chunks = (*tiles, (self.color_channels,))
        array = self.source.array
        if not self.source.is_dask:
            return da.from_array(_ImageReader(self), chunks=chunks, name=False, asarray=False)
        whole = tuple(slice(None) for _ in self.label_axes)
        lazy = _in_label_order(array[self._source_box(whole, self.channels)], self.axes)
        return _pick_channels(lazy, self.channels).rechunk(chunks)

    def in_own_order(self, labels: _AnyArray) -> _AnyArray:
        """Transpose an array from ``label_axes`` to `own_axes`; further axes stay at the end."""
        order = [self.label_axes.index(axis) for axis in self.own_axes]
        return labels.transpose([*order, *range(len(order), labels.ndim)])


class _ImageReader:
    """The colors of an image as an array-like over ``label_axes`` and c, for Dask to slice."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.shape = (*image.shape, image.color_channels)
        self.dtype = image.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: PixelSlices) -> Samples:
        return self._image.read(index[:-1])


def _in_label_order(array: _AnyArray, axes: str) -> _AnyArray:
    """Transpose an array from the order of its source to ``label_axes`` and c."""
    wanted = [axis for axis in AXES if axis in axes and axis != "c"] + ["c"] * ("c" in axes)
    return array.transpose([axes.index(axis) for axis in wanted])


def _pick_channels(array: _AnyArray, members: tuple[int, ...] | None) -> _AnyArray:
    """Pick channels of an array cut from the first to the last; None adds an axis c."""
    if members is None:
        return array[..., np.newaxis]
    picked = [member - min(members) for member in members]
    # Indexing with a list would copy.
    return array if picked == list(range(array.shape[-1])) else array[..., picked]


def open_image(
    source: object,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Image:
    """Open anything that can be segmented; read its metadata, but no pixels.

    Parameters
    ----------
    source : array-like, path or URL
        See :func:`napari_pixseg.sources.open.open_source`.
    axes : str, optional
        One letter of ``t c z y x`` for each dimension; by default what metadata say, or a guess.
    channels : sequence of int, optional
        One to three indices along axis c.
    options : ReadOptions, optional

    Returns
    -------
    Image

    Raises
    ------
    InputNotFound, NotAnImage
        If there is nothing to open, or it is no image.
    ParameterError
        If axes or channels do not fit the image.
    """
    opened = open_source(source, options)
    if not options.allow_missing:
        opened.refuse_absence()
    array = opened.array
    resolved, axes_notes = _resolve_axes(opened, axes)
    members, alpha, notes = resolve_channels(array.shape, resolved, channels, opened)
    notes = (*opened.notes, *axes_notes, *notes)
    allows_absence = options.allow_missing
    return Image(opened, resolved, members, alpha, notes, allows_absence=allows_absence)


def _resolve_axes(source: Source, axes: str | None) -> tuple[str, tuple[str, ...]]:
    shape = tuple(source.array.shape)
    if axes is not None:
        if len(axes) != len(shape):
            raise ParameterError(
                f"axes = {axes!r} names {len(axes)} dimensions, but {source.name} has "
                f"{len(shape)}: shape {shape}; give one letter for each."
            )
        return axes, ()
    if source.axes is not None:
        return source.axes, ()
    guess = _guess_axes(shape, source.name)
    return guess, (
        f"The axes of {source.name}, shape {shape}, were guessed to be {guess!r}; give axes if "
        "that is wrong.",
    )


def _guess_axes(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 2:
        return "yx"
    # A last axis of three or four is far more often RGB or RGBA than columns.
    if len(shape) in (3, 4) and shape[-1] in (3, 4):
        return "zyxc"[-len(shape) :]
    if len(shape) == 3:
        return "zyx"
    if len(shape) < 2:
        raise NotAnImage(f"{name} has shape {shape}; an image has at least the axes y and x.")
    raise ParameterError(
        f"What are the dimensions of {name}, shape {shape}? "
        "Give axes with one letter of t, c, z, y, x for each, for example axes='tzyx'."
    )
