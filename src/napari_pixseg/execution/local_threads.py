"""Runs tiles on threads of this process, unless Dask is wanted.

Importing Dask takes as long as segmenting a picture. If Dask is loaded already, or configured
by the user, then Dask runs the tiles.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")

# Where Dask looks for its configuration.
_DASK_FOLDERS = ("/etc/dask", "~/.config/dask")


def dask_is_wanted() -> bool:
    """Return whether Dask should run the tiles: it is loaded, or the user has configured it."""
    if "dask" in sys.modules or any(name.startswith("DASK_") for name in os.environ):
        return True
    return any(os.path.isdir(os.path.expanduser(folder)) for folder in _DASK_FOLDERS)


def map_ordered(
    work: Callable[[int], Result], numbers: Sequence[int]
) -> Generator[Result, None, None]:
    """Yield ``work(number)`` in order, while one thread for each core works ahead.

    When the generator is closed or ended by an error, it begins no further work and waits for the
    work that has begun.
    """
    threads = min(_count_cores(), len(numbers))
    if threads <= 1:
        # A pool gains nothing with one core or one tile.
        yield from map(work, numbers)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, numbers)


def _count_cores() -> int:
    # A container or a batch system may allow fewer cores than the machine has.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class MergeTree(Generic[Result]):
    """Merges results as they arrive, so that the results of all tiles are never held at once.

    Parameters
    ----------
    merge : callable
        Merges a list of results.
    fan_in : int
        How many results are merged at a time.
    """

    def __init__(self, merge: Callable[[list[Result]], Result], fan_in: int) -> None:
        self._merge = merge
        self._fan_in = fan_in
        # Level n holds results that were each merged from fan_in ** n tiles.
        self._levels: list[list[Result]] = []

    def add(self, result: Result, level: int = 0) -> None:
        """Take the next result."""
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(result)
        if len(self._levels[level]) == self._fan_in:
            full = self._levels[level]
            self._levels[level] = []
            self.add(self._merge(full), level + 1)

    def result(self) -> Result:
        """Return the result of merging all results."""
        rest: list[Result] = []
        for level in self._levels:
            # Higher levels hold earlier results, and merging must keep the order of the tiles.
            rest = [self._merge([*level, *rest])] if level or rest else []
        (whole,) = rest
        return whole
