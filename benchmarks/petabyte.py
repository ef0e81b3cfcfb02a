"""The steps that a cluster cannot share, at 1 PB: ``python -m benchmarks.petabyte``.

Nothing of that size is read; two steps are simulated. Merging color tables follows the tree that
the scheduler builds (fan-in 8, at most 2^24 colors), and the bytes on every link are counted. The
seam table holds random components on the sides of a grid of tiles, and goes through the real
central step of the region pass. It is measured at growing sizes and extrapolated linearly to
1 PB; merging is calculated for 16 and 1,000 workers.
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
from napari_pixseg.regions.numbering import number_all
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.seams import TileSeams
from napari_pixseg.regions.tile_layout import Layout

PIXELS = 1e15 / 3
TILE_PIXELS = TILE_SIDE**2
BYTES_PER_COLOR = 12
WORKERS = (16, 1000)
# Assumptions close to the photograph of the other benchmarks: the colors of one tile (400,000
# counted), and the components on one of its sides (75 to 88 counted).
COLORS_OF_TILE = 400_000
COMPONENTS_OF_SIDE = 110
LINK_BYTES_PER_S = 1.25e9
# A possible change of the design: seams are joined within blocks of 32 x 32 tiles first, and
# then between blocks.
BLOCK_SIDE = 32


@dataclass(frozen=True)
class Tree:
    """What merging color tables costs.

    Attributes
    ----------
    levels : int
    root_bytes : float
        Received by the process that does the last merge.
    all_bytes : float
        Sent over all links together.
    merge_s : float
        CPU seconds of all merges.
    """

    levels: int
    root_bytes: float
    all_bytes: float
    merge_s: float


def distinct_colors(tiles: float) -> float:
    """Return the colors of a number of tiles; each further tile adds fewer new ones."""
    return min(COLORS_OF_TILE * max(tiles, 1) ** 0.25, COLORS)


def merge_tree(tiles: float, rate: float) -> Tree:
    """Follow the tree from the tiles to its root, merging ``rate`` colors a second."""
    levels = 0
    moved = 0.0
    merged = 0.0
    root = 0.0
    parts = tiles
    size = 1.0
    while parts > 1:
        root = min(parts, FAN_IN) * distinct_colors(size) * BYTES_PER_COLOR
        moved += parts * distinct_colors(size) * BYTES_PER_COLOR
        merged += parts * distinct_colors(size) * math.log2(FAN_IN)
        parts = math.ceil(parts / FAN_IN)
        size *= FAN_IN
        levels += 1
    return Tree(levels, root, moved, merged / rate)


def merge_rate(colors: int = 1 << 21) -> float:
    """Measure how many colors per second a merge takes in."""
    rng = np.random.default_rng(0)
    tables = [ColorTable.from_packed(_random_colors(rng, colors)) for _ in range(2)]
    ColorTable.merge(tables)
    start = time.process_time()
    for _ in range(5):
        ColorTable.merge(tables)
    return 5 * sum(map(len, tables)) / (time.process_time() - start)


def _random_colors(
    rng: np.random.Generator, colors: int
) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return rng.integers(0, COLORS, colors, dtype=np.uint32)


def measure_seams(side: int) -> measure.Row:
    """Measure the central step on the seams of side x side tiles."""
    tiling = Tiling((side * TILE_SIDE,) * 2, (TILE_SIDE,) * 2, (TILE_SIDE,) * 2)
    layout = Layout(tiling, "yx")
    rng = np.random.default_rng(side)
    tiles = [_random_tile(rng) for _ in range(len(tiling))]
    matched = [_touching_pairs(layout, number) for number in range(len(tiling))]
    process = psutil.Process()
    clock = measure.Clock()
    before = process.memory_info().rss
    with clock:
        numbering = number_all(tiles, matched, layout, Rules(1, (), 0))
    count = sum(len(tile.lines) for tile in tiles)
    sent = sum(t.firsts.nbytes + t.lines.nbytes * 2 + t.sizes.nbytes * 2 for t in tiles)
    sent += sum(rows.nbytes for rows in matched)
    grown = (process.memory_info().rss - before) / 1e6
    assert numbering.count > 0
    row = {"step": "seams, measured", "tiles": len(tiling), "seam_components": count}
    return {**row, "sent_mb": sent / 1e6, "cpu_s": clock.cpu, "grown_mb": grown}


def _random_tile(rng: np.random.Generator) -> TileSeams:
    """Make random seam components that begin on random lines of a tile."""
    count = 4 * COMPONENTS_OF_SIDE
    lines = np.sort(rng.integers(0, TILE_SIDE, count)).astype(np.int32)
    firsts = np.bincount(lines, minlength=TILE_SIDE).astype(np.int32)
    ranks = (np.arange(count) - np.searchsorted(lines, lines)).astype(np.int32)
    ones = np.ones(count, np.int64)
    return TileSeams(firsts, lines, ranks, ones, ones, {})


def _touching_pairs(layout: Layout, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Let every component on a right or lower side touch one of the neighboring tile."""
    rows = [np.empty((0, 4), np.int64)]
    for step, (_, neighbor) in enumerate(layout.neighbors(number, 1)):
        here = np.arange(1, COMPONENTS_OF_SIDE + 1) + step * COMPONENTS_OF_SIDE
        there = here + 2 * COMPONENTS_OF_SIDE
        tiles = np.full_like(here, number), np.full_like(here, neighbor)
        rows.append(np.stack([tiles[0], here, tiles[1], there], axis=1))
    return np.concatenate(rows)


def extrapolate(row: measure.Row, tiles: float, blocks: int) -> measure.Row:
    """Scale a measured row to a number of tiles; all its figures are proportional to it."""
    factor = tiles / row["tiles"]
    # Each round in blocks leaves only the components on the sides of the blocks.
    factor /= BLOCK_SIDE**blocks
    numbers = ("seam_components", "sent_mb", "cpu_s", "grown_mb")
    scaled = {name: row[name] * factor for name in numbers}
    name = f"seams, 1 PB by the line, {blocks} times in blocks"
    return {"step": name, "tiles": round(tiles), **scaled}


def simulate_merges(tiles: float, rate: float) -> list[measure.Row]:
    """Follow the merge tree of all tiles, and of workers that first merge their own tiles."""
    plans = [("histogram, a table a tile", tiles)]
    plans += [(f"histogram, a table for each of {n:,} workers", n) for n in WORKERS]
    rows = []
    for name, parts in plans:
        tree = merge_tree(parts, rate)
        of_part = COLORS if parts < tiles else distinct_colors(1)
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
    options = measure.parse_options(__doc__)
    tiles = PIXELS / TILE_PIXELS
    rate = merge_rate()
    rows = [{**row, "merge_colors_per_s": rate} for row in simulate_merges(tiles, rate)]
    measure.print_report("petabyte: merging color tables", rows)
    sides = options.sizes or ([32, 64, 128, 256] if options.full else [32, 64, 128])
    found = [measure_seams(side) for side in sides]
    found += [extrapolate(found[-1], tiles, blocks) for blocks in range(3)]
    measure.print_report("petabyte: seams", found, options.json)


if __name__ == "__main__":
    main()
