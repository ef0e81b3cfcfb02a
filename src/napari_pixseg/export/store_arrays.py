"""Creates the groups and arrays of an OME-Zarr store, or opens them for a resumed run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export import ngff_metadata
from napari_pixseg.export import pyramid as ngff
from napari_pixseg.export.completed_tiles import find_done_tiles
from napari_pixseg.export.downsample import Gathering, Reduce
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.export.painter import Painter


@dataclass(frozen=True)
class StoreArrays:
    """Creates the groups and arrays of a store.

    Attributes
    ----------
    location : OutputLocation
    color_count : ColorCount
    classes : Classes
    resumes : bool
        Whether an identical run may have written a part of the store already.
    monitor : RunMonitor
        Reports progress while chunks of an earlier run are checked.
    """

    location: OutputLocation
    color_count: ColorCount
    classes: Classes
    resumes: bool
    monitor: RunMonitor

    def create_picture(self, painter: Painter) -> ngff.Pyramid:
        """Create the root's picture."""
        axes = painter.image.label_axes
        channels = None if painter.channels == 1 else painter.channels
        with_channels = axes if channels is None else ngff_metadata.with_channels(axes)
        metadata = {
            "multiscales": [self._describe_levels(self.location.title, with_channels)],
            "omero": ngff_metadata.omero_metadata(painter.channel_names),
        }
        self._create_group("", metadata)
        return self._create_pyramid("", np.uint8, channels, axes)

    def create_labels(self, outputs: Sequence[str], has_image: bool) -> ngff.Pyramid | None:
        """Create the group of label images, and the class map if it is asked for."""
        names = [name for name in ("classes", "regions") if name in outputs]
        if not has_image:
            self._create_group("", {})
        if names:
            self._create_group("labels", {"labels": names})
        if "classes" not in names:
            return None
        colors = ngff_metadata.label_colors(self.classes.palette)
        return self.create_label("classes", self.classes.dtype, colors, has_image)

    def create_label(
        self, name: str, dtype: DTypeLike, colors: list[dict[str, Any]], has_image: bool
    ) -> ngff.Pyramid:
        """Create one label image."""
        axes = self.color_count.image.label_axes
        metadata = {
            "multiscales": [self._describe_levels(name, axes)],
            "image-label": ngff_metadata.image_label_metadata(colors, has_image),
        }
        self._create_group(f"labels/{name}", metadata)
        return self._create_pyramid(f"labels/{name}", dtype, None, axes)

    def find_done(self, pyramid: ngff.Pyramid | None, level: int) -> frozenset[int]:
        """List the tiles of a level that exist, from an earlier run or from the finer level."""
        if pyramid is None or not (self.resumes or pyramid.writes_along(level)):
            return frozenset()
        return self._list_whole_tiles(pyramid, level, pyramid.level_tiling(level))

    def build(self, pyramid: ngff.Pyramid, reduce: Reduce, stage: str, monitor: RunMonitor) -> None:
        """Make the missing coarser levels of a pyramid."""
        pyramid.build(reduce, stage, monitor, lambda level: self.find_done(pyramid, level))

    def put_in_order(self, tiles: TileSource) -> TileSource:
        """Order tiles so that those of one coarser tile come together, if that helps."""
        return tiles if self._order is None else tiles.in_order(self._order)

    @cached_property
    def _order(self) -> Sequence[int] | None:
        return self.color_count.tiling.nested_order() if self._gathers else None

    @property
    def _gathers(self) -> bool:
        """Whether coarser levels are made while this process writes all tiles.

        For a Dask array, Dask itself knows the best order of tasks.
        """
        return not (self.resumes or self.color_count.image.source.is_dask) and runs_here()

    def _describe_levels(self, name: str, axes: str) -> dict[str, Any]:
        levels = len(ngff.level_shapes(self.color_count.tiling.shape))
        return ngff_metadata.multiscale_metadata(name, axes, levels, self.color_count.image)

    def _create_pyramid(
        self, path: str, dtype: DTypeLike, channels: int | None, axes: str
    ) -> ngff.Pyramid:
        store = self.location.open_store()
        tiling = self.color_count.tiling
        made = ngff.Pyramid.create(store, path, axes, tiling, dtype, channels, self.resumes)
        if self._gathers:
            return replace(made, gathering=Gathering())
        if not (self.resumes and made.writes_along(1)):
            return made
        return replace(made, made_along=self._list_whole_tiles(made, 1, made.half_tiling))

    def _list_whole_tiles(
        self, pyramid: ngff.Pyramid, level: int, tiling: Tiling
    ) -> frozenset[int]:
        """List the tiles whose chunks exist and, where a crash may have cut them off, are whole.

        A file system may lose the end of a file, or all of it, when the machine loses power. The
        checksum in each chunk reveals that. Object stores store an object whole or not at all.
        """
        done = find_done_tiles(self.location, pyramid.levels[level], pyramid.axes, tiling)
        if not (done and self.resumes and self.location.is_local):
            return done
        numbers = sorted(done)
        tiles = TileSource.from_numbers(_IsReadable(pyramid, level, tiling), tiling).only(numbers)
        readable = run_tiles(tiles, _give_block, "check", self.monitor)
        return frozenset(itertools.compress(numbers, readable))

    def _create_group(self, path: str, metadata: dict[str, Any]) -> None:
        ngff.create_group(self.location.open_store(), path, metadata, self.resumes)


@dataclass(frozen=True)
class _IsReadable:
    """Whether all chunks of a tile can be decoded."""

    pyramid: ngff.Pyramid
    level: int
    tiling: Tiling

    def __call__(self, number: int) -> bool:
        try:
            self.pyramid.read(self.level, self.tiling.slices(number))
        except (RuntimeError, ValueError, OSError):
            return False
        return True


def _give_block(block: bool, _number: int) -> bool:
    return block
