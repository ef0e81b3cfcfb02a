"""From the controller's threads to the window's: a queue that a timer empties."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from qtpy.QtCore import QObject, QTimer

_POLL_MS = 10


class Mailbox(QObject):
    """Calls slots on the window's thread with what signals said on any other.

    No Qt object is made, called or deleted outside the window's thread, and the
    threads hold nothing but the queue: so a window can never die in one of them.

    Parameters
    ----------
    parent : QObject
        With which this dies.
    latest : collection of str
        Signals of which only the latest news counts.
    """

    def __init__(self, parent: QObject, latest: frozenset[str] = frozenset()) -> None:
        super().__init__(parent)
        self._letters: deque[tuple[str, Any]] = deque()
        self._slots: dict[str, weakref.WeakMethod[Callable[..., None]]] = {}
        self._latest = latest
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self.deliver)
        self._timer.start()

    def connect_to(self, emitter: object, slots: Mapping[str, Callable[..., None]]) -> None:
        """Connect psygnal signals, attributes of an object, to the methods named like them."""
        self._slots.update({name: weakref.WeakMethod(slot) for name, slot in slots.items()})
        for name in slots:
            getattr(emitter, name).connect(_sender(self, name))

    def deliver(self) -> None:
        """Call the slots with all that is waiting."""
        while self._letters:
            name, value = self._letters.popleft()
            stale = name in self._latest and any(other == name for other, _ in [*self._letters])
            slot = self._slots[name]() if name in self._slots else None
            if slot is not None and not stale:
                slot(value)

    def close(self) -> None:
        """Deliver nothing any more."""
        self._timer.stop()
        self._slots.clear()
        self._letters.clear()


def _sender(mailbox: Mailbox, name: str) -> Callable[[Any], None]:
    """Return a function for a signal; signals keep functions, but would drop other callables."""
    letters, reference = mailbox._letters, weakref.ref(mailbox)

    def send(value: Any) -> None:
        letters.append((name, value))
        # What the window itself brought about is done before it does anything else.
        if threading.current_thread() is threading.main_thread() and (here := reference()):
            here.deliver()

    return send
