"""Whether workers have the memory that a run may need. This module loads Dask."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from napari_pixseg.errors import ParameterError, TooLarge
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.memory_estimate import peak_memory
from napari_pixseg.execution.worker_task import threads_of_task
from napari_pixseg.sources.image import Image

_log = logging.getLogger("napari_pixseg")


def threads_of_worker() -> int:
    """Return how many tiles one process of Dask's scheduler works on at a time."""
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
    try:
        # parse_bytes reads "GiB", and even "", as a number of 1. A limit must state its number.
        has_number = not isinstance(limit, str) or any(digit in limit for digit in "0123456789")
        number = int(parse_bytes(limit)) if has_number else 0
    except (ValueError, TypeError, AttributeError, OverflowError):
        number = 0
    # In Python, True is an int; here it is a mistake.
    if number <= 0 or isinstance(limit, bool):
        raise ParameterError(
            f"memory_limit = {limit!r} is no amount of memory; give bytes, or text such as '4GiB'."
        )
    return number


def name_small_workers(image: Image, tile_pixels: int, tiles: int, regions: bool) -> None:
    """Log a warning, before a run on a cluster, about workers that may have too little memory.

    The run is not refused, because usual pictures need less than half as much as noise.
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
    # Remedies are tried in this order, so that the first one that suffices changes the result
    # least.
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


def memory_limits(client: Any) -> Mapping[str, tuple[int, int]]:
    """Return threads and memory limit, in bytes, of each worker by address; 0 for no limit."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        address: (int(worker["nthreads"]), int(worker["memory_limit"] or 0))
        for address, worker in workers.items()
    }
