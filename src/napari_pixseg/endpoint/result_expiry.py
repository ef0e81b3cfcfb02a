"""Removes results that are too old or take too many bytes; oldest first, none while it is read."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_pixseg.endpoint.result_storage import RESULT_NAME, ResultStorage

_log = logging.getLogger("napari_pixseg.endpoint")
_SECONDS_BETWEEN = 60.0
# Files that a killed server has left; another server that shares the folder may be writing them.
_SECONDS_OF_WRITING = 3600.0
_LEFTOVER = re.compile(
    r"\.[0-9a-f]{32}\.\w+(\.json)?\.[0-9a-f]{8}\.partial(\.\w+)?|\.pixseg-probe-[0-9a-f]{8}"
)


@dataclass(frozen=True)
class _Kept:
    """A file in the storage: when it was written, and its bytes with those of its manifest."""

    written: float
    size: int
    path: Path
    is_finished: bool


class ResultExpiry:
    """Removes expired results and leftovers of killed servers, on a thread of its own.

    Parameters
    ----------
    storage : ResultStorage
        Of local files.
    keep : float
        Seconds after which a result expires; 0 keeps it.
    keep_bytes : int
        Bytes that all results may take; 0 sets no limit.
    clock : callable
        Seconds since 1970.
    """

    def __init__(
        self,
        storage: ResultStorage,
        keep: float,
        keep_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pixseg-expiry", daemon=True)

    def start(self) -> None:
        """Begin; the folder is checked for the first time at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self.remove_expired()
            except OSError as error:
                _log.error("The storage cannot be tidied up: %s", error.strerror)
            if not (self._keep or self._keep_bytes):
                return
            pause = min(_SECONDS_BETWEEN, self._keep / 10 or _SECONDS_BETWEEN)
            if self._ended.wait(pause):
                return

    def remove_expired(self) -> None:
        """Check the storage once."""
        now = self._clock()
        total = 0
        left: list[_Kept] = []
        for file in self._list_files():
            is_old = bool(self._keep) and now - file.written > self._keep
            is_leftover = not file.is_finished and now - file.written > _SECONDS_OF_WRITING
            if (is_leftover or (is_old and file.is_finished)) and self._storage.remove_result(
                file.path
            ):
                continue
            if file.is_finished:
                left.append(file)
                total += file.size
        for file in sorted(left, key=lambda file: file.written):
            if not self._keep_bytes or total <= self._keep_bytes or self._ended.is_set():
                return
            if self._storage.remove_result(file.path):
                total -= file.size

    def _list_files(self) -> list[_Kept]:
        sizes: dict[str, tuple[float, int]] = {}
        with os.scandir(self._storage.location.local_path) as entries:
            for entry in entries:
                if self._ended.is_set():
                    return []
                # The file may be gone by now.
                with suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    sizes[entry.name] = (state.st_mtime, state.st_size)
        folder = self._storage.location.local_path
        found = []
        for name, (written, size) in sizes.items():
            manifest = sizes.get(f"{name}.json")
            is_picture = RESULT_NAME.fullmatch(name) is not None
            if is_picture or _LEFTOVER.fullmatch(name):
                both = size + (manifest[1] if manifest else 0)
                found.append(_Kept(written, both, folder / name, bool(is_picture and manifest)))
        return found
