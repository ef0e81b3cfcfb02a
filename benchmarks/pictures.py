"""Pictures to measure with, made here so that nothing is downloaded.

A photograph from scikit-image is enlarged smoothly, and gets slight noise, so that it has as many
colors and regions as a real photograph. It is made in strips, one after the other, so that a
picture may be larger than the memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1024
NOISE = 3.0
_STRIP = 1024
Picture = NDArray[np.uint8]


def side_of(megapixels: int) -> int:
    """Return the side of a square picture; 64 megapixels are 8192 x 8192."""
    return math.isqrt(megapixels << 20)


def make_strips(side: int, noise: float = NOISE) -> Iterator[tuple[slice, Picture]]:
    """Yield (rows, (n, side, 3) bytes) of an enlarged photograph."""
    from skimage import data

    photograph = data.astronaut().astype(np.float32)
    rng = np.random.default_rng(side)
    columns = np.linspace(0, photograph.shape[1] - 1, side, dtype=np.float32)
    for start in range(0, side, _STRIP):
        stop = min(start + _STRIP, side)
        lines = np.linspace(0, photograph.shape[0] - 1, side, dtype=np.float32)[start:stop]
        strip = _interpolate(_interpolate(photograph, lines, 0), columns, 1)
        if noise:
            strip += rng.standard_normal(strip.shape, np.float32) * np.float32(noise)
        yield slice(start, stop), np.clip(strip + 0.5, 0, 255).astype(np.uint8)


def _interpolate(array: NDArray[Any], at: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Interpolate linearly along an axis."""
    first = np.minimum(at.astype(np.intp), array.shape[axis] - 2)
    share = (at - first).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    low = array.take(first, axis)
    high = array.take(first + 1, axis)
    result: NDArray[np.float32] = low + (high - low) * share
    return result


def photograph(side: int, noise: float = NOISE) -> Picture:
    """Return a whole picture, (side, side, 3)."""
    return np.concatenate([strip for _, strip in make_strips(side, noise)])


def stains(side: int, noise: float = NOISE) -> Picture:
    """Return a picture with unrelated channels, as from three stains."""
    whole = photograph(side, noise)
    turned = [whole[..., 0], whole[::-1, :, 1], np.rot90(whole[..., 2])]
    return np.ascontiguousarray(np.stack(turned, axis=-1))


def write_zarr(path: Path, megapixels: int) -> None:
    """Write a picture as zarr with chunks of 1024 x 1024 and zarr's default codec, zstd."""
    import zarr

    side = side_of(megapixels)
    chunk = min(CHUNK, side)
    array = zarr.create_array(
        path,
        shape=(side, side, 3),
        chunks=(chunk, chunk, 3),
        dtype=np.uint8,
        dimension_names=["y", "x", "c"],
    )
    for rows, strip in make_strips(side):
        array[rows] = strip
