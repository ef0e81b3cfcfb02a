"""What can be segmented, opened: arrays, zarr stores, TIFF files, pictures, URLs.

Opening reads metadata and no pixel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.location import Location, locate
from napari_pixseg.errors import InputNotFound, NotAnImage

ACCEPTED = (
    "accepted are zarr and OME-Zarr stores, TIFF files, pictures such as PNG or JPEG, "
    "URLs of these, and NumPy, Dask, zarr or similar arrays"
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NAMES = {"time": "t", "channel": "c", "channels": "c", "depth": "z"}


@dataclass(frozen=True)
class Source:
    """What was opened: an array that reads only what is sliced, and what its metadata says.

    Attributes
    ----------
    array : array-like
        Has ``shape``, ``dtype`` and ``ndim``; slicing returns NumPy or Dask arrays.
    axes : str or None
        One letter of t, c, z, y, x per dimension; None where nothing says so.
    scale, translation : dict of str to float
        Per axis letter, pixel size and position of the first pixel, in `units`.
    units : dict of str to str
        Per axis letter, the unit as NGFF writes it, such as ``"micrometer"``.
    chunks : tuple of int or None
        Storage chunks (of a sharded array: the shards); None where any region is as
        cheap as any other.
    uri : str or None
        Absolute URI without secrets; None for arrays in memory.
    identity : dict
        JSON-able; equal as long as the input did not change. Empty for arrays in memory.
    alpha_last : bool
        True when the file says that its last channel is alpha.
    kind : str
        "numpy", "dask", "array", "zarr", "ome-zarr", "tiff" or "picture"; a picture is
        decoded as a whole and kept in memory from its first slice on.
    name : str
        Short name for people.
    state : callable, optional
        Tells the state of its files, as text: another once one of them was written, added or
        removed. None where that cannot be known, as in memory and on servers.
    notes : tuple of str
        What people should know of it, in sentences.
    """

    array: Any
    axes: str | None = None
    scale: dict[str, float] = field(default_factory=dict)
    translation: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    chunks: tuple[int, ...] | None = None
    uri: str | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    alpha_last: bool = False
    kind: str = "array"
    name: str = "array"
    state: Callable[[], str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_dask(self) -> bool:
        """Whether the array is a Dask array, which brings a graph of its own."""
        return is_a(self.array, "dask.array", "Array")


def open_source(source: object) -> Source:
    """Open an image; read its metadata and no pixel.

    Parameters
    ----------
    source : str, path, URL or array
        A zarr store of format 2 or 3, or one group or array inside it; OME-Zarr 0.4 and
        0.5 give level 0. A TIFF file gives level 0 of its first series. Pictures are what
        Pillow reads. Arrays are NumPy, Dask, zarr, or anything with ``shape``, ``dtype``,
        ``ndim`` and ``__getitem__``.

    Returns
    -------
    Source

    Raises
    ------
    InputNotFound
        There is nothing at the path or URL, or the server cannot be reached.
    NotAnImage
        What was given is no image, or no image of integers or floats.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, os.PathLike)):
        return checked(_open_location(locate(source)))
    return checked(_open_object(source))


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
    lowered = [name.lower() if isinstance(name, str) else "?" for name in names]
    letters = [_NAMES.get(name, name) for name in lowered]
    known = all(len(letter) == 1 and letter in "tczyx" for letter in letters)
    return "".join(letters) if known and len(set(letters)) == len(letters) == ndim else None


def _open_location(location: Location) -> Source:
    if not location.remote and os.path.isdir(location.address):
        from napari_pixseg.engine import stores

        if stores.is_store(location):
            return stores.open_store(location)
        raise NotAnImage(
            f"{location.shown} is a directory without zarr metadata (zarr.json, .zarray or "
            ".zgroup): give a zarr store or one image file."
        )
    if not location.remote and not os.path.isfile(location.address):
        raise _no_file(location)
    head = location.head()
    if location.remote and _may_be_store(head):
        from napari_pixseg.engine import stores

        if stores.is_store(location):
            return stores.open_store(location)
    if head is None:
        raise _no_file(location)
    return _open_file(location, head)


