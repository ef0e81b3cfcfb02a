"""Dask's own schedulers: which one is set, and computing a graph on it with progress.

Importing this module loads Dask, so it is imported only where Dask is wanted.
"""

from __future__ import annotations

import sys
from typing import Any

import dask.local
import dask.multiprocessing
import dask.threaded
from dask.base import get_scheduler, named_schedulers
from dask.callbacks import Callback

from napari_pixseg.execution.allocator import FreedMemory
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.worker_task import threads_of_task


def find_scheduler() -> Any:
    """Return the scheduler that Dask would use, unless this is a task of a worker.

    Dask's own function imports distributed to ask for its client, even if a scheduler is named.
    """
    is_in_task = threads_of_task() is not None
    if "distributed" in sys.modules and not is_in_task:
        return get_scheduler() or dask.threaded.get
    wanted = dask.config.get("scheduler", None)
    if wanted is None:
        return dask.threaded.get
    local = named_schedulers.get(wanted.lower()) if isinstance(wanted, str) else None
    # A worker's configuration names its cluster.
    return local or (dask.threaded.get if is_in_task else get_scheduler())


def uses_threads_of_process() -> bool:
    """Whether the configured scheduler uses threads of this process."""
    return find_scheduler() in (dask.threaded.get, dask.local.get_sync)


def compute_keys(graph: dict[Any, Any], wanted: Any, progress: TileProgress) -> Any:
    """Compute keys of a graph on the configured scheduler.

    Only schedulers of this process take callbacks, so others compute without progress.
    """
    get = find_scheduler()
    local = (dask.threaded.get, dask.local.get_sync, dask.multiprocessing.get)
    options: dict[str, Any] = progress.as_argument() if get in local else {}
    if get is dask.threaded.get and (threads := threads_of_task()) is not None:
        options["num_workers"] = threads
    return get(graph, wanted, **options)


class TileProgress:
    """Counts finished tiles for a scheduler's callbacks, and ends the run when asked to.

    Parameters
    ----------
    name : str
        Keys ``(name, number)`` are tiles.
    stage : str
    total : int
    monitor : RunMonitor
    """

    def __init__(self, name: str, stage: str, total: int, monitor: RunMonitor) -> None:
        self._name = name
        self._stage = stage
        self._total = total
        self._monitor = monitor
        self._done = 0
        self._freed = FreedMemory()

    def as_argument(self) -> dict[str, list[Any]]:
        """Return an argument for the scheduler: these callbacks and those already registered.

        These callbacks are not registered, because registered ones hold for the whole process: they
        would also count and cancel the computations of other threads.
        """
        ours = (self._start, None, self._before_task, self._after_task, None)
        return {"callbacks": [ours, *Callback.active]}

    def _start(self, dsk: Any) -> None:
        self._monitor.check()
        self._monitor.tell(self._stage, 0, self._total)

    def _before_task(self, key: Any, dsk: Any, state: Any) -> None:
        self._monitor.check()

    def _after_task(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        if isinstance(key, tuple) and key[0] == self._name:
            self._done += 1
            self._freed.check()
            self._monitor.tell(self._stage, self._done, self._total)
