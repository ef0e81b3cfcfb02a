"""Shows messages of the widget: a line of status, notifications of errors, and progress."""

from __future__ import annotations

import time

from magicgui.widgets import Label
from napari.utils import progress
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_pixseg.execution.progress import Progress
from napari_pixseg.plugin.decision import Decision

CHOOSE_IMAGE = "Choose an image."

# The same kind of error is not shown again within this many seconds.
_REPEAT_SECONDS = 3.0

# Errors mention arguments of scripts; in the widget, the user clicks on a field instead.
_CLICKED = {
    "(overwrite=True, --overwrite)": "(check “replace an existing output”)",
    "(resume=True, --resume)": "(check “continue an unfinished output”)",
}


class StatusLine:
    """A sentence in the widget, with errors and progress shown by napari as well.

    Attributes
    ----------
    label : Label
    progress_bar : napari.utils.progress or None
        None while nothing is running.
    """

    def __init__(self) -> None:
        self.label = Label(value=CHOOSE_IMAGE)
        self.progress_bar: progress | None = None
        self._last_error = ""
        self._last_error_time = 0.0
        _fill_width(self.label.native)

    def say(self, sentence: str) -> None:
        """Show a sentence."""
        self.label.value = sentence

    def report_error(self, sentence: str) -> None:
        """Show a sentence that says what is wrong, here and as a notification."""
        sentence = _adapt_to_window(sentence)
        self.say(sentence)
        kind, equals, _value = sentence.partition("=")
        now = time.monotonic()
        # A slider that is dragged too far causes the same error for many values.
        is_repeated = equals and kind == self._last_error
        is_recent = now <= self._last_error_time + _REPEAT_SECONDS
        self._last_error = kind
        self._last_error_time = now
        if not (is_repeated and is_recent):
            show_error(sentence)

    def show_progress(self, step: Progress) -> None:
        """Show a step in napari's activity dock."""
        bar = self.progress_bar
        if bar is None or bar.desc != step.stage or bar.total != step.total:
            self.end_progress()
            bar = self.progress_bar = progress(total=step.total, desc=step.stage)
        bar.update(max(step.done - bar.n, 0))

    def end_progress(self) -> None:
        """Remove the progress bar."""
        if self.progress_bar is not None:
            self.progress_bar.close()
            self.progress_bar = None


def _adapt_to_window(sentence: str) -> str:
    for typed, clicked in _CLICKED.items():
        sentence = sentence.replace(typed, clicked)
    return sentence.replace("file:///", "/")


def _fill_width(label: QLabel) -> None:
    """Give a sentence the whole width, and always two lines, so that nothing below it jumps."""
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setMinimumHeight(2 * label.fontMetrics().lineSpacing() + 6)
    label.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)


def describe_decision(decision: Decision, is_counting: bool) -> str:
    """Say how many classes there are, and how far the count has come."""
    count = len(decision.classes)
    pixels = decision.table.pixels
    classes = f"{count} class" + ("es" if count != 1 else "")
    if decision.provisional and is_counting:
        return f"{classes}, provisional: still counting"
    if decision.provisional:
        return f"{classes}, provisional: counting was stopped; choose the image again to count all"
    return f"{classes} from {len(decision.table):,} colors, {pixels:,} pixels counted"
