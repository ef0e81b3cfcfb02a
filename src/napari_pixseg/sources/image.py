"""An opened image: which dimension is what, and how to read any part of it.

Inside the engine every image has the axes t, z, y, x (those it has, in this
order) and one to three color channels last, whatever its own order is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.parameters import AXES
from napari_pixseg.slices import PixelSlices, from_zero
from napari_pixseg.sources.damage import ChunkIndex, read_chunks, read_part
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.source import Source, isinstance_if_loaded

if TYPE_CHECKING:
    import dask.array as da


# Gives any part of a tile.
PartOf: TypeAlias = Callable[[PixelSlices], NDArray[Any]]


# Smaller chunks are put together to tiles before they are worked on.
_SMALLEST_PART = 1 << 16


@dataclass(frozen=True)
class Image:
    """A source whose axes and channels are known.

    Attributes
    ----------
    source : Source
    axes : str
        One letter for each dimension of the source, in its own order.
    channels : tuple of int or None
        Members of axis c that are colors; None if there is no axis c.
    alpha : int or None
        Member of axis c that is alpha.
    notes : tuple of str
        What was guessed or left out, for people.
    missing : frozenset of chunk indices
        Chunks of the source that are damaged and not looked at; their pixels have no data.
    """

    source: Source
    axes: str
    channels: tuple[int, ...] | None
    alpha: int | None
    notes: tuple[str, ...]
    missing: frozenset[ChunkIndex] = frozenset()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples."""
        dtype: np.dtype[Any] = np.dtype(self.source.array.dtype)
        return dtype

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

    def read(self, region: PixelSlices) -> NDArray[Any]:
        """Read the colors of a region, (..., c) with the axes in engine order.

        It is a masked array where chunks are missing.
        """
        return self._read(region, self.channels)

    def read_parts(self, region: PixelSlices) -> list[tuple[PixelSlices, NDArray[Any]]]:
        """Read the colors of a region in parts, where that spares putting them together.

        Returns
        -------
        list of (region, (..., c) ndarray)
            Where in the region each part is, with those that follow along x next to each other;
            one masked array where chunks are missing.
        """
        if not self._is_in_parts:
            return [(from_zero(region), self.read(region))]
        key = self._source_index(region, self.channels)
        return [(there[:-1], part) for there, part in read_chunks(self.source, key)]

    @property
    def _is_in_parts(self) -> bool:
        """Whether storage chunks can be worked on as they are, and are large enough for that."""
        source, array = self.source, self.source.array
        return (
            isinstance_if_loaded(array, "napari_pixseg.sources.zarr_chunks", "ChunkFiles")
            and not self.missing
            and self.axes == self.label_axes + "c"
            and self.channels == tuple(range(array.shape[-1]))
            and source.chunks is not None
            and source.chunks[-1] >= array.shape[-1]
            and math.prod(source.chunks[:-1]) >= _SMALLEST_PART
        )

    def read_alpha(self, region: PixelSlices) -> NDArray[Any]:
        """Read the alpha of a region, without a channel axis."""
        if self.alpha is None:
            raise ValueError("This image has no alpha.")
        alpha: NDArray[Any] = self._read(region, (self.alpha,))[..., 0]
        return alpha

    def _read(self, region: PixelSlices, members: tuple[int, ...] | None) -> NDArray[Any]:
        part = read_part(self.source, self._source_index(region, members), self.missing)
        colors: NDArray[Any] = _color_last(_engine_order(part, self.axes), members)
        return colors

    def without(self, chunks: frozenset[ChunkIndex]) -> Image:
        """Return the image without some chunks of its source."""
        return replace(self, missing=chunks)

    def source_parts(self, region: PixelSlices) -> list[PixelSlices]:
        """Where in the source the colors of a region are, and its alpha."""
        colors = self._source_index(region, self.channels)
        alpha = [] if self.alpha is None else [self._source_index(region, (self.alpha,))]
        return [colors, *alpha]

    def _source_index(self, region: PixelSlices, members: tuple[int, ...] | None) -> PixelSlices:
        wanted = dict(zip(self.label_axes, region, strict=True))
        if members is not None:
            wanted["c"] = slice(min(members), max(members) + 1)
        return tuple(wanted[axis] for axis in self.axes)

    def blocks(self, tiles: tuple[tuple[int, ...], ...]) -> da.Array:
        """Return the colors as a Dask array (..., c), one block for each tile."""
        chunks = (*tiles, (self.color_channels,))
        import dask.array as da

        array = self.source.array
        if not self.source.is_dask:
            return da.from_array(_Reader(self), chunks=chunks, name=False, asarray=False)
        whole = tuple(slice(None) for _ in self.label_axes)
        lazy = _engine_order(array[self._source_index(whole, self.channels)], self.axes)
        return _color_last(lazy, self.channels).rechunk(chunks)

    def in_own_order(self, labels: Any) -> Any:
        """Bring an array over ``label_axes`` (and more behind them) to the source's order."""
        order = [self.label_axes.index(axis) for axis in self.own_axes]
        return labels.transpose([*order, *range(len(order), labels.ndim)])


