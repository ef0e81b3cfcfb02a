"""A few jobs at a time, some more that wait, and none that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from napari_pixseg.errors import Cancelled, Unavailable

T = TypeVar("T")


class Jobs:
    """Threads for the work of requests.

    Segmenting takes processors, fetching takes time: each has threads of its own,
    so that slow servers elsewhere keep nobody from being served.

    Parameters
    ----------
    workers : int
        Images that are segmented at a time.
    waiting : int
        Requests that may be in the house besides.
    """

    def __init__(self, workers: int, waiting: int) -> None:
        self._capacity, self._taken = workers + waiting, 0
        self._workers = ThreadPoolExecutor(workers, "pixseg-job")
        self._fetchers = ThreadPoolExecutor(workers + waiting, "pixseg-fetch")
        self._cancels: set[threading.Event] = set()

    @property
    def taken(self) -> int:
        """Requests in the house."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place from a request's beginning to its end; used by the event loop only.

        Raises
        ------
        Unavailable
            If all are taken.
        """
        if self._taken >= self._capacity:
            raise Unavailable("The queue is full; try again in some seconds.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def segment(
        self, work: Callable[[threading.Event], T], gone: Callable[[], Awaitable[None]]
    ) -> T:
        """Do work when a worker is free.

        Parameters
        ----------
        work : callable
            Is given an event that is set when it is to stop.
        gone : callable
            Returns, when awaited, once nobody waits for the result.

        Returns
        -------
        object
            What the work returns.

        Raises
        ------
        Cancelled
            If the client went away; the work has ended by then.
        """
        return await self._run(self._workers, work, gone)

    async def fetch(
        self, work: Callable[[threading.Event], T], gone: Callable[[], Awaitable[None]]
    ) -> T:
        """Do what is mostly waiting; otherwise like :meth:`segment`."""
        return await self._run(self._fetchers, work, gone)

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[threading.Event], T],
        gone: Callable[[], Awaitable[None]],
    ) -> T:
        cancel = threading.Event()
        self._cancels.add(cancel)
        submitted = pool.submit(work, cancel)
        job = asyncio.wrap_future(submitted)
        leaving = asyncio.ensure_future(gone())
        try:
            either: set[asyncio.Future[Any]] = {job, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                cancel.set()
                submitted.cancel()
                await asyncio.wait({job})
            return job.result()
        except asyncio.CancelledError:
            if job.cancelled():
                raise Cancelled("The client went away.") from None
            raise
        finally:
            cancel.set()
            leaving.cancel()
            self._cancels.discard(cancel)

    def close(self) -> None:
        """Stop all work, and wait until it has stopped."""
        for cancel in tuple(self._cancels):
            cancel.set()
        for pool in (self._workers, self._fetchers):
            pool.shutdown(cancel_futures=True)
