"""Shows a run's progress on standard error: bars for people, lines for logs, JSON for programs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from napari_pixseg.execution.progress import Progress

PROGRESS = ("none", "bar", "lines", "json")
# Tests shorten both intervals.
LINE_SECONDS = 30.0
JSON_SECONDS = 1.0


class ProgressDisplay(Protocol):
    """A context manager that shows the steps of a run."""

    def __enter__(self) -> ProgressDisplay: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, progress: Progress) -> None:
        """Take a step."""


def choose_display(how: str | None, first_stage: str) -> ProgressDisplay:
    """Return the display of a name in ``PROGRESS``; for None, a bar on a terminal, else lines.

    Parameters
    ----------
    how : str or None
    first_stage : str
        The stage until the first step is reported.
    """
    if how is None:
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        how = "bar" if on_terminal else "lines"
    if how == "none" or sys.stderr is None:
        return _Nothing()
    if how == "bar":
        return ProgressBars()
    if how == "json":
        return ProgressLines(first_stage, JSON_SECONDS, _as_json, with_stages=True)
    return ProgressLines(first_stage, LINE_SECONDS, _as_line)


class _Nothing:
    """Shows nothing."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Do nothing."""


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

    def show(self, progress: Progress) -> None:
        """Draw one step."""
        from tqdm import tqdm

        if self._bar is None or progress.stage != self._stage:
            self._close_bar()
            self._stage = progress.stage
            self._bar = tqdm(total=progress.total, desc=f"{progress.stage:16}", unit="tile")
        self._bar.update(progress.done - self._bar.n)


class ProgressLines:
    """One line at regular intervals, even if no step is reported, to show that the run is alive.

    Parameters
    ----------
    first_stage : str
    interval : float
        Seconds from line to line.
    format_line : callable
        Makes the line of a step and of the seconds since its stage began.
    with_stages : bool
        Whether to write a line at once when a stage begins or ends.
    """

    def __init__(
        self,
        first_stage: str,
        interval: float,
        format_line: Callable[[Progress, float, int], str],
        with_stages: bool = False,
    ) -> None:
        self._interval, self._format, self._with_stages = interval, format_line, with_stages
        # Replaced as a whole, because another thread reads it.
        self._state = (Progress(first_stage, 0, 0), time.monotonic(), 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_regularly, name="progress", daemon=True)

    def __enter__(self) -> ProgressLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # Nothing may be written after the answer; but standard error may be blocked forever.
        self._thread.join(1.0)

    def show(self, progress: Progress) -> None:
        """Take a step; it is written at the next interval."""
        before, since, earlier = self._state
        is_new = progress.stage != before.stage
        if is_new:
            # A resumed stage begins with steps that were done before and took no time now.
            since, earlier = time.monotonic(), progress.done
        self._state = (progress, since, earlier)
        if self._with_stages and (is_new or progress.done == progress.total):
            self._write_line()

    def _write_regularly(self) -> None:
        while not self._ended.wait(self._interval):
            self._write_line()

    def _write_line(self) -> None:
        progress, since, earlier = self._state
        text = self._format(progress, time.monotonic() - since, earlier)
        try:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # Nobody reads it any more, which is no reason to end a run.
            self._ended.set()


def _estimate_rest(progress: Progress, seconds: float, earlier: int) -> tuple[float, float | None]:
    """Return steps per second, and the seconds that the rest of the stage should take."""
    rate = (progress.done - earlier) / seconds if seconds > 0 else 0.0
    return rate, (progress.total - progress.done) / rate if rate > 0 else None


def _as_line(progress: Progress, seconds: float, earlier: int) -> str:
    passed = f"{progress.stage}: {_format_seconds(seconds)}"
    if not progress.total:
        return f"{passed} so far"
    rate, rest = _estimate_rest(progress, seconds, earlier)
    left = "time left unknown" if rest is None else f"about {_format_seconds(rest)} left"
    return f"{passed}, {progress.done} of {progress.total} tiles, {rate:.3g} a second, {left}"


def _as_json(progress: Progress, seconds: float, earlier: int) -> str:
    rate, rest = _estimate_rest(progress, seconds, earlier)
    return json.dumps(
        {
            "stage": progress.stage,
            "done": progress.done,
            "total": progress.total,
            "seconds": round(seconds, 3),
            "rate": float(f"{rate:.4g}"),
            "left": None if rest is None else round(rest, 3),
        }
    )


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
