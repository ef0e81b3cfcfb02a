"""One graph on a Dask cluster: its progress, its cancel, and its failures.

Data stay on the workers. Everything that all tiles share is one node of the graph, only the results
that the client needs travel to it, and for every finished tile a worker sends a message with its
number. This module loads distributed.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from distributed import futures_of, get_worker
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from napari_pixseg.errors import ClusterLost, ClusterUnfit, PixsegError
from napari_pixseg.execution.late_workers import required_proof
from napari_pixseg.execution.lost_cluster import cluster_lost
from napari_pixseg.execution.worker_checks import (
    refuse_changed_workers,
    refuse_missing_file,
    refuse_new_workers,
)

_LOOK_SECONDS = 0.1
# After a cancel, the client waits for tiles that have begun, but not forever: their worker may
# hang. A chunk that is written late is whole and has the same bytes as a resumed run's.
_PATIENCE_SECONDS = 120
# Workers pause at 80 % of their memory, and continue once they have freed some.
_PAUSED_SECONDS = 60.0
_LOOK_AT_WORKERS_SECONDS = 5.0
# On a network file system, the token of a late worker may take a while to appear.
_TOKEN_SECONDS = 10


class ClusterRun:
    """One graph on a cluster.

    Parameters
    ----------
    client : distributed.Client
    name : str
        First part of the tiles' keys ``(name, number)``; also the topic of the workers' messages.
    tell : callable
        Called with the number of tiles that are done, on the caller's thread.
    check : callable
        Raises an error if the run should stop.
    """

    def __init__(
        self, client: Any, name: str, tell: Callable[[int], None], check: Callable[[], None]
    ) -> None:
        self._client, self._name, self._tell, self._check = client, name, tell, check
        self._done: set[int] = set()
        self._told = 0
        self._next_look = 0.0
        self._paused_since: float | None = None
        self._proof = required_proof()
        # Tokens of workers that joined late, each with the time until which it must be seen.
        self._joined: dict[str, float] = {}

    def compute(self, graph: Mapping[Any, Any], wanted: Any) -> Any:
        """Compute keys of a graph; results in the shape of ``wanted``.

        Raises
        ------
        ClusterLost
            If the scheduler, or too many workers, are gone, or if the client was closed.
        ClusterUnfit
            If a worker that joined late has another version of this package, or none.
        """
        try:
            self._client.subscribe_topic(self._name, self._hear)
            return self._compute(graph, wanted)
        except PixsegError:
            raise
        except Exception as error:
            if (lost := _what_was_lost(error, self._client)) is not None:
                raise lost from error
            # A late worker that lacks something the others have can fail in many ways.
            refuse_changed_workers(self._client)
            refuse_missing_file(self._client, error)
            raise
        finally:
            # A closed client receives no more messages.
            with suppress(Exception):
                self._client.unsubscribe_topic(self._name)

    def _compute(self, graph: Mapping[Any, Any], wanted: Any) -> Any:
        with warnings.catch_warnings():
            # Data that all tiles share travel in the graph, compressed. A node of the graph can be
            # recovered when a worker dies; scattered data cannot.
            warnings.filterwarnings("ignore", "Sending large graph")
            futures = self._client.get(graph, wanted, sync=False)
        try:
            self._wait(futures)
            results = self._client.gather(futures)
            # A worker may have joined since the last check.
            refuse_new_workers(self._client, self._find_workers())
        except BaseException:
            self._stop(futures)
            raise
        self._tell_done()
        return results

    def _hear(self, event: tuple[float, int | str]) -> None:
        # Runs on the client's own thread. A tile that was computed twice counts once.
        if isinstance(event[1], str):
            self._joined[event[1]] = time.monotonic() + _TOKEN_SECONDS
        else:
            self._done.add(event[1])

    def _confirm_joined(self) -> None:
        """Look for the tokens of workers that joined late."""
        for token, end in list(self._joined.items()):
            if self._proof is None or self._proof.confirm(token):
                del self._joined[token]
            elif time.monotonic() > end:
                raise ClusterUnfit(
                    "A worker that joined late writes where the client does not see it; give an "
                    "output on a disk that all workers share, or a URL, and continue with resume."
                )

    def _tell_done(self) -> None:
        for number in range(self._told, len(self._done)):
            self._told = number + 1
            self._tell(self._told)

    def _wait(self, futures: Any) -> None:
        pending = futures_of(futures)  # type: ignore[no-untyped-call]
        finished = threading.Event()
        left = len(pending)
        counting = threading.Lock()

        def one_less(future: Any) -> None:
            nonlocal left
            with counting:
                left -= 1
            if left == 0 or future.status != "finished":
                finished.set()

        for future in pending:
            future.add_done_callback(one_less)
        while not finished.wait(_LOOK_SECONDS):
            self._check()
            self._tell_done()
            self._confirm_joined()
            self._look_at_workers()
            self._refuse_lost()

    def _look_at_workers(self) -> None:
        """End the run if a worker has another version, or if all workers stay paused."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_AT_WORKERS_SECONDS
        found = self._find_workers()
        refuse_new_workers(self._client, found)
        workers = found.values()
        if not workers or any(worker["status"] != "paused" for worker in workers):
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = now
        elif now - self._paused_since >= _PAUSED_SECONDS:
            raise ClusterLost(
                f"All workers of the cluster have been paused for {_PAUSED_SECONDS:.0f} s, because "
                "their memory is full; give each more memory or fewer threads, and continue with "
                "resume."
            )

    def _find_workers(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]]
        found = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _refuse_lost(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise ConnectionError("the connection is closed")

    def _stop(self, futures: Any) -> None:
        """Let no further tile begin, and wait for those that have begun."""
        try:
            self._client.cancel(futures, force=True, reason="the run has ended")
            end = time.monotonic() + _PATIENCE_SECONDS
            while self._is_at_work() and time.monotonic() < end:
                time.sleep(_LOOK_SECONDS)
        except Exception:  # noqa: BLE001 - the reason of the end is told already
            return

    def _is_at_work(self) -> bool:
        if self._client.status != "running":
            return False
        busy = self._client.run(_is_executing, self._name, on_error="ignore")
        return any(busy.values())


def tell_client(topic: str, number: int | str) -> None:
    """Send the client, from a worker, the number of a finished tile or a late worker's token."""
    get_worker().log_event(topic, number)


def _is_executing(name: str, dask_worker: Any) -> bool:
    return any(
        isinstance(state.key, tuple) and state.key[0] == name
        for state in dask_worker.state.executing
    )


def _what_was_lost(error: Exception, client: Any) -> ClusterLost | None:
    """Say in a sentence how the cluster failed; None if the error is the task's own."""
    if isinstance(error, KilledWorker):
        return ClusterLost(
            "The workers that had the same tile died, one after the other, most likely for lack "
            "of memory; give each more memory or fewer threads, and continue with resume."
        )
    lost = (CancelledError, FutureCancelledError, ConnectionError, TimeoutError)
    return cluster_lost() if isinstance(error, lost) or client.status != "running" else None
