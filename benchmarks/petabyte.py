"""The steps that a cluster cannot share, at the size of 1 PB: ``python -m benchmarks.petabyte``.

Nothing of that size is read. What is simulated is exact for what it claims: color tables of
random size are merged by the tree that the engine builds (fan-in 8, at most 2^24 colors), and
bytes are counted on every link; the seam table is made of random components on the sides of a
grid of tiles and put through the engine's own central step. Both are measured at growing sizes,
and extrapolated along the line that the sizes lie on to 1 PB and to 16 and 1,000 workers.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks import measure
from napari_pixseg.algorithm.color_table import COLORS, ColorTable
from napari_pixseg.execution.scheduler import FAN_IN
from napari_pixseg.execution.tiling import TILE_SIDE, Tiling
from napari_pixseg.regions.layout import Layout, Rules
from napari_pixseg.regions.numbering import resolve
from napari_pixseg.regions.seams import TileSeams

PIXELS = 1e15 / 3
TILE_PIXELS = TILE_SIDE**2
BYTES_PER_COLOR = 12
WORKERS = (16, 1000)
# Assumed, near to what the photograph of the other benchmarks has: colors of one tile (400,000
# counted), and components on one of its sides (75 to 88 counted).
COLORS_OF_TILE = 400_000
COMPONENTS_OF_SIDE = 110
LINK_BYTES_PER_S = 1.25e9
# What the design would change to: seams joined first within blocks of 32 x 32 tiles, and again.
BLOCK_SIDE = 32


@dataclass(frozen=True)
class Tree:
    """What merging color tables moves.

    Attributes
    ----------
    levels : int
    root_bytes : float
        Into the process that does the last merge.
    all_bytes : float
        Over all links together.
    merge_s : float
        CPU seconds of all merges.
    """

    levels: int
    root_bytes: float
    all_bytes: float
    merge_s: float


def distinct(tiles: float) -> float:
    """Colors that so many tiles have together: many of the first, few of every further one."""
    return min(COLORS_OF_TILE * max(tiles, 1) ** 0.25, COLORS)


def merge_tree(tiles: float, rate: float) -> Tree:
    """Follow the tree from the tiles to its root, merging ``rate`` colors a second."""
    levels, moved, merged, root, parts, size = 0, 0.0, 0.0, 0.0, tiles, 1.0
    while parts > 1:
        root = min(parts, FAN_IN) * distinct(size) * BYTES_PER_COLOR
        moved += parts * distinct(size) * BYTES_PER_COLOR
        merged += parts * distinct(size) * math.log2(FAN_IN)
        parts, size, levels = math.ceil(parts / FAN_IN), size * FAN_IN, levels + 1
    return Tree(levels, root, moved, merged / rate)


def merge_rate(colors: int = 1 << 21) -> float:
    """Measure how many colors a second the engine's merge takes in."""
    rng = np.random.default_rng(0)
    tables = [ColorTable.from_packed(_some(rng, colors)) for _ in range(2)]
    ColorTable.merge(tables)
    start = time.process_time()
    for _ in range(5):
        ColorTable.merge(tables)
    return 5 * sum(map(len, tables)) / (time.process_time() - start)


