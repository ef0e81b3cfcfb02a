"""Run one function on every tile, with progress and cancel, and merge what it returns."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import Cancelled, NotAnImage
from napari_pixseg.execution.allocator import FreedMemory, give_back, share_arenas
from napari_pixseg.execution.dask_cluster import ClusterRun, active_client, tell_client
from napari_pixseg.execution.local_threads import MergeTree, dask_is_wanted, map_ordered
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.tile_source import TileSource

if TYPE_CHECKING:
    import dask.array as da


FAN_IN = 8


# What so few leave behind is not worth looking for.
_FEW_TILES = 4


# Of tiles in order, so many are begun before the first of them is done: enough for all threads.
_AHEAD = 4 * (os.cpu_count() or 1)


class _Job:
    """What is done with a tile; one object that all tasks share."""

    def __init__(self, tile_source: TileSource, function: Callable[[Any, int], Any]) -> None:
        self._read, self._function, self._tiling = tile_source.read, function, tile_source.tiling
        self.at_work = _AtWork()
        self.topic: str | None = None

    def on_block(self, block: Any, number: int) -> Any:
        self._refuse_other_shape(block, number)
        with self.at_work:
            return self._function(block, number)

    def on_number(self, number: int) -> Any:
        assert self._read is not None
        with self.at_work:
            return self._function(self._read(number), number)

    def _refuse_other_shape(self, block: Any, number: int) -> None:
        shape = getattr(block, "shape", None)
        if self._tiling is None or shape is None:
            return
        wanted = tuple(part.stop - part.start for part in self._tiling.slices(number))
        if shape[: len(wanted)] != wanted:
            raise NotAnImage(
                f"Tile {number} of the Dask array should have the shape {wanted}, but has "
                f"{shape[: len(wanted)]}; give map_blocks, or whatever made it, the chunks that "
                "its function returns."
            )


class _AtWork:
    """Tiles that this process is at work on.

    Threads of a pool go on with their tiles after the scheduler gave up, and
    what they then write would get into whatever takes this output's place.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count, self._closed = 0, False

    def __reduce__(self) -> tuple[Any, ...]:
        return _AtWork, ()

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise Cancelled("The run has ended.")
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Let no tile begin, and wait for those that did."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._count)


def _apply(job: _Job, number: int, _after: None, *block: Any) -> Any:
    result = job.on_block(block[0], number) if block else job.on_number(number)
    if job.topic is not None:
        tell_client(job.topic, number)
    return result


