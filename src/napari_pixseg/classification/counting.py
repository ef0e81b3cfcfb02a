"""Pass 1: counts the colors of all tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from napari_pixseg.algorithm.color_counter import ColorCounter, shares_counters
from napari_pixseg.algorithm.color_table import ColorTable, release_counters
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.classification.tile import Tile
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.parameters import ColorSpace

STAGE = "colors"

# Called with the packed colors of a tile and its number while they are counted.
TileObserver: TypeAlias = Callable[[Packed, int], None]


def count_colors(
    tiles: TileSource,
    space: ColorSpace | None,
    monitor: RunMonitor | None = None,
    observer: TileObserver | None = None,
) -> ColorTable:
    """Count the colors of all pixels that have data.

    Parameters
    ----------
    tiles : TileSource
        Tiles of colors.
    space : ColorSpace, optional
        As in :class:`ColorTable`.
    monitor : RunMonitor, optional
    observer : callable, optional
        Called with the packed colors of every tile and its number, in this process and from
        several threads: not for distributed schedulers.
    """
    if shares_counters(len(tiles.numbers), runs_here()):
        counter = ColorCounter(space)
        run_tiles(tiles, _SharedCount(counter, observer), STAGE, monitor)
        return counter.table()
    try:
        table: ColorTable = run_tiles(
            tiles, _CountTile(space, observer), STAGE, monitor, ColorTable.merge
        )
    finally:
        # In ``finally``, because a cancelled run must not keep 64 MiB for each thread.
        release_counters()
    return table


@dataclass(frozen=True, eq=False, repr=False)
class _CountTile:
    """Makes a table of each tile."""

    space: ColorSpace | None
    observer: TileObserver | None = None

    def __call__(self, tile: Tile, number: int) -> ColorTable:
        packed = tile.packed_colors()
        if self.observer is not None:
            self.observer(packed, number)
        # Other code may still need the colors of a tile, but not a copy that was packed here.
        is_ours = tile.packed is None and self.observer is None
        return ColorTable.from_packed(packed, self.space, in_place=is_ours)


@dataclass(frozen=True, eq=False, repr=False)
class _SharedCount:
    """Adds each tile to one counter."""

    counter: ColorCounter
    observer: TileObserver | None

    def __call__(self, tile: Tile, number: int) -> None:
        if self.observer is not None:
            self.observer(tile.packed_colors(), number)
        if tile.byte_parts is None:
            self.counter.add_packed(tile.packed_colors())
            return
        for _, part in tile.byte_parts:
            self.counter.add_pixels(part)
