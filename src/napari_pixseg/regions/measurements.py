"""Measures of regions that add up: parts of a region become the region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import Longs


@compiled
def _measure_runs(
    first_runs: Longs,
    starts: NDArray[np.int32],
    numbers: NDArray[np.int32],
    values: AnyArray,
    shape: tuple[int, int, int, int],
    origin: Longs,
    axes: Longs,
    low: Longs,
    high: Longs,
    sums: Longs,
    classes: Longs,
) -> None:
    """Measure extent, coordinate sums and class of each component, run by run.

    Within a run only x varies.
    """
    _, depth, height, width = shape
    start = origin.copy()
    stop = origin.copy()
    for line in range(first_runs.size - 1):
        start[0] = stop[0] = origin[0] + line // (height * depth)
        start[1] = stop[1] = origin[1] + line // height % depth
        start[2] = stop[2] = origin[2] + line % height
        end = first_runs[line + 1]
        for run in range(first_runs[line], end):
            label = numbers[run]
            if label == 0:
                continue
            classes[label] = values[run]
            first = starts[run]
            x = starts[run + 1] if run + 1 < end else width
            start[3] = first + origin[3]
            stop[3] = x - 1 + origin[3]
            for i in range(axes.size):
                axis = axes[i]
                # Positions along a run are an arithmetic series; along other axes start equals
                # stop.
                sums[label, i] += (x - first) * (start[axis] + stop[axis]) // 2
                low[label, i] = min(low[label, i], start[axis])
                high[label, i] = max(high[label, i], stop[axis])


@dataclass(frozen=True)
class RegionMeasures:
    """Measures that add up: parts of a region become the region.

    Attributes
    ----------
    numbers, classes, areas : (n,) ndarray of int64
    low, high : (n, a) ndarray of int64
        First and last position along each axis of the image.
    sums : (n, a) ndarray of int64
        Sums of positions.
    totals : (n, c) ndarray of int64 or float64
        Sums of samples; c may be 0.
    """

    numbers: Longs
    classes: Longs
    areas: Longs
    low: Longs
    high: Longs
    sums: Longs
    totals: AnyArray

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of_tile(
        cls,
        tile: TileComponents,
        numbers: Longs,
        totals: AnyArray,
        origin: Sequence[int],
        axes: Longs,
    ) -> RegionMeasures:
        """Measure the components of a tile; row i is component i, row 0 nothing.

        ``totals`` are the sums of their samples, ``axes`` the places of the image's axes among
        t, z, y, x.
        """
        runs = tile.components
        count = len(runs) + 1
        # The neutral elements of minimum and maximum.
        low = np.full((count, len(axes)), np.iinfo(np.int64).max)
        high = np.full(low.shape, -1, np.int64)
        sums = np.zeros(low.shape, np.int64)
        classes = np.zeros(count, np.int64)
        _measure_runs(
            runs.first_runs,
            runs.starts,
            runs.numbers,
            runs.values,
            runs.shape,
            np.asarray(origin, np.int64),
            axes,
            low,
            high,
            sums,
            classes,
        )
        return cls(numbers, classes, runs.sizes, low, high, sums, totals)

    def take(self, which: NDArray[np.generic] | slice) -> RegionMeasures:
        """Return some of the rows."""
        return RegionMeasures(*(column[which] for column in self.columns))

    @property
    def columns(self) -> tuple[Longs, Longs, Longs, Longs, Longs, Longs, AnyArray]:
        """All arrays, in the order of the attributes."""
        ends = (self.low, self.high)
        return (self.numbers, self.classes, self.areas, *ends, self.sums, self.totals)

    @classmethod
    def merge(cls, parts: Sequence[RegionMeasures]) -> RegionMeasures:
        """Join the parts of each region; rows come out by number."""
        columns = zip(*(part.columns for part in parts), strict=True)
        joined = cls(*(np.concatenate(column) for column in columns))
        # Sorted by number, the parts of a region are adjacent, as reduceat requires.
        rows = joined.take(np.argsort(joined.numbers, kind="stable"))
        starts = np.flatnonzero(np.diff(rows.numbers, prepend=-1))
        if not len(starts):
            return rows
        return cls(
            rows.numbers[starts],
            rows.classes[starts],
            np.add.reduceat(rows.areas, starts),
            np.minimum.reduceat(rows.low, starts),
            np.maximum.reduceat(rows.high, starts),
            np.add.reduceat(rows.sums, starts),
            np.add.reduceat(rows.totals, starts),
        )
