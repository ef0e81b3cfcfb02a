"""See why: the histograms with their intervals, and the classes, linked to the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal, SignalGroup
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPainterPath, QPalette, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.scale_space import ChannelScaleSpace
from napari_pixseg.parameters import ColorSpace

_COLUMNS = {
    "": "Mean color of the class",
    "class": "Number of the class; a click highlights it in the picture",
    "share": "Share of all counted pixels",
    "box": "Which values of the three channels the class is made of",
    "show": "Uncheck to hide the class in the preview",
    "backgr.": "Check to merge the class into the background: it makes no regions",
}


_SWATCH, _NUMBER, _SHARE, _BOX, _SHOW, _BACKGROUND = range(6)


# More rows than this nobody reads, and Qt takes its time.
_MOST_ROWS = 500


_MOST_INTERVALS = 6


_SWATCH_WIDTH = 26


_CHECKABLE = (
    Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
)


_CHANNELS = {
    "RGB": ("red (linear)", "green (linear)", "blue (linear)"),
    "sRGB": ("red", "green", "blue"),
    "Transparent": ("red", "green", "blue"),
    "OHTA": ("I1 intensity", "I2 red-blue", "I3 green-magenta"),
    "Lab": ("L lightness", "a green-red", "b blue-yellow"),
    "XYZ": ("X", "Y", "Z"),
    "YCC": ("Y", "C1", "C2"),
    "YIQ": ("Y luma", "I orange-blue", "Q purple-green"),
    "YUV": ("Y luma", "U blue", "V red"),
    "CMYK": ("cyan", "magenta", "yellow"),
    "CMY": ("cyan", "magenta", "yellow"),
    "HSB": ("hue", "saturation", "brightness"),
    "HSL": ("hue", "saturation", "lightness"),
    "HWB": ("hue", "whiteness", "blackness"),
    "Log": ("red (log)", "green (log)", "blue (log)"),
}


def channel_names(space: ColorSpace) -> tuple[str, str, str]:
    """Return what the three channels of a color space are called."""
    if space.name in ("YCbCr", "YPbPr", "Rec601YCbCr", "Rec709YCbCr"):
        return ("Y luma", "Cb blue", "Cr red")
    return _CHANNELS.get(space.name, ("gray", "gray", "gray"))


def describe_intervals(scale_space: ChannelScaleSpace) -> str:
    """Say in a few words which intervals a channel has, and at which scale they were found."""
    if not len(scale_space.intervals):
        return "no structure"
    intervals = scale_space.intervals[:_MOST_INTERVALS]
    texts = [f"{left}-{right}" for left, right in intervals.tolist()]
    scales = [_scale(scale_space.scales[left]) for left in intervals[:, 0]]
    same = len(set(scales)) == 1
    if not same:
        texts = [text + scale for text, scale in zip(texts, scales, strict=True)]
    more = len(scale_space.intervals) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "") + (scales[0] if same else "")


def _scale(scale: float) -> str:
    return "" if np.isnan(scale) else f" (scale {scale:.1f})"


class HistogramView(QWidget):
    """One channel: its histogram, its intervals, and where the classes' centers lie."""

    def __init__(self) -> None:
        super().__init__()
        self._scale_space: ChannelScaleSpace | None = None
        self._centers: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._colors: NDArray[np.uint8] = np.empty((0, 3), np.uint8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(64)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide and low."""
        return QSize(280, 64)

    def show_channel(
        self, scale_space: ChannelScaleSpace, centers: NDArray[np.uint8], colors: NDArray[np.uint8]
    ) -> None:
        """Draw another channel; (n,) centers and (n, 3) colors of the classes."""
        self._scale_space, self._centers, self._colors = scale_space, centers, colors
        self.setToolTip(f"Intervals: {describe_intervals(scale_space)}")
        self.update()

    def clear(self) -> None:
        """Draw nothing."""
        self._scale_space = None
        self.setToolTip("")
        self.update()

    def paintEvent(self, _event: Any) -> None:  # noqa: N802
        """Draw."""
        if self._scale_space is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        try:
            self._draw(painter, self._scale_space)
        finally:
            painter.end()

    def _draw(self, painter: QPainter, scale_space: ChannelScaleSpace) -> None:
        step, height = self.width() / 256.0, self.height() - 10.0
        text = self.palette().color(QPalette.ColorRole.WindowText)
        shade = QColor(text)
        shade.setAlpha(45)
        for left, right in scale_space.intervals.tolist():
            painter.fillRect(QRectF(left * step, 0, (right - left + 1) * step, height), shade)
        counts = scale_space.smoothed[-1]
        # A square root shows small peaks beside large ones.
        tops = np.sqrt(counts / max(counts.max(), 1.0)) * (height - 4)
        path = QPainterPath()
        path.moveTo(0, height)
        for value, top in enumerate(tops.tolist()):
            path.lineTo(value * step, height - top)
            path.lineTo((value + 1) * step, height - top)
        path.lineTo(256 * step, height)
        painter.fillPath(path, text)
        for center, color in zip(self._centers.tolist(), self._colors.tolist(), strict=True):
            painter.setPen(QPen(text, 0.5))
            painter.setBrush(QColor(*color))
            left = min(max((center + 0.5) * step - 4, 0.0), self.width() - 8.0)
            painter.drawEllipse(QRectF(left, height + 1, 8, 8))


class PanelEvents(SignalGroup):
    """What users do in the panel."""

    selected = Signal(int)
    hidden = Signal(object)
    background = Signal(object)


class WhyPanel(QWidget):
    """Histograms above, classes below."""

    def __init__(self) -> None:
        super().__init__()
        self.events = PanelEvents()
        self._filling = False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._titles = [QLabel() for _ in range(3)]
        self._views = [HistogramView() for _ in range(3)]
        for title, view in zip(self._titles, self._views, strict=True):
            title.setWordWrap(True)
            layout.addWidget(title)
            layout.addWidget(view)
        self._table = self._make_table()
        layout.addWidget(self._table, 1)

    def _make_table(self) -> QTableWidget:
        table = QTableWidget(0, len(_COLUMNS))
        table.setHorizontalHeaderLabels(list(_COLUMNS))
        table.verticalHeader().setVisible(False)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        table.horizontalHeader().setSectionResizeMode(_BOX, QHeaderView.ResizeMode.Stretch)
        table.horizontalHeader().setSectionResizeMode(_SWATCH, QHeaderView.ResizeMode.Fixed)
        table.setColumnWidth(_SWATCH, _SWATCH_WIDTH)
        for column, tooltip in enumerate(_COLUMNS.values()):
            item = table.horizontalHeaderItem(column)
            assert item is not None
            item.setToolTip(tooltip)
        table.setWordWrap(False)
        table.setMinimumHeight(170)
        table.itemSelectionChanged.connect(self._on_selection)
        table.itemChanged.connect(self._on_check)
        return table

    def show_classes(
        self, classes: Classes, background: tuple[int, ...], hidden: frozenset[int]
    ) -> None:
        """Show another decision, and which of its classes are background or hidden."""
        names = channel_names(classes.parameters.cs)
        rows = classes.table
        for channel, scale_space in enumerate(classes.scale_spaces):
            intervals = describe_intervals(scale_space)
            self._titles[channel].setText(f"<b>{names[channel]}</b>: {intervals}")
            self._views[channel].show_channel(
                scale_space, rows["center"][:, channel], rows["color"]
            )
        self._fill(rows[:_MOST_ROWS], background, hidden)

    def clear(self) -> None:
        """Show nothing: there is no image."""
        for title, view in zip(self._titles, self._views, strict=True):
            title.clear()
            view.clear()
        self._table.setRowCount(0)

    def _fill(
        self, rows: NDArray[np.void], background: tuple[int, ...], hidden: frozenset[int]
    ) -> None:
        self._filling = True
        # Columns that fit their content would be measured anew with every item.
        self._table.setUpdatesEnabled(False)
        try:
            before = self._table.rowCount()
            self._table.setRowCount(len(rows))
            for index in range(before, len(rows)):
                self._make_row(index)
            for index, row in enumerate(rows):
                self._fill_row(index, row, background, hidden)
        finally:
            self._table.setUpdatesEnabled(True)
            self._filling = False

    def _make_row(self, index: int) -> None:
        for column in range(len(_COLUMNS)):
            item = QTableWidgetItem()
            if column == _SWATCH:
                # A selected one would have the selection's color.
                item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            elif column in (_SHOW, _BACKGROUND):
                item.setFlags(_CHECKABLE)
            self._table.setItem(index, column, item)

    def _fill_row(
        self, index: int, row: Any, background: tuple[int, ...], hidden: frozenset[int]
    ) -> None:
        number = int(row["number"])
        self._item(index, _SWATCH).setBackground(QColor(*row["color"].tolist()))
        box = " ".join(f"{left}-{right}" for left, right in row["box"].tolist())
        texts = {_NUMBER: str(number), _SHARE: f"{row['percentage']:.2f} %", _BOX: box}
        for column, text in texts.items():
            self._item(index, column).setText(text)
        self._item(index, _BOX).setToolTip(box)
        self._item(index, _SHOW).setCheckState(_checked(number not in hidden))
        self._item(index, _BACKGROUND).setCheckState(_checked(number in background))

    def _item(self, row: int, column: int) -> QTableWidgetItem:
        item = self._table.item(row, column)
        assert item is not None
        return item

    def select(self, number: int) -> None:
        """Select the row of a class, without telling anyone; 0 selects none."""
        self._filling = True
        try:
            if number:
                self._table.selectRow(number - 1)
            else:
                self._table.clearSelection()
        finally:
            self._filling = False

    def _on_selection(self) -> None:
        if self._filling:
            return
        rows = self._table.selectionModel().selectedRows()
        self.events.selected.emit(rows[0].row() + 1 if rows else 0)

    def _on_check(self, item: QTableWidgetItem) -> None:
        if self._filling:
            return
        if item.column() == _SHOW:
            self.events.hidden.emit(self._rows_with(_SHOW, Qt.CheckState.Unchecked))
        elif item.column() == _BACKGROUND:
            self.events.background.emit(self._rows_with(_BACKGROUND, Qt.CheckState.Checked))

    def _rows_with(self, column: int, state: Qt.CheckState) -> tuple[int, ...]:
        items = [(row, self._table.item(row, column)) for row in range(self._table.rowCount())]
        return tuple(row + 1 for row, item in items if item and item.checkState() == state)


def _checked(checked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked
