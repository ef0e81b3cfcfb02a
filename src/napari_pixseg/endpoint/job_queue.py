"""The job queue: a few jobs run at a time, some more wait, and abandoned ones are cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from napari_pixseg.errors import Cancelled, Unavailable
from napari_pixseg.execution.allocator import give_back_memory

T = TypeVar("T")


class JobQueue:
    """Threads for the work of requests.

    Segmenting needs processors, while fetching mostly waits. Each has its own threads, so
    that a slow picture server elsewhere delays nobody else.

    Parameters
    ----------
    workers : int
        How many images are segmented at a time.
    waiting : int
        How many further requests may queue.
    """

    def __init__(self, workers: int, waiting: int) -> None:
        self._capacity = workers + waiting
        self._usual_places = workers
        self._was_crowded = False
        self._places_taken = 0
        self._workers = ThreadPoolExecutor(workers, "pixseg-job")
        # All accepted requests may fetch at the same time.
        self._fetchers = ThreadPoolExecutor(workers + waiting, "pixseg-fetch")
        self._cancels: set[threading.Event] = set()
        self._jobs: set[Future[Any]] = set()
        self._is_draining = False

    @property
    def places_taken(self) -> int:
        """Number of requests that are running or waiting."""
        return self._places_taken

    @property
    def jobs_running(self) -> int:
        """Number of images that are worked on."""
        return sum(job.running() for job in tuple(self._jobs))

    @property
    def jobs_waiting(self) -> int:
        """Number of images that wait for a worker."""
        return sum(not (job.running() or job.done()) for job in tuple(self._jobs))

    @property
    def is_draining(self) -> bool:
        """Whether no new job is accepted, because the server is being stopped."""
        return self._is_draining

    def begin_drain(self) -> None:
        """Accept no new job; drop jobs that have not begun, and let running jobs finish."""
        self._is_draining = True
        for job in tuple(self._jobs):
            job.cancel()

    def _refuse_drain(self) -> None:
        if self._is_draining:
            raise Unavailable("The server is being stopped; try again in a few seconds.")

    @contextmanager
    def hold_place(self) -> Iterator[None]:
        """Hold a place from the start of a request to its end.

        Only the event loop may call this; the count has no lock.

        Raises
        ------
        Unavailable
            If all places are taken.
        """
        self._refuse_drain()
        if self._places_taken >= self._capacity:
            raise Unavailable("The queue is full; try again in a few seconds.")
        self._places_taken += 1
        self._was_crowded |= self._places_taken > self._usual_places
        try:
            yield
        finally:
            self._places_taken -= 1
            self._give_back_after_crowd()

    def _give_back_after_crowd(self) -> None:
        """Return the memory of many bodies that waited, once none is left."""
        if self._was_crowded and not self._places_taken and not self._is_draining:
            self._was_crowded = False
            # Takes milliseconds, for which the event loop should not wait.
            self._fetchers.submit(give_back_memory)

    async def run_job(
        self,
        work: Callable[[threading.Event], T],
        wait_until_gone: Callable[[], Awaitable[None]],
    ) -> T:
        """Do work as soon as a worker is free.

        Parameters
        ----------
        work : callable
            Receives an event that is set when it should stop.
        wait_until_gone : callable
            Its awaitable finishes when nobody waits for the result any longer.

        Returns
        -------
        object
            What the work returns.

        Raises
        ------
        Cancelled
            If the client went away; the work has stopped by then.
        """
        return await self._run_in(self._workers, work, wait_until_gone)

    async def run_fetch(
        self,
        work: Callable[[threading.Event], T],
        wait_until_gone: Callable[[], Awaitable[None]],
    ) -> T:
        """Do work that mostly waits for the network; otherwise the same as :meth:`run_job`."""
        return await self._run_in(self._fetchers, work, wait_until_gone)

    async def _run_in(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[threading.Event], T],
        wait_until_gone: Callable[[], Awaitable[None]],
    ) -> T:
        self._refuse_drain()
        cancel = threading.Event()
        self._cancels.add(cancel)
        submitted = pool.submit(work, cancel)
        if pool is self._workers:
            self._jobs.add(submitted)
        job = asyncio.wrap_future(submitted)
        departure = asyncio.ensure_future(wait_until_gone())
        try:
            either: set[asyncio.Future[T] | asyncio.Future[None]] = {job, departure}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                cancel.set()
                submitted.cancel()
                # The request's files are deleted next, so the work must have ended.
                await asyncio.wait({job})
            return job.result()
        except asyncio.CancelledError:
            # Either the job never began, or the server itself is being stopped.
            if job.cancelled():
                self._refuse_drain()
                raise Cancelled("The client went away.") from None
            raise
        finally:
            cancel.set()
            departure.cancel()
            self._cancels.discard(cancel)
            self._jobs.discard(submitted)

    def close(self) -> None:
        """Stop all work and wait until it has stopped."""
        for cancel in tuple(self._cancels):
            cancel.set()
        for pool in (self._workers, self._fetchers):
            pool.shutdown(cancel_futures=True)
