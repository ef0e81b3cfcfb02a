"""Makes sure that output is on the disk, not only in memory, in case the machine loses power.

Chunks are not synchronized one by one, which would take longer than writing them. An unfinished
store needs no synchronization, because a resumed run checks its chunks. But nobody checks a
finished store, so all of it must be on the disk before its manifest is.
"""

from __future__ import annotations

import ctypes
import os
import sys

from napari_pixseg.export.output_location import OutputLocation


def flush_disk(location: OutputLocation) -> None:
    """Wait until what was written to a local output is on its disk.

    Raises
    ------
    OSError
        If the disk could not store it.
    """
    if not location.is_local or not hasattr(os, "sync"):
        return
    if sys.platform != "linux":
        os.sync()
        return
    # Synchronize this file system only: others may be slow, and they do not matter here.
    folder = os.open(location.local_path, os.O_RDONLY)
    try:
        if _syncfs(folder) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(location.local_path))
    finally:
        os.close(folder)


def _syncfs(descriptor: int) -> int:
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        os.sync()
        return 0
    return int(function(descriptor))