class _Reader:
    """The image as an array-like in engine order, for Dask to slice."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.shape = (*image.shape, image.color_channels)
        self.dtype = image.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: PixelSlices) -> NDArray[Any]:
        return self._image.read(index[:-1])


def _engine_order(array: Any, axes: str) -> Any:
    wanted = [axis for axis in AXES if axis in axes and axis != "c"] + ["c"] * ("c" in axes)
    return array.transpose([axes.index(axis) for axis in wanted])


def _color_last(array: Any, members: tuple[int, ...] | None) -> Any:
    """Give an array without axis c one channel, or pick members of a slice of it."""
    if members is None:
        return array[..., np.newaxis]
    picked = [member - min(members) for member in members]
    # A list copies.
    return array if picked == list(range(array.shape[-1])) else array[..., picked]


def open_image(
    source: object, axes: str | None = None, channels: Sequence[int] | None = None
) -> Image:
    """Open anything that can be segmented; reads metadata and no pixel.

    Parameters
    ----------
    source : array-like, path or URL
        See :func:`napari_pixseg.sources.open.open_source`.
    axes : str, optional
        One letter of ``t c z y x`` for each dimension; else metadata, else a guess.
    channels : sequence of int, optional
        One to three members of axis c.

    Returns
    -------
    Image

    Raises
    ------
    InputNotFound, NotAnImage
        If there is nothing, or no image, to open.
    ParameterError
        If axes or channels do not fit the image.
    """
    opened = open_source(source)
    array = opened.array
    named, notes = _named_axes(opened, axes)
    members, alpha, more = _members(array.shape, named, channels, opened)
    return Image(opened, named, members, alpha, (*opened.notes, *notes, *more))


def _named_axes(source: Source, axes: str | None) -> tuple[str, tuple[str, ...]]:
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
    guess = _guessed_axes(shape, source.name)
    return guess, (f"The axes of {source.name}, shape {shape}, were guessed to be {guess!r}.",)


def _guessed_axes(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 2:
        return "yx"
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


def _members(
    shape: tuple[int, ...], axes: str, channels: Sequence[int] | None, source: Source
) -> tuple[tuple[int, ...] | None, int | None, tuple[str, ...]]:
    """Which members of axis c are colors, which is alpha, and what to tell people."""
    if "c" not in axes:
        if channels is not None:
            raise ParameterError(
                f"channels = {tuple(channels)} was given, but {source.name} with axes {axes!r} has "
                "no axis c; name it in axes, or leave channels out."
            )
        return None, None, ()
    length = shape[axes.index("c")]
    if channels is not None:
        return _chosen_members(tuple(channels), length, source.name)
    if source.alpha_last and length == 2:
        return (0,), 1, ("The last channel is alpha and takes no part.",)
    if length > 4:
        raise ParameterError(
            f"{source.name} has {length} channels (axes {axes!r}, shape {shape}), but one to three "
            "make a color; choose them, for example channels=(0, 1, 2), or correct axes."
        )
    if length == 4:
        return (0, 1, 2), 3, ("The fourth channel is taken for alpha and takes no part.",)
    return tuple(range(length)), None, ()


def _chosen_members(
    channels: tuple[int, ...], length: int, name: str
) -> tuple[tuple[int, ...], None, tuple[str, ...]]:
    for channel in channels:
        if channel >= length:
            raise ParameterError(
                f"channels = {channels} asks for channel {channel}, but {name} has "
                f"channels 0 to {length - 1}; choose among these."
            )
    return channels, None, ()
