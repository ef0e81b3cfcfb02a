"""An opened input: an array that is read part by part, and its metadata."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from napari_pixseg.errors import NotAnImage
from napari_pixseg.slices import ChunkIndex, PixelSlices, Samples
from napari_pixseg.sources.location import Identity
from napari_pixseg.sources.size_limits import refuse_large_array, refuse_large_part

if TYPE_CHECKING:
    from napari_pixseg.sources.image_choice import StoredImage
    from napari_pixseg.sources.same_input_on_workers import InputEvidence

ACCEPTED = (
    "accepted are zarr and OME-Zarr stores, TIFF files, pictures such as PNG or JPEG, "
    "URLs of these, and NumPy, Dask, zarr or similar arrays"
)

# Kept outside the fields of a source, because they do not belong to its value.
_EVIDENCE, _UNPROVEN = "_evidence", "_unproven"

_AXIS_OF_NAME = {"time": "t", "channel": "c", "channels": "c", "depth": "z"}


class ChunkCensus(ABC):
    """Counts the chunks that exist, once for each count of colors."""

    @abstractmethod
    def see(self, name: str) -> None:
        """Take the name of a file that was found while the input's files were listed."""

    @abstractmethod
    def begin(self, is_told: bool) -> None:
        """Forget the last count; the pixels are about to be read.

        Parameters
        ----------
        is_told : bool
            Whether the input's files are listed anyway and :meth:`see` gets their names.
        """

    @property
    @abstractmethod
    def needs_reads(self) -> bool:
        """Whether only reading the chunks tells which of them exist, because nothing lists them."""

    @abstractmethod
    def missing_here(self) -> frozenset[str]:
        """Return the names of chunks that this process looked for and did not find."""

    @abstractmethod
    def end(self, unfound: frozenset[str], is_allowed: bool) -> tuple[str, ...]:
        """Return warnings about missing chunks.

        Parameters
        ----------
        unfound : frozenset of str
            Chunks that some process looked for and did not find.
        is_allowed : bool
            Whether all chunks may be missing.

        Raises
        ------
        InputNotFound
        """


class ChunkedArray(ABC):
    """An array that can return its decoded storage chunks without a copy."""

    @abstractmethod
    def read_chunks(self, box: PixelSlices) -> list[tuple[PixelSlices, Samples]]:
        """Return the chunks that a box touches, each cut to the box, with its place in the box."""


@dataclass(frozen=True, eq=False)
class Source:
    """An opened input: an array that reads only what is sliced, and its metadata.

    Other modules ask what a source can do (``is_in_memory``, ``is_dask``, ``decoded_chunks``);
    ``kind`` is a description for people.

    Attributes
    ----------
    array : array-like
        Has ``shape``, ``dtype`` and ``ndim``; slicing returns NumPy or Dask arrays.
    axes : str or None
        One letter of t, c, z, y, x per dimension; None if unknown.
    scale, translation : dict of str to float
        Pixel size and position of the first pixel for each axis letter, in `units`.
    units : dict of str to str
        Unit for each axis letter as NGFF writes it, such as ``"micrometer"``.
    chunks : tuple of int or None
        Shape of the storage chunks, or of the shards of a sharded array; None if every box is as
        cheap to read as any other.
    uri : str or None
        Absolute URI without secrets; None for arrays in memory.
    identity : dict
        JSON-able; equal as long as the input did not change. Empty for arrays in memory.
    alpha_last : bool
        True when the file says that its last channel is alpha.
    colors : tuple of int or None
        Channels that are colors, if the file says that others are not; else None.
    used_bits : int or None
        Bits of unsigned samples that are stored in wider ones, such as 12 of 16; else None.
    series : int, str or None
        Number or name of this image in its file or store; None for arrays.
    list_images : callable, optional
        Returns all images of the file or store, as far as they are listed; None if it can hold only
        one.
    kind : str
        A word for people: "numpy", "dask", "array", "zarr", "ome-zarr", "tiff" or "picture";
        "czi", "slide" or "bioio" where another library reads it.
    name : str
        Short name for people.
    fingerprint : callable, optional
        Returns a fingerprint of the input's files as text. It changes when a file is written, added
        or removed. None if this cannot be known: in memory and on servers.
    notes : tuple of str
        Sentences that the user should read about this input.
    is_in_memory : bool
        True if all pixels are in memory, or are decoded together by the first slice and kept.
    open_coarser : callable, optional
        Opens the coarser levels that are stored of the same image, fine to coarse, for a preview;
        None if there are none.
    """

    array: Any
    axes: str | None = None
    scale: dict[str, float] = field(default_factory=dict)
    translation: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    chunks: tuple[int, ...] | None = None
    uri: str | None = None
    identity: Identity = field(default_factory=dict)
    alpha_last: bool = False
    colors: tuple[int, ...] | None = None
    used_bits: int | None = None
    series: int | str | None = None
    list_images: Callable[[], list[StoredImage]] | None = None
    kind: str = "array"
    name: str = "array"
    fingerprint: Callable[..., str] | None = None
    notes: tuple[str, ...] = ()
    is_in_memory: bool = False
    open_coarser: Callable[[], list[Source]] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Send along the evidence that another process must check before it reads."""
        return {**self.__dict__, _EVIDENCE: self.evidence(), _UNPROVEN: True}

    def current_fingerprint(self) -> str | None:
        """Return the fingerprint of the input's files as they are now; None where unknown."""
        return None if self.fingerprint is None else self.fingerprint()

    def evidence(self) -> InputEvidence:
        """Return the evidence that every process that reads this input must see; gathered once."""
        if _EVIDENCE not in self.__dict__:
            # Only inputs that are sent to other processes need this.
            from napari_pixseg.sources.same_input_on_workers import InputEvidence

            found = InputEvidence.of(self.array, self.fingerprint, self.uri)
            self.__dict__[_EVIDENCE] = found
        kept: InputEvidence = self.__dict__[_EVIDENCE]
        return kept

    def prove_input(self) -> None:
        """Before the first read in another process, check that it sees the same input.

        Raises
        ------
        ClusterUnfit
        """
        if _UNPROVEN in self.__dict__:
            self.evidence().refuse_difference()
            # Another thread may have checked meanwhile.
            self.__dict__.pop(_UNPROVEN, None)

    @property
    def is_dask(self) -> bool:
        """Whether the array is a Dask array, which brings a graph of its own."""
        return isinstance_if_loaded(self.array, "dask.array", "Array")

    @property
    def decoded_chunks(self) -> tuple[int, ...] | None:
        """Shape of the smallest parts that are decoded on their own; None if unknown."""
        # The chunks of a Dask array are results of its graph; what that decodes is unknown.
        if self.chunks is None or self.is_dask:
            return None
        return tuple(int(length) for length in self.chunks)

    @property
    def decoding_bytes(self) -> int:
        """Memory that decoding one chunk, tile or picture takes; 0 for arrays in memory."""
        itemsize = np.dtype(self.array.dtype).itemsize
        if self.kind == "picture":
            # The decoder has its own copy of the pixels.
            return int(2 * itemsize * math.prod(self.array.shape))
        return int(itemsize * math.prod(self.decoded_chunks or (0,)))

    def refuse_absence(self) -> None:
        """Refuse an input that consists only of metadata, which is possible only for zarr arrays.

        Raises
        ------
        InputNotFound
        """

    def chunk_census(self) -> ChunkCensus | None:
        """Return the counter of existing chunks; None if no part of the array can be missing."""
        return None

    def describe_chunk(self, index: ChunkIndex) -> str:
        """Return a name for one of the `decoded_chunks`, such as its file."""
        return f"tile {'/'.join(map(str, index))}"


