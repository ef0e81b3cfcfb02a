"""Keeps the measures of regions on disk until the rows of the table can be made in order.

Measures take half as many bytes as rows: they are integers, of four bytes if they fit, and
positions are relative to the beginning of a region.
"""

from __future__ import annotations

import itertools
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.export.output_location import ROWS_NAME, OutputLocation
from napari_pixseg.regions.measurements import RegionMeasures
from napari_pixseg.regions.region_rows import Columns, RegionRowBuilder
from napari_pixseg.regions.tile_layout import Longs

# The integers and reals of the regions in a file.
_Content: TypeAlias = tuple[AnyArray, NDArray[np.float64]]

# This many rows are made at a time, so that they stay in the processor's cache.
_AT_ONCE = 1 << 15

_NARROW = np.dtype(np.uint32)
_WIDE = np.dtype(np.int64)


@dataclass(frozen=True)
class _Part:
    """A file with the integers of ``count`` regions, followed by their non-integer sums."""

    path: Path
    count: int
    first: int
    last: int
    dtype: np.dtype[np.generic]
    integers: int
    reals: int

    def read(self, start: int, stop: int) -> _Content:
        """Return (n, integers) and (n, reals) of regions start <= number < stop."""
        content = np.memmap(self.path, np.uint8, "r")
        integers: AnyArray = np.ndarray((self.count, self.integers), self.dtype, content)
        reals: NDArray[np.float64] = np.ndarray(
            (self.count, self.reals), np.float64, content, integers.nbytes
        )
        # Copied, because the pages of mapped files count as memory of this process.
        rows = _find_rows(integers, start, stop)
        return integers[rows].copy(), reals[rows].copy()


class RowFiles:
    """Rows of the region table as measures on disk, written part by part.

    Parameters
    ----------
    folder : Path
    row_builder : RegionRowBuilder
        Makes rows from the measures.
    """

    def __init__(self, folder: Path, row_builder: RegionRowBuilder) -> None:
        self.row_builder = row_builder
        self._folder = folder
        # next() on itertools.count is atomic, so threads get different names without a lock.
        self._names = itertools.count()
        self._parts: dict[int, _Part] = {}

    def put(self, measures: RegionMeasures, which: NDArray[np.intp]) -> None:
        """Write regions, ascending by number. Several threads may call this at a time."""
        if not len(which):
            return
        exact = measures.totals.dtype != np.float64
        sums = measures.totals if exact else np.zeros((len(measures), 0), np.int64)
        integers = _pack_integers(measures, sums, which)
        reals = np.zeros((len(which), 0)) if exact else measures.totals[which]
        name = next(self._names)
        with open(self._folder / str(name), "wb") as file:
            file.write(integers.data)
            file.write(reals.data)
        self._parts[name] = _Part(
            self._folder / str(name),
            len(which),
            int(measures.numbers[which[0]]),
            int(measures.numbers[which[-1]]),
            integers.dtype,
            integers.shape[1],
            reals.shape[1],
        )

    def read_group(self, start: int, stop: int) -> Columns:
        """Return rows start <= number < stop in order; rows that were not put are undefined."""
        found = [part for part in self._parts.values() if part.first < stop and part.last >= start]
        parts = [part.read(start, stop) for part in found]
        dtype = self.row_builder.dtype
        group = {name: np.empty(stop - start, dtype[name]) for name in dtype.names or ()}
        for first in range(start, stop, _AT_ONCE):
            after = min(first + _AT_ONCE, stop)
            for name, column in self._make_rows(parts, first, after).items():
                group[name][first - start : after - start] = column
        return group

    def _make_rows(self, parts: Sequence[_Content], start: int, stop: int) -> Columns:
        count = stop - start
        axes = len(self.row_builder.axes)
        real_channels = parts[0][1].shape[1] if parts else 0
        # Means are computed for missing regions as well, so no area may be 0.
        measures = RegionMeasures(
            numbers=np.ones(count, np.int64),
            classes=np.ones(count, np.int64),
            areas=np.ones(count, np.int64),
            low=np.zeros((count, axes), np.int64),
            high=np.zeros((count, axes), np.int64),
            sums=np.zeros((count, axes), np.int64),
            totals=np.zeros((count, self.row_builder.channels - real_channels), np.int64),
        )
        totals = np.zeros((count, real_channels))
        for integers, reals in parts:
            rows = _find_rows(integers, start, stop)
            _unpack_measures(integers[rows], reals[rows], start, *measures.columns, totals)
        if real_channels:
            measures = replace(measures, totals=totals)
        return self.row_builder.make_rows(measures)


