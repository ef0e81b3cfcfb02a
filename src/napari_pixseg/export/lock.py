"""One writer at a time: a lock of the operating system, gone with the process that held it."""

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
    """A lock that is held; see :func:`only_writer`."""

    def __init__(self, path: Path | None, file: IO[bytes] | None, made_folder: bool) -> None:
        self._path, self._file, self._made_folder = path, file, made_folder

    def release(self) -> None:
        """Let others write, and leave no trace; a second call does nothing."""
        if self._path is None or self._file is None:
            return
        # While it is held: afterwards it might be the lock of another.
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._file.close()
        if sys.platform == "win32":
            # There an open file cannot be removed.
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        if self._made_folder:
            with suppress(OSError):
                self._path.parent.rmdir()  # Only if nothing was written.
        self._file = None


@contextmanager
def only_writer(location: OutputLocation, is_store: bool) -> Iterator[Lock]:
    """Hold the lock of an output while it is written.

    The kernel releases it with the process, even a killed one. File systems that
    know no locks, and object stores, are written without; for object stores the
    run record has a heartbeat.

    Raises
    ------
    OutputConflict
        If another run, here or in another process, holds it.
    """
    lock = _take_lock(location, is_store) if location.is_local else Lock(None, None, False)
    try:
        yield lock
    finally:
        lock.release()


def _take_lock(location: OutputLocation, is_store: bool) -> Lock:
    folder = location.local_path.resolve()
    path = folder / LOCK_NAME if is_store else folder.with_name(f".{folder.name}.lock")
    made_folder = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
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
            # A file system without locks, as some of networks are.
            return True
        return True