def axes_of_names(names: object, ndim: int) -> str | None:
    """Return the axis letters that dimension names stand for, or None when any is unclear.

    Parameters
    ----------
    names : iterable of str
        Such as ``("time", "y", "x")``.
    ndim : int
        Number of dimensions the names must cover.
    """
    if not isinstance(names, Iterable):
        return None
    # Any hashable object can be a dimension name in xarray.
    lowered = [name.lower() if isinstance(name, str) else "?" for name in names]
    letters = [_AXIS_OF_NAME.get(name, name) for name in lowered]
    are_known = all(len(letter) == 1 and letter in "tczyx" for letter in letters)
    return "".join(letters) if are_known and len(set(letters)) == len(letters) == ndim else None


def is_masked(array: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether an array is masked; does not import ``numpy.ma``."""
    return isinstance_if_loaded(array, "numpy.ma", "MaskedArray")


def isinstance_if_loaded(value: object, module: str, *names: str) -> bool:
    """Whether a value is an instance of classes of another library, without importing it.

    An object of a module that was never imported cannot exist.
    """
    # `isinstance` alone would need an import, and Dask and zarr take long to load.
    loaded = sys.modules.get(module)
    classes = tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))
    return isinstance(value, classes)


def check_source(source: Source) -> Source:
    """Return a source if it is an image.

    Raises
    ------
    NotAnImage
        If its samples are no numbers, if it has fewer than two dimensions, or if one is empty.
    TooLarge
        If it claims an impossible size, or a part decoded at once does not fit into memory.
    """
    dtype = np.dtype(source.array.dtype)
    shape = tuple(source.array.shape)
    if dtype.kind not in "buif":
        raise NotAnImage(
            f"{source.name} has data type {dtype}: images of integers, floats or booleans "
            "are accepted."
        )
    # An empty dimension has no color to count.
    if len(shape) < 2 or 0 in shape:
        raise NotAnImage(
            f"{source.name} has shape {shape}: an image needs two dimensions or more, none "
            "of them empty."
        )
    refuse_large_array(shape, dtype.itemsize, source.name)
    # The identity of a file has its size, that of a zarr has none.
    file_bytes = source.identity.get("size")
    refuse_large_part(source.decoding_bytes, _describe_part(source), source.name, file_bytes)
    return source


def _describe_part(source: Source) -> str:
    chunks = source.decoded_chunks
    return "picture" if chunks is None else f"chunk of {chunks}"
