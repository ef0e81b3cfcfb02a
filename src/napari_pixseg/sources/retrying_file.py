"""A file on a server whose reads are repeated if the network fails."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from napari_pixseg.errors import InputChanged
from napari_pixseg.sources.network_faults import read_again

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RetryingFile(io.RawIOBase):
    """A file that is opened anew if a read fails or is cut short.

    Parameters
    ----------
    open_file : callable
        Opens the file. It is called again after each failure, because a failed file object may have
        kept part of the answer.
    retries : int
    shown : str
        The file's name in error messages.
    """

    def __init__(self, open_file: Callable[[], IO[bytes]], retries: int, shown: str) -> None:
        self._open_file = open_file
        self._retries = retries
        self._shown = shown
        self._file: IO[bytes] | None = open_file()
        self._size = self._file.seek(0, os.SEEK_END)
        self._position = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to a number of bytes; fewer only at the end of the file."""
        rest = max(self._size - self._position, 0)
        wanted = rest if size is None or size < 0 else min(size, rest)
        if not wanted:
            return b""
        found = read_again(lambda: self._read_once(wanted), self._retries, self._shown)
        self._position += len(found)
        return found

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into a buffer."""
        view = memoryview(buffer).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position; nothing is read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"A file has no position {start + offset}.")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close the file on the server, too."""
        if not self.closed:
            self._drop_file()
        super().close()

    def _read_once(self, wanted: int) -> bytes:
        try:
            file = self._file or self._open_again()
            file.seek(self._position)
            found = file.read(wanted)
        except Exception:
            self._drop_file()
            raise
        if len(found) < wanted:
            self._drop_file()
            raise ConnectionError("the answer was cut short")
        return found

    def _open_again(self) -> IO[bytes]:
        self._file = file = self._open_file()
        if file.seek(0, os.SEEK_END) != self._size:
            raise InputChanged(
                f"{self._shown} has another size than when it was opened; leave the input alone "
                "while it is segmented, and segment it anew."
            )
        return file

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
