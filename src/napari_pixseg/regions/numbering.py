"""Stitching: which components of which tiles are one region, and every region's number.

Each tile is summed up in what crosses its sides: compact numbers of the
components that touch a seam, laid out on the tile's faces, and how many
components begin on each of its lines. Neighbors are compared face by face;
only pairs of seam components travel to the one central step, which joins them
and numbers everything in raster order without sorting:

* components are ordered by (line of the image, column of tiles, order in the
  tile), so prefix sums over lines and columns give provisional numbers;
* a region keeps the number of its first component; all its others vanish, and
  so do regions below the minimal size, and every number drops by the vanished
  ones before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.classification.tile_colors import ClassifiedTile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import compute_graph, tile_graph
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.regions.layout import Direction, Layout, Longs, Rules, to_tzyx
from napari_pixseg.regions.seams import TileSeams, match, sum_up
from napari_pixseg.regions.tile_components import Keep, KeptTile, TileComponents, sum_parts

STAGE = "seams"


# One task sums up a tile, one matches it with its neighbors, one strips its faces.
TASKS_PER_TILE = 3


# In the central step: union-find parent, provisional number, size, class, number, line, rank.
# Besides, 32 bytes for each pair of them that touch, and 8 to 32 for each line of the image and
# column of tiles.
BYTES_PER_SEAM_COMPONENT = 80


Step: TypeAlias = Callable[[NDArray[Any], int], Any]


@dataclass(frozen=True)
class TileNumbers:
    """What a tile needs to give its components their final numbers; only its own.

    Attributes
    ----------
    starts : (lines,) ndarray of int64
        Number of regions before the first that begins in this tile on each line.
    final : (m,) ndarray of int64
        Region of each seam component, 0 if it was dropped.
    owns : (m,) ndarray of bool
        Whether the region begins with this component.
    """

    starts: Longs
    final: Longs
    owns: NDArray[np.bool_]


@dataclass(frozen=True)
class RegionNumbering:
    """Every region's number.

    Attributes
    ----------
    count : int
        Number of regions.
    tiles : list of TileNumbers
    components : list of int
        Components of each tile, without those known to be too small.
    written : list
        What the functions that came along with the pass returned for each tile, the last that
        returned anything.
    """

    count: int
    tiles: list[TileNumbers]
    components: list[int]
    written: list[Any] = field(default_factory=list)


def number_regions(
    tile_source: TileSource,
    layout: Layout,
    rules: Rules,
    monitor: RunMonitor,
    on_classes: Step | None = None,
    on_components: Keep | None = None,
) -> RegionNumbering:
    """Pass 2 of regions: find seams and number all regions; holds no pixels.

    Parameters
    ----------
    tile_source : TileSource
        Tiles of a class map, axes as in the layout; or with its samples, as ``ClassifiedTile``.
    layout : Layout
    rules : Rules
    monitor : RunMonitor
    on_classes : callable, optional
        Called with every tile and its number, for work that is better done in the same pass.
    on_components : callable, optional
        Called with the components of every tile and its number, after that.

    Returns
    -------
    RegionNumbering
    """
    graph, keys = tile_graph(tile_source, _Summing(layout, rules, on_classes, on_components), STAGE)
    # By number, whatever their order.
    keys, name = sorted(keys), keys[0][0]
    digests: list[Any] = []
    pairs: list[Any] = []
    for number, key in enumerate(keys):
        graph[f"digest-{name}", number] = (_without_faces, key)
        digests.append((f"digest-{name}", number))
        found = list(layout.neighbors(number, rules.connectivity))
        if found:
            others = [keys[neighbor] for _, neighbor in found]
            matching = _Matching(number, found, rules.connectivity)
            graph[f"match-{name}", number] = (matching, key, others)
            pairs.append((f"match-{name}", number))
    tiles, matched = compute_graph(graph, [digests, pairs], keys, STAGE, monitor)
    numbering = number_all(tiles, matched, layout, rules)
    return replace(numbering, written=[tile.written for tile in tiles])


@dataclass(frozen=True)
class _Summing:
    layout: Layout
    rules: Rules
    on_classes: Step | None
    on_components: Keep | None

    def __call__(self, block: NDArray[Any] | ClassifiedTile, number: int) -> TileSeams:
        classes, samples = (
            (block.classes, block.samples) if isinstance(block, ClassifiedTile) else (block, None)
        )
        written = self.on_classes(classes, number) if self.on_classes is not None else None
        classes = classes.reshape(to_tzyx(classes.shape, self.layout.axes, 1))
        sides = self.layout.seam_sides(number)
        tile = TileComponents.of(classes, sides, self.rules)
        if self.on_components is not None:
            axes = self.layout.axes
            totals = None if samples is None else sum_parts(tile.components, samples, axes)
            kept = self.on_components(KeptTile(tile.components, totals), number)
            written = written if kept is None else kept
        return replace(sum_up(classes, tile, sides), written=written)


def _without_faces(tile: TileSeams) -> TileSeams:
    return replace(tile, faces={})


@dataclass(frozen=True)
class _Matching:
    """Matches a tile with its later neighbors: rows of (tile, component, tile, component)."""

    number: int
    neighbors: list[tuple[Direction, int]]
    connectivity: int

    def __call__(self, here: TileSeams, others: list[TileSeams]) -> Longs:
        rows = [np.empty((0, 4), np.int64)]
        for (direction, number), there in zip(self.neighbors, others, strict=True):
            pairs = match(here, there, direction, self.connectivity)
            tiles = np.broadcast_to([self.number, number], pairs.shape)
            rows.append(np.stack([tiles[:, 0], pairs[:, 0], tiles[:, 1], pairs[:, 1]], axis=1))
        return np.concatenate(rows)


# The central step ------------------------------------------------------------


def number_all(
    tiles: Sequence[TileSeams], matched: Sequence[Longs], layout: Layout, rules: Rules
) -> RegionNumbering:
    """Join the seam components and number all regions."""
    offsets = np.concatenate([[0], np.cumsum([len(tile.lines) for tile in tiles])])
    before = _components_before(tiles, layout)
    provisional = _provisional(tiles, before, layout)
    parents = _joined(matched, offsets, provisional)
    sizes = np.zeros(len(parents), np.int64)
    of_tiles = [np.empty(0, np.int64), *(tile.sizes for tile in tiles)]
    np.add.at(sizes, parents, np.concatenate(of_tiles))
    begins = (parents == np.arange(len(parents))) & (sizes >= rules.min_size)
    vanished = np.sort(provisional[~begins])
    final = provisional - np.searchsorted(vanished, provisional) + 1
    final = np.where(begins[parents], final[parents], 0)
    components = [int(tile.firsts.sum()) for tile in tiles]
    parts = pairwise(offsets)
    numbers = [
        TileNumbers(_starts(before, vanished, layout, number), final[a:b], begins[a:b])
        for number, (a, b) in enumerate(parts)
    ]
    return RegionNumbering(sum(components) - len(vanished), numbers, components)


def _components_before(tiles: Sequence[TileSeams], layout: Layout) -> Longs:
    """Components before each line and column of tiles, (t, z, y, columns)."""
    counts = np.zeros((*layout.shape[:3], layout.grid[3]), np.int64)
    for number, tile in enumerate(tiles):
        index = _lines(layout, number)
        counts[index] = tile.firsts.reshape(counts[index].shape)
    flat = counts.reshape(-1)
    np.cumsum(flat[:-1], out=flat[1:])
    flat[0] = 0
    return counts


def _lines(layout: Layout, number: int) -> tuple[Any, ...]:
    """Index of a tile's lines in an array over (t, z, y, columns)."""
    return (*layout.slices(number)[:3], layout.position(number)[3])


