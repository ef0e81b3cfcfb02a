"""What is done already: a tile's part of an array is, if all of its chunks are there.

No journal is needed: chunks are written whole, empty ones too, and each
belongs to one tile.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export.output_location import OutputLocation


def done_tiles(
    location: OutputLocation, array: zarr.Array[Any], axes: str, tiling: Tiling
) -> frozenset[int]:
    """List an array's chunks once; return the numbers of the tiles that have all of theirs.

    Parameters
    ----------
    location : OutputLocation
        The store.
    array : zarr.Array
        With its default names of chunks, ``c/0/0``.
    axes : str
        Axes of the array; c, if there, is not tiled.
    tiling : Tiling
        Over the other axes.
    """
    chunks = array.shards or array.chunks
    present = _present(location, array, chunks)
    channel = axes.find("c")
    if channel >= 0:
        present = np.all(present, axis=(channel,))
        chunks = chunks[:channel] + chunks[channel + 1 :]
    return frozenset(
        number for number in range(len(tiling)) if present[_chunks_of(tiling, number, chunks)].all()
    )


def _present(
    location: OutputLocation, array: zarr.Array[Any], chunks: tuple[int, ...]
) -> NDArray[np.bool_]:
    grid = tuple(math.ceil(n / size) for n, size in zip(array.shape, chunks, strict=True))
    present = np.zeros(grid, np.bool_)
    for name, size in location.child(f"{array.path}/c").list_files():
        parts = name.split("/")
        # What is left of a write that was interrupted has another name; a file of no bytes
        # is what a crash of the whole machine may leave.
        if size and len(parts) == len(grid) and all(part.isdecimal() for part in parts):
            index = tuple(int(part) for part in parts)
            if all(i < n for i, n in zip(index, grid, strict=True)):
                present[index] = True
    return present


def _chunks_of(tiling: Tiling, number: int, chunks: tuple[int, ...]) -> tuple[slice, ...]:
    pairs = zip(tiling.slices(number), chunks, strict=True)
    return tuple(slice(part.start // size, math.ceil(part.stop / size)) for part, size in pairs)
