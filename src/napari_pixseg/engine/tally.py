"""Measures of regions that add up: parts of a region become the region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.seams import TileComponents
from napari_pixseg.model.compile import compiled
from napari_pixseg.model.components import compilable


@compiled
def _measure(
    labels: NDArray[np.int32],
    classes: NDArray[Any],
    samples: NDArray[Any],
    origin: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    sums: NDArray[np.int64],
    totals: NDArray[Any],
    of_class: NDArray[np.int64],
) -> None:
    """Extent, coordinate sums and class of each component, and sums of its samples (t, z, y, x, c).

    Run by run: within one, only x and the samples vary.
    """
    frames, depth, height, width = labels.shape
    start, stop = origin.copy(), origin.copy()
    for t in range(frames):
        for z in range(depth):
            for y in range(height):
                x = 0
                while x < width:
                    first, label = x, labels[t, z, y, x]
                    while x < width and labels[t, z, y, x] == label:
                        if label != 0:
                            for channel in range(totals.shape[1]):
                                totals[label, channel] += samples[t, z, y, x, channel]
                        x += 1
                    if label == 0:
                        continue
                    of_class[label] = classes[t, z, y, first]
                    start[0], start[1], start[2] = t + origin[0], z + origin[1], y + origin[2]
                    stop[:3] = start[:3]
                    start[3], stop[3] = first + origin[3], x - 1 + origin[3]
                    for axis in range(4):
                        sums[label, axis] += (x - first) * (start[axis] + stop[axis]) // 2
                        low[label, axis] = min(low[label, axis], start[axis])
                        high[label, axis] = max(high[label, axis], stop[axis])


@dataclass(frozen=True)
class Tally:
    """Measures that add up: parts of a region become the region.

    Attributes
    ----------
    numbers, classes, areas : (n,) ndarray of int64
    low, high : (n, 4) ndarray of int64
        First and last position along t, z, y, x.
    sums : (n, 4) ndarray of int64
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
        cls, tile: TileComponents, numbers: NDArray[np.int64], classes: NDArray[Any],
        samples: NDArray[Any], origin: Sequence[int],
    ) -> Tally:  # fmt: skip
        """Measure the components of a tile; row i is component i, row 0 nothing."""
        labels, count = tile.components.labels, len(tile.components) + 1
        exact = samples.dtype.kind in "bui" and samples.dtype.itemsize < 8
        low = np.full((count, 4), np.iinfo(np.int64).max)
        high, sums = np.full((count, 4), -1, np.int64), np.zeros((count, 4), np.int64)
        totals = np.zeros((count, samples.shape[-1]), np.int64 if exact else np.float64)
        of_class = np.zeros(count, np.int64)
        _measure(
            labels, compilable(classes), samples, np.asarray(origin, np.int64), low, high, sums,
            totals, of_class,
        )  # fmt: skip
        return cls(numbers, of_class, tile.components.sizes, low, high, sums, totals)

    def take(self, which: NDArray[Any] | slice) -> Tally:
        """Return some of the rows."""
        return Tally(*(column[which] for column in self._columns()))

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (
            self.numbers, self.classes, self.areas, self.low, self.high, self.sums, self.totals,
        )  # fmt: skip

    @classmethod
    def merge(cls, parts: Sequence[Tally]) -> Tally:
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
