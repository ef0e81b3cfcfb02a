"""``napari-pixseg`` and ``python -m napari_pixseg``: runs the command line as a process."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from napari_pixseg.execution.allocator import prepare_heap
from napari_pixseg.interruption import INTERRUPTION

# Modules with threads, files or connections that Python must close before it exits.
_WITH_THREADS = ("dask", "zarr", "fsspec", "numba", "uvicorn", "starlette", "coverage")


def program() -> NoReturn:
    """Run the command line, and end the process.

    If only light modules were loaded, the process ends at once. Python's own shutdown, which takes
    the modules apart first, would take a tenth of a picture's time.
    """
    # Must come before any thread starts: glibc would give that thread memory of its own, and later
    # threads would share it instead of the memory prepared here.
    prepare_heap()
    # A signal may come at any time, even while modules are loaded.
    INTERRUPTION.install()
    # Imports create many permanent objects. Searching them for garbage again and again takes 10 ms.
    gc.set_threshold(50_000, 20, 20)
    from napari_pixseg.cli import main

    code = main()
    INTERRUPTION.claim_answer(code)
    if any(name in sys.modules for name in _WITH_THREADS):
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
