"""A number as a logarithmic slider beside a box."""

from __future__ import annotations

import math
from typing import Any

from magicgui.widgets import Container, FloatSpinBox, Slider

_STEPS = 1000


_FEWEST_DIGITS, _MOST_DIGITS = 3, 9


class LogNumber(Container[Any]):
    """A logarithmic slider beside a number box, which also takes what lies off the slider.

    Parameters
    ----------
    low, high : float
        Ends of the slider.
    value : float
    highest : float, optional
        The box's end, if it takes more than the slider.
    **options
        Of a magicgui container: name, label, tooltip.
    """

    def __init__(
        self, low: float, high: float, value: float, highest: float | None = None, **options: Any
    ) -> None:
        self._low, self._high = low, high
        self._number = float(value)
        self._slider = Slider(min=0, max=_STEPS, readout=False)
        self._box = FloatSpinBox(min=0.0, max=highest or high, step=0.1, value=value)
        self._box.max_width = 90
        super().__init__(
            layout="horizontal", widgets=[self._slider, self._box], labels=False, **options
        )
        self.margins = (0, 0, 0, 0)
        self.number = value
        self._slider.changed.connect(self._on_slider)
        self._box.changed.connect(self._on_box)

    @property
    def number(self) -> float:
        """The value: what was set, or what the user chose since."""
        return self._number

    @number.setter
    def number(self, value: float) -> None:
        # The box may show fewer digits than there are; what was set stays exact.
        self._number = float(value)
        self._box.native.setDecimals(_digits(value))
        with self._box.changed.blocked():
            self._box.value = value
        self._follow(value)

    @property
    def number_changed(self) -> Any:
        """Emitted when the user has chosen another value."""
        return self._box.changed

    def _on_slider(self, step: int) -> None:
        value = self._low * (self._high / self._low) ** (step / _STEPS)
        self._box.value = round(value, max(2 - math.floor(math.log10(value)), 0))

    def _on_box(self, value: float) -> None:
        self._number = float(value)
        self._follow(value)

    def _follow(self, value: float) -> None:
        part = math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        with self._slider.changed.blocked():
            self._slider.value = round(_STEPS * min(part, 1.0))


def _digits(value: float) -> int:
    """Digits after the point that show three of a small number."""
    if value <= 0:
        return _FEWEST_DIGITS
    return min(max(2 - math.floor(math.log10(value)), _FEWEST_DIGITS), _MOST_DIGITS)
