"""Measures of regions that add up: parts of a region become the region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.regions.tile_components import TileComponents


@compiled
def _measure(
    first_runs: NDArray[np.int64],
    starts: NDArray[np.int32],
    numbers: NDArray[np.int32],
    values: NDArray[Any],
    shape: tuple[int, int, int, int],
    origin: NDArray[np.int64],
    axes: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    sums: NDArray[np.int64],
    of_class: NDArray[np.int64],
) -> None:
    """Extent, coordinate sums and class of each component, run by run: within one only x varies."""
    _, depth, height, width = shape
    start, stop = origin.copy(), origin.copy()
    for line in range(first_runs.size - 1):
        start[0] = stop[0] = origin[0] + line // (height * depth)
        start[1] = stop[1] = origin[1] + line // height % depth
        start[2] = stop[2] = origin[2] + line % height
        end = first_runs[line + 1]
        for run in range(first_runs[line], end):
            label = numbers[run]
            if label == 0:
                continue
            of_class[label] = values[run]
            first, x = starts[run], starts[run + 1] if run + 1 < end else width
            start[3], stop[3] = first + origin[3], x - 1 + origin[3]
            for i in range(axes.size):
                axis = axes[i]
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

    numbers: NDArray[np.int64]
    classes: NDArray[np.int64]
    areas: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    sums: NDArray[np.int64]
    totals: NDArray[Any]

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of_tile(
        cls, tile: TileComponents, numbers: NDArray[np.int64], totals: NDArray[Any],
        origin: Sequence[int], axes: NDArray[np.int64],
    ) -> RegionMeasures:  # fmt: skip
        """Measure the components of a tile; row i is component i, row 0 nothing.

        ``totals`` are the sums of their samples, ``axes`` those of t, z, y, x that there are.
        """
        runs, count = tile.components, len(tile.components) + 1
        low = np.full((count, len(axes)), np.iinfo(np.int64).max)
        high, sums = np.full(low.shape, -1, np.int64), np.zeros(low.shape, np.int64)
        of_class = np.zeros(count, np.int64)
        _measure(
            runs.first_runs, runs.starts, runs.numbers, runs.values, runs.shape,
            np.asarray(origin, np.int64), axes, low, high, sums, of_class,
        )  # fmt: skip
        return cls(numbers, of_class, runs.sizes, low, high, sums, totals)

    def take(self, which: NDArray[Any] | slice) -> RegionMeasures:
        """Return some of the rows."""
        return RegionMeasures(*(column[which] for column in self._columns()))

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (
            self.numbers, self.classes, self.areas, self.low, self.high, self.sums, self.totals,
        )  # fmt: skip

    @classmethod
    def merge(cls, parts: Sequence[RegionMeasures]) -> RegionMeasures:
        """Join the parts of each region; rows come out by number."""
        columns = zip(*(part._columns() for part in parts), strict=True)
        joined = [np.concatenate(column) for column in columns]
        order = np.argsort(joined[0], kind="stable")
        numbers, classes, areas, low, high, sums, totals = (column[order] for column in joined)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        if not len(starts):
            return cls(numbers, classes, areas, low, high, sums, totals)
        return cls(
            numbers[starts], classes[starts], np.add.reduceat(areas, starts),
            np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts),
            np.add.reduceat(sums, starts), np.add.reduceat(totals, starts),
        )  # fmt: skip
