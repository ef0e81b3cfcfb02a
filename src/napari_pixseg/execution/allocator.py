"""Returns memory that this process no longer uses to the system.

All functions here talk to glibc's allocator. With another C library they do nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache

# Numbers of mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Smaller arrays come from the heap, so a tile reuses what earlier tiles have freed.
# This is the largest threshold that glibc accepts.
_MAPPED_FROM = 1 << 25

# Free bytes at the top of the heap that glibc keeps rather than returns.
_KEPT = 1 << 28

# This many freed bytes may pile up before they are returned. Two threads that work on color tiles
# and their outputs stay below it.
_SPARE = 112 << 20

# Enough for a picture of eight megapixels. Until it is used, it is only a range of addresses.
_AHEAD = 192 << 20

# glibc's own default, set again once the heap has grown.
_USUAL_PAD = 1 << 17

# From Linux's mman.h.
_MADV_HUGEPAGE = 14

# Size of a huge page on x86-64 and on most 64-bit ARM systems.
_HUGE_PAGE = 1 << 21


def give_back_memory() -> None:
    """Return freed memory to the system.

    Otherwise glibc keeps it for later: hundreds of megabytes of tiles in the arenas of threads.
    """
    trim = _find_trim()
    if trim is not None:
        trim(0)


class FreedMemory:
    """Returns memory during a run when too much freed memory has piled up.

    Tiles of different sizes fragment the heap, so less and less of the free memory can be used
    again. Returning it after every tile would cost a tenth of the time.
    """

    def __init__(self) -> None:
        self._least = _resident_bytes()

    def check(self) -> None:
        """Give memory back if too much is held; called after each tile."""
        held = _resident_bytes()
        self._least = min(self._least, held)
        if held > self._least + _SPARE:
            give_back_memory()
            # The rest is in use. Without this line, every later tile would trim in vain.
            self._least = max(self._least, _resident_bytes() - _SPARE // 2)


def _resident_bytes() -> int:
    """Return how many bytes of this process are in memory; 0 where that is not known."""
    try:
        # The second number counts resident pages. Unbuffered, because this runs after every tile.
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@cache
def share_arenas() -> None:
    """Let threads that start from now on reuse the memory that other threads have freed.

    By default, glibc gives each thread its own arena and keeps the memory that the thread freed
    there. With the threads of zarr and Dask, that was a third of a run's peak. It also returns each
    large array to the system at once, and the system must then clear the pages of the next one. The
    setting holds for the whole process, so it is made once.
    """
    library = _load_glibc()
    if library is not None:
        with suppress(AttributeError):
            library.mallopt(_M_ARENA_MAX, 1)
            library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def prepare_heap() -> None:
    """Put the arrays of a small picture in huge pages, and let them reuse each other's memory.

    A process that ends after one picture spends a tenth of its time on touching its memory for
    the first time, in steps of 4 KiB. Call this at the start of a program.
    """
    share_arenas()
    library = _load_glibc()
    if library is None:
        return
    with suppress(AttributeError):
        # The default result type, a 32-bit int, would cut addresses off.
        library.malloc.restype = library.sbrk.restype = ctypes.c_void_p
        # The padding makes this one allocation grow the heap by all that the picture will need.
        library.mallopt(_M_TOP_PAD, _AHEAD)
        first = library.malloc(ctypes.c_size_t(_HUGE_PAGE))
        library.mallopt(_M_TOP_PAD, _USUAL_PAD)
        # Huge pages begin at multiples of their size.
        start = -(-(first or 0) // _HUGE_PAGE) * _HUGE_PAGE
        ahead = (library.sbrk(0) or 0) - start
        # Otherwise the heap could not grow, and the allocation came from somewhere else.
        if _AHEAD // 2 < ahead < 2 * _AHEAD:
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(ahead), _MADV_HUGEPAGE)
        library.free(ctypes.c_void_p(first))


@cache
def _find_trim() -> Callable[[int], int] | None:
    library = _load_glibc()
    if library is None:
        return None
    try:
        trim: Callable[[int], int] = library.malloc_trim
    except AttributeError:
        # The C library is another one, such as musl.
        return None
    return trim


def _load_glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None
