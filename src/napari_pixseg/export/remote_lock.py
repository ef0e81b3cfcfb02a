"""One writer at a time of a picture on an object store, which has no locks.

A small file beside the picture says who writes, and is written again while that one lives. Two
that begin at the same moment may both think that it is theirs; whoever wrote it last is right, and
the other one sees that before the picture is put in its place.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress

from napari_pixseg.errors import OutputConflict, OutputLocked
from napari_pixseg.export import heartbeat
from napari_pixseg.export.heartbeat import (
    Writer,
    describe_held_lock,
    describe_writer,
    measure_silence,
    watch_silence,
)
from napari_pixseg.export.output_location import TOKEN_PREFIX, OutputLocation


class RemoteLock:
    """A lock that is held until it is released."""

    def __init__(self, file: OutputLocation) -> None:
        self._file = file
        self._token = os.urandom(16).hex()
        self._ended = threading.Event()
        self._write(0)
        self._thread = threading.Thread(target=self._beat_until_end, name="lock beat", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, location: OutputLocation, break_lock: bool = False) -> RemoteLock:
        """Take the lock of a picture.

        Raises
        ------
        OutputConflict
            If another run holds it that lives, or may live and its lock is not to be broken.
        """
        _refuse_living_writer(location, break_lock)
        return cls(_lock_file(location))

    def refuse_loss(self, location: OutputLocation) -> None:
        """Raise OutputConflict if somebody else took the lock, and perhaps writes the output."""
        if not self._is_ours():
            raise OutputConflict(
                f"{location.uri} was taken by another run meanwhile, so this one stops; choose "
                "another path, or wait until the other has ended."
            )

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        # If the network fails now, others wait until it was silent for long enough.
        with suppress(Exception):
            if self._is_ours():
                self._file.remove()

    def _is_ours(self) -> bool:
        return _read(self._file).get("token") == self._token

    def _write(self, beat: int) -> None:
        said = {**Writer.of_here().to_json(), "token": self._token, "beat": beat}
        self._file.write_bytes(json.dumps(said).encode())

    def _beat_until_end(self) -> None:
        beat = 0
        while not self._ended.wait(heartbeat.BEAT_SECONDS):
            beat += 1
            # The network may fail for a while.
            with suppress(Exception):
                if self._is_ours():
                    self._write(beat)


def has_left_remote_lock(location: OutputLocation) -> bool:
    """Whether a run that was killed left its lock of a picture, which it had begun to write."""
    return Writer.from_json(_read(_lock_file(location))) is not None


def _refuse_living_writer(location: OutputLocation, break_lock: bool) -> None:
    file = _lock_file(location)
    writer = Writer.from_json(_read(file))
    if writer is None or writer.is_dead_here:
        return
    limit = heartbeat.BREAK_SECONDS if break_lock else heartbeat.DEAD_SECONDS
    silence = measure_silence(file, location.neighbor(f"{TOKEN_PREFIX}{os.urandom(8).hex()}"))
    if silence is None and file.is_file():
        silence = watch_silence(lambda: _read(file), limit, lambda: None)
    is_here = writer.is_running_here
    if silence is None or (silence >= limit and not is_here):
        return
    who = describe_writer(writer, silence)
    is_silent = silence >= heartbeat.BREAK_SECONDS and not is_here
    error = OutputLocked if is_silent else OutputConflict
    raise error(describe_held_lock(location.uri, who, is_silent, break_lock))


def _lock_file(location: OutputLocation) -> OutputLocation:
    return location.neighbor(f".{location.name}.lock")


def _read(file: OutputLocation) -> dict[str, object]:
    """Return what the lock says; nothing where there is none."""
    try:
        found = json.loads(file.read_bytes() or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
