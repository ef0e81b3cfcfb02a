"""A fingerprint of the input's files, which reveals changes during a run."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class FileFingerprint:
    """Callable that returns a fingerprint of a local file, or of all visible files in a folder.

    Only sizes and times are looked at; no file is read.

    Attributes
    ----------
    path : str
    """

    path: str

    def __call__(self, see: Callable[[str], None] | None = None) -> str:
        """Return size and time of the last change in nanoseconds; for a folder, a hash of all.

        Parameters
        ----------
        see : callable, optional
            Gets the name of each file below a folder, so that the folder is walked only once.
        """
        if os.path.isfile(self.path):
            status = os.stat(self.path)
            return f"{status.st_size} {status.st_mtime_ns}"
        # hashlib loads OpenSSL, which would slow down the start of a run on one small file.
        import hashlib

        total = 0
        for name, status in _walk_files(self.path, ""):
            if see is not None:
                see(name[1:])
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}"
            digest = hashlib.blake2b(line.encode("utf-8", "surrogateescape"), digest_size=16)
            # There may be millions of files, in any order; a sum needs neither a list nor sorting.
            total += int.from_bytes(digest.digest(), "big")
        return f"{total % (1 << 128):032x}"


def _walk_files(path: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of all files in a folder that are not hidden."""
    try:
        entries = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        # Two folders may contain links to each other.
        if error.errno == errno.ELOOP:
            return
        raise
    with entries:
        for entry in entries:
            # Hidden files come from desktops and network file systems, or are metadata of zarr
            # format 2, which the identity covers.
            if entry.name.startswith("."):
                continue
            inner = f"{name}/{entry.name}"
            if _is_loop(entry, path):
                continue
            if entry.is_dir():
                yield from _walk_files(entry.path, inner)
            else:
                # A file may be removed while others are checked.
                with suppress(FileNotFoundError):
                    yield inner, entry.stat()


def _is_loop(entry: os.DirEntry[str], folder: str) -> bool:
    """Whether an entry of a folder is a link that leads to itself, or back to where it is."""
    if not entry.is_symlink():
        return False
    try:
        if not entry.is_dir():
            return False
    except OSError:
        return True
    above = os.path.realpath(entry.path)
    return os.path.commonpath([above, os.path.realpath(folder)]) == above
