"""Makes the rows of the region table from measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.regions.measurements import RegionMeasures
from napari_pixseg.regions.tile_layout import TZYX, Layout, Longs

# Equally long arrays by the name of their column.
Columns: TypeAlias = dict[str, AnyArray]


class Table(Protocol):
    """A structured array, or a mapping of columns by name."""

    def __getitem__(self, name: str, /) -> AnyArray:
        """Return a column."""


@dataclass(frozen=True)
class RegionRowBuilder:
    """Makes rows from measures; it is small, because it is sent to every worker.

    Attributes
    ----------
    layout : Layout
    channels : int
        Channels of the image whose samples are averaged.
    scale : dict of str to float
        Physical size of a pixel along each axis, 1 where unknown.
    """

    layout: Layout
    channels: int
    scale: dict[str, float]

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Columns: number, class, area, physical_area, bounding box, centroid, means, border."""
        axes = self.layout.axes
        columns: list[tuple[str, DTypeLike]] = [
            ("number", np.int64),
            ("class", np.int32),
            ("area", np.int64),
            ("physical_area", np.float64),
            *((f"bbox_min_{axis}", np.int64) for axis in axes),
            *((f"bbox_max_{axis}", np.int64) for axis in axes),
            *((f"centroid_{axis}", np.float64) for axis in axes),
            *((f"mean_{channel}", np.float64) for channel in range(self.channels)),
            ("touches_border", np.bool_),
        ]
        return np.dtype(columns)

    @property
    def axes(self) -> NDArray[np.int64]:
        """Indices in t, z, y, x of the axes that the image has."""
        return np.array([TZYX.index(axis) for axis in self.layout.axes])

    def make_rows(self, measures: RegionMeasures, which: NDArray[np.intp] | None = None) -> Columns:
        """Turn measures, or those of some regions, into columns.

        Bounding boxes are half-open as in scikit-image.
        """
        channels = measures.totals.shape[1]
        which = np.arange(len(measures)) if which is None else which
        axes = self.axes
        size = 1.0
        # The area is taken over z, y and x; the duration of a frame is not part of it.
        for axis in self.layout.axes.replace("t", ""):
            size *= self.scale.get(axis, 1.0)
        classes = np.empty(len(which), np.int32)
        integers = np.empty((2 + 2 * len(axes), len(which)), np.int64)
        reals = np.empty((1 + len(axes) + channels, len(which)), np.float64)
        border = np.empty(len(which), np.bool_)
        _fill_rows(
            which,
            measures.numbers,
            measures.classes,
            measures.areas,
            measures.low,
            measures.high,
            measures.sums,
            measures.totals,
            axes,
            np.array(self.layout.shape),
            size,
            classes,
            integers,
            reals,
            border,
        )
        # In the order of dtype.
        ordered = [integers[0], classes, integers[1], reals[0]]
        ordered += [*integers[2:], *reals[1:], border]
        return dict(zip(self.dtype.names or (), ordered, strict=True))


@compiled
def _fill_rows(
    which: NDArray[np.intp],
    numbers: Longs,
    classes: Longs,
    areas: Longs,
    low: Longs,
    high: Longs,
    sums: Longs,
    totals: AnyArray,
    axes: Longs,
    shape: Longs,
    size: float,
    row_classes: NDArray[np.int32],
    integers: Longs,
    reals: NDArray[np.float64],
    border: NDArray[np.bool_],
) -> None:
    """Write numbers, areas and boxes to ``integers``; sizes, centroids and means to ``reals``."""
    count = axes.size
    for k in range(which.size):
        i = which[k]
        area = np.float64(areas[i])
        row_classes[k] = classes[i]
        integers[0, k] = numbers[i]
        integers[1, k] = areas[i]
        reals[0, k] = area * size
        border[k] = False
        for a in range(count):
            axis = axes[a]
            integers[2 + a, k] = low[i, a]
            integers[2 + count + a, k] = high[i, a] + 1
            reals[1 + a, k] = np.float64(sums[i, a]) / area
            last = shape[axis] - 1
            # Time has no border, because a region cannot continue in another frame.
            if axis > 0 and last > 0 and (low[i, a] == 0 or high[i, a] == last):
                border[k] = True
        for channel in range(totals.shape[1]):
            reals[1 + count + channel, k] = np.float64(totals[i, channel]) / area


def put_rows(table: Table, columns: Columns, first: int = 1) -> None:
    """Write each row to the place of its number; the region ``first`` is row 0."""
    places = columns["number"] - first
    for name, values in columns.items():
        table[name][places] = values
