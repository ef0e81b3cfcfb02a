"""The OME-Zarr store: classes, regions and the recolored picture, level 0 and pyramids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.classification.tile import tile_from_classes
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.export import downsample
from napari_pixseg.export.class_count_check import refuse_other_counts
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.export.painter import Painter
from napari_pixseg.export.store_arrays import StoreArrays
from napari_pixseg.export.tile_writer import TileWriter, add_counts
from napari_pixseg.parameters import Parameters


@dataclass(frozen=True)
class StoreWriter:
    """Writes everything in an OME-Zarr except its manifest.

    Attributes
    ----------
    color_count : ColorCount
    parameters : Parameters
    classes : Classes
    location : OutputLocation
    monitor : RunMonitor
    resumes : bool
        Whether an identical run may have written a part of the store already.
    reached : callable
        Called with the name of each stage that is reached.
    """

    color_count: ColorCount
    parameters: Parameters
    classes: Classes
    location: OutputLocation
    monitor: RunMonitor
    resumes: bool
    reached: Callable[[str], None]

    def write(self, outputs: Sequence[str]) -> dict[str, Any]:
        """Write the outputs; return the details about them for the manifest."""
        arrays = StoreArrays(
            self.location, self.color_count, self.classes, self.resumes, self.monitor
        )
        painter = Painter.for_image(self.color_count.image, self.classes)
        picture = arrays.create_picture(painter) if "recolored" in outputs else None
        labels = arrays.create_labels(outputs, picture is not None)
        done_labels = arrays.find_done(labels, 0)
        done_picture = arrays.find_done(picture, 0)
        writer = TileWriter(labels, picture, painter, done_labels, done_picture)

        def build_pyramids() -> None:
            self.reached("pyramids")
            if picture is not None:
                arrays.build(picture, downsample.area_mean, "picture", self.monitor)
            if labels is not None:
                arrays.build(labels, downsample.nearest, "classes", self.monitor)

        lookup = self.classes.lookup(self.color_count.table())
        self.reached("classes")
        if "regions" in outputs:
            # Loads pyarrow and the compiled kernels of regions, which other outputs do not need.
            from napari_pixseg.export.region_export import RegionExport

            export = RegionExport(arrays, self.parameters, self.monitor, self.reached)
            return {"regions": export.write(writer, lookup, build_pyramids)}
        self._write_tiles(arrays, writer, lookup)
        build_pyramids()
        return {}

    def _write_tiles(self, arrays: StoreArrays, writer: TileWriter, lookup: AnyArray) -> None:
        tiles = self.color_count.pixels().class_tiles(lookup)
        if writer.labels is not None:
            written = TileSource.from_numbers(writer.labels.read_tile, self.color_count.tiling)
            tiles = tiles.replaced_by(written.map(tile_from_classes), writer.done_labels)
        tiles = arrays.put_in_order(tiles)
        counts = run_tiles(tiles, writer.write_and_count, "classes", self.monitor, add_counts)
        refuse_other_counts(counts, self.classes)
