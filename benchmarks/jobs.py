"""What is measured in processes of its own: ``python -m benchmarks.jobs NAME ARGUMENTS``."""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import zarr

from benchmarks.measure import Clock
from napari_pixseg.execution.tiling import TILE_SIDE
from napari_pixseg.segmentation import segment

THREADS = 2
_BATCH = 16


def export(source: str, target: str, *outputs: str) -> None:
    """Segment a store and write the outputs; the clock starts after the imports."""
    _warm(target)
    clock = Clock()
    stages: dict[str, float] = {}
    with dask.config.set(scheduler="threads", num_workers=THREADS), clock:
        segmentation = segment(source)
        with Clock() as counting:
            colors = len(segmentation.color_table)
        manifest = segmentation.export(target, outputs)
    stages["counting"] = counting.wall
    regions = manifest.details.get("regions", {}).get("count", 0)
    details = {"colors": colors, "classes": len(segmentation.table), "regions": regions}
    clock.answer(**details, **stages)


def seams(target: str) -> None:
    """Count what the seam table held: runs of equal class along the sides of the tiles.

    An upper bound of the components there, counted from the finished class map, and not by the
    process whose memory is measured.
    """
    classes, runs = zarr.open_array(f"{target}/labels/classes/0", mode="r"), 0
    for start in range(TILE_SIDE, classes.shape[0], TILE_SIDE):
        lines = classes[start - 1 : start + 1]
        runs += int((lines[:, 1:] != lines[:, :-1]).sum()) + 2
    for start in range(TILE_SIDE, classes.shape[1], TILE_SIDE):
        columns = classes[:, start - 1 : start + 1]
        runs += int((columns[1:] != columns[:-1]).sum()) + 2
    Clock().answer(seam_components=runs)


def floor(source: str, reference: str, target: str) -> None:
    """Read a store once, and write every array of a finished output once.

    What is written comes from the finished output, read outside of the timed parts.
    """
    taken, clock = zarr.open_array(source, mode="r"), Clock()
    _copy(taken, None, clock)
    paths = sorted(path.parent for path in Path(reference).rglob("zarr.json"))
    arrays = [(path, zarr.open(path, mode="r")) for path in paths]
    arrays = [(path, array) for path, array in arrays if isinstance(array, zarr.Array)]
    for path, array in arrays:
        name = path.relative_to(reference)
        # As the export does: no look whether a chunk is all zeros.
        copy = zarr.create_array(
            f"{target}/{name}", shape=array.shape, chunks=array.chunks, dtype=array.dtype,
            fill_value=0, config={"write_empty_chunks": True},
        )  # fmt: skip
        _copy(array, copy, clock)
    clock.answer(arrays=len(arrays))


def _copy(array: Any, copy: Any, clock: Clock) -> None:
    """Read an array, timed, or write a copy of it, timed, tile by tile on both threads."""
    sides = [max(TILE_SIDE // chunk, 1) * chunk for chunk in array.chunks[-2:]]
    if copy is None:
        sides = [TILE_SIDE, TILE_SIDE]
    lead = () if copy is None else (slice(None),) * (array.ndim - 2)
    rows, columns = array.shape[len(lead) : len(lead) + 2]
    tiles = [
        (*lead, slice(y, y + sides[0]), slice(x, x + sides[1]))
        for y in range(0, rows, sides[0])
        for x in range(0, columns, sides[1])
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        if copy is None:
            with clock:
                deque(pool.map(lambda tile: array[tile].size, tiles), 0)
            return
        for start in range(0, len(tiles), _BATCH):
            blocks = [(tile, array[tile]) for tile in tiles[start : start + _BATCH]]
            with clock:
                deque(pool.map(lambda block: copy.__setitem__(*block), blocks), 0)


def _warm(target: str) -> None:
    """Import all modules and load all kernels, by a small run of the same kind."""
    import numpy as np

    blocks = np.random.default_rng(0).integers(0, 256, (320, 4, 3), np.uint8)
    tall = blocks.repeat(64, axis=0).repeat(64, axis=1)
    with tempfile.TemporaryDirectory(dir=Path(target).parent) as folder:
        source = zarr.create_array(f"{folder}/in.zarr", data=tall, chunks=(256, 256, 3))
        small = segment(source, ct=0, st=20)
        small.export(f"{folder}/out.zarr", ("classes", "regions", "recolored"))
        assert len(small.region_table)


JOBS: dict[str, Callable[..., None]] = {"export": export, "floor": floor, "seams": seams}

if __name__ == "__main__":
    JOBS[sys.argv[1]](*sys.argv[2:])
