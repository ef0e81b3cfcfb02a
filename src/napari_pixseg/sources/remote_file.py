"""Opens a file on a server so that any of its bytes can be read."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from napari_pixseg.sources.network_faults import is_passing

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_BLOCK = 1 << 20
# A larger file that must be downloaded whole is kept on disk.
_SPOOL = 64 << 20


def open_remote(filesystem: AbstractFileSystem, path: str) -> IO[bytes]:
    """Open a file; if its server does not support ranges, download the whole file."""
    file: IO[bytes] = filesystem.open(path, "rb", block_size=_BLOCK)
    try:
        # Some servers ignore the requested range, which only a read reveals.
        file.seek(-1, os.SEEK_END)
        file.read(1)
        file.seek(0)
    except Exception as error:
        file.close()
        if is_passing(error) or not isinstance(error, (ValueError, OSError, TypeError)):
            raise
        return _download(filesystem, path)
    # A file in an archive is closed together with its file system, so keep that alive as long.
    weakref.finalize(file, _keep_alive, filesystem)
    return file


def _keep_alive(_filesystem: object) -> None:
    """Do nothing; the finalizer that calls this keeps its argument alive until then."""


def _download(filesystem: AbstractFileSystem, path: str) -> IO[bytes]:
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    with suppress(AttributeError), filesystem.open(path, "rb", block_size=0) as stream:
        shutil.copyfileobj(stream, spool, _BLOCK)
    spool.seek(0)
    return spool
