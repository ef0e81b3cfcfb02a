"""The region table: what each region measures, tile by tile, merged over seams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.components import Components
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.classification.tile_colors import ClassifiedTile, read_only
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.parameters import AXES
from napari_pixseg.regions.layout import Layout, Longs, to_tzyx
from napari_pixseg.regions.measurements import RegionMeasures
from napari_pixseg.regions.region_pass import Regions, Relabel
from napari_pixseg.regions.tile_components import Block, KeptTile, sum_parts
from napari_pixseg.slices import PixelSlices, box_at_origin
from napari_pixseg.sources.image import Image, PartOf

STAGE, LABELS = "regions", "labels"


_FOUR = AXES.replace("c", "")


# From other processes rows come in batches of this many components, or one tile if it has more.
_BATCH_COMPONENTS = 1 << 19


_BATCH_TILES = 64


_JOINED_AT_ONCE = 32


# So many rows are made and handed on at a time, where they need not travel.
_ROWS_AT_ONCE = 1 << 16


# Equally long arrays by the name of their column.
Columns: TypeAlias = dict[str, NDArray[Any]]


# Called with measures, and which of them are wanted, ascending by number.
Put: TypeAlias = Callable[[RegionMeasures, NDArray[np.intp]], None]


class Table(Protocol):
    """A structured array, or columns by their names."""

    def __getitem__(self, name: str, /) -> NDArray[Any]:
        """Return a column."""


class LabelWriter(Protocol):
    """Takes the finished regions of a tile."""

    def __call__(self, regions: PartOf, number: int) -> None:
        """Write them; ``regions`` gives those of any part of the tile."""


@dataclass(frozen=True)
class RegionRowBuilder:
    """Makes rows of measures; small, because it goes to every worker.

    Attributes
    ----------
    layout : Layout
    channels : int
        Of the image whose samples are averaged.
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
        columns: list[tuple[str, Any]] = [
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
        """Which of t, z, y, x there are."""
        return np.array([_FOUR.index(axis) for axis in self.layout.axes])

    def of(self, tally: RegionMeasures, which: NDArray[np.intp] | None = None) -> Columns:
        """Turn measures, or those of some regions, into columns.

        Bounding boxes are half-open as in scikit-image.
        """
        layout, channels = self.layout, tally.totals.shape[1]
        which = np.arange(len(tally)) if which is None else which
        axes, spatial = self.axes, 1.0
        for axis in layout.axes.replace("t", ""):
            spatial *= self.scale.get(axis, 1.0)
        of_class = np.empty(len(which), np.int32)
        whole = np.empty((2 + 2 * len(axes), len(which)), np.int64)
        real = np.empty((1 + len(axes) + channels, len(which)), np.float64)
        border = np.empty(len(which), np.bool_)
        _fill_rows(
            which, tally.numbers, tally.classes, tally.areas, tally.low, tally.high, tally.sums,
            tally.totals, axes, np.array(layout.shape), spatial, of_class, whole, real, border,
        )  # fmt: skip
        names = iter(self.dtype.names or ())
        ordered = [
            whole[0], of_class, whole[1], real[0], *whole[2:], *real[1:], border,
        ]  # fmt: skip
        return dict(zip(names, ordered, strict=True))


@compiled
def _fill_rows(
    which: NDArray[np.intp], numbers: Longs, classes: Longs, areas: Longs, low: Longs,
    high: Longs, sums: Longs, totals: NDArray[Any], axes: Longs, shape: Longs, size: float,
    of_class: NDArray[np.int32], whole: Longs, real: NDArray[np.float64], border: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Write number, area and bounding box to ``whole``, size, centroid and means to ``real``."""
    count = axes.size
    for k in range(which.size):
        i = which[k]
        area = np.float64(areas[i])
        of_class[k] = classes[i]
        whole[0, k], whole[1, k], real[0, k] = numbers[i], areas[i], area * size
        border[k] = False
        for a in range(count):
            axis = axes[a]
            whole[2 + a, k], whole[2 + count + a, k] = low[i, a], high[i, a] + 1
            real[1 + a, k] = np.float64(sums[i, a]) / area
            last = shape[axis] - 1
            # Frames have no border: a region cannot go on in another.
            if axis > 0 and last > 0 and (low[i, a] == 0 or high[i, a] == last):
                border[k] = True
        for channel in range(totals.shape[1]):
            real[1 + count + channel, k] = np.float64(totals[i, channel]) / area


@dataclass(frozen=True)
class RegionMeasurer:
    """Makes the rows of the region table.

    Attributes
    ----------
    regions : Regions
    image : Image or None
        Whose samples are averaged; None for class maps without an image.
    scale : dict of str to float
        Physical size of a pixel along each axis, 1 where unknown.
    """

    regions: Regions
    image: Image | None
    scale: dict[str, float]

    @property
    def row_builder(self) -> RegionRowBuilder:
        """What turns measures into rows."""
        channels = self.image.color_channels if self.image is not None else 0
        return RegionRowBuilder(self.regions.layout, channels, self.scale)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Columns of the table."""
        return self.row_builder.dtype

    def collect(
        self,
        put: Put,
        monitor: RunMonitor,
        write: LabelWriter | None = None,
        label_dtype: Any = np.uint32,
    ) -> Columns:
        """Measure every tile; hand over the regions inside of tiles, return rows of the others.

        Parameters
        ----------
        put : callable
            Takes regions of one tile, ascending by number; may be called from several threads.
        monitor : RunMonitor
        write : callable, optional
            Also takes the regions of every tile as labels.
        label_dtype : dtype
            Of these labels.

        Returns
        -------
        dict of str to ndarray
            The rows of regions that cross a seam, ascending by number.
        """
        source, components = self.regions.tile_source(), self.regions.numbering(monitor).components
        gathering = _Gathering(put)
        if runs_here():
            step = self._step(range(len(components)), write, label_dtype)
            run_tiles(source, _GatherHere(step, gathering), STAGE, monitor)
            return self.row_builder.of(gathering.merged())
        done = 0
        for batch in _batches(components):
            step, part = self._step(batch, write, label_dtype), monitor.part(done, len(components))
            measured = run_tiles(source.part(batch), step, STAGE, part)
            for inner, crossing in measured:
                gathering.put(inner, np.arange(len(inner)))
                gathering.add(crossing)
            done += len(batch)
        return self.row_builder.of(gathering.merged())

    def label(self, write: LabelWriter, label_dtype: Any, monitor: RunMonitor) -> None:
        """Hand over the regions of every tile as labels, for who has collected their measures."""
        relabels = self._relabels(range(len(self.regions.layout.tiling)))
        step = _LabelTile(self.regions.layout, relabels, write, label_dtype)
        run_tiles(self.regions.tile_source(), step, LABELS, monitor)

    def _step(
        self, tiles: Sequence[int], write: LabelWriter | None, label_dtype: Any
    ) -> _MeasureTile:
        relabels = self._relabels(tiles)
        return _MeasureTile(self.row_builder, relabels, self.image, write, label_dtype)

    def _relabels(self, tiles: Sequence[int]) -> dict[int, Relabel]:
        return {number: self.regions.relabel(number) for number in tiles}


def put_rows(table: Table, columns: Columns, first: int = 1) -> None:
    """Lay rows where their numbers say, the region ``first`` being row 0."""
    at = columns["number"] - first
    for name, values in columns.items():
        table[name][at] = values


class _Gathering:
    """Hands regions on and keeps the parts of those that cross seams, joined from time to time."""

    def __init__(self, put: Put) -> None:
        self.put, self._lock = put, threading.Lock()
        self._seams: list[RegionMeasures] = []

    def add(self, crossing: RegionMeasures) -> None:
        with self._lock:
            self._seams.append(crossing)
            if len(self._seams) > _JOINED_AT_ONCE:
                self._seams = [RegionMeasures.merge(self._seams)]

    def merged(self) -> RegionMeasures:
        return RegionMeasures.merge(self._seams)


@dataclass(frozen=True)
class _GatherHere:
    """Measures a tile and hands it on at once, so that the rows of few tiles are in memory."""

    measure: _MeasureTile
    gathering: _Gathering

    def __call__(self, block: Block, number: int) -> None:
        tally, inner, crossing = self.measure.measured(block, number)
        self.gathering.add(crossing)
        for start in range(0, len(inner), _ROWS_AT_ONCE):
            self.gathering.put(tally, inner[start : start + _ROWS_AT_ONCE])


def _batches(components: Sequence[int]) -> Iterator[list[int]]:
    """Group tiles so that the rows of a group fit in memory."""
    batch: list[int] = []
    total = 0
    for number, count in enumerate(components):
        if batch and (total + count > _BATCH_COMPONENTS or len(batch) == _BATCH_TILES):
            yield batch
            batch, total = [], 0
        batch.append(number)
        total += count
    yield batch


@dataclass(frozen=True)
class _MeasureTile:
    """Measures a tile: its own regions, and the parts of those that cross a seam."""

    maker: RegionRowBuilder
    relabels: dict[int, Relabel]
    image: Image | None
    write: LabelWriter | None
    label_dtype: Any

    def __call__(self, block: Block, number: int) -> tuple[RegionMeasures, RegionMeasures]:
        tally, inner, crossing = self.measured(block, number)
        return tally.take(inner), crossing

    def measured(
        self, block: Block, number: int
    ) -> tuple[RegionMeasures, NDArray[np.intp], RegionMeasures]:
        """Return the measures, which of them are whole regions, and the parts of the others."""
        relabel, region = self.relabels[number], self.maker.layout.tiling.slices(number)
        tile, numbers = relabel.components(block)
        if self.write is not None:
            labels = _labels(tile.components, numbers, self.label_dtype, self.maker.layout)
            self.write(labels, number)
        origin = to_tzyx([part.start for part in region], relabel.axes, 0)
        totals = self._totals(tile.components, block, region)
        tally = RegionMeasures.of_tile(tile, numbers, totals, origin, self.maker.axes)
        inner = numbers > 0
        inner[tile.seam] = False
        crossing = tile.seam[numbers[tile.seam] > 0]
        # Several components of a tile may be one region, by way of others.
        return tally, np.flatnonzero(inner), RegionMeasures.merge([tally.take(crossing)])

    def _totals(self, components: Components, block: Block, region: PixelSlices) -> NDArray[Any]:
        if self.image is None:
            return np.zeros((len(components) + 1, 0), np.int64)
        if isinstance(block, KeptTile) and block.totals is not None:
            return block.totals
        if isinstance(block, ClassifiedTile):
            return sum_parts(components, block.samples, self.maker.layout.axes)
        parts = [(box_at_origin(region), read_only(self.image.read(region)))]
        return sum_parts(components, parts, self.maker.layout.axes)


@dataclass(frozen=True)
class _LabelTile:
    """Paints the regions of a tile, no more."""

    layout: Layout
    relabels: dict[int, Relabel]
    write: LabelWriter
    label_dtype: Any

    def __call__(self, block: Block, number: int) -> None:
        tile, numbers = self.relabels[number].components(block)
        self.write(_labels(tile.components, numbers, self.label_dtype, self.layout), number)


def _labels(components: Components, numbers: Longs, dtype: Any, layout: Layout) -> PartOf:
    """Return what paints any part of a tile: the labels of all of it are its largest array."""
    values = numbers.astype(dtype)

    def part_of(part: PixelSlices) -> NDArray[Any]:
        painted = components.paint(values, layout.over_four(part))
        return painted.reshape([p.stop - p.start for p in part])

    return part_of
