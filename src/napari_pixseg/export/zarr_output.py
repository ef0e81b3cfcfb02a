"""The zarr store at an output's location. This module loads zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr.storage
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.abc.store import Store

from napari_pixseg.sources.regular_files import RegularFileStore
from napari_pixseg.sources.remote_filesystem import limit_attempts, options_for


def open_zarr_store(filesystem: Any, path: str) -> Store:
    """Return a zarr store at a path of a file system, which is fsspec's or has its interface."""
    if "file" in filesystem.protocol:
        return RegularFileStore(Path(path))
    if not filesystem.async_impl:
        return zarr.storage.FsspecStore(
            AsyncFileSystemWrapper(filesystem, asynchronous=True), path=path
        )
    # Opened again from its URL, because zarr needs it asynchronous on its own event loop.
    url = filesystem.unstrip_protocol(path)
    store = zarr.storage.FsspecStore.from_url(url, options_for(url))
    limit_attempts(store.fs)
    return store
