"""A field for a number: a logarithmic slider beside a box."""

from __future__ import annotations

import math
from typing import Any

from magicgui.widgets import Container, FloatSpinBox, Slider
from qtpy.QtCore import QEvent, QLocale, QObject, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QApplication, QDoubleSpinBox, QLineEdit

_STEPS = 1000

# The box takes any number, so that whoever judges a value can say what is allowed.
_HIGHEST = 1e9

# Digits after the point in the box.
_FEWEST_DIGITS = 3
_MOST_DIGITS = 9


class LogNumber(Container[Any]):
    """A logarithmic slider beside a number box, which also takes values beyond the slider.

    What is typed counts when editing ends, with a decimal comma as well as with a point.

    Parameters
    ----------
    low, high : float
        Ends of the slider.
    value : float
    **options
        Passed on to the magicgui container: name, label, tooltip.
    """

    def __init__(self, low: float, high: float, value: float, **options: Any) -> None:
        self._low = low
        self._high = high
        self._number = float(value)
        self._slider = Slider(min=0, max=_STEPS, readout=False)
        self._box = FloatSpinBox(min=0.0, max=_HIGHEST, step=0.1, value=value)
        self._box.max_width = 90
        # Its parent keeps it.
        _PointForComma(self._box.native)
        super().__init__(
            layout="horizontal", widgets=[self._slider, self._box], labels=False, **options
        )
        self.margins = (0, 0, 0, 0)
        self.number = value
        self._slider.changed.connect(self._on_slider)
        self._box.changed.connect(self._on_box)

    @property
    def number(self) -> float:
        """The value that was set, or the user's choice since then."""
        return self._number

    @number.setter
    def number(self, value: float) -> None:
        # The box rounds to the digits that it shows, but a value that was set must stay exact.
        self._number = float(value)
        self._box.native.setDecimals(_count_digits(value))
        with self._box.changed.blocked():
            self._box.value = value
        self._move_slider(value)

    @property
    def number_changed(self) -> Any:
        """Emitted when the user has chosen another value."""
        return self._box.changed

    def _on_slider(self, step: int) -> None:
        value = self._low * (self._high / self._low) ** (step / _STEPS)
        self._box.value = round(value, max(2 - math.floor(math.log10(value)), 0))

    def _on_box(self, value: float) -> None:
        self._number = float(value)
        self._move_slider(value)

    def _move_slider(self, value: float) -> None:
        part = math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        # The slider has few positions, so its echo would round the number.
        with self._slider.changed.blocked():
            self._slider.value = round(_STEPS * min(part, 1.0))


class _PointForComma(QObject):
    """Lets a number box take a comma for the decimal point, and tell its value when it is whole."""

    def __init__(self, box: QDoubleSpinBox) -> None:
        super().__init__(box)
        box.setKeyboardTracking(False)
        box.setLocale(QLocale.c())
        for widget in (box, *box.findChildren(QLineEdit)):
            widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Send a point in the place of a comma."""
        if not isinstance(event, QKeyEvent) or event.text() != ",":
            return False
        if event.type() != QEvent.Type.KeyPress:
            return False
        modifier = Qt.KeyboardModifier.NoModifier
        point = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Period, modifier, ".")
        QApplication.sendEvent(watched, point)
        return True


def _count_digits(value: float) -> int:
    """Return how many digits after the point show three significant ones."""
    if value <= 0:
        return _FEWEST_DIGITS
    return min(max(2 - math.floor(math.log10(value)), _FEWEST_DIGITS), _MOST_DIGITS)