def _find_rows(integers: AnyArray, start: int, stop: int) -> slice:
    """Return the slice of the regions start <= number < stop; numbers ascend."""
    numbers = integers[:, 0]
    return slice(bisect_left(numbers, start), bisect_left(numbers, stop))


def _pack_integers(measures: RegionMeasures, sums: Longs, which: NDArray[np.intp]) -> AnyArray:
    """Return (n, 3 + 3 a + c) integers of some regions, in the narrowest type that fits."""
    width = 3 + 3 * measures.low.shape[1] + sums.shape[1]
    columns = replace(measures, totals=sums).columns
    narrow = np.empty((len(which), width), _NARROW)
    # Sums of signed samples may be below 0.
    if 0 <= _pack_measures(which, *columns, narrow) <= np.iinfo(_NARROW).max:
        return narrow
    wide = np.empty((len(which), width), _WIDE)
    _pack_measures(which, *columns, wide)
    return wide


@compiled
def _pack_measures(
    which: NDArray[np.intp],
    numbers: Longs,
    classes: Longs,
    areas: Longs,
    low: Longs,
    high: Longs,
    sums: Longs,
    totals: Longs,
    packed: AnyArray,
) -> int:
    """Write measures of regions next to each other; return the OR of their bits."""
    axes = low.shape[1]
    # The OR of all values is negative if one value is, and as wide as the widest one.
    bits = np.int64(0)
    for row in range(which.size):
        i = which[row]
        measures = packed[row]
        measures[0] = numbers[i]
        measures[1] = classes[i]
        measures[2] = areas[i]
        bits |= numbers[i]
        for a in range(axes):
            # Positions are relative to the beginning of the region; absolute ones would not fit if
            # the region is far from the image's corner.
            inside = sums[i, a] - low[i, a] * areas[i]
            at = 3 + 3 * a
            measures[at] = low[i, a]
            measures[at + 1] = high[i, a]
            measures[at + 2] = inside
            bits |= high[i, a] | inside
        for channel in range(totals.shape[1]):
            measures[3 + 3 * axes + channel] = totals[i, channel]
            bits |= totals[i, channel]
    return int(bits)


@compiled
def _unpack_measures(
    packed: AnyArray,
    reals: NDArray[np.float64],
    start: int,
    numbers: Longs,
    classes: Longs,
    areas: Longs,
    low: Longs,
    high: Longs,
    sums: Longs,
    totals: Longs,
    real_totals: NDArray[np.float64],
) -> None:
    """Write the measures of regions to the rows of their numbers; the region ``start`` is row 0."""
    axes = low.shape[1]
    for row in range(packed.shape[0]):
        number = np.int64(packed[row, 0])
        i = number - start
        numbers[i] = number
        classes[i] = packed[row, 1]
        areas[i] = packed[row, 2]
        for a in range(axes):
            at = 3 + 3 * a
            low[i, a] = packed[row, at]
            high[i, a] = packed[row, at + 1]
            sums[i, a] = np.int64(packed[row, at + 2]) + low[i, a] * areas[i]
        for channel in range(totals.shape[1]):
            totals[i, channel] = packed[row, 3 + 3 * axes + channel]
        for channel in range(real_totals.shape[1]):
            real_totals[i, channel] = reals[row, channel]


@contextmanager
def temporary_rows(row_builder: RegionRowBuilder, location: OutputLocation) -> Iterator[RowFiles]:
    """Yield a place on disk for rows, which are removed afterwards.

    The files are in the unfinished store if that is on a disk, because fifty bytes for each region
    may be too much for the system's temporary folder.
    """
    folder = location.child(ROWS_NAME)
    if not location.is_local:
        with tempfile.TemporaryDirectory(prefix="pixseg-") as elsewhere:
            yield RowFiles(Path(elsewhere), row_builder)
        return
    # A killed run may have left some files.
    folder.remove()
    folder.local_path.mkdir()
    try:
        yield RowFiles(folder.local_path, row_builder)
    finally:
        # The commit removes whatever cannot be removed now.
        with suppress(OSError):
            folder.remove()
