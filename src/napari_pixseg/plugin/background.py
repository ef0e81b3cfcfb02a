"""Work on another thread that ends with a signal, never with an exception in a window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor

from psygnal import Signal

from napari_pixseg.errors import Cancelled, PixsegError


class BackgroundJobs:
    """Runs one job after the other on a worker; signals tell how each of them goes.

    Signals are emitted from the worker's thread; a view brings them to its own.

    Parameters
    ----------
    executor : Executor
        Runs the jobs; it is shut down by :meth:`close`.

    Attributes
    ----------
    failed : Signal of str
        A sentence for the user.
    busy : Signal of bool
        Whether any work is being done.
    running : Signal of bool
        Whether a run, which the user has asked for, is waiting or being done.
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
        """Stop what is running as soon as possible."""
        self._cancel_run.set()

    def close(self) -> None:
        """Stop all work and take no more jobs."""
        self._closed = True
        self.cancel()
        # Not waiting: a window that closes must not hang until a tile is done.
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit_work(self, work: Callable[[], None]) -> None:
        self._executor.submit(self._do_guarded, work)

    def _do_guarded(self, work: Callable[[], None]) -> None:
        self.busy.emit(True)
        try:
            work()
        except Cancelled:
            # Whoever cancels work that nobody asked for wants to hear nothing of it.
            pass
        # Anything may be raised here: a file, a server or another plugin is involved.
        except Exception as error:  # noqa: BLE001
            self.failed.emit(describe_error(error))
        finally:
            self.busy.emit(False)

    def _submit_run(self, run: Callable[[threading.Event], None]) -> None:
        """Submit what the user has asked for; a cancel is told, unlike that of other work."""
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

        # Told at once, because the run may have to wait for a count.
        self.running.emit(True)
        self._submit_work(run_and_tell)


def describe_error(error: Exception) -> str:
    """Return one sentence about an error for the user."""
    if isinstance(error, PixsegError):
        return str(error)
    return f"Something unforeseen went wrong ({type(error).__name__}: {error})."
