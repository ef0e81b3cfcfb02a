"""Keeps track of running tiles, so that a run that has ended writes nothing more."""

from __future__ import annotations

import threading
from typing import Any

from napari_pixseg.errors import Cancelled


class RunningTiles:
    """The tiles that this process is working on.

    After the scheduler has given up, the threads of a pool finish their tiles. If they still wrote,
    they would write into the output that replaces this one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return RunningTiles, ()

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise Cancelled("The run has ended.")
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no further tile begin, and wait for the running ones."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._count)
