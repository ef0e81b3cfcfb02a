"""Files of this machine, asked for as fsspec's file systems are, without importing it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from napari_pixseg.sources.urls import path_of_url

# As fsspec tells a URL from a path; :: chains several.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|.*::")


class LocalFiles:
    """What a :class:`OutputLocation` asks of a file system; paths are absolute, with slashes."""

    protocol = ("file", "local")
    async_impl = False

    @staticmethod
    def path_of(target: str) -> str | None:
        """Return the absolute path that a user's text means; None if it is a URL of elsewhere."""
        if target.lower().startswith("file://"):
            target = path_of_url(target)
        return None if _URL.match(target) else Path(target).absolute().as_posix()

    def exists(self, path: str) -> bool:
        """Whether there is anything, be it a link to nowhere."""
        return os.path.lexists(path)

    def isfile(self, path: str) -> bool:
        """Whether there is a file."""
        return os.path.isfile(path)

    def isdir(self, path: str) -> bool:
        """Whether there is a folder."""
        return os.path.isdir(path)

    def ls(self, path: str, detail: bool = False) -> list[str]:
        """List a folder."""
        return [f"{path}/{name}" for name in os.listdir(path)]

    def find(self, path: str, detail: bool = True) -> dict[str, dict[str, Any]]:
        """List all files below a folder, with their sizes."""
        found = {}
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder, name)
                found[file.as_posix()] = {"size": file.lstat().st_size}
        return found

    def cat_file(self, path: str) -> bytes:
        """Read a file."""
        return Path(path).read_bytes()

    def rm(self, path: str, recursive: bool = False) -> None:
        """Remove a file, or a folder with all it holds."""
        if recursive and not os.path.islink(path):
            import shutil

            shutil.rmtree(path)
        else:
            os.unlink(path)

    def invalidate_cache(self) -> None:
        """Do nothing: there is none."""
