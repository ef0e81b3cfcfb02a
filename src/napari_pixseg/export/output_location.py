"""The location of an output, a path or a URL, and the small files written there.

Object stores cannot rename, so only the replacement of a local file relies on it.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from napari_pixseg.errors import ParameterError
from napari_pixseg.export.local_filesystem import LocalFiles
from napari_pixseg.sources.urls import public_uri

if TYPE_CHECKING:
    from zarr.abc.store import Store


# An output with any other suffix is a store.
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MANIFEST_NAME = "manifest.json"
RECORD_NAME = "pixseg-run.json"
# Only an unfinished store holds these four.
COLORS_NAME = "pixseg-colors.npy"
COMPONENTS_NAME = "pixseg-components"
ROWS_NAME = "pixseg-rows"
TABLE_NAME = "regions.parquet"
LOCK_NAME = "pixseg-run.lock"
# Prefix of files with which the processes of a cluster prove that they see the same output.
TOKEN_PREFIX = "pixseg-check-"
# How long wait_for_writers() waits at most; a chunk takes much less.
_SETTLE_SECONDS = 5.0
# Names that zarr and new_file() give to files that they are going to rename.
_PARTIAL = re.compile(r"\.[0-9a-f]{8,32}\.partial(\.\w+)?$")


@dataclass(frozen=True)
class OutputLocation:
    """A path or URL, whether or not anything exists there.

    Attributes
    ----------
    target : str
        As the user gave it.
    """

    target: str

    @cached_property
    def _filesystem_and_path(self) -> tuple[Any, str]:
        target = os.path.expanduser(self.target)
        try:
            local = LocalFiles.path_of(target)
        except FileNotFoundError:
            raise ParameterError(
                f"{self.target} leads nowhere, because the current folder was removed; change to "
                "another folder, or give an absolute path."
            ) from None
        if local is not None:
            return LocalFiles(), local.rstrip("/") or "/"
        # Only URLs need fsspec, which is slow to import.
        from napari_pixseg.sources.remote_filesystem import open_filesystem

        try:
            filesystem, path = open_filesystem(target)
        except (ValueError, ImportError, OSError) as error:
            raise ParameterError(
                f"{public_uri(self.target)} cannot be reached ({error}); give a path, or a URL of "
                "a kind that fsspec knows, such as s3:// or memory://."
            ) from error
        return filesystem, path.rstrip("/")

    def _without_listings(self) -> tuple[Any, str]:
        """Forget what the file system remembers: others may have written or removed files."""
        filesystem, path = self._filesystem_and_path
        filesystem.invalidate_cache()
        return filesystem, path

    @property
    def is_local(self) -> bool:
        """Whether this is a file or folder on this machine."""
        return "file" in self._filesystem_and_path[0].protocol

    @property
    def local_path(self) -> Path:
        """The path; only for local locations."""
        return Path(self._filesystem_and_path[1])

    @property
    def uri(self) -> str:
        """The absolute URI, without credentials."""
        filesystem, path = self._filesystem_and_path
        if self.is_local:
            return Path(path).as_uri()
        return public_uri(str(filesystem.unstrip_protocol(path)))

    @property
    def real_uri(self) -> str:
        """The URI after following the file system's links."""
        # Path.resolve() would raise an error of its own where links form a loop.
        return Path(os.path.realpath(self.local_path)).as_uri() if self.is_local else self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._filesystem_and_path[1].rsplit("/", 1)[-1]

    @property
    def title(self) -> str:
        """The name for metadata, which must be UTF-8 even if file names have another encoding."""
        return os.fsencode(self.name).decode("utf-8", "replace") if self.is_local else self.name

    @property
    def suffix(self) -> str:
        """The file name's extension in lower case, with its dot."""
        return os.path.splitext(self.name)[1].lower()

    def child(self, name: str) -> OutputLocation:
        """Return the location of a file in this folder."""
        return OutputLocation(self.target.rstrip("/") + "/" + name)

    def neighbor(self, name: str) -> OutputLocation:
        """Return the location of a file beside this one."""
        return OutputLocation(self.target.rstrip("/").rpartition("/")[0] + "/" + name)

    def sidecar(self) -> OutputLocation:
        """Return the location of a picture's manifest: ``<file name>.json`` beside it."""
        return OutputLocation(self.target.rstrip("/") + ".json")

    def partial_path(self) -> Path:
        """Return a new unique path in the same folder, for a file that will be renamed."""
        return self.local_path.with_name(f".{self.name}.{os.urandom(4).hex()}.partial{self.suffix}")

    def exists(self) -> bool:
        """Whether there is a file, or a folder that is not empty."""
        filesystem, path = self._without_listings()
        if not filesystem.exists(path):
            return False
        return not filesystem.isdir(path) or bool(filesystem.ls(path, detail=False))

    def find_obstacle(self) -> Path | None:
        """Return the file or broken link that prevents making this or a folder above it."""
        if not self.is_local:
            return None
        for path in (self.local_path, *self.local_path.parents):
            if path.is_symlink() and not path.exists():
                return path
            if path.exists():
                in_the_way = path != self.local_path and not path.is_dir()
                return path if in_the_way else None
        return None

    def is_file(self) -> bool:
        """Whether this is an existing file."""
        filesystem, path = self._without_listings()
        return bool(filesystem.isfile(path))

    def is_folder(self) -> bool:
        """Whether this is an existing folder; it may be empty."""
        filesystem, path = self._without_listings()
        return bool(filesystem.isdir(path))

    def list_names(self) -> list[str]:
        """Return the names in this folder; an empty list if it is not a folder."""
        filesystem, path = self._filesystem_and_path
        if not filesystem.isdir(path):
            return []
        filesystem.invalidate_cache()
        entries = filesystem.ls(path, detail=False)
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def list_files(self) -> Iterator[tuple[str, int]]:
        """Yield relative path and size of every file below this folder, from one listing."""
        filesystem, path = self._filesystem_and_path
        filesystem.invalidate_cache()
        root = path.lstrip("/") + "/"
        for name, info in filesystem.find(path, detail=True).items():
            yield name.lstrip("/").removeprefix(root), int(info["size"] or 0)

    def remove_partial_files(self) -> None:
        """Remove files that a killed run left half-written in this folder or beside this file."""
        if not self.is_local:
            return
        for path in self.local_path.parent.glob(
            f".{glob.escape(self.name)}.*.partial{self.suffix}"
        ):
            path.unlink(missing_ok=True)
        for partial in self._partial_files():
            os.unlink(partial)

    def _partial_files(self) -> list[str]:
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.local_path)
            for name in names
            if _PARTIAL.search(name)
        ]

    def wait_for_writers(self) -> None:
        """Wait until zarr stops writing: when one chunk fails, others are still being written."""
        end = time.monotonic() + _SETTLE_SECONDS
        while self.is_local and time.monotonic() < end and self._partial_files():
            time.sleep(_SETTLE_SECONDS / 100)

    def read_bytes(self) -> bytes | None:
        """Return a file's content; None if there is no file."""
        filesystem, path = self._filesystem_and_path
        # Another process may have written the file since the last listing.
        filesystem.invalidate_cache()
        try:
            return bytes(filesystem.cat_file(path)) if filesystem.isfile(path) else None
        except FileNotFoundError:
            return None

    def modified(self) -> float | None:
        """Return when the file was last written, by the clock of its store, in seconds.

        None if there is no file, or if the store does not tell the time.
        """
        filesystem, path = self._filesystem_and_path
        filesystem.invalidate_cache()
        try:
            return float(filesystem.modified(path).timestamp())
        # Stores report an unknown time in many ways.
        except (FileNotFoundError, NotImplementedError, KeyError, TypeError, AttributeError):
            return None

    def open(self) -> IO[bytes]:
        """Open the file for reading at any position."""
        filesystem, path = self._filesystem_and_path
        if self.is_local:
            return open(path, "rb")
        file: IO[bytes] = filesystem.open(path, "rb")
        return file

    def write_bytes(self, content: bytes) -> None:
        """Write a file, whole or not at all, into an existing folder."""
        filesystem, path = self._filesystem_and_path
        if not self.is_local:
            filesystem.pipe_file(path, content)
            return
        with self.new_file() as partial, open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def new_file(self) -> Iterator[Path]:
        """Yield a local path to write to; when it is complete, it becomes this file.

        Its folder must exist. If the folder was moved away, creating it again would hide that.
        """
        filesystem, path = self._filesystem_and_path
        if self.is_local:
            partial = self.partial_path()
        else:
            # Local outputs do not need the import.
            import tempfile

            partial = Path(tempfile.gettempdir()) / f"{os.urandom(16).hex()}{self.suffix}"
        try:
            yield partial
            if self.is_local:
                os.replace(partial, path)
            else:
                filesystem.put_file(str(partial), path)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove a file, or a folder with everything in it; it is fine if nothing is there."""
        filesystem, path = self._filesystem_and_path
        if filesystem.exists(path):
            filesystem.rm(path, recursive=filesystem.isdir(path))
        filesystem.invalidate_cache()

    def open_store(self) -> Store:
        """Return a zarr store at this location."""
        # Pictures are written without zarr, which is slow to import.
        from napari_pixseg.export.zarr_output import open_zarr_store

        return open_zarr_store(*self._filesystem_and_path)
