"""How much memory a worker may need at most, known before the run."""

from __future__ import annotations

import math

from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.sources.image import Image

# All figures are bytes. They were measured on images of noise, where every pixel is a color and
# a region of its own, so usual pictures stay well below them.

# Python, NumPy, Dask and zarr once they are loaded.
_BASE = 300 << 20

# The memory of a worker before its first tile.
_LEAST_BASE = 100 << 20

# One color counter; each thread may have its own.
_COUNTERS = 64 << 20

# For each distinct color: the table, its merge, and the look-up.
_PER_COLOR = 40

# For each pixel of a tile at the very least: a packed color.
_LEAST_PER_PIXEL = 4

# For each pixel of a tile, besides its samples: packed colors, classes, and the outputs.
_PER_PIXEL = 16

# Peak of pass 3, which makes the region table, in a tile where every pixel is a region.
BYTES_PER_MEASURED_COMPONENT = 150

# A pixel of noise is a run and a component of its own.
_PER_PIXEL_OF_REGIONS = 30 + BYTES_PER_MEASURED_COMPONENT

# A worker of a cluster keeps the rows of a tile until they are fetched.
_PER_ROW = 110

# There are no more byte colors than this.
_COLORS = 1 << 24


def peak_memory(image: Image, tile_pixels: int, threads: int, regions: bool = False) -> int:
    """Estimate the peak memory of one worker process in bytes.

    Parameters
    ----------
    image : Image
    tile_pixels : int
        Pixels of a full tile.
    threads : int
        Tiles that the process works on at a time.
    regions : bool
        Whether regions are asked for.

    Returns
    -------
    int
        For the worst content, which is noise; usual pictures need less than half. Two things
        are not in it: the step that joins the seams of all tiles, because it depends on how
        many regions cross them, and the region table, because it waits on disk.
    """
    pixels = math.prod(image.shape)
    sample = image.dtype.itemsize * image.color_channels
    # A chunk is decoded as a whole, even where a tile is only a part of it.
    decoded = max(tile_pixels, math.prod(image.chunks or (0,))) * sample
    if not image.source.is_in_memory:
        # A chunk may hold channels that are not segmented.
        decoded = max(decoded, image.source.decoding_bytes)
    per_thread = _COUNTERS + decoded + tile_pixels * (2 * sample + _PER_PIXEL)
    total = _BASE + min(pixels, _COLORS) * _PER_COLOR + threads * per_thread
    if image.source.is_in_memory:
        total += max(pixels * sample, image.source.decoding_bytes)
    if regions:
        per_pixel = _PER_PIXEL_OF_REGIONS + (_PER_ROW if active_client() is not None else 0)
        total += min(threads * tile_pixels, pixels) * per_pixel
    return total


def least_memory(image: Image, tile_pixels: int) -> int:
    """State the memory in bytes without which a worker cannot hold one tile, whatever is in it."""
    sample = image.dtype.itemsize * image.color_channels
    held = tile_pixels * sample
    if image.source.is_in_memory:
        # All of it is sent.
        held += math.prod(image.shape) * sample
    else:
        held = max(held, image.source.decoding_bytes)
    return _LEAST_BASE + held + tile_pixels * _LEAST_PER_PIXEL
