"""Shares a loop over many colors among threads.

Threads really run at the same time here, because kernels and NumPy release the interpreter lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

Result = TypeVar("Result")


# A loop over fewer items ends before another thread has begun.
_FEWEST = 1 << 17


def parallel_slices(
    work: Callable[[slice], Result], length: int, fewest: int | None = None
) -> list[Result]:
    """Call a function with slices that cover 0..length, in several threads if that is worth it.

    Parameters
    ----------
    work : callable
    length : int
    fewest : int, optional
        Fewest items for which a thread is started.

    Returns
    -------
    list
        The results of the function, in the order of the slices.
    """
    parts = thread_slices(length, fewest)
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))


def thread_slices(length: int, fewest: int | None = None) -> list[slice]:
    """Cut 0..length into one slice for each thread that is worth starting, at least one."""
    threads = max(min(os.cpu_count() or 1, length // (fewest or _FEWEST)), 1)
    # Multiplied before dividing, so that the parts differ by at most one item.
    bounds = [length * i // threads for i in range(threads + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]
