"""The plan of a run: how an image is cut into tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image

# Large enough that scheduling a tile costs little, small enough that many workers get some.
TILE_SIDE = 2048

TILE_PIXELS = TILE_SIDE * TILE_SIDE

# Side of written chunks where the input's own chunks do not determine it. A tile then has an even
# number of them, as pyramids need (see _halve_unit).
WRITE_SIDE = 1024

# Shorter written chunks would make too many files.
_SMALLEST_UNIT = 256
_SMALLEST_HALF = 512

# In pixels. Tiles ignore storage chunks that are larger, because a single one would fill the
# memory.
_LARGEST_CHUNK = 1 << 26


@dataclass(frozen=True)
class Tiling:
    """Tiles over the axes t, z, y, x, and the written chunks that each tile consists of.

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
        """Number of pixels of a full tile."""
        return math.prod(min(a, b) for a, b in zip(self.tile, self.shape, strict=True))

    def __len__(self) -> int:
        return math.prod(self.grid)

    @cached_property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Tile sizes along each axis, in the form of Dask's ``chunks``."""
        return tuple(
            tuple(min(size, n - start) for start in range(0, n, size))
            for n, size in zip(self.shape, self.tile, strict=True)
        )

    def position(self, number: int) -> tuple[int, ...]:
        """Return a tile's place in the grid; numbers run along the last axis first."""
        position = []
        for count in reversed(self.grid):
            number, index = divmod(number, count)
            position.append(index)
        return tuple(reversed(position))

    def slices(self, number: int) -> PixelSlices:
        """Return the box of pixels of a tile."""
        bounds = zip(self.position(number), self.tile, self.shape, strict=True)
        return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in bounds)

    def nested_order(self) -> list[int]:
        """Return the numbers of all tiles in Morton order: squares of 2 x 2, of 4 x 4, and so on.

        The four tiles of one coarser tile then come together.
        """
        *outer, rows, columns = np.indices(self.grid).reshape(len(self.grid), -1)
        rank = np.zeros_like(rows)
        # Interleaving the bits of row and column gives the place along the curve.
        for bit in range(max(self.grid[-2:]).bit_length()):
            rank |= (columns >> bit & 1) << 2 * bit | (rows >> bit & 1) << 2 * bit + 1
        order: list[int] = np.lexsort((rank, *reversed(outer))).tolist()
        return order


def plan_tiles(image: Image) -> Tiling:
    """Cut an image into tiles of about 2048 x 2048 pixels, along its storage chunks.

    Tiles are made of whole storage chunks where these have a usable size, so that no chunk is
    read twice. In any case no written chunk belongs to two tiles.
    """
    shape = image.shape
    stored = image.chunks or (1,) * len(shape)
    if math.prod(stored) > _LARGEST_CHUNK:
        stored = (1,) * len(shape)
    stored = tuple(min(chunk, n) for chunk, n in zip(stored, shape, strict=True))
    *depth, rows, columns = stored
    # Chunks that are deep in t or z leave fewer pixels for y and x.
    budget = max(TILE_PIXELS // math.prod(depth), 1)
    side = math.isqrt(budget)
    goal = min(WRITE_SIDE, side)
    row_unit = _write_unit(rows, shape[-2], goal)
    column_unit = _write_unit(columns, shape[-1], goal)
    # The width is chosen first, and the height takes the rest of the budget, because image files
    # are often stored in strips as wide as the image.
    width = _tile_length(columns, column_unit, shape[-1], side)
    height = _tile_length(rows, row_unit, shape[-2], min(budget // width, TILE_SIDE))
    written = _halve_unit(row_unit, height, shape[-2]), _halve_unit(column_unit, width, shape[-1])
    return Tiling(shape, (*depth, height, width), (*depth, *written))


def _write_unit(chunk: int, length: int, goal: int) -> int:
    """Return the length of written chunks along an axis stored in chunks of the given length."""
    if chunk < _SMALLEST_UNIT:
        # Several small storage chunks, or strips of a few rows, become one written chunk.
        chunk *= max(goal // chunk, 1)
    if chunk >= length:
        return min(goal, length)
    if chunk <= TILE_SIDE:
        return chunk
    # For a long storage chunk, take its largest divisor that is short enough.
    divisors = (d for d in range(TILE_SIDE, _SMALLEST_UNIT - 1, -1) if chunk % d == 0)
    return next(divisors, chunk)


def _tile_length(chunk: int, unit: int, length: int, wanted: int) -> int:
    """Return a length of whole units near the wanted one, never less than a storage chunk."""
    # An even number of units, so that half a tile is whole chunks of the next pyramid level.
    units = max(wanted // (2 * unit) * 2, math.ceil(chunk / unit), 1)
    return min(units, math.ceil(length / unit)) * unit


def _halve_unit(unit: int, tile: int, length: int) -> int:
    """Halve the unit if a tile has an odd number of them and the halves are not too small.

    Half a tile then consists of whole chunks of the next level, so that level can be written from
    the tile in memory instead of being read again.
    """
    odd = tile < length and tile % (2 * unit) > 0
    return unit // 2 if odd and unit % 2 == 0 and unit >= 2 * _SMALLEST_HALF else unit
