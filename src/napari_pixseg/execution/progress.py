"""Progress of a run: events for listeners, and a way to cancel the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from napari_pixseg.errors import CANCELLED, Cancelled


@dataclass(frozen=True)
class Progress:
    """One step of a run.

    Attributes
    ----------
    stage : str
        The kind of work, in a word or two.
    done, total : int
        Finished and planned steps of this stage.
    """

    stage: str
    done: int
    total: int


Listener: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, eq=False, repr=False)
class RunMonitor:
    """Reports the progress of a run, and stops it when asked to.

    Attributes
    ----------
    on_event : callable, optional
        Called with a :class:`Progress` after every tile.
    cancel : threading.Event, optional
        When set, the run ends with :class:`Cancelled` before its next tile.
    """

    on_event: Listener | None = None
    cancel: threading.Event | None = None

    def tell(self, stage: str, done: int, total: int) -> None:
        """Report a step."""
        if self.on_event is not None:
            self.on_event(Progress(stage, done, total))

    def part(self, done: int, total: int) -> RunMonitor:
        """Return a monitor for part of a stage, some steps of which are done."""
        return RunMonitor(lambda step: self.tell(step.stage, done + step.done, total), self.cancel)

    def check(self) -> None:
        """Raise Cancelled if the run should stop."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(CANCELLED)
