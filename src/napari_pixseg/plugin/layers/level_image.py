"""The levels of an image for the viewer, those that it has and virtual ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image

# Above this, napari would ask for a whole plane at once: levels are made up.
LARGEST_PLANE = 16_000_000


# The coarsest made-up level has no side longer than this.
_COARSEST_SIDE = 1024


# A view that would read more pixels than this is sampled from blocks instead.
_LARGEST_READ = 1 << 27


@dataclass(frozen=True)
class LevelImage:
    """One level of an image: every ``stride``-th pixel of a stored array.

    Attributes
    ----------
    image : Image
    stride : int
        1 for levels that are stored.
    reduction : float
        How many pixels of level 0, along y and x, one stored pixel stands for.
    """

    image: Image
    stride: int = 1
    reduction: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along t, z, y, x."""
        *outer, rows, columns = self.image.shape
        stride = self.stride
        return (*outer, math.ceil(rows / stride), math.ceil(columns / stride))

    def read(self, region: PixelSlices) -> NDArray[Any]:
        """Read samples (..., c) of a region of this level."""
        if self.stride == 1:
            return self.image.read(region)
        *outer, rows, columns = region
        if not self.is_too_much(region):
            wide = (*outer, self._widened(rows, -2), self._widened(columns, -1))
            return self.image.read(wide)[..., :: self.stride, :: self.stride, :]
        return self._sampled(tuple(outer), rows, columns)

    def is_too_much(self, region: PixelSlices) -> bool:
        """Whether reading all pixels under a region would take too long for a view."""
        *_, rows, columns = region
        area = (rows.stop - rows.start) * (columns.stop - columns.start) * self.stride**2
        return self.stride > 1 and area > _LARGEST_READ

    def _widened(self, part: slice, axis: int) -> slice:
        return slice(part.start * self.stride, min(part.stop * self.stride, self.image.shape[axis]))

    def _sampled(self, outer: PixelSlices, rows: slice, columns: slice) -> NDArray[Any]:
        """Show a few blocks of pixels large: reading all of a terabyte for a glance takes hours.

        The region is divided into a grid of cells; each shows the middle of what it covers.
        """
        lines = [
            np.concatenate([self._cell(outer, y, x) for x in _cells(columns)], axis=-2)
            for y in _cells(rows)
        ]
        return np.concatenate(lines, axis=-3)

    def _cell(self, outer: PixelSlices, rows: slice, columns: slice) -> NDArray[Any]:
        """Read as many neighboring pixels as the cell has, from the middle of what it covers."""
        sides, missing = [], [(0, 0)] * len(outer)
        for part, n in zip((rows, columns), self.image.shape[-2:], strict=True):
            length = part.stop - part.start
            start = min((part.start + part.stop) // 2 * self.stride, n - 1)
            sides.append(slice(start, min(start + length, n)))
            missing.append((0, length - (sides[-1].stop - start)))
        return np.pad(self.image.read((*outer, *sides)), [*missing, (0, 0)], mode="edge")


def _cells(part: slice) -> list[slice]:
    """Cut a side of a view into at most eight cells."""
    step = max(math.ceil((part.stop - part.start) / 8), 1)
    return [
        slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)
    ]


def virtual_levels(image: Image) -> list[LevelImage]:
    """Return levels for an image that is stored as one: strided where a plane is large."""
    levels = [LevelImage(image)]
    if math.prod(image.shape[-2:]) <= LARGEST_PLANE:
        return levels
    while max(levels[-1].shape[-2:]) > _COARSEST_SIDE:
        levels.append(LevelImage(image, levels[-1].stride * 2))
    return levels


def overview_of(images: Sequence[Image]) -> Overview | None:
    """Return an empty overview if views of an image could be too large to be read at once."""
    levels = virtual_levels(images[0]) if len(images) == 1 else []
    whole = (tuple(slice(0, n) for n in level.shape) for level in levels)
    too_much = any(level.is_too_much(region) for level, region in zip(levels, whole, strict=True))
    return Overview(images[0].shape) if too_much else None
