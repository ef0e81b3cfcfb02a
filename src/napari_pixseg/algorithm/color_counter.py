"""Counting the colors of many tiles into one table, in one process.

Threads add to sets of counters that they share, one at a time; what these hold is
made a table once, at the end. Where tiles are counted in several processes, each makes a
:class:`ColorTable` instead, and these are merged.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import COLORS, COUNTED_AT_ONCE, ColorTable
from napari_pixseg.algorithm.kernels.compiled import Bytes, Counts, Scratch
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.algorithm.kernels.threads import parallel_slices, shares
from napari_pixseg.parameters import ColorSpace

# Counters looked at in one step.
_LOOKED_AT = 16


class ColorCounter:
    """Counts colors of tiles, from any thread; 64 MiB for each that counts at the moment.

    Parameters
    ----------
    space : ColorSpace, optional
        As in :class:`ColorTable`.
    """

    def __init__(self, space: ColorSpace | None = None) -> None:
        self._space, self._lock = space, threading.Lock()
        # Counting takes less than half of the time of a tile: half as many sets are enough.
        self._free = threading.Semaphore(max((os.cpu_count() or 1) // 2, 1))
        self._idle: list[_Counters] = []
        self._full: list[ColorTable] = []

    def add_packed(self, packed: NDArray[np.uint32]) -> None:
        """Count packed colors of any shape; ``NO_DATA`` is left out."""
        flat = np.ascontiguousarray(packed).reshape(-1)
        with self._counters(flat.size) as counters:
            _count_packed(flat, counters.counts)

    def add_pixels(self, pixels: Bytes) -> None:
        """Count the colors of (..., c) bytes, c from 1 to 3."""
        rows = np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-1])
        with self._counters(len(rows)) as counters:
            _count_pixels(rows, counters.counts)

    def table(self) -> ColorTable:
        """Return what was counted, and begin anew."""
        with self._lock:
            idle, self._idle = self._idle, []
            full, self._full = self._full, []
        tables = [*full, *(_table(some, self._space) for some in _addable(idle))]
        # Of no parts the space would be unknown.
        nothing = ColorTable(np.empty(0, np.uint32), np.empty(0, np.int64), self._space)
        return ColorTable.merge(tables) if tables else nothing

    @contextmanager
    def _counters(self, size: int) -> Iterator[_Counters]:
        """Lend counters for so many pixels; after an interruption they are not used again."""
        with self._free:
            with self._lock:
                counters = self._idle.pop() if self._idle else _Counters()
            if counters.pixels + size > COUNTED_AT_ONCE:
                table, counters = _table([counters], self._space), _Counters()
                with self._lock:
                    self._full.append(table)
            yield counters
            counters.pixels += size
            with self._lock:
                self._idle.append(counters)


class _Counters:
    def __init__(self) -> None:
        # 32 bits halve what a thread holds; so many pixels are never counted at once.
        self.counts: Scratch = np.zeros(COLORS + 1, np.uint32)
        self.pixels = 0


def _addable(counters: list[_Counters]) -> list[list[_Counters]]:
    """Group counters so that the sums of each group fit their 32 bits."""
    groups: list[list[_Counters]] = []
    total = 0
    for one in counters:
        if not groups or total + one.pixels > COUNTED_AT_ONCE:
            groups.append([])
            total = 0
        groups[-1].append(one)
        total += one.pixels
    return groups


def _table(counters: list[_Counters], space: ColorSpace | None) -> ColorTable:
    """Return what some counters hold together; the first is added to."""
    sums, others = counters[0].counts, [one.counts for one in counters[1:]]

    def add(steps: slice) -> int:
        colors = _colors(steps)
        for other in others:
            sums[colors] += other[colors]
        return int(np.count_nonzero(sums[colors]))

    # Without the counter of pixels that have no data.
    steps = COLORS // _LOOKED_AT
    distinct = parallel_slices(add, steps)
    # One more each, because every color is written down and the next one overwrites it.
    starts = [0, *accumulate(count + 1 for count in distinct)]
    packed, counts = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.int64)
    start_of = dict(zip((part.start for part in shares(steps)), starts, strict=False))

    def write_down(steps: slice) -> None:
        colors, start = _colors(steps), start_of[steps.start]
        _list_counted(sums[colors], colors.start, packed[start:], counts[start:])

    parallel_slices(write_down, steps)
    for place, (start, count) in enumerate(zip(starts, distinct, strict=False)):
        for column in (packed, counts):
            column[start - place : start - place + count] = column[start : start + count]
    return ColorTable(packed[: sum(distinct)], counts[: sum(distinct)], space)


def _colors(steps: slice) -> slice:
    return slice(steps.start * _LOOKED_AT, steps.stop * _LOOKED_AT)


@compiled
def _count_packed(packed: NDArray[np.uint32], counts: Scratch) -> None:
    for i in range(packed.size):
        counts[packed[i]] += np.uint32(1)


@compiled
def _count_pixels(pixels: Bytes, counts: Scratch) -> None:
    if pixels.shape[1] == 3:
        for i in range(pixels.shape[0]):
            red, green = np.uint32(pixels[i, 0]), np.uint32(pixels[i, 1])
            color = red << np.uint32(16) | green << np.uint32(8) | np.uint32(pixels[i, 2])
            counts[color] += np.uint32(1)
    else:
        # One channel is taken three times; with two the third is 0.
        for i in range(pixels.shape[0]):
            red, green = np.uint32(pixels[i, 0]), np.uint32(pixels[i, pixels.shape[1] - 1])
            blue = red if pixels.shape[1] == 1 else np.uint32(0)
            counts[red << np.uint32(16) | green << np.uint32(8) | blue] += np.uint32(1)


@compiled
def _list_counted(
    counters: Scratch, first: int, packed: NDArray[np.uint32], counts: Counts
) -> None:
    """Write down all colors that were counted, ascending from ``first``, and their counts."""
    listed = 0
    for start in range(0, counters.size, _LOOKED_AT):
        # Most colors do not occur, and those that do are near each other.
        found = np.uint32(0)
        for i in range(_LOOKED_AT):
            found |= counters[start + i]
        if found:
            for color in range(start, start + _LOOKED_AT):
                packed[listed], counts[listed] = first + color, counters[color]
                listed += counters[color] > 0
