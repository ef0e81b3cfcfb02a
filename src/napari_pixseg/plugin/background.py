"""Runs jobs on another thread; a job ends with a signal, never with an exception in a window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor

from psygnal import Signal

from napari_pixseg.errors import Cancelled, PixsegError


class BackgroundJobs:
    """Runs jobs one after the other on a worker thread, and reports on them with signals.

    Signals are emitted on the worker's thread; a view must bring them to its own thread.

    Parameters
    ----------
    executor : Executor
        Runs the jobs; :meth:`close` shuts it down.

    Attributes
    ----------
    failed : Signal of str
        A sentence for the user.
    busy : Signal of bool
        Whether any job is running.
    running : Signal of bool
        Whether a run that the user started is waiting or running.
    stopped : Signal of str
        A run was cancelled; a sentence for the user.
    """

    failed = Signal(str)
    busy = Signal(bool)
    running = Signal(bool)
    stopped = Signal(str)

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._closed = False
        self._cancel_run = threading.Event()

    def cancel(self) -> None:
        """Stop all running work as soon as possible."""
        self._cancel_run.set()

    def close(self) -> None:
        """Stop all work and take no more jobs."""
        self._closed = True
        self.cancel()
        # Does not wait: closing a window must not hang until a tile is done.
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit_work(self, work: Callable[[], None]) -> None:
        self._executor.submit(self._do_guarded, work)

    def _do_guarded(self, work: Callable[[], None]) -> None:
        self.busy.emit(True)
        try:
            work()
        except Cancelled:
            # Cancelled background work is not reported, because the user did not start it.
            pass
        # Files, servers and other plugins are involved, so any exception is possible.
        except Exception as error:  # noqa: BLE001
            self.failed.emit(describe_error(error))
        finally:
            self.busy.emit(False)

    def _submit_run(self, run: Callable[[threading.Event], None]) -> None:
        """Submit a run that the user started; unlike for other work, its cancelling is reported."""
        if self._closed:
            return
        cancel = self._cancel_run = threading.Event()

        def run_and_tell() -> None:
            try:
                run(cancel)
            except Cancelled as error:
                self.stopped.emit(str(error))
            finally:
                self.running.emit(False)

        # Reported at once, because the run may have to wait for a count.
        self.running.emit(True)
        self._submit_work(run_and_tell)


def describe_error(error: Exception) -> str:
    """Return one sentence about an error for the user."""
    if isinstance(error, PixsegError):
        return str(error)
    return f"Something unforeseen went wrong ({type(error).__name__}: {error})."
