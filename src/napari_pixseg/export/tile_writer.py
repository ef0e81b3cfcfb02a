"""Writes one tile of the class map and the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.classification.tile import Tile
from napari_pixseg.export import downsample
from napari_pixseg.export.class_count_check import count_classes
from napari_pixseg.export.painter import Painter
from napari_pixseg.export.pyramid import Pyramid
from napari_pixseg.regions.tile_layout import Longs
from napari_pixseg.slices import PixelSlices, move_box


@dataclass(frozen=True)
class TileWriter:
    """Writes one tile of every output. The tile's chunks belong to no other tile.

    Tiles that exist already are left alone.

    Attributes
    ----------
    labels : Pyramid, optional
        The class map.
    picture : Pyramid, optional
    painter : Painter
    done_labels, done_picture : frozenset of int
        The tiles that exist already.
    """

    labels: Pyramid | None
    picture: Pyramid | None
    painter: Painter
    done_labels: frozenset[int]
    done_picture: frozenset[int]

    def __call__(self, tile: Tile, number: int) -> None:
        """Write a tile."""
        classes = tile.known_classes()
        if self.labels is not None and number not in self.done_labels:
            self.labels.write_tile(number, classes.__getitem__, downsample.nearest)
        if self.picture is not None and number not in self.done_picture:
            slices = self.picture.tiling.slices(number)

            def paint_part(inner: PixelSlices) -> NDArray[np.uint8]:
                block = self.painter.paint_tile(classes[inner], move_box(inner, slices))
                return block if self.painter.channels > 1 else block[0]

            self.picture.write_tile(number, paint_part, downsample.area_mean)

    def write_and_count(self, tile: Tile, number: int) -> Longs:
        """Write a tile; return how many pixels of each class it has."""
        self(tile, number)
        return self.count_classes(tile)

    def count_classes(self, tile: Tile) -> Longs:
        """Count the pixels of each class of a tile."""
        return count_classes(tile.known_classes(), len(self.painter.palette))


def add_counts(parts: list[Longs]) -> Longs:
    """Add the class counts of tiles."""
    total: Longs = np.sum(parts, axis=0)
    return total