def run_tiles(
    tile_source: TileSource,
    function: Callable[[Any, int], Any],
    stage: str,
    monitor: RunMonitor | None = None,
    merge: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Apply a function to every tile, on whatever scheduler Dask is set to.

    Where Dask has no part in a process, because the tiles are read by a function and nobody
    loaded or configured it, this process's threads do the same without it.

    Parameters
    ----------
    tile_source : TileSource
    function : callable
        Called once for every tile with its block and its number.
    stage : str
        Name of the stage in progress events.
    monitor : RunMonitor, optional
    merge : callable, optional
        Merges a list of results; used as a tree, so that results of all tiles
        never meet in one place.

    Returns
    -------
    object
        The merged result, or the list of results in the order of the tiles.

    Raises
    ------
    Cancelled
        If the watch says so.
    """
    monitor = monitor or RunMonitor()
    if tile_source.keys is None and not dask_is_wanted():
        return _run_here(_Job(tile_source, function), tile_source.numbers, stage, monitor, merge)
    graph, keys = tile_graph(tile_source, function, stage)
    wanted = keys if merge is None else _merge_tree(graph, keys, merge)
    return compute_graph(graph, wanted, keys, stage, monitor)


def _run_here(
    job: _Job,
    numbers: Sequence[int],
    stage: str,
    monitor: RunMonitor,
    merge: Callable[[list[Any]], Any] | None,
) -> Any:
    def work(number: int) -> Any:
        monitor.check()
        return job.on_number(number)

    if len(numbers) > _FEW_TILES:
        share_arenas()
    monitor.check()
    monitor.tell(stage, 0, len(numbers))
    results: list[Any] = []
    tree, freed = None if merge is None else MergeTree(merge, FAN_IN), FreedMemory()
    try:
        with closing(map_ordered(work, numbers)) as worked:
            for done, result in enumerate(worked, 1):
                # Threads may be far ahead of who listens.
                monitor.check()
                (results.append if tree is None else tree.add)(result)
                freed.check()
                monitor.tell(stage, done, len(numbers))
        return results if tree is None else tree.result()
    finally:
        if len(numbers) > _FEW_TILES:
            give_back()


def tile_graph(
    tile_source: TileSource, function: Callable[[Any, int], Any], stage: str
) -> tuple[dict[Any, Any], list[Any]]:
    """Return the graph that applies a function to every tile, and the keys of its results."""
    name = f"{stage.replace(' ', '-')}-{os.urandom(16).hex()}"
    graph: dict[Any, Any] = dict(tile_source.graph)
    job = _job_key(name)
    graph[job] = _Job(tile_source, function)
    keys: list[Any] = []
    after = None
    for number in tile_source.numbers:
        key = None if tile_source.keys is None else tile_source.keys[number]
        block = () if key is None else (key,)
        if tile_source.is_ordered and len(keys) >= _AHEAD:
            earlier, after = after, (f"done-{name}", len(keys))
            graph[after] = (_nothing, keys[-_AHEAD], earlier)
        graph[(name, number)] = (_apply, job, number, after, *block)
        keys.append((name, number))
    return graph, keys


def _nothing(_result: Any, _earlier: None) -> None:
    """Tell that a tile and all before it are done, to one that is to begin after them."""


def _merge_tree(graph: dict[Any, Any], keys: list[Any], merge: Callable[[list[Any]], Any]) -> Any:
    level, name = 0, keys[0][0]
    while level == 0 or len(keys) > 1:
        parts = [keys[start : start + FAN_IN] for start in range(0, len(keys), FAN_IN)]
        merged = [(f"merge-{level}-{name}", number) for number in range(len(parts))]
        graph.update((key, (merge, part)) for key, part in zip(merged, parts, strict=True))
        keys, level = merged, level + 1
    return keys[0]


def compute_graph(
    graph: dict[Any, Any], wanted: Any, keys: Sequence[Any], stage: str, monitor: RunMonitor
) -> Any:
    """Compute keys of a graph, reporting progress as the tiles' keys are done.

    Parameters
    ----------
    graph : dict
    wanted : key, or nested lists of keys
    keys : sequence of (name, number)
        The results of :func:`tile_graph`, whose completion is progress.
    stage : str
    monitor : RunMonitor

    Returns
    -------
    object
        Results in the shape of ``wanted``.
    """
    name = keys[0][0]
    if (client := active_client()) is not None:
        return _compute_on_cluster(client, graph, wanted, name, stage, len(keys), monitor)
    share_arenas()
    get = _scheduler()
    callbacks = _Callbacks(name, stage, len(keys), monitor).on_top if _is_local(get) else {}
    try:
        return get(graph, wanted, **callbacks)
    except BaseException:
        graph[_job_key(name)].at_work.end()
        raise
    finally:
        if len(keys) > _FEW_TILES:
            give_back()


def _compute_on_cluster(
    client: Any,
    graph: dict[Any, Any],
    wanted: Any,
    name: str,
    stage: str,
    total: int,
    monitor: RunMonitor,
) -> Any:
    graph[_job_key(name)].topic = name
    monitor.check()
    monitor.tell(stage, 0, total)
    run = ClusterRun(client, name, lambda done: monitor.tell(stage, done, total), monitor.check)
    return run.compute(graph, wanted)


def _scheduler() -> Any:
    """Return what Dask would compute with.

    Dask itself imports distributed to ask for its client, even where a scheduler is named.
    """
    import dask.threaded
    from dask.base import get_scheduler, named_schedulers

    if "distributed" in sys.modules:
        return get_scheduler() or dask.threaded.get
    wanted = dask.config.get("scheduler", None)
    if wanted is None:
        return dask.threaded.get
    local = named_schedulers.get(wanted.lower()) if isinstance(wanted, str) else None
    return local or get_scheduler()


def runs_here() -> bool:
    """Whether tiles are worked on by threads of this process, which share its memory."""
    if active_client() is not None:
        return False
    if not dask_is_wanted():
        return True
    import dask.local
    import dask.threaded

    return _scheduler() in (dask.threaded.get, dask.local.get_sync)


def _is_local(get: Any) -> bool:
    """Whether this is a scheduler of this process, which takes callbacks."""
    import dask.local
    import dask.multiprocessing
    import dask.threaded

    return get in (dask.threaded.get, dask.local.get_sync, dask.multiprocessing.get)


def _job_key(name: str) -> str:
    return f"job-{name}"


def compute_array(array: da.Array, stage: str, monitor: RunMonitor) -> NDArray[Any]:
    """Compute an array on this machine's threads, with progress and cancel.

    Raises
    ------
    Cancelled
        If the watch says so.
    """
    callbacks = _Callbacks(array.name, stage, array.npartitions, monitor)
    return np.asarray(array.compute(scheduler="threads", **callbacks.on_top))


class _Callbacks:
    """Counts finished tiles and stops the scheduler; local schedulers call it."""

    def __init__(self, name: str, stage: str, total: int, monitor: RunMonitor) -> None:
        self._name, self._stage, self._total, self._watch = name, stage, total, monitor
        self._done, self._freed = 0, FreedMemory()

    @property
    def on_top(self) -> dict[str, list[Any]]:
        """The argument for a scheduler: these, and those that are registered.

        Given by hand: registered callbacks are those of the whole process, and would count
        and cancel what other threads compute meanwhile.
        """
        from dask.callbacks import Callback

        ours = (self._start, None, self._before_task, self._after_task, None)
        return {"callbacks": [ours, *Callback.active]}

    def _start(self, dsk: Any) -> None:
        self._watch.check()
        self._watch.tell(self._stage, 0, self._total)

    def _before_task(self, key: Any, dsk: Any, state: Any) -> None:
        self._watch.check()

    def _after_task(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        if isinstance(key, tuple) and key[0] == self._name:
            self._done += 1
            self._freed.check()
            self._watch.tell(self._stage, self._done, self._total)
