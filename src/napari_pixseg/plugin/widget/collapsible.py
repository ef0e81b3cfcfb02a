"""The lower part of the widget, which scrolls: what is explained, and folded parts."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

# A fold opens slowly; afterwards it is as high as it will be.
_UNFOLDED_MS = 400


class Folds(QScrollArea):
    """Widgets one below the other, some of them folded away; scrolls where a screen is low."""

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
        self._timer.setInterval(_UNFOLDED_MS)
        self._timer.timeout.connect(self._scroll_to_opened)

    def sizeHint(self) -> QSize:  # noqa: N802
        """As high as what is inside, so that nothing scrolls where there is room."""
        return self._layout.totalSizeHint()

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """As wide as what is inside; any height will do."""
        return QSize(self._layout.totalMinimumSize().width(), 0)

    def add(self, widget: QWidget) -> None:
        """Add a widget that takes the height which is left over."""
        self._layout.addWidget(widget, 1)

    def fold(self, title: str, widgets: Sequence[QWidget]) -> None:
        """Add widgets below a title that opens them."""
        folded = QCollapsible(title)
        for widget in widgets:
            folded.addWidget(widget)
        folded.setContentsMargins(0, 0, 0, 0)
        folded.toggled.connect(lambda opened: self._on_toggled(folded, opened))
        self._layout.addWidget(folded)

    def _on_toggled(self, folded: QCollapsible, opened: bool) -> None:
        if opened:
            self._opened = folded
            self._timer.start()

    def _scroll_to_opened(self) -> None:
        if self._opened is not None:
            self.ensureWidgetVisible(self._opened, 0, 0)
