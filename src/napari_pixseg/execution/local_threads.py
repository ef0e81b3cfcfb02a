"""Tiles on threads of this process, while nobody has asked for Dask.

Importing Dask takes as long as segmenting a picture. Where it is loaded, or told by
its configuration how to run, it runs the tiles.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

Result = TypeVar("Result")


_DASK_FOLDERS = ("/etc/dask", "~/.config/dask")


def dask_is_wanted() -> bool:
    """Whether Dask has a say: it is loaded, or configured from outside."""
    if "dask" in sys.modules or any(name.startswith("DASK_") for name in os.environ):
        return True
    return any(os.path.isdir(os.path.expanduser(folder)) for folder in _DASK_FOLDERS)


def map_ordered(
    work: Callable[[int], Result], numbers: Sequence[int]
) -> Generator[Result, None, None]:
    """Yield ``work(number)`` in order; one thread for each core works ahead.

    Once it is closed, by an error or by hand, no work begins, and what did is waited for.
    """
    threads = min(_cores(), len(numbers))
    if threads <= 1:
        yield from map(work, numbers)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, numbers)


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class MergeTree(Generic[Result]):
    """Merges results as they come, so that those of all tiles never meet in one place.

    Parameters
    ----------
    merge : callable
        Merges a list of results.
    fan_in : int
        How many are merged at a time.
    """

    def __init__(self, merge: Callable[[list[Result]], Result], fan_in: int) -> None:
        self._merge, self._fan_in = merge, fan_in
        self._levels: list[list[Result]] = []

    def add(self, result: Result, level: int = 0) -> None:
        """Take the next result."""
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(result)
        if len(self._levels[level]) == self._fan_in:
            full, self._levels[level] = self._levels[level], []
            self.add(self._merge(full), level + 1)

    def result(self) -> Result:
        """Return what all results merge to."""
        rest: list[Result] = []
        for level in self._levels:
            # Higher levels hold what came earlier.
            rest = [self._merge([*level, *rest])] if level or rest else []
        (whole,) = rest
        return whole
