"""Giving memory back to the system that this process no longer uses."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from numpy.typing import NDArray


def let_go(table: NDArray[Any]) -> None:
    """Count the pages of a memory map no longer as this process's; the file keeps them."""
    if isinstance(table.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        table.base.madvise(mmap.MADV_DONTNEED)


def give_back() -> None:
    """Return what was freed: glibc keeps the arenas of threads, hundreds of megabytes of tiles."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        # Another C library, such as musl.
        return None
    return trim
