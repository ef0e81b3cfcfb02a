"""Handles events of the whole widget: files dropped on it, its dock closed, the widget shown."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import cast

from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QWidget


class WindowEvents(QObject):
    """Calls methods when a file is dropped on a widget, its dock is closed, or it is shown.

    Parameters
    ----------
    widget : QWidget
        Owner, with which this object is destroyed.
    load : callable
        Called with the path of a dropped file.
    closed : callable
        A method, called when the widget has been taken out of its window.
    shown : callable
        A method, called when the widget is about to be shown.
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
        self._closed = weakref.WeakMethod(closed)
        self._shown = weakref.WeakMethod(shown)
        self._was_docked = False
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Accept one local file, and load it."""
        if event.type() == QEvent.Type.ParentChange:
            self._on_parent_change(watched.parent())
        if event.type() == QEvent.Type.Show and (shown := self._shown()) is not None:
            shown()
        if event.type() not in (QEvent.Type.DragEnter, QEvent.Type.Drop):
            return False
        drop = cast(QDropEvent, event)
        urls = drop.mimeData().urls()
        if len(urls) != 1 or not urls[0].isLocalFile():
            return False
        drop.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self._load(urls[0].toLocalFile())
        return True

    def _on_parent_change(self, parent: QObject | None) -> None:
        # When a dock is closed, napari takes the widget out of it and keeps it.
        closed = self._closed()
        if parent is None and self._was_docked and closed is not None:
            closed()
        self._was_docked = parent is not None
