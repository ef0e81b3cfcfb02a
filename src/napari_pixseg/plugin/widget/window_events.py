"""What happens to a widget as a whole: files dropped on it, its dock closed, its font known."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from magicgui.widgets import Container
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget


class Watcher(QObject):
    """Takes manifests that are dropped on a widget, and hears when its dock is closed.

    Parameters
    ----------
    widget : QWidget
        With which this dies.
    load : callable
        Called with the path of a dropped file.
    closed : callable
        A method, called when the widget was taken out of its window.
    shown : callable
        A method, called when the widget is about to be seen.
    """

    def __init__(
        self,
        widget: QWidget,
        load: Callable[[str], None],
        closed: Callable[[], None],
        shown: Callable[[], None],
    ) -> None:
        super().__init__(widget)
        self._load = load
        self._closed, self._shown = weakref.WeakMethod(closed), weakref.WeakMethod(shown)
        self._was_docked = False
        widget.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802
        """Accept one local file, and load it."""
        if event.type() == QEvent.Type.ParentChange:
            self._on_parent(watched.parent())
        if event.type() == QEvent.Type.Show and (shown := self._shown()) is not None:
            shown()
        if event.type() not in (QEvent.Type.DragEnter, QEvent.Type.Drop):
            return False
        urls = event.mimeData().urls()
        if len(urls) != 1 or not urls[0].isLocalFile():
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self._load(urls[0].toLocalFile())
        return True

    def _on_parent(self, parent: Any) -> None:
        # napari takes a closed dock's widget out of it and keeps it.
        closed = self._closed()
        if parent is None and self._was_docked and closed is not None:
            closed()
        self._was_docked = parent is not None


def align_labels(containers: Iterable[Container[Any]]) -> None:
    """Begin the fields of a container below each other.

    magicgui measures labels in the application's font; napari's style sheet has a larger one.
    """
    for container in containers:
        rows = [row for field in container if (row := field._labeled_widget()) is not None]
        # Hidden fields count, too: they may come.
        widest = max((row._label_widget.native.sizeHint().width() for row in rows), default=0)
        for row in rows:
            row.label_width = widest
