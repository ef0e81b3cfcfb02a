"""Jobs that other benchmarks start in fresh processes: ``python -m benchmarks.jobs NAME ...``."""

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
from napari_pixseg.segment_image import segment

THREADS = 2
_BATCH = 16


def export(source: str, target: str, *outputs: str) -> None:
    """Segment a store and write the outputs; the clock starts after the imports and a small run."""
    _warm_up(target)
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
    """Count the entries of the seam table: runs of equal class along the sides of the tiles.

    This is an upper bound of the number of components there. It is counted from the finished
    class map, so that the process whose memory is measured does not have to.
    """
    classes = zarr.open_array(f"{target}/labels/classes/0", mode="r")
    runs = 0
    for start in range(TILE_SIDE, classes.shape[0], TILE_SIDE):
        lines = classes[start - 1 : start + 1]
        runs += int((lines[:, 1:] != lines[:, :-1]).sum()) + 2
    for start in range(TILE_SIDE, classes.shape[1], TILE_SIDE):
        columns = classes[:, start - 1 : start + 1]
        runs += int((columns[1:] != columns[:-1]).sum()) + 2
    Clock().answer(seam_components=runs)


def floor(source: str, reference: str, target: str) -> None:
    """Read a store once, and write every array of a finished output once.

    The data to write is read from a finished output; that reading is not timed.
    """
    clock = Clock()
    _read_array(zarr.open_array(source, mode="r"), clock)
    paths = sorted(path.parent for path in Path(reference).rglob("zarr.json"))
    arrays = [(path, zarr.open(path, mode="r")) for path in paths]
    arrays = [(path, array) for path, array in arrays if isinstance(array, zarr.Array)]
    for path, array in arrays:
        name = path.relative_to(reference)
        # The export does not check either whether a chunk is all zeros.
        copy = zarr.create_array(
            f"{target}/{name}",
            shape=array.shape,
            chunks=array.chunks,
            dtype=array.dtype,
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        _write_copy(array, copy, clock)
    clock.answer(arrays=len(arrays))


def _read_array(array: Any, clock: Clock) -> None:
    """Read an array tile by tile on all threads; timed."""
    tiles = _tiles_of(array, (TILE_SIDE, TILE_SIDE), leading=0)
    with ThreadPoolExecutor(THREADS) as pool, clock:
        deque(pool.map(lambda tile: array[tile].size, tiles), 0)


def _write_copy(array: Any, copy: Any, clock: Clock) -> None:
    """Write a copy of an array tile by tile on all threads; only the writing is timed."""
    height, width = (max(TILE_SIDE // chunk, 1) * chunk for chunk in array.chunks[-2:])
    tiles = _tiles_of(array, (height, width), leading=array.ndim - 2)
    with ThreadPoolExecutor(THREADS) as pool:
        # In batches, because the whole array may not fit into memory.
        for start in range(0, len(tiles), _BATCH):
            blocks = [(tile, array[tile]) for tile in tiles[start : start + _BATCH]]
            with clock:
                deque(pool.map(lambda block: copy.__setitem__(*block), blocks), 0)


def _tiles_of(array: Any, sides: tuple[int, int], leading: int) -> list[tuple[slice, ...]]:
    """Cut two axes of an array into tiles; the axes before them are taken whole."""
    rows, columns = array.shape[leading : leading + 2]
    return [
        (*(slice(None),) * leading, slice(y, y + sides[0]), slice(x, x + sides[1]))
        for y in range(0, rows, sides[0])
        for x in range(0, columns, sides[1])
    ]


def _warm_up(target: str) -> None:
    """Import all modules and load all kernels with a small run of the same kind."""
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
