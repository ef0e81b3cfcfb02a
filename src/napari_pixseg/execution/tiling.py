"""The plan of a run: how an image is cut into tiles, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image

# A tile large enough that scheduling costs nothing, small enough for many workers.
TILE_SIDE = 2048


TILE_PIXELS = TILE_SIDE * TILE_SIDE


WRITE_SIDE = 1024


_SMALLEST_UNIT, _SMALLEST_HALF = 256, 512


# Larger chunks are no help for tiling: one would fill the memory.
_LARGEST_CHUNK = 1 << 26


@dataclass(frozen=True)
class Tiling:
    """Tiles over the axes t, z, y, x, and the chunks to write, of which tiles are made.

    Attributes
    ----------
    shape : tuple of int
        Pixels along each axis.
    tile : tuple of int
        Size of a full tile; a multiple of ``write_chunk`` unless one tile spans the axis.
    write_chunk : tuple of int
        Chunk size of arrays written tile by tile.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    write_chunk: tuple[int, ...]

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Number of tiles along each axis."""
        return tuple(math.ceil(n / size) for n, size in zip(self.shape, self.tile, strict=True))

    @property
    def tile_pixels(self) -> int:
        """Pixels of a full tile."""
        return math.prod(min(a, b) for a, b in zip(self.tile, self.shape, strict=True))

    def __len__(self) -> int:
        return math.prod(self.grid)

    @cached_property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Tile sizes along each axis, as Dask has them."""
        return tuple(
            tuple(min(size, n - start) for start in range(0, n, size))
            for n, size in zip(self.shape, self.tile, strict=True)
        )

    def position(self, number: int) -> tuple[int, ...]:
        """Grid position of a tile, the last axis fastest."""
        position = []
        for count in reversed(self.grid):
            number, index = divmod(number, count)
            position.append(index)
        return tuple(reversed(position))

    def slices(self, number: int) -> PixelSlices:
        """Pixels of a tile."""
        bounds = zip(self.position(number), self.tile, self.shape, strict=True)
        return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in bounds)

    def nested(self) -> list[int]:
        """Numbers of all tiles, squares of 2 x 2, of 4 x 4 and so on one after the other."""
        *outer, rows, columns = np.indices(self.grid).reshape(len(self.grid), -1)
        nested = np.zeros_like(rows)
        for bit in range(max(self.grid[-2:]).bit_length()):
            nested |= (columns >> bit & 1) << 2 * bit | (rows >> bit & 1) << 2 * bit + 1
        order: list[int] = np.lexsort((nested, *reversed(outer))).tolist()
        return order

    def regions(self) -> Iterator[PixelSlices]:
        """Pixels of all tiles in order."""
        return (self.slices(number) for number in range(len(self)))


def plan_tiles(image: Image) -> Tiling:
    """Cut an image into tiles of about 2048 x 2048 pixels, along its storage chunks.

    Tiles are made of whole chunks where these are of a usable size: no chunk
    is then read twice and no written chunk belongs to two tiles.
    """
    shape = image.shape
    stored = image.chunks or (1,) * len(shape)
    if math.prod(stored) > _LARGEST_CHUNK:
        stored = (1,) * len(shape)
    stored = tuple(min(chunk, n) for chunk, n in zip(stored, shape, strict=True))
    *depth, rows, columns = stored
    budget = max(TILE_PIXELS // math.prod(depth), 1)
    side = math.isqrt(budget)
    goal = min(WRITE_SIDE, side)
    row_unit = _write_unit(rows, shape[-2], goal)
    column_unit = _write_unit(columns, shape[-1], goal)
    width = _tile_length(columns, column_unit, shape[-1], side)
    height = _tile_length(rows, row_unit, shape[-2], min(budget // width, TILE_SIDE))
    written = _halved(row_unit, height, shape[-2]), _halved(column_unit, width, shape[-1])
    return Tiling(shape, (*depth, height, width), (*depth, *written))


def _write_unit(chunk: int, length: int, goal: int) -> int:
    """Length of written chunks along an axis that is stored in chunks of the given length."""
    if chunk < _SMALLEST_UNIT:
        chunk *= max(goal // chunk, 1)
    if chunk >= length:
        return min(goal, length)
    if chunk <= TILE_SIDE:
        return chunk
    divisors = (d for d in range(TILE_SIDE, _SMALLEST_UNIT - 1, -1) if chunk % d == 0)
    return next(divisors, chunk)


def _tile_length(chunk: int, unit: int, length: int, wanted: int) -> int:
    """Whole units, an even number near the wanted length, but never less than a storage chunk."""
    units = max(wanted // (2 * unit) * 2, math.ceil(chunk / unit), 1)
    return min(units, math.ceil(length / unit)) * unit


def _halved(unit: int, tile: int, length: int) -> int:
    """Halve a unit of which a tile has an odd number, if that leaves no small chunks.

    Half of the tile is then whole chunks of the next level, which need not be made of read ones.
    """
    odd = tile < length and tile % (2 * unit) > 0
    return unit // 2 if odd and unit % 2 == 0 and unit >= 2 * _SMALLEST_HALF else unit
