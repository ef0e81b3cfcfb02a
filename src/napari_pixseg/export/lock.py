"""One writer at a time, by a lock of the operating system.

The lock ends with the process that holds it, so a killed run blocks nobody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from napari_pixseg.errors import OutputConflict
from napari_pixseg.export.output_location import LOCK_NAME, OutputLocation


class Lock:
    """A lock that is held until it is released; see :func:`only_writer`."""

    def __init__(self, path: Path | None, file: IO[bytes] | None, made_folder: bool) -> None:
        self._path = path
        self._file = file
        self._made_folder = made_folder

    def release(self) -> None:
        """Let others write and remove the lock file; a second call does nothing."""
        if self._path is None or self._file is None:
            return
        # Removed while it is still held. Afterward it might be the lock of another run.
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._file.close()
        if sys.platform == "win32":
            # Windows cannot remove an open file, so it is tried again here.
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        if self._made_folder:
            with suppress(OSError):
                self._path.parent.rmdir()  # Fails, as it should, if anything was written.
        self._file = None


@contextmanager
def only_writer(location: OutputLocation, is_store: bool) -> Iterator[Lock]:
    """Hold the lock of an output while it is written.

    The kernel releases it with the process, even with a killed one. File systems
    without locks are written without one. So are object stores, where the run
    record has a heartbeat instead.

    Raises
    ------
    OutputConflict
        If another run holds it, in this process or in another.
    """
    lock = _take_lock(location, is_store) if location.is_local else Lock(None, None, False)
    try:
        yield lock
    finally:
        lock.release()


def _take_lock(location: OutputLocation, is_store: bool) -> Lock:
    folder = Path(os.path.realpath(location.local_path))
    path = folder / LOCK_NAME if is_store else folder.with_name(f".{folder.name}.lock")
    made_folder = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        # Opening a pipe or a device would not make it a lock.
        raise OutputConflict(
            f"{location.uri} cannot be locked, because {path} is no file; remove it, or choose "
            "another path."
        )
    while True:
        # Append mode creates the file if need be and never truncates another run's.
        file = open(path, "a+b")  # noqa: SIM115 - closed when the lock is released
        if not _try_lock(file):
            file.close()
            raise OutputConflict(
                f"{location.uri} is being written by another run at this moment; wait until that "
                "has ended, or choose another path."
            )
        if _is_there(file, path):
            return Lock(path, file, made_folder)
        # Its last holder removed it between open and lock.
        file.close()


def _is_there(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # The file system has no locks, which is true of some network drives.
            return True
        return True
