"""The regions of a store: labels, their pyramid, and the table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.classification.input_changed_errors import input_changed
from napari_pixseg.classification.pixels import Pixels
from napari_pixseg.classification.tile import Tile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.export import downsample
from napari_pixseg.export.class_count_check import refuse_other_counts
from napari_pixseg.export.component_cache import ComponentCache
from napari_pixseg.export.measurement_spill import RowFiles, temporary_rows
from napari_pixseg.export.output_location import TABLE_NAME, OutputLocation
from napari_pixseg.export.parquet import is_whole, write_parquet
from napari_pixseg.export.pyramid import Pyramid
from napari_pixseg.export.store_arrays import StoreArrays
from napari_pixseg.export.tile_writer import TileWriter
from napari_pixseg.parameters import Parameters
from napari_pixseg.regions.region_pass import RegionPass
from napari_pixseg.regions.region_rows import Columns
from napari_pixseg.regions.region_table import RegionMeasurer
from napari_pixseg.regions.regions import Regions
from napari_pixseg.regions.rules import resolve_rules
from napari_pixseg.regions.tile_components import sum_parts
from napari_pixseg.regions.tile_layout import Layout, Longs
from napari_pixseg.sources.image import PartOf


@dataclass(frozen=True)
class SecondTiles:
    """Tiles for pass 3, which labels and measures regions.

    Attributes
    ----------
    source : TileSource
        Components if they were kept, else classes.
    are_all_kept : bool
        Whether no components must be found again, so that tiles are cheap.
    """

    source: TileSource
    are_all_kept: bool


@dataclass(frozen=True)
class RegionExport:
    """Writes all tiles of a store, and its regions.

    Attributes
    ----------
    arrays : StoreArrays
    parameters : Parameters
    monitor : RunMonitor
    reached : callable
        Called with the name of each stage that is reached.
    """

    arrays: StoreArrays
    parameters: Parameters
    monitor: RunMonitor
    reached: Callable[[str], None]

    def write(
        self, writer: TileWriter, lookup: AnyArray, build_pyramids: Callable[[], None]
    ) -> dict[str, Any]:
        """Write all tiles and the regions; return the details about regions for the manifest."""
        cache = self._component_cache()
        if cache is not None:
            # The cache of an earlier run may be incomplete; finding components again is safe.
            cache.begin()
        regions, tiles = self._find_regions(writer, lookup, cache)
        self.reached("regions")
        details = self._write_regions(regions, tiles, writer.picture is not None, build_pyramids)
        if cache is not None:
            cache.clear()
        return details

    def _component_cache(self) -> ComponentCache | None:
        """Return the cache of components; None where it would cost more than it saves."""
        location = self.arrays.location
        return ComponentCache(location) if location.is_local else None

    def _find_regions(
        self, writer: TileWriter, lookup: AnyArray, cache: ComponentCache | None
    ) -> tuple[Regions, SecondTiles]:
        """Pass 2: write all tiles, and find their components at the same time."""
        pixels = self._color_count.pixels()
        written = None
        tiles = pixels.class_tiles(lookup, keep_samples=True)
        if writer.labels is not None:
            # Only classes equal to the written ones are measured: the input may have changed since
            # another run wrote them.
            written = _written_tiles(pixels, lookup, writer.labels)
            tiles = tiles.replaced_by(written, writer.done_labels)
        tiles = self.arrays.put_in_order(tiles)
        layout = Layout(pixels.tiling, pixels.image.label_axes)
        rules = resolve_rules(self.parameters, self._classes)
        # Runs of the background are not kept, so its pixels are counted.
        visit = _WriteTile(writer, cache, layout.axes, counts_runs=not rules.background)
        regions = RegionPass(layout, rules, visit).run(tiles, self.monitor)
        assert regions.class_counts is not None
        refuse_other_counts(regions.class_counts, self._classes)
        return regions, self._tiles_again(tiles if written is None else written, cache)

    def _tiles_again(self, tiles: TileSource, cache: ComponentCache | None) -> SecondTiles:
        """Return the tiles with the components that were kept."""
        if cache is None:
            return SecondTiles(self.arrays.put_in_order(tiles), are_all_kept=False)
        tiling = self._color_count.tiling
        numbers = cache.numbers()
        are_all_kept = len(numbers) == len(tiling)
        kept = TileSource.from_numbers(cache.load, tiling)
        source = kept if are_all_kept else tiles.replaced_by(kept, numbers)
        return SecondTiles(self.arrays.put_in_order(source), are_all_kept)

    def _write_regions(
        self,
        regions: Regions,
        tiles: SecondTiles,
        has_image: bool,
        build_pyramids: Callable[[], None],
    ) -> dict[str, Any]:
        """Write labels, table and pyramid of the regions; the other pyramids beside the table."""
        # The number of regions decides the type, so the array cannot be made any earlier.
        labels = self.arrays.create_label("regions", regions.dtype, [], has_image)
        done = self.arrays.find_done(labels, 0)
        table = self.arrays.location.child(TABLE_NAME)

        def build() -> None:
            self.arrays.build(labels, downsample.nearest, "regions", self.monitor)
            build_pyramids()

        # The table is written as a whole, so it is usable only if all labels exist.
        if len(done) == len(labels.tiling) and self.arrays.resumes and is_whole(table):
            build()
        else:
            self._measure_and_label(regions, tiles, _LabelWriter(labels, done), table, build)
        return {"count": regions.count, "dtype": str(regions.dtype), "table": TABLE_NAME}

    def _measure_and_label(
        self,
        regions: Regions,
        tiles: SecondTiles,
        writer: _LabelWriter,
        table: OutputLocation,
        build: Callable[[], None],
    ) -> None:
        """Pass 3, with the table and the pyramids."""
        image = self._color_count.image
        measurer = RegionMeasurer(regions, image, image.source.scale)
        # Cheap tiles are labeled while the table is written.
        later = tiles.are_all_kept and runs_here()
        with temporary_rows(measurer.row_builder, self.arrays.location) as rows:
            crossing = measurer.measure(
                tiles.source, rows.put, self.monitor, None if later else writer
            )
            # Arrow compresses on one thread and releases the interpreter lock.
            with ThreadPoolExecutor(1) as beside:
                writing = beside.submit(self._write_table, table, rows, crossing, regions.count)
                if later:
                    measurer.label(tiles.source, writer, self.monitor)
                build()
                # Comes last, to raise any error from writing the table.
                writing.result()

    def _write_table(
        self, location: OutputLocation, rows: RowFiles, crossing: Columns, count: int
    ) -> None:
        with location.new_file() as partial:
            write_parquet(partial, rows, crossing, count, self.monitor.check)

    @property
    def _color_count(self) -> ColorCount:
        return self.arrays.color_count

    @property
    def _classes(self) -> Classes:
        return self.arrays.classes


@dataclass(frozen=True)
class _WriteTile:
    """Writes a tile in pass 2, keeps its components, and counts its classes."""

    writer: TileWriter
    cache: ComponentCache | None
    axes: str
    counts_runs: bool

    def __call__(self, tile: Tile, number: int) -> Longs:
        assert tile.components is not None
        self.writer(tile, number)
        if self.cache is not None:
            sums = None
            if tile.samples is not None:
                sums = sum_parts(tile.components, tile.samples, self.axes)
            self.cache.save(replace(tile, component_sums=sums), number)
        if self.counts_runs:
            return tile.components.class_sizes(len(self.writer.painter.palette))
        return self.writer.count_classes(tile)


@dataclass(frozen=True)
class _LabelWriter:
    """Writes the regions of a tile, unless they exist already."""

    pyramid: Pyramid
    done: frozenset[int]

    def __call__(self, regions: PartOf, number: int) -> None:
        if number not in self.done:
            self.pyramid.write_tile(number, regions, downsample.nearest)


def _written_tiles(pixels: Pixels, lookup: AnyArray, labels: Pyramid) -> TileSource:
    """Return tiles read again from the image; their classes must equal the written ones."""
    return pixels.directly_read_class_tiles(lookup).map(_RefuseOtherClasses(labels))


@dataclass(frozen=True)
class _RefuseOtherClasses:
    """Compares a tile with the class map, which perhaps another run has written."""

    labels: Pyramid

    def __call__(self, tile: Tile, number: int) -> Tile:
        if not np.array_equal(tile.known_classes(), self.labels.read_tile(number)):
            raise input_changed()
        return tile
