"""Giving memory back to the system that this process no longer uses."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


# The largest that glibc takes: tiles come from what earlier ones have left.
_MAPPED_FROM = 1 << 25


_KEPT = 1 << 28


# Two threads need less, tiles of colors and their outputs.
_SPARE = 112 << 20


# What a picture of eight megapixels takes: addresses, until they are used.
_AHEAD, _USUAL_PAD = 192 << 20, 1 << 17


# Of Linux's mman.h, and the size that its processors have.
_MADV_HUGEPAGE, _HUGE_PAGE = 14, 1 << 21


def give_back() -> None:
    """Return what was freed: glibc keeps the arenas of threads, hundreds of megabytes of tiles."""
    trim = _trim()
    if trim is not None:
        trim(0)


class FreedMemory:
    """Gives memory back during a run when what was freed piles up.

    Tiles of changing sizes cut the memory up, so that less and less of what is free can be used
    again. Giving all of it back after each tile would cost a tenth of the time.
    """

    def __init__(self) -> None:
        self._least = _resident()

    def check(self) -> None:
        """Look, after a tile, whether too much is held."""
        held = _resident()
        self._least = min(self._least, held)
        if held > self._least + _SPARE:
            give_back()
            # What is still there is in use: not to be looked for again and again.
            self._least = max(self._least, _resident() - _SPARE // 2)


def _resident() -> int:
    """Bytes of this process that are in memory; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@cache
def share_arenas() -> None:
    """Let threads that begin from now on take memory from where others have freed it.

    glibc gives each thread an arena of its own, and keeps in each what was freed there: with
    zarr's and Dask's threads a third of the peak of a run. And it returns each large array at
    once to the system, which has to clear its pages for the next. For the whole process, once.
    """
    library = _glibc()
    if library is not None:
        with suppress(AttributeError):
            library.mallopt(_M_ARENA_MAX, 1)
            library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def prepare_heap() -> None:
    """Let the arrays of a small picture lie in huge pages, and take each other's place.

    A process that ends after one picture spends a tenth of its time on the first use of its
    memory, 4 KiB by 4 KiB. For programs at their start; with another C library nothing happens.
    """
    share_arenas()
    library = _glibc()
    if library is None:
        return
    with suppress(AttributeError):
        library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
        library.mallopt(_M_TOP_PAD, _AHEAD)
        first = library.malloc(ctypes.c_size_t(_HUGE_PAGE))
        library.mallopt(_M_TOP_PAD, _USUAL_PAD)
        start = -(-(first or 0) // _HUGE_PAGE) * _HUGE_PAGE
        ahead = (library.sbrk(0) or 0) - start
        # Otherwise the heap could not grow, and this came from elsewhere.
        if _AHEAD // 2 < ahead < 2 * _AHEAD:
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(ahead), _MADV_HUGEPAGE)
        library.free(ctypes.c_void_p(first))


@cache
def _trim() -> Callable[[int], int] | None:
    library = _glibc()
    if library is None:
        return None
    try:
        trim: Callable[[int], int] = library.malloc_trim
    except AttributeError:
        # Another C library, such as musl.
        return None
    return trim


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None
