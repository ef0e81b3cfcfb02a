"""Finds the tiles that an earlier run finished: those that have all their chunks.

No journal is needed, because chunks, even empty ones, are written whole, and each chunk belongs to
one tile.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export.output_location import OutputLocation


def find_done_tiles(
    location: OutputLocation, array: zarr.Array[Any], axes: str, tiling: Tiling
) -> frozenset[int]:
    """Return the numbers of the tiles that have all their chunks.

    Parameters
    ----------
    location : OutputLocation
        The store.
    array : zarr.Array
        An array with zarr's default chunk names, such as ``c/0/0``.
    axes : str
        Axes of the array. The axis c, if there is one, is not tiled.
    tiling : Tiling
        Tiles over the other axes.
    """
    # A shard is one file with many chunks. The store is listed once, instead of a request for each
    # chunk.
    chunks = array.shards or array.chunks
    grid = tuple(math.ceil(n / size) for n, size in zip(array.shape, chunks, strict=True))
    present = find_present_chunks(location.child(array.path), grid)
    channel = axes.find("c")
    if channel >= 0:
        # A pixel exists if all its channels do.
        present = np.all(present, axis=(channel,))
        chunks = chunks[:channel] + chunks[channel + 1 :]
    return frozenset(
        number
        for number in range(len(tiling))
        if present[_chunks_of_tile(tiling, number, chunks)].all()
    )


def find_present_chunks(array: OutputLocation, grid: tuple[int, ...]) -> NDArray[np.bool_]:
    """List an array's chunks once; return for each place of its grid whether a chunk is there."""
    present = np.zeros(grid, np.bool_)
    for name, size in array.child("c").list_files():
        parts = name.split("/")
        # An interrupted write leaves a file with another name. A crash of the whole machine may
        # leave a file without bytes.
        if size and len(parts) == len(grid) and all(part.isdecimal() for part in parts):
            index = tuple(int(part) for part in parts)
            if all(i < n for i, n in zip(index, grid, strict=True)):
                present[index] = True
    return present


def _chunks_of_tile(tiling: Tiling, number: int, chunks: tuple[int, ...]) -> tuple[slice, ...]:
    pairs = zip(tiling.slices(number), chunks, strict=True)
    return tuple(slice(part.start // size, math.ceil(part.stop / size)) for part, size in pairs)
