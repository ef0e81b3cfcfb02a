"""An array in a file that is opened when first sliced, once in each process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.sources.location import Location

Key = tuple[Any, ...]


class FileArray(ABC):
    """Array-like view of one image in a file.

    It may be sliced from several threads and travels to other processes as the
    location of its file; what is open or decoded stays behind.

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
        What a subclass needs to read; hashable and picklable.
    """

    def __init__(
        self,
        location: Location,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        version: tuple[Any, ...] = (),
        details: tuple[Any, ...] = (),
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._location = location
        self._version = version
        self._details = details
        self._lock = threading.Lock()
        self._opened: Any = None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        full = _full_key(key, self.ndim)
        try:
            return np.asarray(self._read(self._open_once(), full), self.dtype)
        except (PixsegError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise anything
            # The reason may quote a URL with its secrets.
            reason = type(error).__name__ if self._location.remote else error
            message = f"{self._location.shown} cannot be decoded: {reason}."
            raise NotAnImage(message) from (None if self._location.remote else error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._location.shown}, {self.shape}, {self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), *self._arguments())

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, *self._arguments())

    def _arguments(self) -> tuple[Any, ...]:
        return self._location, self.shape, self.dtype, self._version, self._details

    def _open_once(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    @abstractmethod
    def _open(self) -> Any:
        """Return what `_read` reads from; called once per process."""

    @abstractmethod
    def _read(self, opened: Any, key: Key) -> NDArray[Any]:
        """Return the pixels of one index or slice per dimension."""


# Dask unpickles the array anew for every task: without this each would open the file again.
@lru_cache(maxsize=4)
def _unpickled(kind: type[FileArray], *arguments: Any) -> FileArray:
    return kind(*arguments)


def _full_key(given: Any, ndim: int) -> Key:
    key: Key = given if isinstance(given, tuple) else (given,)
    if any(part is Ellipsis for part in key):
        at = next(i for i, part in enumerate(key) if part is Ellipsis)
        key = (*key[:at], *(slice(None),) * (ndim - len(key) + 1), *key[at + 1 :])
    if len(key) > ndim:
        raise IndexError(f"{len(key)} indices for {ndim} dimensions")
    return (*key, *(slice(None),) * (ndim - len(key)))
