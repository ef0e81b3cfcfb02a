"""Local files with the interface of fsspec's file systems, without importing fsspec.

Importing fsspec would slow down every run that only uses local files.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from napari_pixseg.sources.urls import path_of_url

# fsspec's rule to tell a URL from a path; :: chains several URLs.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|.*::")


class LocalFiles:
    """The methods that :class:`OutputLocation` uses; paths are absolute, with forward slashes."""

    protocol = ("file", "local")
    async_impl = False

    @staticmethod
    def path_of(target: str) -> str | None:
        """Return the absolute path of a user's path or file URL; None for other URLs."""
        if target.lower().startswith("file://"):
            target = path_of_url(target)
        return None if _URL.match(target) else Path(target).absolute().as_posix()

    def exists(self, path: str) -> bool:
        """Whether anything is at the path, including a broken link."""
        return os.path.lexists(path)

    def isfile(self, path: str) -> bool:
        """Whether a file is at the path."""
        return os.path.isfile(path)

    def isdir(self, path: str) -> bool:
        """Whether a folder is at the path."""
        return os.path.isdir(path)

    def ls(self, path: str, detail: bool = False) -> list[str]:
        """List the paths of a folder's entries."""
        return [f"{path}/{name}" for name in os.listdir(path)]

    def find(self, path: str, detail: bool = True) -> dict[str, dict[str, int]]:
        """List all files below a folder with their sizes."""
        found = {}
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder, name)
                found[file.as_posix()] = {"size": file.lstat().st_size}
        return found

    def cat_file(self, path: str) -> bytes:
        """Read a file."""
        return Path(path).read_bytes()

    def modified(self, path: str) -> datetime:
        """Return when a file was last written, by the clock of its disk."""
        # A network drive fetches a fresh time only for a file that is opened.
        with open(path, "rb") as file:
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)

    def rm(self, path: str, recursive: bool = False) -> None:
        """Remove a file, or a folder with everything in it."""
        if recursive and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def invalidate_cache(self) -> None:
        """Do nothing, because nothing is cached."""
