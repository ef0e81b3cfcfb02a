"""``napari-pixseg`` and ``python -m napari_pixseg``: the command line as a process."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

# What keeps threads, files or connections that are to be closed at the end.
_WITH_THREADS = ("dask", "zarr", "fsspec", "numba", "uvicorn", "starlette", "coverage")


def program() -> NoReturn:
    """Run the command line, and end the process.

    Where only light modules were loaded nothing is left to be done, and Python is spared taking
    them apart, a tenth of the time that a picture takes.
    """
    # Imports make many objects that stay: looking through them again and again takes 10 ms.
    gc.set_threshold(50_000, 20, 20)
    try:
        from napari_pixseg.execution.allocator import prepare_heap

        prepare_heap()
        from napari_pixseg.cli import main
    except KeyboardInterrupt:
        # As shells have it. Nothing was begun.
        os._exit(130)
    code = main()
    if any(name in sys.modules for name in _WITH_THREADS):
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
