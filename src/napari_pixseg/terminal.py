"""What a run has to do with its terminal: progress bars, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """Let Ctrl-C, or a signal to end the process, cancel the run before its next tile.

    A second signal ends it at once. The first must not raise an exception: where that hits the
    start of a thread, Python waits for the thread for ever at exit.
    """
    cancel = threading.Event()

    def stop(_number: int, _frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    unclaimed: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP.
        if (number := getattr(signal, name, None)) is not None:
            unclaimed[number] = signal.SIG_DFL
    here = threading.current_thread() is threading.main_thread()
    # A signal with another handler belongs to the program that calls this.
    ours = [number for number, usual in unclaimed.items() if signal.getsignal(number) is usual]
    before = {number: signal.signal(number, stop) for number in ours} if here else {}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProgressBars:
    """A progress bar for each stage of a run, on a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def show(self, progress: Any) -> None:
        """Draw one step, if standard error is a terminal."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if self._bar is None or progress.stage != self._stage:
            self._close_bar()
            self._stage = progress.stage
            self._bar = tqdm(total=progress.total, desc=f"{progress.stage:16}", unit="tile")
        self._bar.update(progress.done - self._bar.n)
