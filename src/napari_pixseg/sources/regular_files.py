"""Reads only the regular files of a local zarr store, never pipes and devices."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TypeGuard

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from napari_pixseg.sources.decoding.bounded_decoding import refuse_large_value
from napari_pixseg.sources.size_limits import refuse_stored_size

_SPECIAL = "it is a pipe or a device, not a file"
_LOOP = "its links form a loop"
# Opening a pipe would wait for a process that writes to it.
_TO_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)


def open_regular(path: str, flags: int) -> int:
    """Open a file, as an opener for :func:`open`.

    Raises
    ------
    ValueError
        If there is something else at the path; :func:`open` itself refuses a folder.
    """
    try:
        descriptor = os.open(path, flags | _AT_ONCE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(_LOOP) from None
        if error.errno == errno.ENXIO:
            raise ValueError(_SPECIAL) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(descriptor)
        raise ValueError(_SPECIAL)
    return descriptor


def read_regular(path: str, most: int) -> bytes:
    """Read a file whole, which must be no pipe, no device, and no longer than it can need to be.

    Raises
    ------
    ValueError, OversizedChunk
    """
    descriptor = open_regular(path, _TO_READ)
    try:
        # FileIO would ask the system twice for the size, and once more for the end.
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        refuse_stored_size(found.st_size, most)
        content = os.read(descriptor, found.st_size)
        if len(content) < found.st_size:
            parts = [content]
            # One call reads at most 2 GiB; nothing more comes of a file that was cut off.
            while part := os.read(descriptor, found.st_size):
                parts.append(part)
            content = b"".join(parts)
    finally:
        os.close(descriptor)
    return content


class RegularFileStore(LocalStore):
    """A local store that reads only files; zarr would wait for pipes and read devices forever.

    Parameters
    ----------
    root : path
    read_only : bool
    most_bytes : int, optional
        Chunks that are stored in more are not read.
    """

    def __init__(
        self, root: Path | str, *, read_only: bool = False, most_bytes: int | None = None
    ) -> None:
        super().__init__(root, read_only=read_only)
        self.most_bytes = most_bytes

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file; None if there is none.

        Raises
        ------
        ValueError
            If there is something else.
        OversizedChunk, TooLarge
            If it is larger than it can need to be.
        """
        try:
            found = os.stat(self.root / key)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ValueError(f"{key} cannot be read: {_LOOP}") from None
        else:
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise ValueError(f"{key} cannot be read: {_SPECIAL}")
            refuse_large_value(key, found.st_size, self.most_bytes)
        return await super().get(key, prototype, byte_range)


def is_plainly_local(store: Store) -> TypeGuard[LocalStore]:
    """Whether a store's keys are plain files, which may be read and written without zarr."""
    return type(store) in (LocalStore, RegularFileStore)
