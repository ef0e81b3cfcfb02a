"""Makes the coarser levels of a pyramid from tiles while these are in memory."""

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

# Halves the last two axes of a block.
Reduce = Callable[[NDArray[Any]], NDArray[Any]]


def nearest(block: NDArray[Any]) -> NDArray[Any]:
    """Halve y and x by taking every other pixel; for labels, which have no meaningful average."""
    return block[..., ::2, ::2]


def area_mean(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve y and x by the mean of 2 x 2 pixels, or of fewer at odd ends, rounded half up."""
    *outer, rows, columns = block.shape
    result = np.empty((*outer, math.ceil(rows / 2), math.ceil(columns / 2)), np.uint8)
    # The compiled kernel takes one memory layout only.
    planes = np.require(block, requirements=["C", "W"]).reshape(-1, rows, columns)
    kernels.halve_planes(planes, result.reshape(-1, *result.shape[-2:]))
    return result


def halve_slices(slices: PixelSlices) -> PixelSlices:
    """Return where a box that begins at even pixels lies in the next level."""
    *outer, rows, columns = slices
    half = [slice(part.start // 2, math.ceil(part.stop / 2)) for part in (rows, columns)]
    return (*outer, *half)


class TileHalf:
    """A tile's part of the next level, assembled from reduced parts of the tile."""

    def __init__(self, slices: PixelSlices, reduce: Reduce) -> None:
        self.slices = slices
        self._reduce = reduce
        # Allocated with the first part, which determines the data type and the channels.
        self.block: NDArray[Any] = np.empty(0)

    def add(self, inner: PixelSlices, block: NDArray[Any]) -> None:
        """Reduce a part of the tile and put it in its place."""
        half = self._reduce(block)
        if not self.block.size:
            outer = half.shape[: half.ndim - len(inner)]
            sizes = [part.stop - part.start for part in self.slices]
            self.block = np.empty((*outer, *sizes), half.dtype)
        there: tuple[Any, ...] = (..., *halve_slices(inner))
        self.block[there] = half


@dataclass
class _Chunk:
    """A chunk that still lacks some pixels.

    Attributes
    ----------
    block : ndarray
    missing : int
        How many pixels it still lacks.
    """

    block: NDArray[Any]
    missing: int


class Gathering:
    """Assembles chunks that belong to several tiles, in the one process that has all tiles.

    This way, no level is read again to make the next one. Complete chunks are passed on. If tiles
    come in :meth:`Tiling.nested_order`, few chunks wait at a time, however large the image.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[int, Index], _Chunk] = {}

    def add(
        self, level: int, slices: PixelSlices, block: NDArray[Any], chunks: Index, shape: Index
    ) -> Iterator[tuple[PixelSlices, NDArray[Any]]]:
        """Take a part of a level, and yield the chunks that it completes.

        Parameters
        ----------
        level : int
        slices : tuple of slice
            The place of the part. No pixel may be given twice.
        block : ndarray
            Pixels of the part, with further axes first if there are any.
        chunks, shape : tuple of int
            Chunk size and shape of the level, without the further axes.

        Yields
        ------
        slices, block
            Where a complete chunk lies, and its pixels.
        """
        for index, inside, there in cut_along_chunks(slices, chunks):
            taken: tuple[Any, ...] = (..., *there)
            put: tuple[Any, ...] = (..., *inside)
            bounds = [
                (i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape, strict=True)
            ]
            with self._lock:
                chunk = self._waiting.get((level, index))
                if chunk is None:
                    sizes = [stop - start for start, stop in bounds]
                    outer = block.shape[: block.ndim - len(slices)]
                    chunk = _Chunk(np.empty((*outer, *sizes), block.dtype), math.prod(sizes))
                    self._waiting[level, index] = chunk
                chunk.block[put] = block[taken]
                # Counting pixels shows when a chunk is complete, because no pixel comes twice.
                chunk.missing -= math.prod(piece.stop - piece.start for piece in inside)
                complete = not chunk.missing
                if complete:
                    del self._waiting[level, index]
            # Outside the lock, because the caller writes the chunk before it asks for the next.
            if complete:
                yield tuple(slice(*bound) for bound in bounds), chunk.block