def _provisional(tiles: Sequence[TileSeams], before: Longs, layout: Layout) -> Longs:
    parts = [np.empty(0, np.int64)]
    for number, tile in enumerate(tiles):
        parts.append(before[_lines(layout, number)].reshape(-1)[tile.lines] + tile.ranks)
    return np.concatenate(parts)


def _starts(before: Longs, vanished: Longs, layout: Layout, number: int) -> Longs:
    starts: Longs = before[_lines(layout, number)].reshape(-1)
    return starts - np.searchsorted(vanished, starts).astype(np.int64)


def _joined(matched: Sequence[Longs], offsets: Longs, provisional: Longs) -> Longs:
    """Root of each seam component: the first, by provisional number, of its region."""
    parents = np.arange(len(provisional), dtype=np.int64)
    for rows in matched:
        if len(rows):
            first = offsets[rows[:, 0]] + rows[:, 1] - 1
            _union(parents, first, offsets[rows[:, 2]] + rows[:, 3] - 1, provisional)
    _flatten(parents)
    return parents


@compiled
def _find(parents: Longs, item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


@compiled
def _union(parents: Longs, first: Longs, second: Longs, order: Longs) -> None:
    for i in range(first.size):
        a, b = _find(parents, first[i]), _find(parents, second[i])
        if a != b:
            if order[a] < order[b]:
                parents[b] = a
            else:
                parents[a] = b


@compiled
def _flatten(parents: Longs) -> None:
    for item in range(parents.size):
        parents[item] = _find(parents, item)


# Every tile again ------------------------------------------------------------


@compiled
def _number(
    lines: NDArray[np.int32], kept: NDArray[np.bool_], seam: NDArray[np.intp], tile_starts: Longs,
    final: Longs, owns: NDArray[np.bool_], numbers: Longs,
) -> None:  # fmt: skip
    """Final number of each component of a tile."""
    line, rank, next_seam = -1, 0, 0
    for number in range(1, lines.size):
        if lines[number] != line:
            line, rank = lines[number], 0
        if next_seam < seam.size and seam[next_seam] == number:
            numbers[number] = final[next_seam]
            rank += owns[next_seam]
            next_seam += 1
        elif kept[number]:
            rank += 1
            numbers[number] = tile_starts[line] + rank


def final_numbers(tile: TileComponents, numbers: TileNumbers) -> Longs:
    """Return the region of each component of a tile, (n + 1,); 0 for dropped ones."""
    result = np.zeros(len(tile.components) + 1, np.int64)
    _number(
        tile.components.lines, tile.kept, tile.seam, numbers.starts, numbers.final, numbers.owns,
        result,
    )  # fmt: skip
    return result
