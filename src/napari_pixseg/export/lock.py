"""One writer at a time, by a lock of the operating system.

The lock ends with the process that holds it, so a killed run blocks nobody on its own machine. On
shared disks a server may keep the lock of a machine that died, and some disks have locks that other
machines do not see. So the lock file also says who holds it, and is touched while that one lives.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import IO, TypeAlias

from napari_pixseg.errors import OutputConflict, OutputLocked
from napari_pixseg.export import heartbeat
from napari_pixseg.export.heartbeat import (
    Writer,
    describe_held_lock,
    describe_writer,
    measure_silence,
)
from napari_pixseg.export.output_location import LOCK_NAME, TOKEN_PREFIX, OutputLocation
from napari_pixseg.export.remote_lock import RemoteLock, has_left_remote_lock

# Short runs end before the first beat.
_FIRST_BEAT_SECONDS = 1.0


class Lock:
    """The lock of an output, held until it is released; see :func:`only_writer`."""

    def __init__(self, path: Path | None, file: IO[bytes] | None, made_folder: bool) -> None:
        self._path = path
        self._file = file
        self._made_folder = made_folder
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if file is not None:
            self._thread = threading.Thread(
                target=self._beat_until_end, args=(file,), name="lock beat", daemon=True
            )
            self._thread.start()

    def refuse_loss(self, location: OutputLocation) -> None:
        """Raise OutputConflict if somebody broke the lock, and perhaps writes the output."""
        if self._path is None or self._file is None or _is_there(self._file, self._path):
            return
        raise OutputConflict(
            f"{location.uri} was taken by another run meanwhile, so this one stops; choose another "
            "path, or wait until the other has ended."
        )

    def release(self) -> None:
        """Let others write and remove the lock file; a second call does nothing."""
        if self._path is None or self._file is None:
            return
        self._ended.set()
        assert self._thread is not None
        self._thread.join()
        # Removed while the lock is still held; afterward the file might belong to another run.
        with suppress(OSError):
            if _is_there(self._file, self._path):
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

    def _beat_until_end(self, file: IO[bytes]) -> None:
        """Touch the lock file at regular intervals, as long as this process lives."""
        if self._ended.wait(min(_FIRST_BEAT_SECONDS, heartbeat.BEAT_SECONDS)):
            return
        with suppress(OSError):
            # Makes the holder visible to other machines.
            os.fsync(file.fileno())
        while not self._ended.wait(heartbeat.BEAT_SECONDS):
            # By the file's descriptor, because another file may be at its path. Without an explicit
            # time, the server of a shared disk uses its own clock.
            with suppress(OSError):
                os.utime(file.fileno() if os.utime in os.supports_fd else file.name)


HeldLock: TypeAlias = Lock | RemoteLock


@contextmanager
def only_writer(
    location: OutputLocation, is_store: bool, break_lock: bool = False
) -> Iterator[HeldLock]:
    """Hold the lock of an output while it is written.

    The kernel releases the lock when the process ends, even if it is killed. On a file system
    without locks, the file that names the writer takes the place of a lock. On object stores, a
    small file beside a picture does, and the run record of a store.

    Parameters
    ----------
    location : OutputLocation
    is_store : bool
        Whether the output is a folder.
    break_lock : bool
        Whether to take over the lock of a writer that has been silent for some beats.

    Raises
    ------
    OutputConflict
        If another run holds it, in this process or in another.
    """
    lock: HeldLock = Lock(None, None, False)
    if not (location.is_local or is_store):
        lock = RemoteLock.take(location, break_lock)
    elif location.is_local:
        lock = _take_lock(location, is_store, break_lock)
    try:
        yield lock
    finally:
        lock.release()


def has_left_lock(location: OutputLocation) -> bool:
    """Whether a killed run left the lock of a picture that it had begun to write."""
    if not location.is_local:
        return has_left_remote_lock(location)
    try:
        with open(_lock_path(location, is_store=False), "rb") as file:
            return _read_writer(file) is not None
    except OSError:
        return False


class _Hold(Enum):
    """The result of trying to lock a file."""

    OURS = "ours"
    OTHERS = "others"
    # The file system has no locks, like some network drives.
    UNKNOWN = "unknown"


def _lock_path(location: OutputLocation, is_store: bool) -> Path:
    folder = Path(os.path.realpath(location.local_path))
    return folder / LOCK_NAME if is_store else folder.with_name(f".{folder.name}.lock")


def _take_lock(location: OutputLocation, is_store: bool, break_lock: bool) -> Lock:
    path = _lock_path(location, is_store)
    made_folder = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        # A pipe or a device cannot serve as a lock.
        raise OutputConflict(
            f"{location.uri} cannot be locked, because {path} is not a file; remove it, or "
            "choose another path."
        )
    while True:
        # Append mode creates the file if need be and never truncates another run's.
        file = open(path, "a+b")  # noqa: SIM115 - closed when the lock is released
        try:
            hold = _try_lock(file)
            if hold is _Hold.OURS and not _is_there(file, path):
                # The last holder removed the file between opening and locking.
                file.close()
                continue
            if _must_break_lock(location, path, file, hold, break_lock):
                # A process that has it open continues with a file that nobody else sees.
                path.unlink(missing_ok=True)
                file.close()
                continue
            _write_writer(file)
        except BaseException:
            file.close()
            raise
        return Lock(path, file, made_folder)


def _must_break_lock(
    location: OutputLocation, path: Path, file: IO[bytes], hold: _Hold, break_lock: bool
) -> bool:
    """Whether to remove the lock file and try again; False if the lock is ours already.

    Raises
    ------
    OutputConflict
        If another run holds it and lives, or may live and ``break_lock`` is not set.
    """
    writer = _read_writer(file)
    if hold is _Hold.OURS and (writer is None or writer.is_of_this_machine):
        return False
    if hold is _Hold.UNKNOWN and (writer is None or writer.is_dead_here):
        return False
    probe = OutputLocation(str(path.with_name(f"{TOKEN_PREFIX}{os.urandom(8).hex()}")))
    silence = measure_silence(OutputLocation(str(path)), probe)
    if silence is None:
        # The file was removed at this moment, so the next attempt will find out more.
        return True
    is_here = hold is _Hold.OTHERS and writer is not None and writer.is_running_here
    if hold is not _Hold.OTHERS and silence >= heartbeat.DEAD_SECONDS:
        return False
    if break_lock and silence >= heartbeat.BREAK_SECONDS and not is_here:
        return True
    who = describe_writer(writer, silence)
    is_silent = silence >= heartbeat.BREAK_SECONDS and not is_here
    error = OutputLocked if is_silent else OutputConflict
    raise error(describe_held_lock(location.uri, who, is_silent, break_lock))


def _read_writer(file: IO[bytes]) -> Writer | None:
    try:
        file.seek(0)
        return Writer.from_json(json.loads(file.read(4096)))
    except (OSError, ValueError):
        return None


def _write_writer(file: IO[bytes]) -> None:
    file.truncate(0)
    file.write(json.dumps(Writer.of_here().to_json()).encode())
    file.flush()


def _is_there(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    # On Windows, locked bytes cannot be read, so a byte beyond the end is locked.
    _LOCKED_BYTE = 1 << 30

    def _try_lock(file: IO[bytes]) -> _Hold:
        try:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return _Hold.OTHERS
        return _Hold.OURS

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> _Hold:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _Hold.OTHERS
        except OSError:
            return _Hold.UNKNOWN
        return _Hold.OURS
