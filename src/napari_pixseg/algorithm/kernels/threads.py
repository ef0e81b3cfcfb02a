"""Loops over many colors, shared between threads: kernels and NumPy leave the interpreter free."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

Result = TypeVar("Result")


# Fewer are done before a thread has begun.
_FEWEST = 1 << 17


def parallel_slices(
    work: Callable[[slice], Result], length: int, fewest: int | None = None
) -> list[Result]:
    """Call a function with slices that make up 0..length, in threads where that is worth it.

    Parameters
    ----------
    work : callable
    length : int
    fewest : int, optional
        That a thread is worth.

    Returns
    -------
    list
        What it returned, in the order of the slices.
    """
    parts = shares(length, fewest)
    if len(parts) == 1:
        return [work(parts[0])]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))


def shares(length: int, fewest: int | None = None) -> list[slice]:
    """Cut 0..length into a slice for each thread that is worth it, at least one."""
    threads = max(min(os.cpu_count() or 1, length // (fewest or _FEWEST)), 1)
    bounds = [length * i // threads for i in range(threads + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]
