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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.run import Feed, Watch, compute_graph, tile_graph
from napari_pixseg.engine.samples import Part, Seen
from napari_pixseg.engine.tiling import Tiling
from napari_pixseg.model.compile import compiled
from napari_pixseg.model.components import Components, find_components, sum_samples
from napari_pixseg.parameters import AXES

STAGE = "seams"
# One task sums up a tile, one matches it with its neighbors, one strips its faces.
TASKS_PER_TILE = 3
# In the central step: union-find parent, provisional number, size, class, number, line, rank.
# Besides, 32 bytes for each pair of them that touch, and 8 to 32 for each line of the image and
# column of tiles.
BYTES_PER_SEAM_COMPONENT = 80
_FOUR = AXES.replace("c", "")
Direction: TypeAlias = tuple[int, int, int]
Longs = NDArray[np.int64]
Step: TypeAlias = Callable[[NDArray[Any], int], Any]


def four(values: Sequence[int], axes: str, fill: int) -> tuple[int, int, int, int]:
    """Lay values of some axes out over t, z, y, x."""
    known = dict(zip(axes, values, strict=True))
    t, z, y, x = (int(known.get(axis, fill)) for axis in _FOUR)
    return t, z, y, x


@dataclass(frozen=True)
class Rules:
    """What makes a region.

    Attributes
    ----------
    connectivity : int
    background : tuple of int
        Classes that are no regions, besides 0.
    min_size : int
    """

    connectivity: int
    background: tuple[int, ...]
    min_size: int


