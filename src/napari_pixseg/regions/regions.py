"""The regions of a class map, as pass 2 found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.tile import Tile
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.regions.numbering import RegionNumbering, TileNumbers, final_numbers
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import Layout, Longs, to_tzyx

_LARGEST_UINT32 = (1 << 32) - 1


@dataclass(frozen=True)
class Regions:
    """The numbered regions of a class map, from which pass 3 makes labels and measures.

    Attributes
    ----------
    layout : Layout
    rules : Rules
    numbering : RegionNumbering
    class_counts : (c,) ndarray of int64, optional
        Pixels of each class, if the pass counted them.
    """

    layout: Layout
    rules: Rules
    numbering: RegionNumbering
    class_counts: Longs | None = None

    @property
    def count(self) -> int:
        """Number of regions."""
        return self.numbering.count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest type of labels that holds all numbers."""
        return smallest_dtype(self.count)

    def relabel(self, number: int) -> Relabel:
        """Return an object, which can be pickled, that turns a tile's classes into regions."""
        sides = tuple(self.layout.seam_sides(number))
        return Relabel(self.layout.axes, sides, self.rules, self.numbering.tiles[number])

    def lazy_labels(self, classes: da.Array) -> da.Array:
        """Return the regions of a class map whose chunks are the tiles, in its axes' order."""
        tiling = self.layout.tiling
        dtype = lazy_dtype(tiling)
        name = f"regions-{tokenize(classes.name, self.rules)}"
        tasks = {}
        for number in range(len(tiling)):
            position = tiling.position(number)
            block = (classes.name, *position)
            tasks[(name, *position)] = (_label_block, block, self.relabel(number), dtype)
        graph = HighLevelGraph.from_collections(name, tasks, dependencies=[classes])
        return da.Array(graph, name, classes.chunks, dtype=dtype)


@dataclass(frozen=True)
class Relabel:
    """Finds a tile's components again and gives them their final numbers."""

    axes: str
    sides: tuple[tuple[int, int], ...]
    rules: Rules
    numbers: TileNumbers

    def find_numbers(self, tile: Tile) -> tuple[TileComponents, Longs]:
        """Return the components of a tile and the region of each; known components are reused."""
        if tile.components is not None:
            found = TileComponents.from_components(tile.components, self.sides, self.rules)
        else:
            classes = tile.known_classes()
            classes = classes.reshape(to_tzyx(classes.shape, self.axes, 1))
            found = TileComponents.find(classes, self.sides, self.rules)
        return found, final_numbers(found, self.numbers)

    def label_classes(self, classes: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
        """Return a tile's regions, in the shape of its classes."""
        tile, numbers = self.find_numbers(Tile.from_classes(classes))
        return tile.components.paint(numbers.astype(dtype)).reshape(classes.shape)


def _label_block(classes: AnyArray, relabel: Relabel, dtype: np.dtype[Any]) -> AnyArray:
    return relabel.label_classes(classes, dtype)


def lazy_dtype(tiling: Tiling) -> np.dtype[Any]:
    """Return the smallest type that holds a number for every pixel."""
    # Computed with Python's integers, because the product of large images overflows 64 bits.
    pixels = int(np.prod([int(n) for n in tiling.shape], dtype=object))
    return smallest_dtype(pixels)


def smallest_dtype(count: int) -> np.dtype[Any]:
    """Return uint32, or uint64 above 2^32 - 1 regions."""
    return np.dtype(np.uint32 if count <= _LARGEST_UINT32 else np.uint64)
