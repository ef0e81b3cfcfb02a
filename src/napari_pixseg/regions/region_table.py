"""Pass 3: makes the region table and the labels of regions that have been numbered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_pixseg.algorithm.components import Components
from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.tile import Tile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.regions.measurements import RegionMeasures
from napari_pixseg.regions.region_rows import Columns, RegionRowBuilder
from napari_pixseg.regions.regions import Regions, Relabel
from napari_pixseg.regions.tile_components import sum_parts
from napari_pixseg.regions.tile_layout import Layout, Longs, to_tzyx
from napari_pixseg.slices import PixelSlices, box_at_origin, shape_of
from napari_pixseg.sources.image import Image, PartOf

STAGE = "regions"
LABEL_STAGE = "labels"

# Other processes send rows in batches of this many components, or of one tile if it has more.
_BATCH_COMPONENTS = 1 << 19
_BATCH_TILES = 64

# This many parts of regions that cross seams are gathered before they are merged.
_MERGED_AT_ONCE = 32

# This many rows are made and passed on at a time within one process.
_ROWS_AT_ONCE = 1 << 16

# Called with measures, and the indices of the wanted ones, ascending by number.
PutMeasures: TypeAlias = Callable[[RegionMeasures, NDArray[np.intp]], None]


class LabelWriter(Protocol):
    """Takes the finished regions of a tile."""

    def __call__(self, regions: PartOf, number: int) -> None:
        """Write them; ``regions`` returns the regions of any part of the tile."""


@dataclass(frozen=True)
class RegionMeasurer:
    """Makes the rows of the region table, and the labels.

    Attributes
    ----------
    regions : Regions
    image : Image or None
        The image whose samples are averaged; None for class maps without an image.
    scale : dict of str to float
        Physical size of a pixel along each axis, 1 where unknown.
    """

    regions: Regions
    image: Image | None
    scale: dict[str, float]

    @property
    def row_builder(self) -> RegionRowBuilder:
        """Turns measures into rows."""
        channels = self.image.color_channels if self.image is not None else 0
        return RegionRowBuilder(self.regions.layout, channels, self.scale)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Columns of the table."""
        return self.row_builder.dtype

    def measure(
        self,
        tiles: TileSource,
        put: PutMeasures,
        monitor: RunMonitor,
        write: LabelWriter | None = None,
    ) -> Columns:
        """Measure every tile; pass regions inside tiles to ``put``, and return rows of the others.

        Parameters
        ----------
        tiles : TileSource
            Tiles of the classes that the regions were found in, or of their components.
        put : callable
            Takes regions of one tile, ascending by number; may be called from several threads.
        monitor : RunMonitor
        write : callable, optional
            Also takes the regions of every tile as labels.

        Returns
        -------
        dict of str to ndarray
            The rows of regions that cross a seam, ascending by number.
        """
        components = self.regions.numbering.components
        collector = _MeasureCollector(put)
        if runs_here():
            step = self._tile_step(range(len(components)), write)
            run_tiles(tiles, _MeasureHere(step, collector), STAGE, monitor)
            return self.row_builder.make_rows(collector.merge())
        done = 0
        for batch in _batch_tiles(components):
            step = self._tile_step(batch, write)
            part = monitor.part(done, len(components))
            for inner, crossing in run_tiles(tiles.only(batch), step, STAGE, part):
                collector.put(inner, np.arange(len(inner)))
                collector.add(crossing)
            done += len(batch)
        return self.row_builder.make_rows(collector.merge())

    def label(self, tiles: TileSource, write: LabelWriter, monitor: RunMonitor) -> None:
        """Write the regions of every tile as labels, when they have been measured already."""
        relabels = self._relabels(range(len(self.regions.layout.tiling)))
        step = _LabelTile(self.regions.layout, relabels, write, self.regions.dtype)
        run_tiles(tiles, step, LABEL_STAGE, monitor)

    def _tile_step(self, tiles: Sequence[int], write: LabelWriter | None) -> _MeasureTile:
        dtype = self.regions.dtype
        return _MeasureTile(self.row_builder, self._relabels(tiles), self.image, write, dtype)

    def _relabels(self, tiles: Sequence[int]) -> dict[int, Relabel]:
        return {number: self.regions.relabel(number) for number in tiles}


