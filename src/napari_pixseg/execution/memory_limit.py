"""Whether workers have the memory that a run may need. This module loads Dask."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from napari_pixseg.byte_sizes import read_byte_size
from napari_pixseg.errors import ParameterError, TooLarge
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.lost_cluster import expecting_answer
from napari_pixseg.execution.memory_estimate import least_memory, peak_memory
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
    if (number := read_byte_size(limit)) is None:
        raise ParameterError(
            f"memory_limit = {limit!r} is not an amount of memory; give bytes, or "
            "text such as '4GiB'."
        )
    return number


def refuse_small_workers(image: Image, tile_pixels: int, tiles: int, regions: bool) -> None:
    """Refuse, before a run on a cluster, workers that cannot hold one tile; warn of tight ones.

    Those are not refused, because usual pictures need less than half as much as noise.

    Raises
    ------
    TooLarge
        Naming a worker and both amounts.
    """
    client = active_client()
    if client is None:
        return
    limits = {address: of for address, of in memory_limits(client).items() if of[1]}
    least = least_memory(image, tile_pixels)
    tiny = sorted(address for address, (_, limit) in limits.items() if limit < least)
    if tiny:
        raise TooLarge(
            f"The worker {tiny[0]} has {format_bytes(limits[tiny[0]][1])} of memory"
            f"{_and_others(tiny)}, but one tile of this image takes {format_bytes(least)}; give "
            "each worker more memory, or store the image in smaller chunks."
        )
    needs = {
        address: peak_memory(image, tile_pixels, min(threads, tiles), regions)
        for address, (threads, _) in limits.items()
    }
    tight = sorted(address for address, need in needs.items() if limits[address][1] < need)
    if tight:
        _log.warning(
            f"The worker {tight[0]} has {format_bytes(limits[tight[0]][1])} of memory"
            f"{_and_others(tight)}, but may need {format_bytes(needs[tight[0]])} if the image is "
            "noise; should workers pause or die, give each more memory or fewer threads, and "
            "continue with resume."
        )


def _and_others(workers: list[str]) -> str:
    return "" if len(workers) == 1 else f" (and {len(workers) - 1} more have too little as well)"


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
    """Return threads and memory limit, in bytes, of each worker by address; 0 for no limit.

    Raises
    ------
    ClusterLost
    """
    with expecting_answer():
        workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        address: (int(worker["nthreads"]), int(worker["memory_limit"] or 0))
        for address, worker in workers.items()
    }