def is_tiff(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a TIFF or BigTIFF."""
    return head[:4] in _TIFF


def _open_file(location: Location, head: bytes) -> Source:
    if is_tiff(head):
        from napari_pixseg.engine import tiff

        return tiff.open_tiff(location)
    from napari_pixseg.engine import pictures

    return pictures.open_picture(location, head)


def _may_be_store(head: bytes | None) -> bool:
    # A server answers for a directory with nothing, or with a listing as text.
    return not head or (head.isascii() and b"\0" not in head)


def _no_file(location: Location) -> Exception:
    if os.path.lexists(location.address) and not location.remote:
        return NotAnImage(f"{location.shown} is neither a file nor a directory: {ACCEPTED}.")
    if location.remote:
        # fsspec does not tell a missing file from a server that is down.
        return InputNotFound(
            f"There is nothing at {location.shown}, or it cannot be reached: check the address "
            "and the connection."
        )
    try:
        os.stat(location.address)
    except PermissionError as error:
        return location.unreachable(error)
    except OSError:
        pass
    return InputNotFound(f"{location.shown} does not exist: check the path.")


def _open_object(source: object) -> Source:
    if is_masked(source):
        raise NotAnImage("A masked array was given: fill it first (NaN means no data).")
    if isinstance(source, np.ndarray):
        return Source(source, kind="numpy")
    if is_a(source, "dask.array", "Array"):
        return _from_dask(source)
    if is_a(source, "zarr", "Array", "Group"):
        from napari_pixseg.engine import stores

        return stores.from_node(source)
    if is_a(source, "PIL.Image", "Image"):
        from napari_pixseg.engine import pictures

        return pictures.from_image(source)
    return _from_array_like(source)


def is_masked(array: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether an array is a masked one, which few processes ever import."""
    return is_a(array, "numpy.ma", "MaskedArray")


def is_a(source: object, module: str, *names: str) -> bool:
    """Whether something is an object of a module, which is not imported to ask."""
    # An object of a module that was never imported cannot exist.
    loaded = sys.modules.get(module)
    kinds = tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))
    return isinstance(source, kinds)


def _from_dask(array: Any) -> Source:
    if any(np.isnan(length) for length in array.shape):
        raise NotAnImage(
            "A Dask array of unknown shape was given: call its compute_chunk_sizes() first."
        )
    chunks = tuple(max(lengths) for lengths in array.chunks)
    return Source(array, chunks=chunks, kind="dask")


def _from_array_like(source: Any) -> Source:
    needed = ("shape", "dtype", "ndim", "__getitem__")
    if not isinstance(source, type) and all(hasattr(source, name) for name in needed):
        array = ArrayLike(source)
        chunks = getattr(source, "chunks", None)
        if not (isinstance(chunks, tuple) and all(isinstance(length, int) for length in chunks)):
            chunks = None
        return Source(
            array,
            axes=axes_of_names(getattr(source, "dims", None), array.ndim),
            chunks=chunks if chunks and len(chunks) == array.ndim else None,
        )
    if hasattr(source, "__array_interface__") and not isinstance(source, type):
        return Source(np.asarray(source), kind="numpy")
    raise NotAnImage(f"{_described(source)} was given, which is no image: {ACCEPTED}.")


def _described(source: object) -> str:
    if source is None or isinstance(source, (bool, int, float, complex)):
        return repr(source)
    kind = source.__name__ if isinstance(source, type) else type(source).__name__
    return f"An object of type {kind}"


class ArrayLike:
    """An array of another library whose slices are made NumPy arrays."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        dtype = getattr(wrapped.dtype, "numpy_dtype", wrapped.dtype)
        try:
            self.dtype: np.dtype[Any] = np.dtype(dtype)
            self.shape = tuple(int(length) for length in wrapped.shape)
        except (TypeError, ValueError):
            kind = type(wrapped).__name__
            raise NotAnImage(
                f"An object of type {kind} was given whose shape or data type NumPy does not "
                "know: convert it with numpy.asarray first."
            ) from None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self._wrapped[key], self.dtype)


def checked(source: Source) -> Source:
    """Return a source, if it is an image.

    Raises
    ------
    NotAnImage
        If its samples are no numbers, or it has too few dimensions, or none in one.
    """
    dtype, shape = np.dtype(source.array.dtype), tuple(source.array.shape)
    if dtype.kind not in "buif":
        raise NotAnImage(
            f"{source.name} has data type {dtype}: images of integers, floats or booleans "
            "are accepted."
        )
    if len(shape) < 2 or 0 in shape:
        raise NotAnImage(
            f"{source.name} has shape {shape}: an image needs two dimensions or more, none "
            "of them empty."
        )
    return source
