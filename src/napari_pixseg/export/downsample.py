"""Coarser levels of a pyramid, made of tiles while they are in memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.slices import Index, PixelSlices, cut_along_chunks

Reduce = Callable[[NDArray[Any]], NDArray[Any]]


def nearest(block: NDArray[Any]) -> NDArray[Any]:
    """Halve y and x by taking every other pixel: labels must not be mixed."""
    return block[..., ::2, ::2]


def area_mean(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve y and x by the mean of 2 x 2 pixels, rounded half up; fewer at odd ends."""
    *outer, rows, columns = block.shape
    result = np.empty((*outer, math.ceil(rows / 2), math.ceil(columns / 2)), np.uint8)
    planes = np.require(block, requirements=["C", "W"]).reshape(-1, rows, columns)
    kernels.halve_planes(planes, result.reshape(-1, *result.shape[-2:]))
    return result


def halved(region: PixelSlices) -> PixelSlices:
    """Where a region that begins at even pixels is in the next level."""
    *outer, rows, columns = region
    half = [slice(part.start // 2, math.ceil(part.stop / 2)) for part in (rows, columns)]
    return (*outer, *half)


class TileHalf:
    """A tile's part of the next level, made of the tile's own parts."""

    def __init__(self, region: PixelSlices, reduce: Reduce) -> None:
        self.region, self._reduce = region, reduce
        self.block: NDArray[Any] = np.empty(0)

    def add(self, inner: PixelSlices, block: NDArray[Any]) -> None:
        """Put in what becomes of a part of the tile."""
        half = self._reduce(block)
        if not self.block.size:
            outer = half.shape[: half.ndim - len(inner)]
            sizes = [part.stop - part.start for part in self.region]
            self.block = np.empty((*outer, *sizes), half.dtype)
        there: tuple[Any, ...] = (..., *halved(inner))
        self.block[there] = half


@dataclass
class _Chunk:
    """A chunk of which some pixels are still missing."""

    block: NDArray[Any]
    missing: int


class Gathering:
    """Chunks that several tiles have a part in, put together in the process that has them all.

    That spares reading a level to make the next. Chunks that are complete are handed on; with
    tiles in the order of :meth:`Tiling.nested` few are waiting at a time, however large the image.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[int, Index], _Chunk] = {}

    def add(
        self, level: int, region: PixelSlices, block: NDArray[Any], chunks: Index, shape: Index
    ) -> Iterator[tuple[PixelSlices, NDArray[Any]]]:
        """Take a part of a level; yield where those chunks are that are complete with it, and them.

        Parameters
        ----------
        level : int
        region : tuple of slice
            Of the part; no pixel is given twice.
        block : ndarray
            Its pixels, with other axes first if there are any.
        chunks, shape : tuple of int
            Of the level, without these.
        """
        for index, inside, there in cut_along_chunks(region, chunks):
            taken: tuple[Any, ...] = (..., *there)
            put: tuple[Any, ...] = (..., *inside)
            bounds = [
                (i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True)
            ]
            with self._lock:
                chunk = self._waiting.get((level, index))
                if chunk is None:
                    sizes = [stop - start for start, stop in bounds]
                    outer = block.shape[: block.ndim - len(region)]
                    chunk = _Chunk(np.empty((*outer, *sizes), block.dtype), math.prod(sizes))
                    self._waiting[level, index] = chunk
                chunk.block[put] = block[taken]
                chunk.missing -= math.prod(piece.stop - piece.start for piece in inside)
                complete = not chunk.missing
                if complete:
                    del self._waiting[level, index]
            if complete:
                yield tuple(slice(*bound) for bound in bounds), chunk.block
