"""Running on a Dask cluster: an active client, its progress, its cancel, and its failures.

Data stay with the workers: what all tiles share is one node of the graph, results
travel to the client only where the client needs them, and what comes of
every tile is a message with its number.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from napari_pixseg.errors import ClusterLost, ClusterUnfit, ParameterError, PixsegError
from napari_pixseg.execution.admission import current_admission
from napari_pixseg.execution.scheduler_address import refuse_other_server
from napari_pixseg.execution.worker_task import threads_of_task

_LOOK_SECONDS = 0.1


_CONNECT_SECONDS = 10


# A tile that is being worked on is waited for after a cancel, but not for ever: its worker may
# hang. What it writes late is a whole chunk, of the same bytes as a resumed run's.
_PATIENCE_SECONDS = 120
# Workers pause at 80 % of their memory, and go on when they have got rid of some.
_PAUSED_SECONDS = 60.0
_LOOK_AT_WORKERS_SECONDS = 5.0
# Network file systems show the token of a worker that joined late after a while.
_TOKEN_SECONDS = 10


def active_client() -> Any:
    """Return the Dask client that computations go to; None where they stay in this process.

    Importing distributed only to ask would cost half a second.
    """
    if "distributed" not in sys.modules or threads_of_task() is not None:
        return None
    from dask.base import get_scheduler
    from distributed import Client

    owner = getattr(get_scheduler(), "__self__", None)
    return owner if isinstance(owner, Client) else None


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Run what is inside on a Dask scheduler, and nothing else of this process.

    Parameters
    ----------
    address : str
        Such as ``tcp://host:8786``; empty: where it would run anyway.

    Raises
    ------
    ParameterError
        If no scheduler answers there.
    """
    if not address:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ParameterError(
            f"The scheduler {address!r} needs the package distributed; install it, or leave "
            "the scheduler out to run on this machine."
        ) from None
    try:
        refuse_other_server(address, _CONNECT_SECONDS)
        client = _client(Client, address)
    except Exception as error:
        # Every protocol fails in its own way, and so does a server that is no scheduler.
        raise ParameterError(
            f"No Dask scheduler answers at {address!r}; check the address, for example "
            "tcp://192.0.2.1:8786, or leave it out to run on this machine."
        ) from error
    with _no_tracebacks(client), client, client.as_current():
        yield client


