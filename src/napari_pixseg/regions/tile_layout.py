"""Tiles laid out over t, z, y, x, and which of them are neighbors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.parameters import AXES
from napari_pixseg.slices import PixelSlices

# All axes that a class map can have.
TZYX = AXES.replace("c", "")

# Steps of -1, 0 or 1 along z, y, x.
Direction: TypeAlias = tuple[int, int, int]

Longs = NDArray[np.int64]


def to_tzyx(values: Sequence[int], axes: str, fill: int) -> tuple[int, int, int, int]:
    """Spread values of some axes over t, z, y, x; ``fill`` stands for missing axes."""
    known = dict(zip(axes, values, strict=True))
    t, z, y, x = (int(known.get(axis, fill)) for axis in TZYX)
    return t, z, y, x


@dataclass(frozen=True)
class Layout:
    """The tiles of a class map over the axes t, z, y, x.

    Attributes
    ----------
    tiling : Tiling
    axes : str
        Axes of the tiling, some of t, z, y, x.
    """

    tiling: Tiling
    axes: str

    @cached_property
    def grid(self) -> tuple[int, int, int, int]:
        """Tiles along t, z, y, x."""
        return to_tzyx(self.tiling.grid, self.axes, 1)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Pixels along t, z, y, x."""
        return to_tzyx(self.tiling.shape, self.axes, 1)

    def position(self, number: int) -> tuple[int, int, int, int]:
        """Grid position of a tile."""
        return to_tzyx(self.tiling.position(number), self.axes, 0)

    def slices(self, number: int) -> PixelSlices:
        """Pixels of a tile over t, z, y, x."""
        return self.expand_slices(self.tiling.slices(number))

    def expand_slices(self, slices: PixelSlices) -> PixelSlices:
        """Spread slices of the image's axes over t, z, y, x."""
        known = dict(zip(self.axes, slices, strict=True))
        return tuple(known.get(axis, slice(0, 1)) for axis in TZYX)

    def number(self, position: Sequence[int]) -> int:
        """Number of the tile at a grid position."""
        t, z, y, x = position
        _, depth, rows, columns = self.grid
        return ((t * depth + z) * rows + y) * columns + x

    def neighbors(self, number: int, connectivity: int) -> Iterator[tuple[Direction, int]]:
        """Yield the later tiles that touch a tile, and their direction along z, y, x."""
        t, z, y, x = self.position(number)
        for direction in _forward_directions(connectivity):
            there = (t, z + direction[0], y + direction[1], x + direction[2])
            if all(0 <= p < n for p, n in zip(there, self.grid, strict=True)):
                yield direction, self.number(there)

    def seam_sides(self, number: int) -> list[tuple[int, int]]:
        """Sides (axis, 0 or 1 for first or last) that border on another tile; never along t."""
        position = self.position(number)
        firsts = [(axis, 0) for axis in (1, 2, 3) if position[axis] > 0]
        lasts = [(axis, 1) for axis in (1, 2, 3) if position[axis] < self.grid[axis] - 1]
        return firsts + lasts


@cache
def _forward_directions(connectivity: int) -> list[Direction]:
    ends = (-1, 0, 1)
    # Only later tiles, so that each pair of neighbors is compared once.
    steps = ((z, y, x) for z in ends for y in ends for x in ends if (z, y, x) > (0, 0, 0))
    return [step for step in steps if sum(map(abs, step)) <= connectivity]
