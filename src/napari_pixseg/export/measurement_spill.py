"""Measures of regions on disk, until the rows of the table can be made in order.

As measures they take half the bytes of rows: whole numbers, of four bytes where they fit,
positions counted from where a region begins.
"""

from __future__ import annotations

import itertools
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.export.output_location import ROWS_NAME, OutputLocation
from napari_pixseg.regions.layout import Longs
from napari_pixseg.regions.measurements import RegionMeasures
from napari_pixseg.regions.region_table import Columns, RegionRowBuilder

_Content: TypeAlias = tuple[NDArray[Any], NDArray[np.float64]]


_AT_ONCE = 1 << 15


_NARROW, _WIDE = np.dtype(np.uint32), np.dtype(np.int64)


@dataclass(frozen=True)
class _Part:
    """A file: whole numbers of ``count`` regions, then sums that are none."""

    path: Path
    count: int
    first: int
    last: int
    dtype: np.dtype[Any]
    wholes: int
    reals: int

    def read(self, start: int, stop: int) -> _Content:
        """Return (n, wholes) and (n, reals) of regions start <= number < stop."""
        content = np.memmap(self.path, np.uint8, "r")
        wholes = np.ndarray((self.count, self.wholes), self.dtype, content)
        reals = np.ndarray((self.count, self.reals), np.float64, content, wholes.nbytes)
        # Copied: pages of files that stay mapped are memory of this process.
        rows = _between(wholes, start, stop)
        return wholes[rows].copy(), reals[rows].copy()


class RowFiles:
    """Rows of the region table as measures on disk, part by part as they come.

    Parameters
    ----------
    folder : Path
    maker : Rows
        Makes rows of them.
    """

    def __init__(self, folder: Path, maker: RegionRowBuilder) -> None:
        self.maker = maker
        self._folder, self._names = folder, itertools.count()
        self._parts: dict[int, _Part] = {}

    def put(self, tally: RegionMeasures, which: NDArray[np.intp]) -> None:
        """Write regions, ascending by number; the disk is all that several threads share."""
        if not len(which):
            return
        exact = tally.totals.dtype != np.float64
        sums = tally.totals if exact else np.zeros((len(tally), 0), np.int64)
        wholes = _compact(tally, sums, which)
        reals = np.zeros((len(which), 0)) if exact else tally.totals[which]
        name = next(self._names)
        with open(self._folder / str(name), "wb") as file:
            file.write(wholes.data)
            file.write(reals.data)
        first, last = (int(tally.numbers[which[end]]) for end in (0, -1))
        self._parts[name] = _Part(
            self._folder / str(name), len(which), first, last, wholes.dtype, wholes.shape[1],
            reals.shape[1],
        )  # fmt: skip

    def group(self, start: int, stop: int) -> Columns:
        """Return rows start <= number < stop in order; those that were not put are undefined."""
        found = [part for part in self._parts.values() if part.first < stop and part.last >= start]
        parts = [part.read(start, stop) for part in found]
        dtype = self.maker.dtype
        group = {name: np.empty(stop - start, dtype[name]) for name in dtype.names or ()}
        # Few at a time, which the processor's cache holds until rows are made of them.
        for first in range(start, stop, _AT_ONCE):
            after = min(first + _AT_ONCE, stop)
            for name, column in self._block(parts, first, after).items():
                group[name][first - start : after - start] = column
        return group

    def _block(self, parts: Sequence[_Content], start: int, stop: int) -> Columns:
        count, axes, channels = stop - start, len(self.maker.axes), self.maker.channels
        reals = parts[0][1].shape[1] if parts else 0
        # Of no region, too, means are taken: of an area that is not 0.
        numbers, classes, areas = np.ones((3, count), np.int64)
        low, high, sums = (np.zeros((count, axes), np.int64) for _ in range(3))
        whole_totals = np.zeros((count, channels - reals), np.int64)
        totals = np.zeros((count, reals))
        for wholes, others in parts:
            rows = _between(wholes, start, stop)
            _lay(
                wholes[rows], others[rows], start, numbers, classes, areas, low, high, sums,
                whole_totals, totals,
            )  # fmt: skip
        used = totals if reals else whole_totals
        return self.maker.of(RegionMeasures(numbers, classes, areas, low, high, sums, used))