@contextmanager
def _no_tracebacks(client: Any) -> Iterator[None]:
    """Keep tracebacks of a connection that is lost off standard error; a sentence tells of it."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return client.status == "running" or record.exc_info is None

    log = logging.getLogger("distributed.client")
    log.addFilter(is_wanted)
    try:
        yield
    finally:
        log.removeFilter(is_wanted)


def _client(kind: Any, address: str) -> Any:
    """Connect; a client that could not is put out of the way, which it does not do by itself.

    When the garbage collector meets it, it would wait in vain for its loop to answer, for
    20 seconds and in any thread.

    Raises
    ------
    TimeoutError
        If what answers does not speak as a scheduler; distributed would wait for it for ever.
    """
    client = kind.__new__(kind)
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            client.__init__(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except BaseException as error:  # noqa: BLE001 - told to the caller below
            failures.append(error)

    connecting = threading.Thread(target=connect, name="connect", daemon=True)
    connecting.start()
    connecting.join(_CONNECT_SECONDS + _LOOK_SECONDS)
    if connecting.is_alive():
        failures.append(TimeoutError(f"no answer within {_CONNECT_SECONDS} s"))
    if failures:
        client.status = "closed"
        with suppress(Exception):
            client._loop_runner.stop()
        raise failures[0]
    return client


class ClusterRun:
    """One graph on a cluster.

    Parameters
    ----------
    client : distributed.Client
    name : str
        Of the tiles' keys ``(name, number)``; also the topic under which workers tell of them.
    tell : callable
        Called with the number of tiles that are done, on the caller's thread.
    check : callable
        Raises if the run is to stop.
    """

    def __init__(
        self, client: Any, name: str, tell: Callable[[int], None], check: Callable[[], None]
    ) -> None:
        self._client, self._name, self._tell, self._check = client, name, tell, check
        self._done: set[int] = set()
        self._told = 0
        self._next_look = 0.0
        self._paused_since: float | None = None
        self._admission = current_admission()
        # Tokens of workers that joined late, and until when they must be seen.
        self._joined: dict[str, float] = {}

    def compute(self, graph: Mapping[Any, Any], wanted: Any) -> Any:
        """Compute keys of a graph; results in the shape of ``wanted``.

        Raises
        ------
        ClusterLost
            If the scheduler, or too many workers, are gone.
        """
        self._client.subscribe_topic(self._name, self._hear)
        try:
            return self._compute(graph, wanted)
        except PixsegError:
            raise
        except Exception as error:
            if (sentence := _what_was_lost(error, self._client)) is not None:
                raise ClusterLost(sentence) from error
            raise
        finally:
            self._client.unsubscribe_topic(self._name)

    def _compute(self, graph: Mapping[Any, Any], wanted: Any) -> Any:
        with warnings.catch_warnings():
            # What all tiles share travels in the graph, compressed: scattered data cannot be
            # recovered when a worker dies, a node of the graph can.
            warnings.filterwarnings("ignore", "Sending large graph")
            futures = self._client.get(graph, wanted, sync=False)
        try:
            self._wait(futures)
            results = self._client.gather(futures)
        except BaseException:
            self._stop(futures)
            raise
        self._tell_done()
        return results

    def _hear(self, event: tuple[float, int | str]) -> None:
        # On the client's own thread; a tile that was computed twice is one.
        if isinstance(event[1], str):
            self._joined[event[1]] = time.monotonic() + _TOKEN_SECONDS
        else:
            self._done.add(event[1])

    def _confirm_joined(self) -> None:
        """Look for the tokens of workers that joined late."""
        for token, end in list(self._joined.items()):
            if self._admission is None or self._admission.confirm(token):
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
        from distributed import futures_of

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
            self._refuse_paused()
            self._refuse_lost()

    def _refuse_paused(self) -> None:
        """End a run that waits for workers which are all paused, and stay so."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_AT_WORKERS_SECONDS
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
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

    def _refuse_lost(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise ConnectionError("the connection is closed")

    def _stop(self, futures: Any) -> None:
        """Let no tile begin any more, and wait for those that did."""
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
    """Tell the client, from a worker, that a tile is done, or that it joined with a token."""
    from distributed import get_worker

    get_worker().log_event(topic, number)


def _is_executing(name: str, dask_worker: Any) -> bool:
    return any(
        isinstance(state.key, tuple) and state.key[0] == name
        for state in dask_worker.state.executing
    )


def _what_was_lost(error: Exception, client: Any) -> str | None:
    """Say in a sentence what of the cluster failed; None if it is an error of the task."""
    from concurrent.futures import CancelledError

    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            "The workers that had the same tile died, one after the other, most likely for lack "
            "of memory; give each more memory or fewer threads, and continue with resume."
        )
    lost = (CancelledError, FutureCancelledError, ConnectionError, TimeoutError)
    if isinstance(error, lost) or client.status != "running":
        return (
            "The connection to the Dask scheduler was lost, so the output is unfinished; start "
            "the cluster again, and continue with resume."
        )
    return None


def union_over_workers(find: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Return what a function finds in this process and, on a cluster, in those of its workers."""
    found = find()
    client = active_client()
    if client is None:
        return found
    return found.union(*client.run(find, on_error="ignore").values())


def memory_limits(client: Any) -> Mapping[str, tuple[int, int]]:
    """Return threads and memory limit, in bytes, of each worker by address; 0 for no limit."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        address: (int(worker["nthreads"]), int(worker["memory_limit"] or 0))
        for address, worker in workers.items()
    }
