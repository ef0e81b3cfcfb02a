"""The central step of stitching: every region gets its number.

Neighboring tiles have been compared face by face, see :mod:`napari_pixseg.regions.seams`. Only
pairs of seam components reach this step. It joins them and numbers everything in raster order
without a sort:

* Components are ordered by line of the image, column of tiles, and order in the tile. Prefix sums
  over lines and columns therefore give provisional numbers.
* A region keeps the number of its first component. All its other components vanish, and so do
  regions below the minimal size. Every number drops by the vanished ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.seams import TileSeams
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import Layout, Longs

# Bytes that the central step holds for each seam component: union-find parent, provisional number,
# size, class, number, line and rank. It also needs 32 bytes for each pair that touches, and 8 to 32
# for each line of the image and column of tiles.
BYTES_PER_SEAM_COMPONENT = 80


@dataclass(frozen=True)
class TileNumbers:
    """Data with which a tile gives its own components their final numbers.

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
    """

    count: int
    tiles: list[TileNumbers]
    components: list[int]


def number_all(
    tiles: Sequence[TileSeams], matched: Sequence[Longs], layout: Layout, rules: Rules
) -> RegionNumbering:
    """Join the seam components and number all regions."""
    # Where each tile's seam components begin in the arrays of all seam components.
    offsets = np.concatenate([[0], np.cumsum([len(tile.lines) for tile in tiles])])
    before = _count_components_before(tiles, layout)
    provisional = _number_provisionally(tiles, before, layout)
    parents = _join_matched(matched, offsets, provisional)
    sizes = np.zeros(len(parents), np.int64)
    of_tiles = [np.empty(0, np.int64), *(tile.sizes for tile in tiles)]
    np.add.at(sizes, parents, np.concatenate(of_tiles))
    # A region is counted where it begins, and only if all its parts make it large enough.
    begins = (parents == np.arange(len(parents))) & (sizes >= rules.min_size)
    vanished = np.sort(provisional[~begins])
    final = provisional - np.searchsorted(vanished, provisional) + 1
    # Every part takes the number of the component that the region begins with.
    final = np.where(begins[parents], final[parents], 0)
    components = [int(tile.firsts.sum()) for tile in tiles]
    parts = pairwise(offsets)
    numbers = [
        TileNumbers(_number_line_starts(before, vanished, layout, number), final[a:b], begins[a:b])
        for number, (a, b) in enumerate(parts)
    ]
    return RegionNumbering(sum(components) - len(vanished), numbers, components)


def _count_components_before(tiles: Sequence[TileSeams], layout: Layout) -> Longs:
    """Count the components before each line and column of tiles, (t, z, y, columns)."""
    counts = np.zeros((*layout.shape[:3], layout.grid[3]), np.int64)
    for number, tile in enumerate(tiles):
        index = _index_lines(layout, number)
        counts[index] = tile.firsts.reshape(counts[index].shape)
    flat = counts.reshape(-1)
    np.cumsum(flat[:-1], out=flat[1:])
    flat[0] = 0
    return counts


def _index_lines(layout: Layout, number: int) -> tuple[slice | int, ...]:
    """Return the index of a tile's lines in an array over (t, z, y, columns)."""
    return (*layout.slices(number)[:3], layout.position(number)[3])


def _number_provisionally(tiles: Sequence[TileSeams], before: Longs, layout: Layout) -> Longs:
    parts = [np.empty(0, np.int64)]
    for number, tile in enumerate(tiles):
        parts.append(before[_index_lines(layout, number)].reshape(-1)[tile.lines] + tile.ranks)
    return np.concatenate(parts)


def _number_line_starts(before: Longs, vanished: Longs, layout: Layout, number: int) -> Longs:
    starts: Longs = before[_index_lines(layout, number)].reshape(-1)
    return starts - np.searchsorted(vanished, starts).astype(np.int64)


def _join_matched(matched: Sequence[Longs], offsets: Longs, provisional: Longs) -> Longs:
    """Return the root of each seam component: the first of its region by provisional number."""
    parents = np.arange(len(provisional), dtype=np.int64)
    for rows in matched:
        if len(rows):
            first = offsets[rows[:, 0]] + rows[:, 1] - 1
            _unite_pairs(parents, first, offsets[rows[:, 2]] + rows[:, 3] - 1, provisional)
    _flatten_trees(parents)
    return parents


@compiled
def _find_root(parents: Longs, item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


@compiled
def _unite_pairs(parents: Longs, first: Longs, second: Longs, order: Longs) -> None:
    for i in range(first.size):
        a = _find_root(parents, first[i])
        b = _find_root(parents, second[i])
        if a != b:
            # Unlike in a tile, array order is not raster order here.
            if order[a] < order[b]:
                parents[b] = a
            else:
                parents[a] = b


@compiled
def _flatten_trees(parents: Longs) -> None:
    for item in range(parents.size):
        parents[item] = _find_root(parents, item)


@compiled
def _number_components(
    lines: NDArray[np.int32],
    large_enough: NDArray[np.bool_],
    seam: NDArray[np.intp],
    tile_starts: Longs,
    final: Longs,
    owns: NDArray[np.bool_],
    numbers: Longs,
) -> None:
    """Write the final number of each component of a tile to ``numbers``."""
    line = -1
    rank = 0
    next_seam = 0
    for number in range(1, lines.size):
        if lines[number] != line:
            line = lines[number]
            rank = 0
        if next_seam < seam.size and seam[next_seam] == number:
            numbers[number] = final[next_seam]
            rank += owns[next_seam]
            next_seam += 1
        elif large_enough[number]:
            rank += 1
            numbers[number] = tile_starts[line] + rank


def final_numbers(tile: TileComponents, numbers: TileNumbers) -> Longs:
    """Return the region of each component of a tile, (n + 1,); 0 for dropped ones."""
    result = np.zeros(len(tile.components) + 1, np.int64)
    _number_components(
        tile.components.lines,
        tile.large_enough,
        tile.seam,
        numbers.starts,
        numbers.final,
        numbers.owns,
        result,
    )
    return result
