"""The region table: what each region measures, tile by tile, merged over seams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.image import Image, Region
from napari_pixseg.engine.memory import let_go
from napari_pixseg.engine.regions import Regions, Relabel
from napari_pixseg.engine.run import Watch, run_tiles
from napari_pixseg.engine.seams import Layout, four
from napari_pixseg.engine.tally import Tally
from napari_pixseg.parameters import AXES

STAGE = "regions"
_FOUR = AXES.replace("c", "")
# Rows of this many components, or of one tile if it has more, are in memory at a time.
_BATCH_COMPONENTS = 1 << 19
# Measured peak of this pass, rows included, in a tile where every pixel is a region.
BYTES_PER_MEASURED_COMPONENT = 430
_BATCH_TILES = 64
_PUT_AT_ONCE = 1 << 14


class LabelWriter(Protocol):
    """Takes the finished regions of a tile."""

    def __call__(self, regions: NDArray[Any], number: int) -> None:
        """Write them."""


@dataclass(frozen=True)
class Rows:
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

    def of(self, tally: Tally) -> NDArray[np.void]:
        """Turn measures into rows; bounding boxes are half-open as in scikit-image."""
        layout = self.layout
        rows = np.zeros(len(tally), self.dtype)
        rows["number"], rows["class"], rows["area"] = tally.numbers, tally.classes, tally.areas
        spatial = [axis for axis in layout.axes if axis != "t"]
        rows["physical_area"] = tally.areas * math.prod(self.scale.get(a, 1.0) for a in spatial)
        for axis in layout.axes:
            index = _FOUR.index(axis)
            rows[f"bbox_min_{axis}"] = tally.low[:, index]
            rows[f"bbox_max_{axis}"] = tally.high[:, index] + 1
            rows[f"centroid_{axis}"] = tally.sums[:, index] / tally.areas
            last = layout.shape[index] - 1
            if axis != "t" and last > 0:
                ends = (tally.low[:, index] == 0) | (tally.high[:, index] == last)
                rows["touches_border"] |= ends
        for channel in range(tally.totals.shape[1]):
            rows[f"mean_{channel}"] = tally.totals[:, channel] / tally.areas
        return rows


@dataclass(frozen=True)
class RegionTable:
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
    def row_maker(self) -> Rows:
        """What turns measures into rows."""
        channels = self.image.color_channels if self.image is not None else 0
        return Rows(self.regions.layout, channels, self.scale)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Columns of the table."""
        return self.row_maker.dtype

    def collect(
        self,
        table: NDArray[np.void],
        watch: Watch,
        write: LabelWriter | None = None,
        label_dtype: Any = np.uint32,
    ) -> None:
        """Fill a table of as many rows as there are regions; row i is region i + 1.

        Parameters
        ----------
        table : (n,) structured ndarray
            May be a memory map: rows of few tiles are in memory at a time.
        watch : Watch
        write : callable, optional
            Also takes the regions of every tile as labels.
        label_dtype : dtype
            Of these labels.
        """
        tiling, source = self.regions.layout.tiling, self.regions.feed()
        maker = self.row_maker
        seams: list[Tally] = []
        done = 0
        for batch in _batches(self.regions.numbering(watch).components):
            relabels = {number: self.regions.relabel(number) for number in batch}
            step = _MeasureTile(maker, relabels, self.image, write, label_dtype)
            part = watch.part(done, len(tiling))
            for rows, crossing in run_tiles(source.part(batch), step, STAGE, part):
                _put(table, rows)
                seams.append(crossing)
            seams = [Tally.merge(seams)]
            done += len(batch)
            let_go(table)
        for crossing in seams:
            # They lie all over the table, nearly each on a page of its own.
            for start in range(0, len(crossing), _PUT_AT_ONCE):
                part_of_seams = crossing.take(slice(start, start + _PUT_AT_ONCE))
                _put(table, maker.of(part_of_seams))
                let_go(table)


def _put(table: NDArray[np.void], rows: NDArray[np.void]) -> None:
    """Lay rows where their numbers say."""
    # As plain bytes: NumPy copies structured rows field by field.
    plain = np.dtype((np.void, table.dtype.itemsize))
    table.view(plain)[rows["number"] - 1] = rows.view(plain)


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
    """Measures a tile: rows of its own regions, and the parts of those that cross a seam."""

    maker: Rows
    relabels: dict[int, Relabel]
    image: Image | None
    write: LabelWriter | None
    label_dtype: Any

    def __call__(self, classes: NDArray[Any], number: int) -> tuple[NDArray[np.void], Tally]:
        relabel = self.relabels[number]
        tile, numbers = relabel.components(classes)
        if self.write is not None:
            labels = tile.components.paint(numbers.astype(self.label_dtype))
            self.write(labels.reshape(classes.shape), number)
        region = self.maker.layout.tiling.region(number)
        samples = self._samples(region)
        samples = samples.reshape(*tile.components.shape, samples.shape[-1])
        origin = four([part.start for part in region], relabel.axes, 0)
        tally = Tally.of_tile(tile, numbers, samples, origin)
        inner = numbers > 0
        inner[tile.seam] = False
        crossing = tile.seam[numbers[tile.seam] > 0]
        # Several components of a tile may be one region, by way of others.
        return self.maker.of(tally.take(inner)), Tally.merge([tally.take(crossing)])

    def _samples(self, region: Region) -> NDArray[Any]:
        if self.image is None:
            return np.zeros((*(part.stop - part.start for part in region), 0), np.uint8)
        return np.ascontiguousarray(self.image.read(region))
