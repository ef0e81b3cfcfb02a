"""Checks that every process sees the same input, wherever it runs.

A worker of a cluster may have another disk at the same path. If that disk is empty, zarr would find
no chunk and return zeros. So every process compares some files before it reads the first pixel.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from napari_pixseg.errors import ClusterUnfit, PixsegError
from napari_pixseg.sources.file_fingerprint import FileFingerprint
from napari_pixseg.sources.graph_files import find_graph_files
from napari_pixseg.sources.location import Location, locate

_METADATA = ("zarr.json", ".zarray")
# Metadata are smaller than this, and files of pictures differ within this many bytes.
_HEAD_BYTES = 1 << 16


class _Part(Protocol):
    """A file of an input."""

    @property
    def shown(self) -> str:
        """Its path or URL in messages."""

    def look(self) -> str:
        """Return a description of it as this process sees it."""


@dataclass(frozen=True)
class _File:
    """A local file, or one that a URL names."""

    location: Location

    @property
    def shown(self) -> str:
        return self.location.shown

    def look(self) -> str:
        """Return its size and a hash of its first bytes."""
        try:
            head = self.location.head(_HEAD_BYTES)
            size = None if head is None else self.location.identity().get("size")
        except (PixsegError, OSError):
            return "unreadable"
        return "nothing" if head is None else f"{size} {hashlib.sha256(head).hexdigest()}"


@dataclass(frozen=True)
class _FileOfTask:
    """A local file that a task opens by a path, which may depend on the folder of the process."""

    path: str

    @property
    def shown(self) -> str:
        is_absolute = os.path.isabs(self.path)
        return self.path if is_absolute else f"{self.path} (relative to the folder of each process)"

    def look(self) -> str:
        """Return its size and a hash of its first bytes."""
        try:
            if not os.path.isfile(self.path):
                return "nothing"
            with open(self.path, "rb") as file:
                head = file.read(_HEAD_BYTES)
                return f"{os.fstat(file.fileno()).st_size} {hashlib.sha256(head).hexdigest()}"
        except OSError:
            return "unreadable"


@dataclass(frozen=True)
class _Document:
    """The metadata of a zarr array in a store that is not a local folder."""

    array: Any
    shown: str

    def look(self) -> str:
        """Return a hash of the document."""
        from zarr.core.sync import sync

        path = self.array.store_path
        for name in _METADATA:
            try:
                found = sync((path / name).get())
            except Exception as error:  # noqa: BLE001 - every protocol has its own
                return f"unreadable ({type(error).__name__})"
            if found is not None:
                return hashlib.sha256(found.to_bytes()).hexdigest()
        return "nothing"


@dataclass(frozen=True, eq=False)
class InputEvidence:
    """Some files of an input, as the process that opened it sees them.

    Attributes
    ----------
    looks : tuple of (part, text)
    """

    looks: tuple[tuple[_Part, str], ...] = ()

    @classmethod
    def of(cls, array: object, fingerprint: object, uri: str | None) -> InputEvidence:
        """Gather the evidence of an opened input from its array, fingerprint and URI."""
        return cls(tuple((part, part.look()) for part in _parts_of(array, fingerprint, uri)))

    @property
    def is_of_graph(self) -> bool:
        """Whether Dask's own tasks read the input, which check nothing before they do."""
        return any(isinstance(part, _FileOfTask) for part, _look in self.looks)

    def find_difference(self) -> str | None:
        """Return a file that looks different from this process; None where all are the same."""
        return next((part.shown for part, look in self.looks if part.look() != look), None)

    def refuse_difference(self) -> None:
        """Refuse to read if this process sees another input than the client.

        Raises
        ------
        ClusterUnfit
        """
        if (shown := self.find_difference()) is not None:
            raise other_input(f"process {os.getpid()} on {socket.gethostname()}", shown)


def other_input(worker: str, shown: str) -> ClusterUnfit:
    """Return the error about a worker that does not see the input."""
    return ClusterUnfit(
        f"The worker {worker} does not see the input's {shown} as the client does; give a path on "
        "a disk that all of them share, or a URL, and run again."
    )


def _parts_of(array: object, fingerprint: object, uri: str | None) -> Iterator[_Part]:
    if isinstance(fingerprint, FileFingerprint):
        path = fingerprint.path
        if os.path.isfile(path):
            yield _File(locate(path))
            return
        yield from (_File(locate(name)) for name in _files_of_folder(path))
    elif isinstance(location := getattr(array, "location", None), Location):
        yield _File(location)
    elif hasattr(array, "store_path") and uri is not None:
        yield _Document(array, uri)
    elif not isinstance(array, np.ndarray):
        for path in find_graph_files(array):
            files = [path] if os.path.isfile(path) else _files_of_folder(path)
            yield from map(_FileOfTask, files)


def _files_of_folder(folder: str) -> list[str]:
    """Return the metadata in a folder of chunks, and any chunk."""
    documents = (os.path.join(folder, name) for name in _METADATA)
    files = [name for name in documents if os.path.isfile(name)]
    chunk = _find_chunk(folder)
    return files if chunk is None else [*files, chunk]


def _find_chunk(folder: str) -> str | None:
    """Return any file in a folder of chunks, without listing all of them."""
    try:
        entries = os.scandir(folder)
    except OSError:
        return None
    with entries:
        for entry in entries:
            # A file that is no chunk is just as good, unless it is hidden.
            if entry.name.startswith(".") or entry.name in _METADATA:
                continue
            found = _find_chunk(entry.path) if entry.is_dir() else entry.path
            if found is not None:
                return found
    return None
