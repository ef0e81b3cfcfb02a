"""The levels of an image for the viewer: stored ones, and virtual ones of a large image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.slices import PixelSlices, Samples
from napari_pixseg.sources.image import Image

# napari asks for whole planes of a single-level image; larger planes get virtual levels.
LARGEST_PLANE = 16_000_000

# The coarsest virtual level has no side longer than this.
_COARSEST_SIDE = 1024

# A view that would read more pixels than this is sampled from blocks instead.
_LARGEST_READ = 1 << 27

# A sampled view has at most this many blocks along each side.
_BLOCKS_PER_SIDE = 8


@dataclass(frozen=True)
class StridedImage:
    """One level of an image: every ``stride``-th pixel of a stored array.

    Attributes
    ----------
    image : Image
    stride : int
        1 for stored levels.
    reduction : float
        How many pixels of level 0 one stored pixel stands for, along y and along x.
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

    def read(self, region: PixelSlices) -> Samples:
        """Read the samples (..., c) of a region of this level."""
        if self.stride == 1:
            return self.image.read(region)
        *outer, rows, columns = region
        if not self.is_too_large(region):
            covered = (*outer, self._covered_part(rows, -2), self._covered_part(columns, -1))
            return self.image.read(covered)[..., :: self.stride, :: self.stride, :]
        return self._read_blocks(tuple(outer), rows, columns)

    def is_too_large(self, region: PixelSlices) -> bool:
        """Whether reading all pixels under a region would take too long for a view."""
        *_, rows, columns = region
        area = (rows.stop - rows.start) * (columns.stop - columns.start) * self.stride**2
        return self.stride > 1 and area > _LARGEST_READ

    def is_for_overview(self, region: PixelSlices, overview: Overview) -> bool:
        """Whether to take a region from an overview: it is as good, or far faster than reading."""
        return self.stride >= overview.stride or self.is_too_large(region)

    def _covered_part(self, part: slice, axis: int) -> slice:
        return slice(part.start * self.stride, min(part.stop * self.stride, self.image.shape[axis]))

    def _read_blocks(self, outer: PixelSlices, rows: slice, columns: slice) -> Samples:
        """Show a few enlarged blocks of pixels: reading a whole terabyte would take hours.

        The region is divided into a grid of cells. Each cell shows the middle of its area.
        """
        lines = [
            np.concatenate([self._read_block(outer, y, x) for x in _cut_side(columns)], axis=-2)
            for y in _cut_side(rows)
        ]
        return np.concatenate(lines, axis=-3)

    def _read_block(self, outer: PixelSlices, rows: slice, columns: slice) -> Samples:
        """Read as many adjacent pixels as a cell shows, from the middle of the cell's area."""
        sides = []
        padding = [(0, 0)] * len(outer)
        for part, n in zip((rows, columns), self.image.shape[-2:], strict=True):
            length = part.stop - part.start
            start = min((part.start + part.stop) // 2 * self.stride, n - 1)
            stop = min(start + length, n)
            sides.append(slice(start, stop))
            padding.append((0, length - (stop - start)))
        return np.pad(self.image.read((*outer, *sides)), [*padding, (0, 0)], mode="edge")


def _cut_side(part: slice) -> list[slice]:
    step = max(math.ceil((part.stop - part.start) / _BLOCKS_PER_SIDE), 1)
    return [
        slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)
    ]


def lengths_along(axes: str, level: StridedImage) -> tuple[int, ...]:
    """Return the lengths of a level's dimensions; c is as long as it is in the source."""
    image = level.image
    lengths = dict(zip(image.label_axes, level.shape, strict=True))
    if "c" in axes:
        lengths["c"] = int(image.source.array.shape[image.axes.index("c")])
    return tuple(lengths[axis] for axis in axes)


def virtual_levels(image: Image, reduction: float = 1.0) -> list[StridedImage]:
    """Return an image and coarser, strided levels if its planes are large.

    Parameters
    ----------
    image : Image
        The coarsest that is stored.
    reduction : float
        How many pixels of level 0 one of its pixels stands for, along y and along x.
    """
    levels = [StridedImage(image, reduction=reduction)]
    if math.prod(image.shape[-2:]) <= LARGEST_PLANE:
        return levels
    while max(levels[-1].shape[-2:]) > _COARSEST_SIDE:
        # napari picks among levels whose sides halve, as those of stored pyramids do.
        levels.append(replace(levels[-1], stride=levels[-1].stride * 2))
    return levels


def empty_overview(images: Sequence[Image]) -> Overview | None:
    """Return an empty overview if views of an image could be too large to be read at once."""
    levels = virtual_levels(images[0]) if len(images) == 1 else []
    for level in levels:
        if level.is_too_large(tuple(slice(0, n) for n in level.shape)):
            return Overview(images[0].shape)
    return None