def _some(rng: np.random.Generator, colors: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return rng.integers(0, COLORS, colors, dtype=np.uint32)


def seams(side: int) -> measure.Row:
    """Put the seams of side x side tiles through the central step."""
    tiling = Tiling((side * TILE_SIDE,) * 2, (TILE_SIDE,) * 2, (TILE_SIDE,) * 2)
    layout, rng = Layout(tiling, "yx"), np.random.default_rng(side)
    tiles = [_tile(rng) for _ in range(len(tiling))]
    matched = [_pairs(layout, number) for number in range(len(tiling))]
    process, clock = psutil.Process(), measure.Clock()
    before = process.memory_info().rss
    with clock:
        numbering = resolve(tiles, matched, layout, Rules(1, (), 0))
    count = sum(len(tile.lines) for tile in tiles)
    sent = sum(t.firsts.nbytes + t.lines.nbytes * 2 + t.sizes.nbytes * 2 for t in tiles)
    sent += sum(rows.nbytes for rows in matched)
    grown = (process.memory_info().rss - before) / 1e6
    assert numbering.count > 0
    row = {"step": "seams, measured", "tiles": len(tiling), "seam_components": count}
    return {**row, "sent_mb": sent / 1e6, "cpu_s": clock.cpu, "grown_mb": grown}


def _tile(rng: np.random.Generator) -> TileSeams:
    """Random seam components, beginning on random lines of a tile."""
    count = 4 * COMPONENTS_OF_SIDE
    lines = np.sort(rng.integers(0, TILE_SIDE, count)).astype(np.int32)
    firsts = np.bincount(lines, minlength=TILE_SIDE).astype(np.int32)
    ranks = (np.arange(count) - np.searchsorted(lines, lines)).astype(np.int32)
    ones = np.ones(count, np.int64)
    return TileSeams(firsts, lines, ranks, ones, ones, {})


def _pairs(layout: Layout, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Every component of a right or lower side touches one of the neighbor's."""
    rows = [np.empty((0, 4), np.int64)]
    for step, (_, neighbor) in enumerate(layout.neighbors(number, 1)):
        here = np.arange(1, COMPONENTS_OF_SIDE + 1) + step * COMPONENTS_OF_SIDE
        there = here + 2 * COMPONENTS_OF_SIDE
        tiles = np.full_like(here, number), np.full_like(here, neighbor)
        rows.append(np.stack([tiles[0], here, tiles[1], there], axis=1))
    return np.concatenate(rows)


def extrapolated(row: measure.Row, tiles: float, blocks: int) -> measure.Row:
    """Scale a measured row by the number of tiles, to which everything is proportional."""
    factor = tiles / row["tiles"]
    # Of blocks of tiles only what touches the blocks' own sides is left to the step above.
    factor /= BLOCK_SIDE**blocks
    numbers = ("seam_components", "sent_mb", "cpu_s", "grown_mb")
    scaled = {name: row[name] * factor for name in numbers}
    name = f"seams, 1 PB by the line, {blocks} times in blocks"
    return {"step": name, "tiles": round(tiles), **scaled}


def trees(tiles: float, rate: float) -> list[measure.Row]:
    """Follow the merge tree of tiles, and that of workers which keep a table of their own."""
    plans = [("histogram, a table a tile", tiles)]
    plans += [(f"histogram, a table for each of {n:,} workers", n) for n in WORKERS]
    rows = []
    for name, parts in plans:
        tree = merge_tree(parts, rate)
        of_part = COLORS if parts < tiles else distinct(1)
        if parts < tiles:
            moved = sum(parts / FAN_IN**level for level in range(tree.levels))
            all_bytes = moved * COLORS * BYTES_PER_COLOR
            root = min(FAN_IN, parts) * COLORS * BYTES_PER_COLOR
            cpu = moved * COLORS * math.log2(FAN_IN) / rate
            tree = Tree(tree.levels, root, all_bytes, cpu)
        row: measure.Row = {"step": name, "tiles": round(tiles), "colors_of_part": of_part}
        link = tree.root_bytes / LINK_BYTES_PER_S
        sizes = {"root_mb": tree.root_bytes / 1e6, "all_tb": tree.all_bytes / 1e12}
        rows.append(
            {**row, "levels": tree.levels, **sizes, "root_link_s": link, "cpu_s": tree.merge_s}
        )
    return rows


def main() -> None:
    """Simulate both steps."""
    options = measure.options(__doc__)
    tiles = PIXELS / TILE_PIXELS
    rate = merge_rate()
    rows = [{**row, "merge_colors_per_s": rate} for row in trees(tiles, rate)]
    measure.report("petabyte: merging color tables", rows)
    sides = options.sizes or ([32, 64, 128, 256] if options.full else [32, 64, 128])
    found = [seams(side) for side in sides]
    found += [extrapolated(found[-1], tiles, blocks) for blocks in range(3)]
    measure.report("petabyte: seams", found, options.json)


if __name__ == "__main__":
    main()
