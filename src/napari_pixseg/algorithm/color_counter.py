"""Counts the colors of many tiles of one process into one table.

Threads take turns with a few sets of counters, and the sets become a table once, at the end.
:func:`shares_counters` says when to count this way. Otherwise every tile gets a :class:`ColorTable`
of its own, and the tables are merged.
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
from napari_pixseg.algorithm.kernels.arrays import Bytes, Counts, Scratch
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.algorithm.kernels.threads import parallel_slices, thread_slices
from napari_pixseg.parameters import ColorSpace

# How many neighboring counters are checked in one step.
_LOOKED_AT = 16

# For up to this many tiles, merging tables is faster than searching all 2^24 counters.
_FEW_TILES = 8


def shares_counters(tiles: int, runs_in_this_process: bool) -> bool:
    """Return whether the tiles of a run should be counted by one :class:`ColorCounter`.

    Otherwise each tile is counted by :meth:`ColorTable.from_packed`, wherever it runs. That
    leaves to the kernel choice of its process whether it sorts colors or counts them.
    """
    return runs_in_this_process and tiles > _FEW_TILES


class ColorCounter:
    """Counts colors of tiles, from any thread; 64 MiB for each that counts at the moment.

    Parameters
    ----------
    space : ColorSpace, optional
        As in :class:`ColorTable`.
    """

    def __init__(self, space: ColorSpace | None = None) -> None:
        self._space = space
        self._lock = threading.Lock()
        # Counting takes less than half of a tile's time, so half as many sets are enough.
        self._free = threading.Semaphore(max((os.cpu_count() or 1) // 2, 1))
        self._idle: list[_CounterSet] = []
        self._full: list[ColorTable] = []

    def add_packed(self, packed: NDArray[np.uint32]) -> None:
        """Count packed colors of any shape; ``NO_DATA`` is left out."""
        # Kernels are compiled for one memory layout.
        flat = np.ascontiguousarray(packed).reshape(-1)
        with self._lend_counters(flat.size) as counters:
            _count_packed(flat, counters.counts)

    def add_pixels(self, pixels: Bytes) -> None:
        """Count the colors of (..., c) bytes, c from 1 to 3."""
        rows = np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-1])
        with self._lend_counters(len(rows)) as counters:
            _count_pixels(rows, counters.counts)

    def table(self) -> ColorTable:
        """Return the counts, and start again from zero."""
        with self._lock:
            idle = self._idle
            full = self._full
            self._idle = []
            self._full = []
        tables = [*full, *(_make_table(some, self._space) for some in _group_addable(idle))]
        # A merge of no tables would not know the color space.
        nothing = ColorTable(np.empty(0, np.uint32), np.empty(0, np.int64), self._space)
        return ColorTable.merge(tables) if tables else nothing

    @contextmanager
    def _lend_counters(self, size: int) -> Iterator[_CounterSet]:
        """Lend counters for ``size`` pixels; after an interruption they are not used again."""
        with self._free:
            with self._lock:
                counters = self._idle.pop() if self._idle else _CounterSet()
            if counters.pixels + size > COUNTED_AT_ONCE:
                table = _make_table([counters], self._space)
                counters = _CounterSet()
                with self._lock:
                    self._full.append(table)
            # Outside the lock, because counting takes long and each thread has a set of its own.
            yield counters
            # Not in a finally clause: interrupted counters hold an unknown part of the pixels.
            counters.pixels += size
            with self._lock:
                self._idle.append(counters)


class _CounterSet:
    """A counter for each color, and the number of pixels they were given."""

    def __init__(self) -> None:
        self.counts: Scratch = np.zeros(COLORS + 1, np.uint32)
        self.pixels = 0


def _group_addable(counters: list[_CounterSet]) -> list[list[_CounterSet]]:
    """Group counters so that the sums of each group fit their 32 bits."""
    groups: list[list[_CounterSet]] = []
    total = 0
    for one in counters:
        if not groups or total + one.pixels > COUNTED_AT_ONCE:
            groups.append([])
            total = 0
        groups[-1].append(one)
        total += one.pixels
    return groups


def _make_table(counters: list[_CounterSet], space: ColorSpace | None) -> ColorTable:
    """Return the sum of some counters as a table; the first set receives the sums."""
    sums = counters[0].counts
    others = [one.counts for one in counters[1:]]

    def add_others(steps: slice) -> int:
        colors = _colors_of_steps(steps)
        for other in others:
            sums[colors] += other[colors]
        return int(np.count_nonzero(sums[colors]))

    # The last counter, of pixels without data, is left out.
    steps = COLORS // _LOOKED_AT
    distinct = parallel_slices(add_others, steps)
    # One more each, because colors that do not occur are written too, and then overwritten.
    starts = [0, *accumulate(count + 1 for count in distinct)]
    packed = np.empty(starts[-1], np.uint32)
    counts = np.empty(starts[-1], np.int64)
    start_of = dict(zip((part.start for part in thread_slices(steps)), starts, strict=False))

    def write_down(steps: slice) -> None:
        colors = _colors_of_steps(steps)
        start = start_of[steps.start]
        _list_counted(sums[colors], colors.start, packed[start:], counts[start:])

    parallel_slices(write_down, steps)
    # Close the gaps between the slices.
    for place, (start, count) in enumerate(zip(starts, distinct, strict=False)):
        for column in (packed, counts):
            column[start - place : start - place + count] = column[start : start + count]
    return ColorTable(packed[: sum(distinct)], counts[: sum(distinct)], space)


def _colors_of_steps(steps: slice) -> slice:
    return slice(steps.start * _LOOKED_AT, steps.stop * _LOOKED_AT)


@compiled
def _count_packed(packed: NDArray[np.uint32], counts: Scratch) -> None:
    for i in range(packed.size):
        counts[packed[i]] += np.uint32(1)


@compiled
def _count_pixels(pixels: Bytes, counts: Scratch) -> None:
    if pixels.shape[1] == 3:
        for i in range(pixels.shape[0]):
            red = np.uint32(pixels[i, 0])
            green = np.uint32(pixels[i, 1])
            color = red << np.uint32(16) | green << np.uint32(8) | np.uint32(pixels[i, 2])
            counts[color] += np.uint32(1)
    else:
        # One channel is taken three times; with two the third is 0.
        for i in range(pixels.shape[0]):
            red = np.uint32(pixels[i, 0])
            green = np.uint32(pixels[i, pixels.shape[1] - 1])
            blue = red if pixels.shape[1] == 1 else np.uint32(0)
            counts[red << np.uint32(16) | green << np.uint32(8) | blue] += np.uint32(1)


@compiled
def _list_counted(
    counters: Scratch, first: int, packed: NDArray[np.uint32], counts: Counts
) -> None:
    """List all colors that were counted, ascending from ``first``, and their counts."""
    listed = 0
    for start in range(0, counters.size, _LOOKED_AT):
        # Most colors do not occur, and those that do are close together.
        found = np.uint32(0)
        for i in range(_LOOKED_AT):
            found |= counters[start + i]
        if found:
            for color in range(start, start + _LOOKED_AT):
                packed[listed] = first + color
                counts[listed] = counters[color]
                listed += counters[color] > 0
