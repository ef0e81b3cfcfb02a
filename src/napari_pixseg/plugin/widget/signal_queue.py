"""Brings signals from worker threads to the window's thread: a queue that a timer empties."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping

from qtpy.QtCore import QObject, QTimer

_POLL_MS = 10


class SignalQueue(QObject):
    """Calls slots on the window's thread with the values of signals from any thread.

    No Qt object is made, called or deleted outside the window's thread. Workers hold nothing
    but the queue, so a window can never be destroyed in one of them.

    Parameters
    ----------
    parent : QObject
        Owner, with which this queue is destroyed.
    latest : frozenset of str
        Names of signals for which only the latest waiting value is delivered.
    """

    def __init__(self, parent: QObject, latest: frozenset[str] = frozenset()) -> None:
        super().__init__(parent)
        self._waiting: deque[tuple[str, object]] = deque()
        self._slots: dict[str, weakref.WeakMethod[Callable[..., None]]] = {}
        self._latest = latest
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self.deliver)
        self._timer.start()

    def connect_to(self, emitter: object, slots: Mapping[str, Callable[..., None]]) -> None:
        """Connect psygnal signals of an object to methods.

        Parameters
        ----------
        emitter : object
        slots : mapping of str to callable
            A method for each name of a signal; methods are not kept alive.
        """
        self._slots.update({name: weakref.WeakMethod(slot) for name, slot in slots.items()})
        for name in slots:
            getattr(emitter, name).connect(_make_sender(self, name))

    def deliver(self) -> None:
        """Call the slots with all waiting values."""
        while self._waiting:
            name, value = self._waiting.popleft()
            stale = name in self._latest and any(other == name for other, _ in [*self._waiting])
            slot = self._slots[name]() if name in self._slots else None
            if slot is not None and not stale:
                slot(value)

    def close(self) -> None:
        """Drop all waiting values, and deliver no more."""
        self._timer.stop()
        self._slots.clear()
        self._waiting.clear()


def _make_sender(queue: SignalQueue, name: str) -> Callable[[object], None]:
    """Return a function to connect; psygnal keeps functions alive, but not other callables."""
    waiting = queue._waiting
    reference = weakref.ref(queue)

    def send(value: object) -> None:
        waiting.append((name, value))
        # Signals emitted on the window's thread are delivered at once.
        if threading.current_thread() is threading.main_thread() and (alive := reference()):
            alive.deliver()

    return send
