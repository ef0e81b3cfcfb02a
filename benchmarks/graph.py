"""What a graph of many tiles costs: ``python -m benchmarks.graph [--full]``.

For an image of 10^5 tiles, the graphs of all three passes are built and discarded: counting,
seams, labels. Each is built in a fresh process, and the memory is the growth of that process.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
import psutil

from benchmarks import measure

SMALL = (10_000,)
FULL = (10_000, 100_000)
PASSES = ("colors", "seams", "regions")


def build(stage: str, tiles: str) -> None:
    """Build the graph of one pass over a number of tiles, and count its tasks."""
    from napari_pixseg.execution import progress
    from napari_pixseg.execution import scheduler as run
    from napari_pixseg.execution.scheduler import tile_graph
    from napari_pixseg.execution.tile_source import TileSource
    from napari_pixseg.execution.tiling import TILE_SIDE, WRITE_SIDE, Tiling
    from napari_pixseg.regions import region_pass
    from napari_pixseg.regions.rules import Rules
    from napari_pixseg.regions.tile_layout import Layout

    rows, columns = int(tiles) // 100, 100
    shape = (rows * TILE_SIDE, columns * TILE_SIDE)
    tiling = Tiling(shape, (TILE_SIDE, TILE_SIDE), (WRITE_SIDE, WRITE_SIDE))
    tile_source, clock, found = TileSource.from_numbers(_nothing, tiling), measure.Clock(), {}

    def take(graph: dict[Any, Any], *_: object) -> Any:
        found["tasks"] = len(graph)
        found["mb"] = (psutil.Process().memory_info().rss - before) / 1e6
        raise _BuiltError

    before = psutil.Process().memory_info().rss
    with clock:
        if stage == "seams":
            region_pass.compute_graph = take
            first = region_pass.RegionPass(Layout(tiling, "yx"), Rules(1, (), 0))
            with suppress(_BuiltError):
                first.run(tile_source, progress.RunMonitor())
        else:
            graph, keys = tile_graph(tile_source, _nothing, stage)
            if stage == "colors":
                run.add_merge_tree(graph, keys, len)
            found["tasks"] = len(graph)
            found["mb"] = (psutil.Process().memory_info().rss - before) / 1e6
    clock.answer(**found)


class _BuiltError(Exception):
    """The graph is complete."""


def _nothing(*_: object) -> Any:
    return np.zeros(0)


def main() -> None:
    """Measure all passes."""
    options = measure.parse_options(__doc__)
    rows = []
    for tiles in options.sizes or (FULL if options.full else SMALL):
        for stage in PASSES:
            load = measure.machine_load()
            runs = [
                measure.run_python("benchmarks.graph", "--build", stage, tiles)
                for _ in range(options.repeats)
            ]
            answers = [run.answer for run in runs]
            best = sorted(answers, key=lambda answer: answer["wall"])[len(answers) // 2]
            row = {"tiles": tiles, "pass": stage, "tasks_per_tile": round(best["tasks"] / tiles, 2)}
            figures = {"wall_s": round(best["wall"], 2), "cpu_s": round(best["cpu"], 2)}
            rows.append({**row, **figures, "grown_mb": round(best["mb"], 1), "load": load})
    measure.print_report("graph", rows, options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--build"]:
        build(*sys.argv[2:])
    else:
        main()
