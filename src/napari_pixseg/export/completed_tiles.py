"""Finds the tiles that an earlier run finished: those that have all their chunks.

No journal is needed, because chunks, even empty ones, are written whole, and each chunk belongs to
one tile.
"""

from __future__ import annotations

import math
import os
import stat
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export.output_location import OutputLocation

# So many files of a folder are asked for without a listing of it.
_FEW_FILES = 8


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
    present = measure_chunks(location.child(array.path), grid) > 0
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


def measure_chunks(array: OutputLocation, grid: tuple[int, ...]) -> NDArray[np.int64]:
    """Look for an array's chunks; return for each place of its grid how many bytes are there.

    A crash of the whole machine may leave a file without bytes, which is no chunk.
    """
    sizes = np.zeros(grid, np.int64)
    chunks = array.child("c")
    if chunks.is_local:
        # A view, with a row for each folder.
        _look_in_folders(str(chunks.local_path), sizes.reshape(-1, grid[-1]), grid[:-1])
        return sizes
    for name, size in chunks.list_files():
        parts = name.split("/")
        # An interrupted write leaves a file with another name.
        if len(parts) == len(grid) and all(part.isdecimal() for part in parts):
            index = tuple(int(part) for part in parts)
            if all(i < n for i, n in zip(index, grid, strict=True)):
                sizes[index] = size
    return sizes


def _look_in_folders(root: str, sizes: NDArray[np.int64], folders: tuple[int, ...]) -> None:
    """Note the sizes of chunks: their names are known, so nothing else is asked for."""
    width = sizes.shape[1]
    for row, index in zip(sizes, product(*map(range, folders)), strict=True):
        folder = "/".join((root, *map(str, index)))
        try:
            if width > _FEW_FILES:
                # Servers tell the sizes of all files of a folder that is listed.
                os.listdir(folder)
            row[:] = [_size_of(f"{folder}/{number}") for number in range(width)]
        except OSError:
            continue


def _size_of(path: str) -> int:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_size


def _chunks_of_tile(tiling: Tiling, number: int, chunks: tuple[int, ...]) -> tuple[slice, ...]:
    pairs = zip(tiling.slices(number), chunks, strict=True)
    return tuple(slice(part.start // size, math.ceil(part.stop / size)) for part, size in pairs)
