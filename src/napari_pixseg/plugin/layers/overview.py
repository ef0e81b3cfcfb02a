"""A small copy of a huge image, filled in while its colors are counted.

Counting reads every tile anyway, so keeping every 2^k-th pixel requires no further reading. Until a
tile is counted, single pixels from a grid stand in for it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TypeAlias

import numpy as np

from napari_pixseg.algorithm.color_table import NO_DATA
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.slices import PixelSlices

# 64 MB of packed colors, which any machine can spare.
_MOST_PIXELS = 1 << 24

# Each sampled pixel may require reading a whole chunk. This number suffices for 32 x 32 cells.
_MOST_SAMPLES = 1400

# Marks a color that stands in for a pixel that was not counted yet.
_GUESS = np.uint32(1 << 31)


ReadColors: TypeAlias = Callable[[PixelSlices], Packed]


class Overview:
    """Every ``stride``-th pixel of each (y, x) plane, as far as it is known.

    Any thread may fill and read it.

    Parameters
    ----------
    shape : sequence of int
        Pixels of the image along t, z, y, x.
    most : int
        Maximum number of pixels to keep, which determines the stride.

    Attributes
    ----------
    stride : int
        A power of two.
    version : int
        Grows whenever something is added.
    """

    def __init__(self, shape: Sequence[int], most: int = _MOST_PIXELS) -> None:
        self._full = tuple(shape)
        self.stride = _stride_for(self._full, most)
        self.version = 0
        self._packed = np.full(_strided_shape(self._full, self.stride), _GUESS | NO_DATA, np.uint32)
        self._unknown = self._packed.size
        self._lock = threading.Lock()

    @property
    def is_complete(self) -> bool:
        """Whether every pixel is known."""
        return self._unknown == 0

    def add(self, region: PixelSlices, packed: Packed) -> None:
        """Keep every ``stride``-th of the packed colors of a region of the full image."""
        *outer, rows, columns = region
        stride = self.stride
        samples = packed[..., -rows.start % stride :: stride, -columns.start % stride :: stride]
        part = (*outer, _strides_within(rows, stride), _strides_within(columns, stride))
        self._store_samples(part, samples)

    def _store_samples(self, part: PixelSlices, samples: Packed) -> None:
        with self._lock:
            self._unknown -= int(np.count_nonzero(self._packed[part] & _GUESS))
            self._packed[part] = samples
            self.version += 1

    def sample_pixels(self, read: ReadColors, most: int = _MOST_SAMPLES) -> Iterator[None]:
        """Fill unknown parts roughly, from single pixels in smaller and smaller cells.

        Parameters
        ----------
        read : callable
            Returns the packed colors of a region of the full image.
        most : int
            Most pixels to read.

        Yields
        ------
        None
            After every pixel, so that the caller can stop.
        """
        outer = self._packed.shape[:-2]
        longest = max(self._packed.shape[-2:])
        planes = math.prod(outer)
        read_pixels = 0
        side = 1
        while read_pixels + planes * side * side <= most and side < 2 * longest:
            for index in np.ndindex(*outer):
                for cell in _cut_plane(self._packed.shape[-2:], side):
                    self._sample_cell(read, index, cell)
                    yield
            read_pixels += planes * side * side
            side *= 2

    def _sample_cell(self, read: ReadColors, index: tuple[int, ...], cell: PixelSlices) -> None:
        part = (*(slice(i, i + 1) for i in index), *cell)
        # This part has been counted meanwhile, so its pixels are known exactly.
        if not (self._packed[part] & _GUESS).any():
            return
        middle = [(side.start + side.stop) // 2 * self.stride for side in cell]
        pixel = (*part[: len(index)], *(slice(start, start + 1) for start in middle))
        color = read(pixel).reshape(-1)[0]
        with self._lock:
            cells = self._packed[part]
            cells[(cells & _GUESS) != 0] = color | _GUESS
            self.version += 1

    def read(self, region: PixelSlices, stride: int) -> Packed:
        """Return the packed colors of a region of the level with every ``stride``-th pixel.

        On a level finer than the overview, a pixel gets the color of the kept pixel before it.
        Unknown pixels are NO_DATA.
        """
        *outer, rows, columns = region
        # Levels coarser than the overview are slices of it.
        if stride % self.stride == 0:
            step = stride // self.stride
            sides = [slice(part.start * step, part.stop * step, step) for part in (rows, columns)]
            with self._lock:
                return self._packed[(*outer, *sides)] & ~_GUESS
        # On finer ones, every kept pixel stands for its neighbors.
        near = [
            np.arange(part.start, part.stop) * stride // self.stride for part in (rows, columns)
        ]
        with self._lock:
            lines = self._packed[tuple(outer)].take(near[0], axis=-2)
        return lines.take(near[1], axis=-1) & ~_GUESS


def _stride_for(shape: tuple[int, ...], most: int) -> int:
    stride = 1
    while math.prod(_strided_shape(shape, stride)) > most and stride < max(shape[-2:]):
        stride *= 2
    return stride


def _strided_shape(shape: tuple[int, ...], stride: int) -> tuple[int, ...]:
    *outer, rows, columns = shape
    return (*outer, math.ceil(rows / stride), math.ceil(columns / stride))


def _strides_within(part: slice, stride: int) -> slice:
    """Return which multiples of the stride lie within a part of a side."""
    return slice(math.ceil(part.start / stride), math.ceil(part.stop / stride))


def _cut_plane(shape: tuple[int, ...], side: int) -> Iterator[PixelSlices]:
    """Cut a plane into cells, ``side`` of them along its longer side; none is empty."""
    step = math.ceil(max(shape) / side)
    return product(*([slice(i, min(i + step, n)) for i in range(0, n, step)] for n in shape))