class _MeasureCollector:
    """Passes whole regions on, and now and then merges parts of regions that cross seams."""

    def __init__(self, put: PutMeasures) -> None:
        self.put = put
        self._lock = threading.Lock()
        self._seams: list[RegionMeasures] = []

    def add(self, crossing: RegionMeasures) -> None:
        with self._lock:
            self._seams.append(crossing)
            if len(self._seams) > _MERGED_AT_ONCE:
                self._seams = [RegionMeasures.merge(self._seams)]

    def merge(self) -> RegionMeasures:
        return RegionMeasures.merge(self._seams)


@dataclass(frozen=True)
class _MeasureHere:
    """Measures a tile and passes its rows on at once, so that few tiles' rows are in memory."""

    step: _MeasureTile
    collector: _MeasureCollector

    def __call__(self, tile: Tile, number: int) -> None:
        measures, inner, crossing = self.step.measure(tile, number)
        self.collector.add(crossing)
        for start in range(0, len(inner), _ROWS_AT_ONCE):
            self.collector.put(measures, inner[start : start + _ROWS_AT_ONCE])


def _batch_tiles(components: Sequence[int]) -> Iterator[list[int]]:
    """Group tiles so that the rows of a group fit in memory."""
    batch: list[int] = []
    total = 0
    for number, count in enumerate(components):
        if batch and (total + count > _BATCH_COMPONENTS or len(batch) == _BATCH_TILES):
            yield batch
            batch = []
            total = 0
        batch.append(number)
        total += count
    yield batch


@dataclass(frozen=True)
class _MeasureTile:
    """Measures a tile: its own regions, and the parts of those that cross a seam."""

    row_builder: RegionRowBuilder
    relabels: dict[int, Relabel]
    image: Image | None
    write: LabelWriter | None
    label_dtype: DTypeLike

    def __call__(self, tile: Tile, number: int) -> tuple[RegionMeasures, RegionMeasures]:
        measures, inner, crossing = self.measure(tile, number)
        return measures.take(inner), crossing

    def measure(
        self, tile: Tile, number: int
    ) -> tuple[RegionMeasures, NDArray[np.intp], RegionMeasures]:
        """Return all measures, the indices of whole regions, and the parts of other regions."""
        relabel = self.relabels[number]
        layout = self.row_builder.layout
        slices = layout.tiling.slices(number)
        found, numbers = relabel.find_numbers(tile)
        if self.write is not None:
            self.write(_paint_parts(found.components, numbers, self.label_dtype, layout), number)
        origin = to_tzyx([part.start for part in slices], relabel.axes, 0)
        totals = self._sum_samples(found.components, tile, slices)
        measures = RegionMeasures.of_tile(found, numbers, totals, origin, self.row_builder.axes)
        inner = numbers > 0
        inner[found.seam] = False
        crossing = found.seam[numbers[found.seam] > 0]
        # Several components of a tile may be one region, joined through other tiles.
        return measures, np.flatnonzero(inner), RegionMeasures.merge([measures.take(crossing)])

    def _sum_samples(self, components: Components, tile: Tile, slices: PixelSlices) -> AnyArray:
        if self.image is None:
            return np.zeros((len(components) + 1, 0), np.int64)
        if tile.component_sums is not None:
            return tile.component_sums
        # Denoised tiles, for example, do not carry their samples.
        parts = tile.samples or [(box_at_origin(slices), self.image.read(slices))]
        return sum_parts(components, parts, self.row_builder.layout.axes)


@dataclass(frozen=True)
class _LabelTile:
    """Paints the regions of a tile, and does nothing else."""

    layout: Layout
    relabels: dict[int, Relabel]
    write: LabelWriter
    label_dtype: DTypeLike

    def __call__(self, tile: Tile, number: int) -> None:
        found, numbers = self.relabels[number].find_numbers(tile)
        self.write(_paint_parts(found.components, numbers, self.label_dtype, self.layout), number)


def _paint_parts(
    components: Components, numbers: Longs, dtype: DTypeLike, layout: Layout
) -> PartOf:
    """Return a function that paints any part of a tile; all of its labels would be too large."""
    values = numbers.astype(dtype)

    def paint_part(part: PixelSlices) -> AnyArray:
        painted = components.paint(values, layout.expand_slices(part))
        return painted.reshape(shape_of(part))

    return paint_part
