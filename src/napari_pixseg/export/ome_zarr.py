"""The OME-Zarr store: classes, regions and the recolored picture, level 0 and pyramids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.classification.color_counts import ColorCount, input_changed
from napari_pixseg.classification.tile_colors import ClassifiedTile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export import downsample, ngff_metadata
from napari_pixseg.export import pyramid as ngff
from napari_pixseg.export.completed_tiles import done_tiles
from napari_pixseg.export.component_cache import KeptTiles
from napari_pixseg.export.measurement_spill import RowFiles, temporary_rows
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.export.parquet import TABLE_NAME, write_parquet
from napari_pixseg.export.recolor import Painter
from napari_pixseg.parameters import Parameters
from napari_pixseg.regions.region_pass import Regions, regions_of, smallest_dtype
from napari_pixseg.regions.region_table import Columns, RegionMeasurer
from napari_pixseg.regions.tile_components import KeptTile
from napari_pixseg.slices import PixelSlices, move_box
from napari_pixseg.sources.image import PartOf


@dataclass(frozen=True)
class StoreWriter:
    """Writes everything of an OME-Zarr but its manifest.

    Attributes
    ----------
    color_count : ColorCount
    parameters : Parameters
    classes : Classes
    location : OutputLocation
    monitor : RunMonitor
    resumes : bool
        Whether a part of it may be there already, made by a run that was the same.
    reached : callable
        Hears how far it got.
    """

    color_count: ColorCount
    parameters: Parameters
    classes: Classes
    location: OutputLocation
    monitor: RunMonitor
    resumes: bool
    reached: Callable[[str], None]

    def write(self, outputs: Sequence[str]) -> dict[str, Any]:
        """Write the outputs; return what the manifest is to say of them."""
        painter = Painter.for_image(self.color_count.image, self.classes)
        picture = self._picture(painter) if "recolored" in outputs else None
        labels = self._labels(outputs, picture is not None)
        writer = _TileWriter(
            labels, picture, painter, self._done(labels, 0), self._done(picture, 0)
        )

        def pyramids() -> None:
            self.reached("pyramids")
            if picture is not None:
                self._build(picture, downsample.area_mean, "picture")
            if labels is not None:
                self._build(labels, downsample.nearest, "classes")

        lookup = self.classes.lookup(self.color_count.table())
        self.reached("classes")
        if "regions" in outputs:
            return {"regions": self._measured(writer, lookup, pyramids)}
        tile_source = self.color_count.pixels().class_tiles(lookup)
        if labels is not None:
            tile_source = tile_source.instead(labels.read_tile, writer.done_labels)
        counts = run_tiles(self._ordered(tile_source), writer, "classes", self.monitor, sum_counts)
        refuse_other_counts(counts, self.classes)
        pyramids()
        return {}

    def _measured(
        self, writer: _TileWriter, lookup: NDArray[Any], pyramids: Callable[[], None]
    ) -> dict[str, Any]:
        """Write all tiles, finding their components in the same pass, and then the regions."""
        pixels, labels, kept = self.color_count.pixels(), writer.labels, self._kept()
        tile_source, anew = pixels.classified_tiles(lookup), None
        if labels is not None:
            # Measured is what was classified: the input may have changed since another run.
            anew = _WrittenTileSource(pixels.seen(lookup), labels)
            tile_source = tile_source.instead(anew.read, writer.done_labels)
        tile_source = self._ordered(tile_source)
        regions = regions_of(pixels, self.classes, lookup, self.parameters)
        regions.tile_source = lambda: tile_source
        if kept is not None:
            # Background has no components, whose runs would tell how many pixels it has.
            counts_runs = not regions.rules.background
            regions.on_components = _AfterTile(
                kept, len(writer.painter.palette) if counts_runs else 0
            )
            writer = replace(writer, counts=not counts_runs)
        written = regions.numbering(self.monitor, writer).written
        refuse_other_counts(sum_counts(written), self.classes)
        regions.tile_source = anew or regions.tile_source
        if kept is not None:
            there, other = kept.numbers(), regions.tile_source
            regions.tile_source = _KeptTileSource(kept, there, other, pixels.tiling, self._order)
        self.reached("regions")
        details = self._write_regions(regions, writer.picture is not None, pyramids)
        if kept is not None:
            kept.remove()
        return details

    def _ordered(self, tile_source: TileSource) -> TileSource:
        return tile_source if self._order is None else tile_source.ordered(self._order)

    @cached_property
    def _order(self) -> Sequence[int] | None:
        """In which tiles are taken, so that those of which one coarser is made come together."""
        return self.color_count.tiling.nested() if self._gathers else None

    @property
    def _gathers(self) -> bool:
        """Whether coarser levels are made here of tiles that are all written here and now.

        Not from a Dask array, of whose own tasks Dask knows the best order.
        """
        return not (self.resumes or self.color_count.image.source.is_dask) and runs_here()

    def _kept(self) -> KeptTiles | None:
        """Where components are kept; from afar they would cost more than they spare."""
        if not self.location.is_local:
            return None
        kept = KeptTiles(self.location)
        # What a run that was killed has left need not be whole.
        kept.remove()
        return kept

    def _done(self, pyramid: ngff.Pyramid | None, level: int) -> frozenset[int]:
        """Tiles of a level that an earlier run wrote, or that came along with finer ones."""
        if pyramid is None or not (self.resumes or pyramid.writes_along(level)):
            return frozenset()
        tiling = pyramid.level_tiling(level)
        return done_tiles(self.location, pyramid.levels[level], pyramid.axes, tiling)

    def _build(self, pyramid: ngff.Pyramid, reduce: downsample.Reduce, stage: str) -> None:
        pyramid.build(reduce, stage, self.monitor, lambda level: self._done(pyramid, level))

    def _picture(self, painter: Painter) -> ngff.Pyramid:
        image, axes = painter.image, painter.image.label_axes
        channels = None if painter.channels == 1 else painter.channels
        axes = axes if channels is None else ngff_metadata.with_channels(axes)
        metadata = {
            "multiscales": [self._multiscale(self.location.name, axes)],
            "omero": ngff_metadata.omero_metadata(painter.channel_names),
        }
        self._group("", metadata)
        return self._pyramid("", np.uint8, channels, image.label_axes)

    def _labels(self, outputs: Sequence[str], has_image: bool) -> ngff.Pyramid | None:
        names = [name for name in ("classes", "regions") if name in outputs]
        if not has_image:
            self._group("", {})
        if names:
            self._group("labels", {"labels": names})
        if "classes" not in names:
            return None
        colors = ngff_metadata.label_colors(self.classes.palette)
        return self._label("classes", self.classes.dtype, colors, has_image)

    def _label(
        self, name: str, dtype: Any, colors: list[dict[str, Any]], has_image: bool
    ) -> ngff.Pyramid:
        axes = self.color_count.image.label_axes
        metadata = {
            "multiscales": [self._multiscale(name, axes)],
            "image-label": ngff_metadata.image_label_metadata(colors, has_image),
        }
        self._group(f"labels/{name}", metadata)
        return self._pyramid(f"labels/{name}", dtype, None, axes)

    def _multiscale(self, name: str, axes: str) -> dict[str, Any]:
        levels = len(ngff.level_shapes(self.color_count.tiling.shape))
        return ngff_metadata.multiscale_metadata(name, axes, levels, self.color_count.image)

    def _pyramid(self, path: str, dtype: Any, channels: int | None, axes: str) -> ngff.Pyramid:
        store, tiling = self.location.open_store(), self.color_count.tiling
        made = ngff.Pyramid.create(store, path, axes, tiling, dtype, channels, self.resumes)
        if self._gathers:
            return replace(made, gathering=downsample.Gathering())
        if not (self.resumes and made.writes_along(1)):
            return made
        along = done_tiles(self.location, made.levels[1], made.axes, made.half_tiling)
        return replace(made, made_along=along)

    def _group(self, path: str, metadata: dict[str, Any]) -> None:
        ngff.create_group(self.location.open_store(), path, metadata, self.resumes)

    def _write_regions(
        self, regions: Regions, has_image: bool, pyramids: Callable[[], None]
    ) -> dict[str, Any]:
        """Write labels, table and pyramid of the regions; the other pyramids beside the table."""
        image, dtype = self.color_count.image, smallest_dtype(regions.count)
        labels = self._label("regions", dtype, [], has_image)
        maker = RegionMeasurer(regions, image, image.source.scale)
        done, table_place = self._done(labels, 0), self.location.child(TABLE_NAME)
        # The table is written whole, and is no use without all labels.
        if len(done) == len(labels.tiling) and self.resumes and table_place.is_file():
            self._build(labels, downsample.nearest, "regions")
            pyramids()
        else:
            writer = _LabelWriter(labels, done)
            later = (
                runs_here()
                and isinstance(regions.tile_source, _KeptTileSource)
                and regions.tile_source.has_all
            )
            with temporary_rows(maker.row_builder, self.location) as rows:
                more = maker.collect(rows.put, self.monitor, None if later else writer, dtype)
                # Arrow compresses beside Python, and by one thread.
                with ThreadPoolExecutor(1) as beside:
                    writing = beside.submit(
                        self._write_table, table_place, rows, more, regions.count
                    )
                    if later:
                        maker.label(writer, dtype, self.monitor)
                    self._build(labels, downsample.nearest, "regions")
                    pyramids()
                    writing.result()
        return {"count": regions.count, "dtype": str(dtype), "table": TABLE_NAME}

    def _write_table(
        self, location: OutputLocation, rows: RowFiles, more: Columns, count: int
    ) -> None:
        with location.new_file() as partial:
            write_parquet(partial, rows, more, count, self.monitor.check)


@dataclass(frozen=True)
class _TileWriter:
    """Writes one tile of every output; the tile's chunks belong to no other tile.

    Tiles that are there already are left alone.
    """

    labels: ngff.Pyramid | None
    picture: ngff.Pyramid | None
    painter: Painter
    done_labels: frozenset[int]
    done_picture: frozenset[int]
    counts: bool = True

    def __call__(self, classes: NDArray[Any], number: int) -> NDArray[np.int64] | None:
        """Write the tile; return how many pixels of each class it has, if that is wanted."""
        if self.labels is not None and number not in self.done_labels:
            self.labels.write_tile(number, classes.__getitem__, downsample.nearest)
        if self.picture is not None and number not in self.done_picture:
            region = self.picture.tiling.slices(number)

            def painted(inner: PixelSlices) -> NDArray[np.uint8]:
                block = self.painter.paint_tile(classes[inner], move_box(inner, region))
                return block if self.painter.channels > 1 else block[0]

            self.picture.write_tile(number, painted, downsample.area_mean)
        if not self.counts:
            return None
        counts = np.zeros(len(self.painter.palette), np.int64)
        kernels.count_numbers(np.require(classes, requirements=["C", "W"]).reshape(-1), counts)
        return counts


@dataclass(frozen=True)
class _AfterTile:
    """Keeps the components of a tile and, with them, counts its classes, unless there are 0."""

    kept: KeptTiles
    classes: int

    def __call__(self, tile: KeptTile, number: int) -> NDArray[np.int64] | None:
        self.kept.keep(tile, number)
        return tile.components.class_sizes(self.classes) if self.classes else None


def sum_counts(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add the counts of tiles."""
    total: NDArray[np.int64] = np.sum(parts, axis=0)
    return total


