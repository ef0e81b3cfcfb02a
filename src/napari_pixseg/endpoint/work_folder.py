"""The temporary folder that holds the files of running requests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows has no locks that end with their process, so nothing is cleaned up there.
    fcntl = None  # type: ignore[assignment]

_PREFIX = "napari-pixseg-serve-"


class WorkFolder:
    """A folder that exists while the server runs, and is removed with all it holds.

    When a server starts, it removes folders of killed servers, with uploads of their users. A lock
    on each folder shows whether its server still runs.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> WorkFolder:
        _remove_leftovers(Path(tempfile.gettempdir()))
        while self._lock is None:
            # A server that starts may mistake a folder without a lock for a leftover.
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _lock_folder(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None and fcntl is not None:
            os.close(self._lock)

    @property
    def path(self) -> Path:
        """The path of the folder; available once the server has started."""
        assert self._path is not None, "The server has not started yet."
        return self._path

    @contextmanager
    def temporary_folder(self, name: str) -> Iterator[Path]:
        """Make a folder for one request, which is removed with all it holds at the end."""
        path = self.path / name
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _lock_folder(folder: Path) -> int | None:
    """Lock a server's folder until the descriptor is closed; None if that is not possible."""
    if fcntl is None:
        return -1
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(parent: Path) -> None:
    if fcntl is None:
        return
    for folder in parent.glob(f"{_PREFIX}*"):
        # Only their owners may remove folders of other users.
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = _lock_folder(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
