"""Pass 2 for regions: find the components of every tile, then number all regions.

Each tile is reduced to a summary of its seams: compact numbers of the components that touch a seam,
laid out on the tile's faces, and how many components begin on each of its lines. Neighboring tiles
are compared face by face, and :mod:`napari_pixseg.regions.numbering` joins components that touch.
The result is :class:`Regions`.

Pass 3 takes this result and tiles of the same classes, which may come from elsewhere. It labels and
measures the regions, see :mod:`napari_pixseg.regions.region_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from napari_pixseg.classification.tile import Tile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import compute_graph, tile_graph
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.regions.numbering import number_all
from napari_pixseg.regions.regions import Regions
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.seams import TileSeams, match_components, sum_up
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import Direction, Layout, Longs, to_tzyx

STAGE = "seams"

# One task sums up a tile, one compares it with its neighbors, one strips its faces.
TASKS_PER_TILE = 3


class TileVisitor(Protocol):
    """Other work on each tile, done in the same pass so that no further one is needed."""

    def __call__(self, tile: Tile, number: int) -> Longs:
        """Take a tile whose components are known; return how many pixels each class has."""


@dataclass(frozen=True)
class RegionPass:
    """Pass 2 for regions: finds components and seams, and numbers all regions. It holds no pixels.

    Attributes
    ----------
    layout : Layout
    rules : Rules
    visit : TileVisitor, optional
        Called with every tile.
    """

    layout: Layout
    rules: Rules
    visit: TileVisitor | None = None

    def run(self, tiles: TileSource, monitor: RunMonitor) -> Regions:
        """Return the regions of tiles of classes, whose axes are those of the layout."""
        graph, keys = tile_graph(tiles, _SumUpTile(self), STAGE)
        name = keys[0][0]
        # By number, in whatever order the tiles are taken.
        keys = sorted(keys)
        digests = []
        pairs = []
        for number, key in enumerate(keys):
            digest = (f"digest-{name}", number)
            # Faces are needed by the neighbors only; the central step would not have room for them.
            graph[digest] = (_strip_faces, key)
            digests.append(digest)
            neighbors = list(self.layout.neighbors(number, self.rules.connectivity))
            if neighbors:
                match = (f"match-{name}", number)
                others = [keys[neighbor] for _, neighbor in neighbors]
                graph[match] = (_MatchTile(number, neighbors, self.rules.connectivity), key, others)
                pairs.append(match)
        seams, matched = compute_graph(graph, [digests, pairs], keys, STAGE, monitor)
        numbering = number_all(seams, matched, self.layout, self.rules)
        return Regions(self.layout, self.rules, numbering, _add_class_counts(seams))


@dataclass(frozen=True)
class _SumUpTile:
    """Finds the components of a tile, lets the visitor see it, and reduces it to its seams."""

    region_pass: RegionPass

    def __call__(self, tile: Tile, number: int) -> TileSeams:
        layout = self.region_pass.layout
        classes = tile.known_classes().reshape(to_tzyx(tile.shape, layout.axes, 1))
        sides = layout.seam_sides(number)
        found = TileComponents.find(classes, sides, self.region_pass.rules)
        visit = self.region_pass.visit
        counts = None if visit is None else visit(tile.with_components(found.components), number)
        return sum_up(classes, found, sides, counts)


def _strip_faces(tile: TileSeams) -> TileSeams:
    return replace(tile, faces={})


@dataclass(frozen=True)
class _MatchTile:
    """Matches a tile with its later neighbors: rows of (tile, component, tile, component)."""

    number: int
    neighbors: list[tuple[Direction, int]]
    connectivity: int

    def __call__(self, here: TileSeams, others: list[TileSeams]) -> Longs:
        rows = [np.empty((0, 4), np.int64)]
        for (direction, number), there in zip(self.neighbors, others, strict=True):
            pairs = match_components(here, there, direction, self.connectivity)
            tiles = np.broadcast_to([self.number, number], pairs.shape)
            rows.append(np.stack([tiles[:, 0], pairs[:, 0], tiles[:, 1], pairs[:, 1]], axis=1))
        return np.concatenate(rows)


def _add_class_counts(seams: Sequence[TileSeams]) -> Longs | None:
    counts = [tile.class_counts for tile in seams if tile.class_counts is not None]
    return np.sum(counts, axis=0) if counts else None
