"""The temporary folder that holds the files of running requests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WorkFolder:
    """A folder that exists while the server runs, and is removed with all it holds."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def __enter__(self) -> WorkFolder:
        self._path = Path(tempfile.mkdtemp(prefix="napari-pixseg-"))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def path(self) -> Path:
        """Where the folder is; only once the server has started."""
        assert self._path is not None, "The server has not started yet."
        return self._path

    @contextmanager
    def temporary_file(self, name: str) -> Iterator[Path]:
        """Give the path of a file that is removed at the end."""
        path = self.path / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