@dataclass(frozen=True)
class Layout:
    """Tiles over four axes."""

    tiling: Tiling
    axes: str

    @cached_property
    def grid(self) -> tuple[int, int, int, int]:
        """Tiles along t, z, y, x."""
        return four(self.tiling.grid, self.axes, 1)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Pixels along t, z, y, x."""
        return four(self.tiling.shape, self.axes, 1)

    def position(self, number: int) -> tuple[int, int, int, int]:
        """Grid position of a tile."""
        return four(self.tiling.position(number), self.axes, 0)

    def region(self, number: int) -> tuple[slice, ...]:
        """Pixels of a tile over t, z, y, x."""
        return self.over_four(self.tiling.region(number))

    def over_four(self, region: tuple[slice, ...]) -> tuple[slice, ...]:
        """Lay a region of the axes that there are out over t, z, y, x."""
        known = dict(zip(self.axes, region, strict=True))
        return tuple(known.get(axis, slice(0, 1)) for axis in _FOUR)

    def number(self, position: Sequence[int]) -> int:
        """Number of the tile at a grid position."""
        (t, z, y, x), (_, depth, rows, columns) = position, self.grid
        return ((t * depth + z) * rows + y) * columns + x

    def neighbors(self, number: int, connectivity: int) -> Iterator[tuple[Direction, int]]:
        """Later tiles that touch a tile, and in which direction along z, y, x."""
        (t, z, y, x), grid = self.position(number), self.grid
        for direction in _forward_directions(connectivity):
            there = (t, z + direction[0], y + direction[1], x + direction[2])
            if all(0 <= p < n for p, n in zip(there, grid, strict=True)):
                yield direction, self.number(there)

    def seam_sides(self, number: int) -> list[tuple[int, int]]:
        """Sides (axis, 0 or 1 for first or last) at which another tile lies; not along t."""
        position = self.position(number)
        firsts = [(axis, 0) for axis in (1, 2, 3) if position[axis] > 0]
        lasts = [(axis, 1) for axis in (1, 2, 3) if position[axis] < self.grid[axis] - 1]
        return firsts + lasts


@cache
def _forward_directions(connectivity: int) -> list[Direction]:
    ends = (-1, 0, 1)
    steps = ((z, y, x) for z in ends for y in ends for x in ends if (z, y, x) > (0, 0, 0))
    return [step for step in steps if sum(map(abs, step)) <= connectivity]


@dataclass(frozen=True)
class TileComponents:
    """The components of a tile, found the same way in every pass.

    Attributes
    ----------
    components : Components
    seam : (m,) ndarray of intp
        Components that touch a seam, ascending.
    kept : (n + 1,) ndarray of bool
        False for those known to be too small without looking at other tiles.
    """

    components: Components
    seam: NDArray[np.intp]
    kept: NDArray[np.bool_]

    @classmethod
    def of(
        cls, classes: NDArray[Any], sides: Sequence[tuple[int, int]], rules: Rules
    ) -> TileComponents:
        """Find the components of (t, z, y, x) classes."""
        components = find_components(classes, rules.connectivity, rules.background)
        return cls.made_of(components, sides, rules)

    @classmethod
    def made_of(
        cls, components: Components, sides: Sequence[tuple[int, int]], rules: Rules
    ) -> TileComponents:
        """Look which of the components of a tile touch a seam."""
        touches = np.zeros(len(components) + 1, np.bool_)
        for axis, side in sides:
            touches[components.face(axis, side)] = True
        touches[0] = False
        kept = touches | (components.sizes >= rules.min_size)
        kept[0] = False
        return cls(components, np.flatnonzero(touches), kept)


@dataclass(frozen=True)
class KeptTile:
    """What the pass that finds the components of a tile knows of them, for that which writes them.

    Attributes
    ----------
    components : Components
    totals : (n + 1, c) ndarray or None
        Sums of their samples, if these came along.
    """

    components: Components
    totals: NDArray[Any] | None


# A tile as a feed gives it.
Block: TypeAlias = NDArray[Any] | Seen | KeptTile
Keep: TypeAlias = Callable[[KeptTile, int], Any]


def sum_parts(components: Components, parts: Sequence[Part], axes: str) -> NDArray[Any]:
    """Add up the samples of each component of a tile; see :func:`sum_samples`."""
    placed = []
    for there, samples in parts:
        origin = four([part.start for part in there], axes, 0)
        shape = four(samples.shape[:-1], axes, 1)
        placed.append((origin, samples.reshape(*shape, samples.shape[-1])))
    return sum_samples(components, placed)


def _face(array: NDArray[Any], axis: int, side: int) -> NDArray[Any]:
    index = [slice(None)] * array.ndim
    index[axis] = slice(-1, None) if side else slice(0, 1)
    return array[tuple(index)]


@dataclass(frozen=True)
class TileSeams:
    """What the other tiles and the central step need of a tile.

    Attributes
    ----------
    firsts : (lines,) ndarray of int32
        Kept components that begin on each line of the tile.
    lines, ranks : (m,) ndarray of int32
        Where each seam component begins: line, and place among those of the line.
    sizes, classes : (m,) ndarray of int64
    faces : dict of (axis, side) to ndarray of int32
        Seam components 1..m on each side, 0 for background.
    written
        What came along, see :func:`number_regions`.
    """

    firsts: NDArray[np.int32]
    lines: NDArray[np.int32]
    ranks: NDArray[np.int32]
    sizes: Longs
    classes: Longs
    faces: dict[tuple[int, int], NDArray[np.int32]] = field(repr=False)
    written: Any = None


@compiled
def _rank(
    lines: NDArray[np.int32], kept: NDArray[np.bool_], firsts: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> None:  # fmt: skip
    for number in range(1, lines.size):
        if kept[number]:
            ranks[number] = firsts[lines[number]]
            firsts[lines[number]] += 1


def sum_up(
    classes: NDArray[Any], tile: TileComponents, sides: Sequence[tuple[int, int]]
) -> TileSeams:
    """Reduce a tile to its seams; ``classes`` are those it was made of."""
    components, seam = tile.components, tile.seam
    firsts = np.zeros(len(components.first_runs) - 1, np.int32)
    ranks = np.zeros(len(components) + 1, np.int32)
    _rank(components.lines, tile.kept, firsts, ranks)
    compact = np.zeros(len(components) + 1, np.int32)
    compact[seam] = np.arange(1, len(seam) + 1)
    of_seam = np.zeros(len(seam) + 1, np.int64)
    faces = {}
    for axis, side in sides:
        face = compact[components.face(axis, side)]
        faces[axis, side] = face
        of_seam[face] = _face(classes, axis, side)
    return TileSeams(
        firsts, components.lines[seam], ranks[seam], components.sizes[seam], of_seam[1:], faces
    )


def match(here: TileSeams, there: TileSeams, direction: Direction, connectivity: int) -> Longs:
    """Return the pairs (k, 2) of seam components of two tiles that touch, each once.

    Every step from ``here`` to ``there`` moves along the axes of the direction;
    along the others it may move too, as far as the connectivity goes.
    """
    face, other = _edge(here, direction, 1), _edge(there, direction, -1)
    spare = connectivity - sum(map(abs, direction))
    free = [(0,) if d else (-1, 0, 1) for d in direction]
    pairs = [
        _touching(face, other, shift, here.classes, there.classes)
        for shift in product(*free)
        if sum(map(abs, shift)) <= spare
    ]
    touching = np.unique(np.concatenate(pairs))
    return np.stack([touching >> 32, touching & 0xFFFFFFFF], axis=1)


def _edge(tile: TileSeams, direction: Direction, sign: int) -> NDArray[np.int32]:
    """The part of a tile's faces that lies at its side, edge or corner in a direction."""
    moves = [(axis, d * sign > 0) for axis, d in enumerate(direction, start=1) if d]
    edge = tile.faces[moves[0][0], int(moves[0][1])]
    for axis, last in moves[1:]:
        edge = _face(edge, axis, int(last))
    return edge


