"""The region table: what each region measures, tile by tile, merged over seams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.image import Image
from napari_pixseg.engine.regions import Regions, Relabel
from napari_pixseg.engine.run import Watch, run_tiles
from napari_pixseg.engine.seams import TileComponents, four
from napari_pixseg.engine.tiling import Tiling
from napari_pixseg.model.compile import compiled
from napari_pixseg.parameters import AXES

STAGE = "regions"
_FOUR = AXES.replace("c", "")
# Rows of this many components, or of one tile if it has more, are in memory at a time.
_BATCH_COMPONENTS = 1 << 20
# Measured peak of this pass, rows included, in a tile where every pixel is a region.
BYTES_PER_MEASURED_COMPONENT = 430
_BATCH_TILES = 64


@compiled
def _measure(
    labels: NDArray[np.int32],
    samples: NDArray[Any],
    origin: NDArray[np.int64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    sums: NDArray[np.int64],
    totals: NDArray[Any],
) -> None:
    """Extent and coordinate sums of each component, and sums of its samples (t, z, y, x, c).

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
        """Measure the components of a tile that belong to regions."""
        labels, count = tile.components.labels, len(tile.components) + 1
        exact = samples.dtype.kind in "bui" and samples.dtype.itemsize < 8
        low = np.full((count, 4), np.iinfo(np.int64).max)
        high, sums = np.full((count, 4), -1, np.int64), np.zeros((count, 4), np.int64)
        totals = np.zeros((count, samples.shape[-1]), np.int64 if exact else np.float64)
        _measure(labels, samples, np.asarray(origin, np.int64), low, high, sums, totals)
        of_class = np.zeros(count, np.int64)
        of_class[labels.reshape(-1)] = classes.reshape(-1)
        parts = (numbers, of_class, tile.components.sizes, low, high, sums, totals)
        return cls(*parts).take(numbers > 0)

    def take(self, which: NDArray[Any]) -> Tally:
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


class LabelWriter(Protocol):
    """Takes the finished regions of a tile."""

    def __call__(self, regions: NDArray[Any], number: int) -> None:
        """Write them."""


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
    def dtype(self) -> np.dtype[np.void]:
        """Columns: number, class, area, physical_area, bounding box, centroid, means, border."""
        axes = self.regions.layout.axes
        channels = self.image.color_channels if self.image is not None else 0
        columns: list[tuple[str, Any]] = [
            ("number", np.int64),
            ("class", np.int32),
            ("area", np.int64),
            ("physical_area", np.float64),
            *((f"bbox_min_{axis}", np.int64) for axis in axes),
            *((f"bbox_max_{axis}", np.int64) for axis in axes),
            *((f"centroid_{axis}", np.float64) for axis in axes),
            *((f"mean_{channel}", np.float64) for channel in range(channels)),
            ("touches_border", np.bool_),
        ]
        return np.dtype(columns)

    def rows(self, tally: Tally) -> NDArray[np.void]:
        """Turn measures into rows; bounding boxes are half-open as in scikit-image."""
        layout = self.regions.layout
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
        seams: list[Tally] = []
        done = 0
        for batch in _batches(self.regions.numbering(watch).components):
            relabels = {number: self.regions.relabel(number) for number in batch}
            step = _MeasureTile(tiling, relabels, self.image, write, label_dtype)
            part = watch.part(done, len(tiling))
            for inner, crossing in run_tiles(source.part(batch), step, STAGE, part):
                table[inner.numbers - 1] = self.rows(inner)
                seams.append(crossing)
            seams = [Tally.merge(seams)]
            done += len(batch)
        for crossing in seams:
            table[crossing.numbers - 1] = self.rows(crossing)


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

    tiling: Tiling
    relabels: dict[int, Relabel]
    image: Image | None
    write: LabelWriter | None
    label_dtype: Any

    def __call__(self, classes: NDArray[Any], number: int) -> tuple[Tally, Tally]:
        relabel = self.relabels[number]
        tile, numbers = relabel.components(classes)
        labels = tile.components.labels
        if self.write is not None:
            regions = numbers.astype(self.label_dtype)[labels]
            self.write(regions.reshape(classes.shape), number)
        samples = self._samples(number)
        samples = samples.reshape(*labels.shape, samples.shape[-1])
        region = self.tiling.region(number)
        origin = four([part.start for part in region], relabel.axes, 0)
        tally = Tally.of_tile(tile, numbers, classes.reshape(labels.shape), samples, origin)
        crossing = np.isin(tally.numbers, relabel.numbers.final)
        return tally.take(~crossing), tally.take(crossing)

    def _samples(self, number: int) -> NDArray[Any]:
        region = self.tiling.region(number)
        if self.image is None:
            return np.zeros((*(part.stop - part.start for part in region), 0), np.uint8)
        return np.ascontiguousarray(self.image.read(region))
