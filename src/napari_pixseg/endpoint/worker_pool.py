"""Processes that wait for images, and are killed when a job takes too long or nobody waits."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import napari_pixseg
from napari_pixseg.algorithm.kernels import dispatch
from napari_pixseg.endpoint.segment_job import ImageJob
from napari_pixseg.errors import (
    Cancelled,
    CorruptInput,
    PixsegError,
    TooLarge,
    Unavailable,
    error_of,
)
from napari_pixseg.export.manifest import JsonObject, Manifest

# The package may be on a path that only the server has.
_PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from napari_pixseg.endpoint.image_worker import serve_jobs
serve_jobs(int(sys.argv[2]), float(sys.argv[3]))
"""
_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 5.0
_CHECK_SECONDS = 0.1


class JobFailed(PixsegError):
    """An unexpected error, reported by a worker."""


class WorkerPool:
    """Workers for as many images as are segmented at a time.

    One spare worker is started ahead, so that no request waits for a process to start.

    Parameters
    ----------
    most : int
        Jobs that run at a time.
    max_pixels : int
        Largest image.
    seconds : float
        Longest time of a job.
    """

    def __init__(self, most: int, max_pixels: int, seconds: float) -> None:
        self._most = most
        self._limits = (str(max_pixels), str(seconds))
        self._seconds = seconds
        # Set before the first worker starts.
        self.environment: dict[str, str] = {}
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        # For each busy worker: the event that ends its job, and the end of its time.
        self._working: dict[_Worker, tuple[threading.Event, float]] = {}
        self._is_closed = False
        self._ended = threading.Event()
        # One thread watches all jobs: starting a thread for each would cost a busy machine more.
        self._watcher = threading.Thread(target=self._watch_jobs, name="pixseg-watch", daemon=True)

    def run_job(self, job: ImageJob, cancel: threading.Event) -> Manifest:
        """Do a job in a worker.

        Parameters
        ----------
        job : ImageJob
        cancel : threading.Event
            When set, the worker is killed.

        Raises
        ------
        Cancelled
        TooLarge
            If the job takes too long, or too much memory.
        PixsegError
            If the job raises one.
        """
        worker = self._take_worker()
        is_reusable = False
        said = None
        try:
            # On a busy machine a process may start slowly, which is not the image's fault.
            self._set_end(worker, cancel, _SECONDS_TO_START)
            has_begun = worker.wait_until_ready()
            end = self._set_end(worker, cancel, self._seconds)
            if has_begun:
                said = worker.exchange(job.to_json())
            is_reusable = said is not None and not said["is_worn"]
        finally:
            self._give_back(worker, is_reusable)
        if said is None:
            raise self._explain_end(cancel, has_begun, time.monotonic() > end)
        return _read_answer(said)

    def start_worker(self) -> None:
        """Start a worker ahead, unless one is idle or there are enough."""
        with self._lock:
            running = len(self._idle) + len(self._working)
            if not self._is_closed and not self._idle and running < self._most:
                self._idle.append(_Worker(self._limits, self.environment))

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._is_closed = True
            self._ended.set()
            workers = [*self._idle, *self._working]
            self._idle.clear()
        for worker in workers:
            worker.end()

    @property
    def process_ids(self) -> list[int]:
        """Ids of the processes that run now."""
        with self._lock:
            return [worker.process.pid for worker in (*self._idle, *self._working)]

    def _watch_jobs(self) -> None:
        while not self._ended.wait(_CHECK_SECONDS):
            # A returned worker is not in this table, so it is not killed.
            with self._lock:
                for worker, (cancel, end) in self._working.items():
                    if cancel.is_set() or time.monotonic() > end:
                        worker.kill()

    def _take_worker(self) -> _Worker:
        with self._lock:
            if self._watcher.ident is None:
                self._watcher.start()
            worker = self._idle.pop() if self._idle else _Worker(self._limits, self.environment)
            self._working[worker] = (threading.Event(), math.inf)
        self.start_worker()
        return worker

    def _set_end(self, worker: _Worker, cancel: threading.Event, seconds: float) -> float:
        """Let the watcher kill a worker after some seconds, or when its job is cancelled."""
        end = time.monotonic() + seconds
        with self._lock:
            self._working[worker] = (cancel, end)
        return end

    def _give_back(self, worker: _Worker, is_reusable: bool) -> None:
        with self._lock:
            self._working.pop(worker, None)
            if is_reusable and not self._is_closed:
                self._idle.append(worker)
                return
        worker.end()
        self.start_worker()

    def _explain_end(self, cancel: threading.Event, has_begun: bool, is_late: bool) -> PixsegError:
        if cancel.is_set():
            return Cancelled("The client went away.")
        if not has_begun:
            return Unavailable("The server is too busy to begin; try again in a few seconds.")
        if is_late:
            return TooLarge(
                f"The image takes more than {self._seconds:g} s to segment here; send a smaller "
                "one, or save it again in another format."
            )
        # Its decoder crashed, or the system killed it for lack of memory.
        return CorruptInput("The image cannot be decoded; save it again in another format.")


class _Worker:
    """A process of :mod:`image_worker`, and the pipes to it."""

    def __init__(self, limits: tuple[str, str], environment: Mapping[str, str]) -> None:
        folder = str(Path(napari_pixseg.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, folder, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C in a terminal is meant for the server.
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
        )
        self._is_ready = False

    def wait_until_ready(self) -> bool:
        """Wait until the process accepts jobs; return whether it does."""
        assert self.process.stdout is not None
        if not self._is_ready:
            try:
                self._is_ready = bool(self.process.stdout.readline())
            except (OSError, ValueError):
                return False
        return self._is_ready

    def exchange(self, line: str) -> JsonObject | None:
        """Send a job, and return the worker's answer; None if the worker has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            said: JsonObject = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            return None
        return said

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self.process.kill()

    def end(self) -> None:
        """End the process, and wait until it is gone."""
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_SECONDS_TO_END)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


def kernel_environment(folder: Path) -> dict[str, str]:
    """Return where workers keep compiled kernels, if they could keep them nowhere.

    In a container or a service the installation is often read-only, and there is no home. Each
    worker would then compile for some seconds.

    Parameters
    ----------
    folder : Path
        Of the server, and of nobody else.
    """
    kernels = Path(dispatch.__file__).parent
    made = kernels / "__pycache__"
    places = (made if made.exists() else kernels, Path.home())
    if "NUMBA_CACHE_DIR" in os.environ or any(os.access(place, os.W_OK) for place in places):
        return {}
    return {"NUMBA_CACHE_DIR": str(folder / "kernels")}


def _read_answer(said: JsonObject) -> Manifest:
    if "manifest" in said:
        return Manifest.from_json(json.dumps(said["manifest"]))
    raise error_of(said["status"], said["sentence"]) from JobFailed(said["trace"])