def _touching(
    face: NDArray[np.int32], other: NDArray[np.int32], shift: tuple[int, ...],
    classes: Longs, other_classes: Longs,
) -> Longs:  # fmt: skip
    pairs = zip((0, *shift), face.shape, strict=True)
    index = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in pairs)
    pairs = zip((0, *shift), face.shape, strict=True)
    shifted = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in pairs)
    a, b = face[index].reshape(-1), other[shifted].reshape(-1)
    both = (a > 0) & (b > 0)
    a, b = a[both], b[both]
    same = classes[a - 1] == other_classes[b - 1]
    # As one number, which is sorted faster than two.
    touching: Longs = a[same].astype(np.int64) << 32 | b[same]
    return touching


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
class Numbering:
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
    feed: Feed,
    layout: Layout,
    rules: Rules,
    watch: Watch,
    also: Step | None = None,
    keep: Keep | None = None,
) -> Numbering:
    """Pass 2 of regions: find seams and number all regions; holds no pixels.

    Parameters
    ----------
    feed : Feed
        Tiles of a class map, axes as in the layout; or of it and its samples, as ``Seen``.
    layout : Layout
    rules : Rules
    watch : Watch
    also : callable, optional
        Called with every tile and its number, for work that is better done in the same pass.
    keep : callable, optional
        Called with the components of every tile and its number, after that.

    Returns
    -------
    Numbering
    """
    graph, keys = tile_graph(feed, _Summing(layout, rules, also, keep), STAGE)
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
    tiles, matched = compute_graph(graph, [digests, pairs], keys, STAGE, watch)
    numbering = resolve(tiles, matched, layout, rules)
    return replace(numbering, written=[tile.written for tile in tiles])


@dataclass(frozen=True)
class _Summing:
    layout: Layout
    rules: Rules
    also: Step | None
    keep: Keep | None

    def __call__(self, block: NDArray[Any] | Seen, number: int) -> TileSeams:
        classes, samples = (
            (block.classes, block.samples) if isinstance(block, Seen) else (block, None)
        )
        written = self.also(classes, number) if self.also is not None else None
        classes = classes.reshape(four(classes.shape, self.layout.axes, 1))
        sides = self.layout.seam_sides(number)
        tile = TileComponents.of(classes, sides, self.rules)
        if self.keep is not None:
            axes = self.layout.axes
            totals = None if samples is None else sum_parts(tile.components, samples, axes)
            kept = self.keep(KeptTile(tile.components, totals), number)
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


def resolve(
    tiles: Sequence[TileSeams], matched: Sequence[Longs], layout: Layout, rules: Rules
) -> Numbering:
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
    return Numbering(sum(components) - len(vanished), numbers, components)


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
    return (*layout.region(number)[:3], layout.position(number)[3])


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
