"""How the command reacts to Ctrl-C, SIGTERM and SIGHUP.

Python runs signal handlers on the main thread, between two steps of Python code. While the main
thread hangs in a library, no handler runs. Therefore another thread waits for signals here. It
gives a run a few seconds to end by itself, then prints the answer and ends the process.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# The time for a run to write its last tiles. The process must be gone within 5 seconds.
GRACE_SECONDS = 3.0
# The time to print the answer, which perhaps nobody reads.
_ANSWER_SECONDS = 1.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP.
_BEFORE_A_RUN = "The command was ended by a signal before it began to write."
_DURING_A_RUN = (
    "The run was ended by a signal; what it has written is kept, and can be continued with resume "
    "(resume=True, --resume)."
)
# Written by hand, because importing json would block if the main thread hangs in an import.
_ANSWER = '{{\n  "status": 499,\n  "id": "{id}",\n  "error": "{error}",\n  "details": {{}}\n}}\n'


class Interruption:
    """Receives the signals that should end this process, and ends it.

    Attributes
    ----------
    cancel : threading.Event
        Set by the first signal.
    """

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self._has_begun = False
        # Guards the exit code: only one thread may print the answer.
        self._answered = threading.Lock()
        self._code: int | None = None
        self._is_ending = False
        self._reader = -1
        self._before: dict[int, object] = {}

    def install(self) -> None:
        """Listen from now on to the signals that would end this process."""
        unclaimed = _unclaimed_signals()
        if not unclaimed:
            return
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in unclaimed:
            self._before[number] = signal.signal(number, _hear_nothing)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def hand_over(self) -> None:
        """Restore the earlier signal handlers, for example for a server that has its own."""
        if self._before:
            signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    @contextmanager
    def cancel_run(self) -> Iterator[threading.Event]:
        """Yield an event, set by a signal, on which the run should end within a few seconds."""
        if not self._before:
            # Another program has called main() in its own process.
            with _cancel_on_signal() as cancel:
                yield cancel
            return
        self._has_begun = True
        yield self.cancel

    def claim_answer(self, code: int) -> None:
        """Announce that this thread prints the answer, with an exit code; wait if too late."""
        with self._answered:
            self._code = code
            is_ending = self._is_ending
        if is_ending:
            time.sleep(2 * _ANSWER_SECONDS)

    def _watch(self) -> None:
        self._wait_for_signal(None)
        self.cancel.set()
        # Wait only for a run to end or an answer to be printed.
        if self._has_begun or self._code is not None:
            self._wait_for_signal(GRACE_SECONDS)
        with self._answered:
            self._is_ending = True
            code = self._code
        if code is None:
            teller = threading.Thread(target=self._answer, daemon=True)
            teller.start()
            teller.join(_ANSWER_SECONDS)
        os._exit(1 if code is None else code)

    def _wait_for_signal(self, seconds: float | None) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if end is None else max(end - time.monotonic(), 0)
            if not select.select([self._reader], [], [], left)[0]:
                return
            # Signals with other handlers are written there, too.
            if any(number in self._before for number in os.read(self._reader, 64)):
                return

    def _answer(self) -> None:
        error = _DURING_A_RUN if self._has_begun else _BEFORE_A_RUN
        answer = _ANSWER.format(id=os.urandom(16).hex(), error=error)
        for stream, text in ((sys.stdout, answer), (sys.stderr, f"{error}\n")):
            with suppress(Exception):
                stream.write(text)
                stream.flush()


def _unclaimed_signals() -> list[int]:
    """Return the signals that nobody else handles; ``nohup``, for example, ignores SIGHUP."""
    usual = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [int(number) for number in numbers if signal.getsignal(number) in usual]


def _hear_nothing(_number: int, _frame: FrameType | None) -> None:
    """Stand in for the default action, which would end the process."""


@contextmanager
def _cancel_on_signal() -> Iterator[threading.Event]:
    """Let the first signal cancel the run before its next tile, and the second end it at once.

    The first signal must not raise an exception: if that happened while a thread starts, Python
    would wait forever for the thread at exit.
    """
    cancel = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    here = threading.current_thread() is threading.main_thread()
    ours = _unclaimed_signals() if here else []
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Signals belong to the process, so there is only one instance.
INTERRUPTION = Interruption()