def refuse_other_counts(counts: NDArray[np.int64], classes: Classes) -> None:
    """Raise if what was written is not what was decided on, before it is committed."""
    if not np.array_equal(counts[1:], classes.table["count"]):
        raise input_changed()


@dataclass(frozen=True)
class _LabelWriter:
    pyramid: ngff.Pyramid
    done: frozenset[int]

    def __call__(self, regions: PartOf, number: int) -> None:
        if number not in self.done:
            self.pyramid.write_tile(number, regions, downsample.nearest)


@dataclass(frozen=True)
class _WrittenTileSource:
    """Feeds tiles of the image anew whose classes were written, perhaps by another run."""

    seen: Callable[[int], ClassifiedTile | NDArray[Any]]
    labels: ngff.Pyramid

    def __call__(self) -> TileSource:
        return TileSource.of_reader(self.read, self.labels.tiling)

    def read(self, number: int) -> ClassifiedTile | NDArray[Any]:
        """Read and look up a tile.

        Raises
        ------
        InputChanged
            If that does not give the classes that were written.
        """
        seen = self.seen(number)
        classes = seen.classes if isinstance(seen, ClassifiedTile) else seen
        if not np.array_equal(classes, self.labels.read_tile(number)):
            raise input_changed()
        return seen


@dataclass(frozen=True)
class _KeptTileSource:
    """Feeds the components of tiles where they were kept, and elsewhere what another feed gives."""

    kept: KeptTiles
    there: frozenset[int]
    other: Callable[[], TileSource]
    tiling: Tiling
    order: Sequence[int] | None

    def __call__(self) -> TileSource:
        if self.has_all:
            tile_source = TileSource.of_reader(self.kept.kept, self.tiling)
        else:
            tile_source = self.other().instead(self.kept.kept, self.there)
        return tile_source if self.order is None else tile_source.ordered(self.order)

    @property
    def has_all(self) -> bool:
        """Whether nothing has to be found again."""
        return len(self.there) == len(self.tiling)
