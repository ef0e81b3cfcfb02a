"""The lower part of the widget: it scrolls, and some of its sections are folded away."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

# Opening a section is animated; after this time it has its full height.
_OPENING_MS = 400


class CollapsibleSections(QScrollArea):
    """Widgets below each other, some of them folded away; they scroll on a low screen."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        inside = QWidget()
        self._layout = QVBoxLayout(inside)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self.setWidget(inside)
        self._opened: QCollapsible | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_OPENING_MS)
        self._timer.timeout.connect(self._scroll_to_opened)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for the height of the content, so that nothing scrolls if there is room."""
        return self._layout.totalSizeHint()

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Require the width of the content; any height will do."""
        return QSize(self._layout.totalMinimumSize().width(), 0)

    def add_widget(self, widget: QWidget, stretch: int = 1) -> None:
        """Add a widget that takes the height that is left over, or with 0 only what it needs."""
        self._layout.addWidget(widget, stretch)

    def add_section(self, title: str, widgets: Sequence[QWidget]) -> None:
        """Add widgets that are folded away until their title is clicked."""
        section = QCollapsible(title)
        for widget in widgets:
            section.addWidget(widget)
        section.setContentsMargins(0, 0, 0, 0)
        section.toggled.connect(lambda opened: self._on_toggled(section, opened))
        self._layout.addWidget(section)

    def _on_toggled(self, section: QCollapsible, opened: bool) -> None:
        if opened:
            self._opened = section
            self._timer.start()

    def _scroll_to_opened(self) -> None:
        if self._opened is not None:
            self.ensureWidgetVisible(self._opened, 0, 0)
