"""Shows the reasons for a decision: three histograms and the table of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal, SignalGroup
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.plugin.widget.channel_names import CHANNEL_NAMES
from napari_pixseg.plugin.widget.histogram_view import (
    HistogramView,
    describe_intervals,
)

_COLUMNS = {
    "": "Mean color of the class",
    "class": "Number of the class; a click highlights it in the picture",
    "share": "Share of all counted pixels",
    "box": "The range of values of the class in each of the three channels",
    "show": "Uncheck to hide the class in the preview",
    "backgr.": "Check to make the class background: it gives no regions",
}

# Positions of the columns, in the order of _COLUMNS.
_SWATCH = 0
_NUMBER = 1
_SHARE = 2
_BOX = 3
_SHOW = 4
_BACKGROUND = 5

_SWATCH_WIDTH = 26

# Nobody reads more rows than this, and Qt would be slow.
_MOST_ROWS = 500

_CHECKABLE = (
    Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
)


class PanelEvents(SignalGroup):
    """Signals of the panel.

    Attributes
    ----------
    selected : Signal of int
        Number of the selected class; 0 means none.
    hidden, background : Signal of tuple of int
        Numbers of all classes that are hidden, or background.
    """

    selected = Signal(int)
    hidden = Signal(object)
    background = Signal(object)


class ClassPanel(QWidget):
    """Three histograms, and the table of classes below them."""

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
        """Show another decision.

        Parameters
        ----------
        classes : Classes
        background, hidden : collection of int
            Numbers of the classes that are background, or not shown in the preview.
        """
        names = CHANNEL_NAMES[classes.parameters.cs]
        rows = classes.table
        for channel, scale_space in enumerate(classes.scale_spaces):
            intervals = describe_intervals(scale_space)
            self._titles[channel].setText(f"<b>{names[channel]}</b>: {intervals}")
            self._views[channel].show_channel(
                scale_space, rows["center"][:, channel], rows["color"]
            )
        self._fill_table(rows[:_MOST_ROWS], background, hidden)

    def clear(self) -> None:
        """Show nothing, because there is no image."""
        for title, view in zip(self._titles, self._views, strict=True):
            title.clear()
            view.clear()
        self._table.setRowCount(0)

    def _fill_table(
        self, rows: NDArray[np.void], background: tuple[int, ...], hidden: frozenset[int]
    ) -> None:
        self._filling = True
        # Otherwise Qt would measure the columns again after every item.
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
                # A swatch that can be selected would take on the color of the selection.
                item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            elif column in (_SHOW, _BACKGROUND):
                item.setFlags(_CHECKABLE)
            self._table.setItem(index, column, item)

    def _fill_row(
        self, index: int, row: np.void, background: tuple[int, ...], hidden: frozenset[int]
    ) -> None:
        number = int(row["number"])
        self._require_item(index, _SWATCH).setBackground(QColor(*row["color"].tolist()))
        box = " ".join(f"{left}-{right}" for left, right in row["box"].tolist())
        texts = {_NUMBER: str(number), _SHARE: f"{row['percentage']:.2f} %", _BOX: box}
        for column, text in texts.items():
            self._require_item(index, column).setText(text)
        self._require_item(index, _BOX).setToolTip(box)
        self._require_item(index, _SHOW).setCheckState(_check_state(number not in hidden))
        self._require_item(index, _BACKGROUND).setCheckState(_check_state(number in background))

    def _require_item(self, row: int, column: int) -> QTableWidgetItem:
        item = self._table.item(row, column)
        assert item is not None
        return item

    def select(self, number: int) -> None:
        """Select the row of a class without emitting a signal; 0 selects none."""
        self._filling = True
        try:
            if number:
                self._table.selectRow(number - 1)
            else:
                self._table.clearSelection()
        finally:
            self._filling = False

    def _on_selection(self) -> None:
        # Qt also reports changes made by the program; only changes by the user count.
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


def _check_state(checked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked
