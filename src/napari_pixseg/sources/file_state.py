"""A fingerprint of the input's files, by which a change during a run is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class FilesState:
    """Tells the state of a local file, or of all in a folder but hidden ones; none is read.

    Attributes
    ----------
    path : str
    """

    path: str

    def __call__(self) -> str:
        """Return size and time of the last change, in nanoseconds, or a hash of those of all."""
        if os.path.isfile(self.path):
            status = os.stat(self.path)
            return f"{status.st_size} {status.st_mtime_ns}"
        # A library of its own, whose loading a small picture would feel.
        import hashlib

        total = 0
        for name, status in _files(self.path, ""):
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}"
            digest = hashlib.blake2b(line.encode("utf-8", "surrogateescape"), digest_size=16)
            # A sum: there may be millions, which come in any order and are not to be collected.
            total += int.from_bytes(digest.digest(), "big")
        return f"{total % (1 << 128):032x}"


def _files(path: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of all files in a folder that are not hidden."""
    try:
        entries = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            # Not of zarr: what desktops and network file systems leave. Of zarr: documents,
            # which the identity covers.
            if entry.name.startswith("."):
                continue
            inner = f"{name}/{entry.name}"
            if entry.is_dir():
                yield from _files(entry.path, inner)
            else:
                # One may go while others are looked at.
                with suppress(FileNotFoundError):
                    yield inner, entry.stat()
