"""Tiles in order: few are begun before the earlier ones are done; results stay with their tile."""

import threading

import dask
import dask.array as da
import numpy as np
import pytest

from napari_pixseg import segment
from napari_pixseg.execution import scheduler
from napari_pixseg.execution.scheduler import run_tiles, tile_graph
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling

TILES = Tiling((64, 96), (8, 8), (8, 8))


class Log:
    """Which tiles began, and how many of the earlier ones were not done by then."""

    def __init__(self, order):
        self.location = {number: at for at, number in enumerate(order)}
        self.lock, self.done, self.missing = threading.Lock(), set(), []

    def __call__(self, _block, number):
        at = self.location[number]
        with self.lock:
            self.missing.append(sum(earlier not in self.done for earlier in range(at)))
        np.ones(1000).sum()
        with self.lock:
            self.done.add(at)
        return number


@pytest.mark.parametrize("merge", [None, sum])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("blocks", [False, True])
def test_few_tiles_are_begun_before_the_earlier_ones_are_done(blocks, workers, merge, monkeypatch):
    monkeypatch.setattr(scheduler, "_AHEAD", 6)
    order = np.random.default_rng(0).permutation(len(TILES)).tolist()
    log, tile_source = Log(order), TileSource.from_numbers(lambda number: number, TILES)
    if blocks:
        keys = [("block", number) for number in range(len(TILES))]
        tile_source = TileSource(
            range(len(TILES)), {key: (int, key[1]) for key in keys}, keys, None
        )
    with dask.config.set(scheduler="threads", num_workers=workers):
        found = run_tiles(tile_source.in_order(order), log, "test", None, merge)
    assert (list(found) if merge is None else found) == (order if merge is None else sum(order))
    assert len(log.missing) == len(TILES)
    assert max(log.missing) < 6
    # Otherwise this would hold by itself.
    free = Log(order)
    with dask.config.set(scheduler="threads", num_workers=workers):
        run_tiles(tile_source.only(order), free, "test", None, merge)
    assert max(free.missing) > 6


def test_without_dask_they_come_in_order_too(monkeypatch):
    monkeypatch.setattr(scheduler, "dask_is_wanted", lambda: False)
    order = TILES.nested_order()
    log = Log(order)
    assert (
        run_tiles(TileSource.from_numbers(lambda n: n, TILES).in_order(order), log, "test") == order
    )
    assert max(log.missing) < 8


def test_only_tiles_in_order_have_tasks_more_than_one():
    tile_source = TileSource.from_numbers(lambda number: number, TILES)
    plain, _ = tile_graph(tile_source, lambda block, number: number, "test")
    ordered, keys = tile_graph(
        tile_source.in_order(range(len(TILES))), lambda block, number: number, "x"
    )
    assert len(plain) == len(TILES) + 1
    assert len(ordered) == len(plain) + len(TILES) - min(scheduler._AHEAD, len(TILES))
    assert keys == [(keys[0][0], number) for number in range(len(TILES))]


def test_tasks_of_a_dask_array_are_left_in_the_order_of_dask(tmp_path, monkeypatch):
    asked = []
    ordered = TileSource.in_order
    monkeypatch.setattr(TileSource, "in_order", lambda *of: asked.append(of) or ordered(*of))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for source in (pixels, da.from_array(pixels, (32, 32, 3))):
        asked.clear()
        segment(source, axes="yxc", ct=0, st=0.1).export(tmp_path / "a.zarr", overwrite=True)
        assert bool(asked) == (source is pixels)
