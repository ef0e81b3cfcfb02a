"""Open what can be segmented: arrays, zarr stores, TIFF files, pictures, URLs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pixseg.errors import InputNotFound, NotAnImage
from napari_pixseg.slices import Samples, SampleType
from napari_pixseg.sources.archive_contents import suggest_inside
from napari_pixseg.sources.formats.kinds import recognize_kind
from napari_pixseg.sources.formats.opening import open_kind, open_otherwise
from napari_pixseg.sources.image_choice import Series, refuse_series
from napari_pixseg.sources.location import Location, locate
from napari_pixseg.sources.read_options import DEFAULT_OPTIONS, ReadOptions
from napari_pixseg.sources.source import (
    ACCEPTED,
    Source,
    axes_of_names,
    check_source,
    is_masked,
    isinstance_if_loaded,
)

if TYPE_CHECKING:
    import dask.array as da

# First bytes of TIFF and BigTIFF, little-endian and big-endian.
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_source(source: object, options: ReadOptions = DEFAULT_OPTIONS) -> Source:
    """Open an image; read its metadata, but no pixels.

    Parameters
    ----------
    source : str, path, URL or array
        A zarr store of format 2 or 3, or one group or array inside it; OME-Zarr 0.4 and
        0.5 give level 0. A TIFF file gives its largest image. Pictures are what Pillow
        reads. Arrays are NumPy, Dask, zarr, or anything with ``shape``, ``dtype``,
        ``ndim`` and ``__getitem__``.
    options : ReadOptions, optional

    Returns
    -------
    Source

    Raises
    ------
    InputNotFound
        There is nothing at the path or URL, or the server cannot be reached.
    NotAnImage
        The argument is no image, or no image of integers or floats.
    Unavailable
        The server failed in all attempts.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, os.PathLike)):
        return check_source(_open_location(locate(source, options.retries), options.series))
    return check_source(_open_object(source, options))


def _open_location(location: Location, series: Series | None) -> Source:
    if not location.is_url and os.path.isdir(location.address):
        return _open_directory(location, series)
    if not location.is_url and not os.path.isfile(location.address):
        raise _missing_input(location)
    head = location.head()
    if location.is_url and _may_be_directory(head) and (store := _open_if_store(location, series)):
        return store
    if head is None:
        raise _missing_input(location)
    return _open_by_head(location, head, series)


def _open_directory(location: Location, series: Series | None) -> Source:
    if store := _open_if_store(location, series):
        return store
    raise NotAnImage(
        f"{location.shown} is a directory without zarr metadata (zarr.json, .zarray or "
        ".zgroup): give a zarr store or one image file."
    )


def _open_if_store(location: Location, series: Series | None) -> Source | None:
    # zarr takes longer to load than most pictures take to segment.
    from napari_pixseg.sources import zarr_store

    return zarr_store.open_store(location, series) if zarr_store.is_store(location) else None


def is_tiff(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a TIFF or BigTIFF."""
    return head[:4] in _TIFF_HEADS


def _open_by_head(location: Location, head: bytes, series: Series | None) -> Source:
    """Open a file in the format that its first bytes indicate."""
    if kind := recognize_kind(location, head):
        return open_kind(location, kind, series)
    try:
        return _open_own_format(location, head, series)
    except NotAnImage as error:
        return open_otherwise(location, head, series, error)


def _open_own_format(location: Location, head: bytes, series: Series | None) -> Source:
    # Only the reader of this format is loaded.
    if is_tiff(head):
        from napari_pixseg.sources import tiff

        return tiff.open_tiff(location, series)
    from napari_pixseg.sources import picture_reader

    return picture_reader.open_picture(location, head, series)


def _may_be_directory(head: bytes | None) -> bool:
    # Servers answer a request for a directory with nothing, or with a listing as text.
    return not head or (head.isascii() and b"\0" not in head)


def _missing_input(location: Location) -> Exception:
    if location.is_url:
        if inside := suggest_inside(location):
            return NotAnImage(inside)
        # fsspec reports a missing file and a server that is down in the same way.
        return InputNotFound(
            f"There is nothing at {location.shown}, or it cannot be reached: check the address "
            "and the connection."
        )
    if os.path.lexists(location.address):
        return NotAnImage(f"{location.shown} is neither a file nor a directory: {ACCEPTED}.")
    try:
        os.stat(location.address)
    except PermissionError as error:
        return location.unreachable(error)
    except OSError:
        pass
    return InputNotFound(f"{location.shown} does not exist: check the path.")


def _open_object(source: Any, options: ReadOptions) -> Source:
    if options.series is not None and not isinstance_if_loaded(source, "zarr", "Array", "Group"):
        refuse_series(options.series, "an array")
    if is_masked(source):
        raise NotAnImage("A masked array was given: fill it first (NaN means no data).")
    if isinstance(source, np.ndarray):
        return Source(source, kind="numpy", is_in_memory=True)
    if isinstance_if_loaded(source, "dask.array", "Array"):
        return _source_of_dask(source)
    if isinstance_if_loaded(source, "zarr", "Array", "Group"):
        from napari_pixseg.sources import zarr_store

        return zarr_store.source_of_node(source, None, options.retries, options.series)
    if isinstance_if_loaded(source, "PIL.Image", "Image"):
        from napari_pixseg.sources import picture_reader

        return picture_reader.source_of_image(source)
    return _source_of_array_like(source)


def _source_of_dask(array: da.Array) -> Source:
    if any(np.isnan(length) for length in array.shape):
        raise NotAnImage(
            "A Dask array of unknown shape was given: call its compute_chunk_sizes() first."
        )
    chunks = tuple(max(lengths) for lengths in array.chunks)
    return Source(array, chunks=chunks, kind="dask")


def _source_of_array_like(source: Any) -> Source:
    required = ("shape", "dtype", "ndim", "__getitem__")
    if not isinstance(source, type) and all(hasattr(source, name) for name in required):
        array = ArrayLike(source)
        chunks = getattr(source, "chunks", None)
        if not (isinstance(chunks, tuple) and all(isinstance(length, int) for length in chunks)):
            chunks = None
        return Source(
            array,
            axes=axes_of_names(getattr(source, "dims", None), array.ndim),
            chunks=chunks if chunks and len(chunks) == array.ndim else None,
        )
    # Objects that NumPy can read but nobody can slice.
    if hasattr(source, "__array_interface__") and not isinstance(source, type):
        return Source(np.asarray(source), kind="numpy", is_in_memory=True)
    raise NotAnImage(f"{_describe_type(source)} was given, which is not an image: {ACCEPTED}.")


def _describe_type(source: object) -> str:
    if source is None or isinstance(source, (bool, int, float, complex)):
        return repr(source)
    name = source.__name__ if isinstance(source, type) else type(source).__name__
    return f"An object of type {name}"


class ArrayLike:
    """An array of another library, which returns NumPy arrays when sliced."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        dtype = getattr(wrapped.dtype, "numpy_dtype", wrapped.dtype)
        try:
            self.dtype: SampleType = np.dtype(dtype)
            self.shape = tuple(int(length) for length in wrapped.shape)
        except (TypeError, ValueError):
            name = type(wrapped).__name__
            raise NotAnImage(
                f"An object of type {name} was given whose shape or data type NumPy does not "
                "know: convert it with numpy.asarray first."
            ) from None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> Samples:
        part = self._wrapped[key]
        # Masked pixels are no data, whatever their values.
        return part.astype(self.dtype) if is_masked(part) else np.asarray(part, self.dtype)
