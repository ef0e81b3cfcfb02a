"""How much memory a worker may need at most, known before the run."""

from __future__ import annotations

import logging
import math
from typing import Any

from napari_pixseg.errors import ParameterError, TooLarge
from napari_pixseg.execution.dask_cluster import active_client, memory_limits
from napari_pixseg.execution.worker_task import threads_of_task
from napari_pixseg.sources.image import Image

_log = logging.getLogger("napari_pixseg")

# All figures are bytes. They were measured on images of noise, where every pixel is a color and
# a region of its own, so usual pictures stay well below them.

# Python, NumPy, Dask and zarr once they are loaded.
_BASE = 300 << 20

# One color counter, of which each thread may have its own.
_COUNTERS = 64 << 20

# For each distinct color: the table, its merge, and the look-up.
_PER_COLOR = 40

# For each pixel of a tile, besides its samples: packed colors, classes, and the outputs.
_PER_PIXEL = 16

# Peak of the pass that makes the table, in a tile where every pixel is a region.
BYTES_PER_MEASURED_COMPONENT = 150

# A pixel of noise is a run and a component of its own.
_PER_PIXEL_OF_REGIONS = 30 + BYTES_PER_MEASURED_COMPONENT

# A worker of a cluster keeps the rows of a tile until they are fetched.
_PER_ROW = 110

# There are no more byte colors than this.
_COLORS = 1 << 24


def peak_memory(image: Image, tile_pixels: int, threads: int, regions: bool = False) -> int:
    """State the peak memory of one worker process in bytes.

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
        # It may hold channels that take no part.
        decoded = max(decoded, image.source.decoding_bytes)
    per_thread = _COUNTERS + decoded + tile_pixels * (2 * sample + _PER_PIXEL)
    total = _BASE + min(pixels, _COLORS) * _PER_COLOR + threads * per_thread
    if image.source.is_in_memory:
        total += max(pixels * sample, image.source.decoding_bytes)
    if regions:
        per_pixel = _PER_PIXEL_OF_REGIONS + (_PER_ROW if active_client() is not None else 0)
        total += min(threads * tile_pixels, pixels) * per_pixel
    return total


def threads_of_worker() -> int:
    """Return how many tiles one process of Dask's scheduler works on at a time."""
    # This asks Dask for its settings; runs without a memory limit do without it.
    import dask
    from dask.system import CPU_COUNT

    client = active_client()
    if client is not None:
        # The worker with the most threads needs the most memory.
        return max((threads for threads, _ in memory_limits(client).values()), default=1)
    if (of_task := threads_of_task()) is not None:
        return of_task
    if dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        return 1
    return int(dask.config.get("num_workers", None) or CPU_COUNT)


def parse_memory_limit(limit: Any) -> int | None:
    """Read a limit such as 2_000_000_000 or "4GiB"; None means no limit.

    Raises
    ------
    ParameterError
    """
    if limit is None:
        return None
    from dask.utils import parse_bytes

    try:
        # parse_bytes reads "GiB", and even "", as one of it. A limit must have a number.
        has_number = not isinstance(limit, str) or any(digit in limit for digit in "0123456789")
        number = int(parse_bytes(limit)) if has_number else 0
    except (ValueError, TypeError, AttributeError, OverflowError):
        number = 0
    # True is an int in Python, but a mistake here.
    if number <= 0 or isinstance(limit, bool):
        raise ParameterError(
            f"memory_limit = {limit!r} is no amount of memory; give bytes, or text such as '4GiB'."
        )
    return number


def name_small_workers(image: Image, tile_pixels: int, tiles: int, regions: bool) -> None:
    """Log, before a run on a cluster, which workers may be too small for it.

    It is not refused, because usual pictures need less than half of what noise does.
    """
    client = active_client()
    if client is None:
        return
    small = {}
    for address, (threads, limit) in memory_limits(client).items():
        need = peak_memory(image, tile_pixels, min(threads, tiles), regions)
        if 0 < limit < need:
            small[address] = (limit, need)
    if not small:
        return
    from dask.utils import format_bytes

    address = min(small)
    limit, need = small[address]
    others = "" if len(small) == 1 else f" (and {len(small) - 1} other workers as well)"
    _log.warning(
        f"The worker {address} has {format_bytes(limit)} of memory{others}, but may need "
        f"{format_bytes(need)} if the image is noise; should workers pause or die, give each more "
        "memory or fewer threads, and continue with resume."
    )


def refuse_memory(limit: Any, image: Image, tile_pixels: int, tiles: int, regions: bool) -> None:
    """Refuse a run that may need more memory than allowed.

    Raises
    ------
    TooLarge
        With both amounts, and what would help.
    """
    allowed = parse_memory_limit(limit)
    if allowed is None:
        return
    threads = min(threads_of_worker(), tiles)
    need = peak_memory(image, tile_pixels, threads, regions)
    if need <= allowed:
        return
    from dask.utils import format_bytes

    # The remedies are tried in this order: the first that suffices changes the result least.
    alone = peak_memory(image, tile_pixels, 1, regions)
    remedy = f"set the limit to {format_bytes(need)}"
    if threads > 1 and alone <= allowed:
        remedy += ", or run fewer threads a worker: one needs " + format_bytes(alone)
    elif regions and peak_memory(image, tile_pixels, threads) <= allowed:
        remedy += ", or leave out the output 'regions'"
    else:
        remedy += ", or store the image in smaller chunks"
    several = "" if threads == 1 else "s"
    raise TooLarge(
        f"A worker of {threads} thread{several} may need {format_bytes(need)} for this image, but "
        f"the memory limit is {format_bytes(allowed)}; {remedy}."
    )
