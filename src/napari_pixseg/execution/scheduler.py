"""Run one function on every tile, with progress and cancel, and merge what it returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg import __version__
from napari_pixseg.errors import ClusterUnfit, NotAnImage
from napari_pixseg.execution.allocator import FreedMemory, give_back_memory, share_arenas
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.late_workers import prove_once, required_proof
from napari_pixseg.execution.local_threads import MergeTree, dask_is_wanted, map_ordered
from napari_pixseg.execution.lost_cluster import cluster_lost
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.running_tiles import RunningTiles
from napari_pixseg.execution.tile_source import TileFunction, TileSource
from napari_pixseg.slices import shape_of

if TYPE_CHECKING:
    import dask.array as da

# Dask's tasks by key.
Graph: TypeAlias = dict[Any, Any]
# Merges a list of results.
Merge: TypeAlias = Callable[[list[Any]], Any]

# This many results are merged at a time.
FAN_IN = 8

# Up to this many tiles leave behind too little memory to be worth returning.
_FEW_TILES = 4

# Where tiles have a fixed order, this many begin before the first is done: enough for all threads.
_AHEAD = 4 * (os.cpu_count() or 1)


class _TileTask:
    """The work on one tile. All tasks of a pass share one of these.

    Parameters
    ----------
    tile_source : TileSource
    function : callable
        Called with each tile and its number.
    topic : str, optional
        Workers of a cluster report finished tiles to the client under this topic.
    """

    def __init__(
        self, tile_source: TileSource, function: TileFunction, topic: str | None = None
    ) -> None:
        self._read = tile_source.read
        self._steps = tile_source.steps
        self._tiling = tile_source.tiling
        self._function = function
        self._topic = topic
        self._proof = None if topic is None else required_proof()
        self.running_tiles = RunningTiles()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_task, (__version__, self.__dict__)

    def run_on_block(self, block: Any, number: int) -> Any:
        """Work on a tile that Dask computed."""
        self._refuse_other_shape(block, number)
        self._enter()
        with self.running_tiles:
            for step in self._steps:
                block = step(block, number)
            return self._function(block, number)

    def run_on_number(self, number: int) -> Any:
        """Read a tile and work on it."""
        assert self._read is not None
        self._enter()
        with self.running_tiles:
            return self._function(self._read(number), number)

    def _enter(self) -> None:
        """Let a worker that joined late give the same proof as the others."""
        if self._proof is not None and self._topic is not None:
            prove_once(self._proof, partial(_tell_client, self._topic))

    def tell_client(self, number: int) -> None:
        """Tell the client that a tile is done, if it listens."""
        if self._topic is not None:
            _tell_client(self._topic, number)

    def _refuse_other_shape(self, block: Any, number: int) -> None:
        shape = getattr(block, "shape", None)
        if self._tiling is None or shape is None:
            return
        wanted = shape_of(self._tiling.slices(number))
        if shape[: len(wanted)] != wanted:
            raise NotAnImage(
                f"Tile {number} of the Dask array should have the shape {wanted}, but has "
                f"{shape[: len(wanted)]}; give map_blocks, or whatever made it, the chunks that "
                "its function returns."
            )


def _tell_client(topic: str, message: int | str) -> None:
    # Workers have loaded distributed; other processes need not.
    from napari_pixseg.execution.cluster_run import tell_client

    tell_client(topic, message)


def _restore_task(version: str, state: dict[str, Any]) -> _TileTask:
    """Unpickle a task, on a worker that may have joined late.

    Raises
    ------
    ClusterUnfit
        If the client has another version of this package.
    """
    if version != __version__:
        raise ClusterUnfit(
            f"A worker has napari-pixseg {__version__}, but the run began with napari-pixseg "
            f"{version}; install the same version everywhere, and continue with resume."
        )
    task = _TileTask.__new__(_TileTask)
    task.__dict__.update(state)
    return task


def _run_task(task: _TileTask, number: int, _after: None, *block: Any) -> Any:
    result = task.run_on_block(block[0], number) if block else task.run_on_number(number)
    task.tell_client(number)
    return result


def run_tiles(
    tile_source: TileSource,
    function: TileFunction,
    stage: str,
    monitor: RunMonitor | None = None,
    merge: Merge | None = None,
) -> Any:
    """Apply a function to every tile, on whatever scheduler Dask uses.

    Threads of this process do the same without Dask if the tiles are read by a function and nobody
    has loaded or configured Dask.

    Parameters
    ----------
    tile_source : TileSource
    function : callable
        Called once for every tile with its block and its number.
    stage : str
        Name of the stage in progress events.
    monitor : RunMonitor, optional
    merge : callable, optional
        Merges a list of results. It is applied as a tree, so that the results of all tiles are
        never in one place.

    Returns
    -------
    object
        The merged result, or the list of results in the order of the tiles.

    Raises
    ------
    Cancelled
        If the monitor asks to stop.
    """
    monitor = monitor or RunMonitor()
    if tile_source.keys is None and not dask_is_wanted():
        task = _TileTask(tile_source, function)
        return _run_on_threads(task, tile_source.numbers, stage, monitor, merge)
    graph, keys = tile_graph(tile_source, function, stage)
    wanted = keys if merge is None else add_merge_tree(graph, keys, merge)
    return compute_graph(graph, wanted, keys, stage, monitor)


def _run_on_threads(
    task: _TileTask,
    numbers: Sequence[int],
    stage: str,
    monitor: RunMonitor,
    merge: Merge | None,
) -> Any:
    def work(number: int) -> Any:
        monitor.check()
        return task.run_on_number(number)

    if len(numbers) > _FEW_TILES:
        share_arenas()
    monitor.check()
    monitor.tell(stage, 0, len(numbers))
    results: list[Any] = []
    tree = None if merge is None else MergeTree(merge, FAN_IN)
    freed = FreedMemory()
    try:
        with closing(map_ordered(work, numbers)) as worked:
            for done, result in enumerate(worked, 1):
                # The threads may be far ahead of a slow listener.
                monitor.check()
                (results.append if tree is None else tree.add)(result)
                freed.check()
                monitor.tell(stage, done, len(numbers))
        return results if tree is None else tree.result()
    finally:
        if len(numbers) > _FEW_TILES:
            give_back_memory()


def tile_graph(
    tile_source: TileSource, function: TileFunction, stage: str
) -> tuple[Graph, list[Any]]:
    """Return the graph that applies a function to every tile, and the keys of the results."""
    name = f"{stage.replace(' ', '-')}-{os.urandom(16).hex()}"
    graph: Graph = dict(tile_source.graph)
    task = _task_key(name)
    graph[task] = _TileTask(tile_source, function, None if active_client() is None else name)
    keys: list[Any] = []
    after = None
    for number in tile_source.numbers:
        key = None if tile_source.keys is None else tile_source.keys[number]
        block = () if key is None else (key,)
        if tile_source.is_ordered and len(keys) >= _AHEAD:
            earlier = after
            after = (f"done-{name}", len(keys))
            graph[after] = (_wait_for, keys[-_AHEAD], earlier)
        graph[(name, number)] = (_run_task, task, number, after, *block)
        keys.append((name, number))
    return graph, keys


def _wait_for(_result: object, _earlier: None) -> None:
    """Do nothing; a task that depends on this one begins after a tile and all tiles before it."""


def add_merge_tree(graph: Graph, keys: list[Any], merge: Merge) -> Any:
    """Add tasks that merge results, few at a time; return the key of the merged result."""
    name = keys[0][0]
    level = 0
    while level == 0 or len(keys) > 1:
        parts = [keys[start : start + FAN_IN] for start in range(0, len(keys), FAN_IN)]
        merged = [(f"merge-{level}-{name}", number) for number in range(len(parts))]
        graph.update((key, (merge, part)) for key, part in zip(merged, parts, strict=True))
        keys = merged
        level += 1
    return keys[0]


def compute_graph(
    graph: Graph, wanted: Any, keys: Sequence[Any], stage: str, monitor: RunMonitor
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

    Raises
    ------
    ClusterLost
    """
    name = keys[0][0]
    if (client := active_client()) is not None:
        return _compute_on_cluster(client, graph, wanted, name, stage, len(keys), monitor)
    if required_proof() is not None:
        # The run began on a cluster. This machine may be too small for it.
        raise cluster_lost()
    # Dask is loaded only where it is wanted.
    from napari_pixseg.execution.dask_scheduler import TileProgress, compute_keys

    share_arenas()
    try:
        return compute_keys(graph, wanted, TileProgress(name, stage, len(keys), monitor))
    except BaseException:
        graph[_task_key(name)].running_tiles.close()
        raise
    finally:
        if len(keys) > _FEW_TILES:
            give_back_memory()


