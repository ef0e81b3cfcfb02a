"""An array in a file that is opened when first sliced, once in each process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.slices import Samples, SampleType, expand_key
from napari_pixseg.sources.location import Location

# One integer or slice for each dimension.
Key: TypeAlias = tuple[Any, ...]


# The object that each process opens once: a decoded picture, or a view of a file.
OpenedT = TypeVar("OpenedT")


class FileArray(ABC, Generic[OpenedT]):
    """Array-like view of one image in a file.

    Several threads may slice it. Other processes get only the location of its file and
    open it themselves.

    Parameters
    ----------
    location : Location
        The file.
    shape : tuple of int
        Length of each dimension.
    dtype : dtype
        Data type of what slicing returns.
    version : tuple
        Identity of the file when it was opened; part of the Dask token.
    details : tuple
        Whatever a subclass needs for reading; hashable and picklable.
    """

    def __init__(
        self,
        location: Location,
        shape: tuple[int, ...],
        dtype: SampleType,
        version: tuple[object, ...] = (),
        details: tuple[Any, ...] = (),
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._location = location
        self._version = version
        self._details = details
        # Opening a picture decodes all of it, which threads must not do twice.
        self._lock = threading.Lock()
        self._opened: OpenedT | None = None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def location(self) -> Location:
        """The file."""
        return self._location

    def __getitem__(self, key: object) -> Samples:
        full_key = expand_key(key, self.ndim)
        try:
            return np.asarray(self._read_pixels(self._open_once(), full_key), self.dtype)
        # These errors are more specific than "cannot be decoded".
        except (PixsegError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise anything
            location = self._location
            message = f"{location.shown} cannot be decoded: {location.describe_cause(error)}."
            raise NotAnImage(message) from (None if location.is_confidential else error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._location.shown}, {self.shape}, {self.dtype})"

    def __reduce__(self) -> tuple[object, ...]:
        return _remake_array, (type(self), *self._arguments())

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__name__, *self._arguments())

    def _arguments(self) -> tuple[object, ...]:
        return self._location, self.shape, self.dtype, self._version, self._details

    def _open_once(self) -> OpenedT:
        with self._lock:
            if self._opened is None:
                self._opened = self._open_file()
            return self._opened

    @abstractmethod
    def _open_file(self) -> OpenedT:
        """Open the object that `_read_pixels` reads from; called once in each process."""

    @abstractmethod
    def _read_pixels(self, opened: OpenedT, key: Key) -> Samples:
        """Return the pixels of a key with one integer or slice for each dimension."""


# Dask unpickles the array for every task; without the cache, every task would open the file.
@lru_cache(maxsize=4)
def _remake_array(array_class: type[FileArray[OpenedT]], *arguments: Any) -> FileArray[OpenedT]:
    return array_class(*arguments)
