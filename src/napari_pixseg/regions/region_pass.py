"""Connected regions of equal class, stitched over tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.pixels import Pixels
from napari_pixseg.classification.tile_colors import ClassifiedTile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.parameters import Background, Parameters
from napari_pixseg.regions.layout import Layout, Rules, to_tzyx
from napari_pixseg.regions.numbering import (
    RegionNumbering,
    Step,
    TileNumbers,
    final_numbers,
    number_regions,
)
from napari_pixseg.regions.tile_components import Block, Keep, KeptTile, TileComponents

_UINT32_REGIONS = (1 << 32) - 1


def lazy_dtype(tiling: Tiling) -> np.dtype[Any]:
    """Smallest type that holds a number for every pixel."""
    pixels = int(np.prod([int(n) for n in tiling.shape], dtype=object))
    return smallest_dtype(pixels)


def smallest_dtype(count: int) -> np.dtype[Any]:
    """uint32, or uint64 above 2^32 - 1 regions."""
    return np.dtype(np.uint32 if count <= _UINT32_REGIONS else np.uint64)


@dataclass
class Regions:
    """The regions of a class map.

    Attributes
    ----------
    layout : Layout
    rules : Rules
    tile_source : callable
        Makes a feed of class tiles, anew for each pass.
    on_components : callable, optional
        Takes the components of every tile when they are found; a later feed may give them back.
    """

    layout: Layout
    rules: Rules
    tile_source: Callable[[], TileSource] = field(repr=False)
    on_components: Keep | None = field(default=None, repr=False)
    _numbering: RegionNumbering | None = field(default=None, init=False, repr=False)

    def numbering(
        self, monitor: RunMonitor | None = None, on_classes: Step | None = None
    ) -> RegionNumbering:
        """Return every region's number; the seams are found on first use.

        ``also`` is then called with every tile and its number, to spare a pass.
        """
        if self._numbering is None:
            self._numbering = number_regions(
                self.tile_source(),
                self.layout,
                self.rules,
                monitor or RunMonitor(),
                on_classes,
                self.on_components,
            )
        return self._numbering

    @property
    def count(self) -> int:
        """Number of regions."""
        return self.numbering().count

    def relabel(self, number: int) -> Relabel:
        """Return what turns the classes of one tile into regions; it can be sent anywhere."""
        sides = tuple(self.layout.seam_sides(number))
        return Relabel(self.layout.axes, sides, self.rules, self.numbering().tiles[number])

    def lazy(self, classes: da.Array) -> da.Array:
        """Return the regions of a class map whose chunks are the tiles, in its axes' order."""
        tiling, dtype = self.layout.tiling, lazy_dtype(self.layout.tiling)
        name = f"regions-{tokenize(classes.name, self.rules)}"
        tasks = {}
        for number in range(len(tiling)):
            position = tiling.position(number)
            block = (classes.name, *position)
            tasks[(name, *position)] = (_regions_of, block, self.relabel(number), dtype)
        graph = HighLevelGraph.from_collections(name, tasks, dependencies=[classes])
        return da.Array(graph, name, classes.chunks, dtype=dtype)


@dataclass(frozen=True)
class Relabel:
    """Finds a tile's components again and gives them their final numbers."""

    axes: str
    sides: tuple[tuple[int, int], ...]
    rules: Rules
    numbers: TileNumbers

    def components(self, block: Block) -> tuple[TileComponents, NDArray[np.int64]]:
        """Return the components of a tile, from its classes or as kept, and their regions."""
        if isinstance(block, KeptTile):
            tile = TileComponents.made_of(block.components, self.sides, self.rules)
        else:
            classes = block.classes if isinstance(block, ClassifiedTile) else block
            classes = classes.reshape(to_tzyx(classes.shape, self.axes, 1))
            tile = TileComponents.of(classes, self.sides, self.rules)
        return tile, final_numbers(tile, self.numbers)

    def regions(self, classes: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a tile's regions, in the shape of its classes."""
        tile, numbers = self.components(classes)
        return tile.components.paint(numbers.astype(dtype)).reshape(classes.shape)


def _regions_of(classes: NDArray[Any], relabel: Relabel, dtype: np.dtype[Any]) -> NDArray[Any]:
    return relabel.regions(classes, dtype)


def regions_of(
    pixels: Pixels, classes: Classes, lookup: NDArray[Any], parameters: Parameters
) -> Regions:
    """Return the regions of a segmentation's class map.

    Parameters
    ----------
    pixels : Pixels
    classes : Classes
        Asked for the largest class, if that is the background.
    lookup : (2^24 + 1,) ndarray
        Class by packed color.
    parameters : Parameters
        Of these ``connectivity``, ``background`` and ``min_size`` matter here.
    """
    background = background_classes(
        parameters.background, lambda: int(np.argmax(classes.table["count"])) + 1
    )
    rules = Rules(parameters.connectivity, background, parameters.min_size)
    layout = Layout(pixels.tiling, pixels.image.label_axes)
    return Regions(layout, rules, lambda: pixels.class_tiles(lookup))


def background_classes(background: Background, largest: Callable[[], int]) -> tuple[int, ...]:
    """Resolve what was asked for to class numbers; ``largest`` is asked only if need be."""
    if background is None:
        return ()
    return (largest(),) if background == "largest" else tuple(background)