def _between(wholes: NDArray[Any], start: int, stop: int) -> slice:
    """Where the regions start <= number < stop are: numbers ascend."""
    numbers = wholes[:, 0]
    return slice(bisect_left(numbers, start), bisect_left(numbers, stop))


def _compact(tally: RegionMeasures, sums: Longs, which: NDArray[np.intp]) -> NDArray[Any]:
    """Return (n, 3 + 3 a + c) whole numbers of some regions, as narrow as they fit."""
    width = 3 + 3 * tally.low.shape[1] + sums.shape[1]
    columns = (
        tally.numbers, tally.classes, tally.areas, tally.low, tally.high, tally.sums, sums,
    )  # fmt: skip
    narrow = np.empty((len(which), width), _NARROW)
    # Of signed samples sums may be below 0.
    if 0 <= _gather(which, *columns, narrow) <= np.iinfo(_NARROW).max:
        return narrow
    wide = np.empty((len(which), width), _WIDE)
    _gather(which, *columns, wide)
    return wide


@compiled
def _gather(
    which: NDArray[np.intp], numbers: Longs, classes: Longs, areas: Longs, low: Longs, high: Longs,
    sums: Longs, totals: Longs, wholes: NDArray[Any],
) -> int:  # fmt: skip
    """Write measures of regions next to each other; return the bits that any of them has."""
    axes, bits = low.shape[1], np.int64(0)
    for row in range(which.size):
        i, measures = which[row], wholes[row]
        measures[0], measures[1], measures[2] = numbers[i], classes[i], areas[i]
        bits |= numbers[i]
        for a in range(axes):
            # Positions in the image would not fit where the region is far from its corner.
            inside = sums[i, a] - low[i, a] * areas[i]
            at = 3 + 3 * a
            measures[at], measures[at + 1], measures[at + 2] = low[i, a], high[i, a], inside
            bits |= high[i, a] | inside
        for channel in range(totals.shape[1]):
            measures[3 + 3 * axes + channel] = totals[i, channel]
            bits |= totals[i, channel]
    return int(bits)


@compiled
def _lay(
    wholes: NDArray[Any], reals: NDArray[np.float64], start: int, numbers: Longs,
    classes: Longs, areas: Longs, low: Longs, high: Longs, sums: Longs, whole_totals: Longs,
    totals: NDArray[np.float64],
) -> None:  # fmt: skip
    """Write the measures of regions where their numbers say, the region ``start`` being row 0."""
    axes = low.shape[1]
    for row in range(wholes.shape[0]):
        number = np.int64(wholes[row, 0])
        i = number - start
        numbers[i], classes[i], areas[i] = number, wholes[row, 1], wholes[row, 2]
        for a in range(axes):
            at = 3 + 3 * a
            low[i, a], high[i, a] = wholes[row, at], wholes[row, at + 1]
            sums[i, a] = np.int64(wholes[row, at + 2]) + low[i, a] * areas[i]
        for channel in range(whole_totals.shape[1]):
            whole_totals[i, channel] = wholes[row, 3 + 3 * axes + channel]
        for channel in range(totals.shape[1]):
            totals[i, channel] = reals[row, channel]


@contextmanager
def temporary_rows(maker: RegionRowBuilder, location: OutputLocation) -> Iterator[RowFiles]:
    """Give a place on disk for rows; they are gone afterwards.

    Fifty bytes for each region may be more than where the system keeps temporary files, so they
    lie in the unfinished store, if that is on a disk.
    """
    folder = location.child(ROWS_NAME)
    if not location.is_local:
        with tempfile.TemporaryDirectory(prefix="pixseg-") as elsewhere:
            yield RowFiles(Path(elsewhere), maker)
        return
    # What a run that was killed has left.
    folder.remove()
    folder.local_path.mkdir()
    try:
        yield RowFiles(folder.local_path, maker)
    finally:
        # At the latest they go with the commit.
        with suppress(OSError):
            folder.remove()
