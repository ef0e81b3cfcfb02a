"""What can be segmented, opened: arrays, zarr stores, TIFF files, pictures, URLs.

Opening reads metadata and no pixel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from napari_pixseg.errors import NotAnImage

ACCEPTED = (
    "accepted are zarr and OME-Zarr stores, TIFF files, pictures such as PNG or JPEG, "
    "URLs of these, and NumPy, Dask, zarr or similar arrays"
)


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
        return isinstance_if_loaded(self.array, "dask.array", "Array")


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


def is_masked(array: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether an array is a masked one, which few processes ever import."""
    return isinstance_if_loaded(array, "numpy.ma", "MaskedArray")


def isinstance_if_loaded(source: object, module: str, *names: str) -> bool:
    """Whether something is an object of a module, which is not imported to ask."""
    # An object of a module that was never imported cannot exist.
    loaded = sys.modules.get(module)
    kinds = tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))
    return isinstance(source, kinds)


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