def _compute_on_cluster(
    client: Any,
    graph: Graph,
    wanted: Any,
    name: str,
    stage: str,
    total: int,
    monitor: RunMonitor,
) -> Any:
    monitor.check()
    monitor.tell(stage, 0, total)
    # Loads distributed, which the active client has loaded anyway.
    from napari_pixseg.execution.cluster_run import ClusterRun

    run = ClusterRun(client, name, lambda done: monitor.tell(stage, done, total), monitor.check)
    return run.compute(graph, wanted)


def runs_here() -> bool:
    """Whether threads of this process, which share its memory, work on the tiles."""
    if active_client() is not None:
        return False
    if not dask_is_wanted():
        return True
    from napari_pixseg.execution.dask_scheduler import uses_threads_of_process

    return uses_threads_of_process()


def _task_key(name: str) -> str:
    return f"task-{name}"


def compute_array(array: da.Array, stage: str, monitor: RunMonitor) -> NDArray[Any]:
    """Compute an array on this machine's threads, with progress and cancel.

    Raises
    ------
    Cancelled
        If the monitor asks to stop.
    """
    from napari_pixseg.execution.dask_scheduler import TileProgress

    progress = TileProgress(array.name, stage, array.npartitions, monitor)
    return np.asarray(array.compute(scheduler="threads", **progress.as_argument()))
