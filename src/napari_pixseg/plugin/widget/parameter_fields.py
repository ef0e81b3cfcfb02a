"""The fields of the widget, one or two for each parameter, made from its description.

There is one class of field for each kind of value, not for each parameter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from magicgui.widgets import ComboBox, Container, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget, Widget

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameter_kinds import Choice, Kind, Number, NumberedChoice, WholeNumber
from napari_pixseg.parameter_sequences import Intervals
from napari_pixseg.parameters import Interval, ParameterInfo, Parameters
from napari_pixseg.plugin.widget.log_slider import LogNumber

CONTRAST_LIMITS = "contrast limits"
_AUTOMATIC = "automatic"
_NUMBERS = "low, high"
# Boxes need an upper limit even if a parameter has none; nobody needs larger numbers.
_HIGHEST_NUMBER = 1e9
_HIGHEST_WHOLE_NUMBER = 2**53


class _Field(ABC):
    """One parameter as widgets.

    Attributes
    ----------
    widgets : list of Widget
        The first is named like the parameter.
    value_widgets : list of ValueWidget
        The widgets that report every change, including changes by the program.
    """

    widgets: list[Widget]
    value_widgets: list[ValueWidget[Any]]

    @abstractmethod
    def read(self, before: object, shown: tuple[Interval] | None, complete: bool) -> object:
        """Return the widgets' value; the arguments are those of :meth:`Fields.parameters`."""

    @abstractmethod
    def show(self, value: object) -> None:
        """Set the widgets, if they show another value."""

    def listen(self, changed: Callable[[], None], typed: Callable[[], None]) -> None:
        """Call ``changed`` when a value was chosen, ``typed`` at every key in a text."""
        for widget in self.value_widgets:
            if isinstance(widget, LineEdit):
                widget.changed.connect(lambda _value: typed())
                widget.native.editingFinished.connect(changed)
            else:
                widget.changed.connect(lambda _value: changed())


class _NumberField(_Field):
    """A logarithmic slider and a box."""

    def __init__(self, name: str, info: ParameterInfo, kind: Number) -> None:
        self._number = LogNumber(
            kind.smallest_useful,
            _HIGHEST_NUMBER if kind.high is None else kind.high,
            info.default,
            **_texts_of(name, info),
        )
        self.widgets = [self._number]
        # The slider and its box emit no signal when the program sets them.
        self.value_widgets = []

    def read(self, before: object, shown: tuple[Interval] | None, complete: bool) -> object:
        return self._number.number

    def show(self, value: Any) -> None:
        if self._number.number != value:
            self._number.number = value

    def listen(self, changed: Callable[[], None], typed: Callable[[], None]) -> None:
        self._number.number_changed.connect(lambda _value: changed())


class _PlainField(_Field):
    """A widget that has the parameter's value."""

    def __init__(self, widget: ValueWidget[Any]) -> None:
        self._widget = widget
        self.widgets = [widget]
        self.value_widgets = [widget]

    def read(self, before: object, shown: tuple[Interval] | None, complete: bool) -> object:
        return self._widget.value

    def show(self, value: object) -> None:
        self._widget.value = value


class _TextField(_Field):
    """A line of text; an empty one stands for None."""

    def __init__(self, name: str, info: ParameterInfo) -> None:
        self._info = info
        self._line = LineEdit(**_texts_of(name, info))
        self.widgets = [self._line]
        self.value_widgets = [self._line]

    def _meaning(self) -> object:
        text = self._line.value.strip()
        return self._info.kind.parse(text) if text or self._info.default is not None else None

    def read(self, before: object, shown: tuple[Interval] | None, complete: bool) -> object:
        return self._meaning()

    def show(self, value: object) -> None:
        # A text with the same meaning is left alone, because the user may be typing.
        if self._meaning() != value:
            self._line.value = "" if value is None else self._info.kind.format(value)


class _IntervalsField(_Field):
    """A choice of words, the layer's contrast limits or numbers, and a line for the numbers."""

    def __init__(self, name: str, info: ParameterInfo, kind: Intervals) -> None:
        self._name = name
        self._choice = ComboBox(
            choices=[_AUTOMATIC, *kind.words, CONTRAST_LIMITS, _NUMBERS],
            value=_AUTOMATIC,
            **_texts_of(name, info),
        )
        self._numbers = LineEdit(
            name=f"{name}_numbers",
            label=_NUMBERS,
            tooltip="For example 100,900; for each channel: 100,900; 0,4095; 50,700.",
        )
        self.widgets = [self._choice, self._numbers]
        self.value_widgets = [self._choice, self._numbers]

    def read(self, before: object, shown: tuple[Interval] | None, complete: bool) -> object:
        choice = self._choice.value
        if choice == CONTRAST_LIMITS:
            return shown
        if choice == _NUMBERS:
            if not (complete or self._numbers.value.strip()):
                return before
            return self._parse_numbers()
        return None if choice == _AUTOMATIC else choice

    def _parse_numbers(self) -> object:
        text = self._numbers.value
        try:
            return Intervals.parse_pairs(text, ";", ",")
        except ValueError:
            raise ParameterError(
                f"{self._name} = {text!r} must be two numbers with a comma between them, such as "
                "100,900."
            ) from None

    def show(self, value: object) -> None:
        if not isinstance(value, tuple):
            self._choice.value = value or _AUTOMATIC
        elif self._choice.value != CONTRAST_LIMITS:
            self._choice.value = _NUMBERS
            if not self._says(value):
                self._numbers.value = "; ".join(f"{low:.17g},{high:.17g}" for low, high in value)
        self._show_numbers()

    def _says(self, pairs: object) -> bool:
        try:
            return self._parse_numbers() == pairs
        except ParameterError:
            return False

    def _show_numbers(self) -> None:
        self._numbers.visible = self._choice.value == _NUMBERS

    def listen(self, changed: Callable[[], None], typed: Callable[[], None]) -> None:
        super().listen(changed, typed)
        self._choice.changed.connect(lambda _value: self._show_numbers())


class Fields:
    """All parameters as widgets, which can be read as and set from one Parameters object.

    Every widget is an attribute of its own name: ``fields.ct``.

    Attributes
    ----------
    main : list of Widget
        Widgets of the parameters that the SEGMENT API has.
    advanced : Container
        Of all others.
    """

    def __init__(self) -> None:
        known = Parameters.descriptions()
        self._fields = {
            name: _make_field(name, known[name]) for name in Parameters.names_where(in_widget=True)
        }
        self.main: list[Widget] = []
        others: list[Widget] = []
        for name, field in self._fields.items():
            (self.main if known[name].is_endpoint else others).extend(field.widgets)
        self.advanced = Container(widgets=others, name="advanced")

    def __getattr__(self, name: str) -> Any:
        for field in vars(self).get("_fields", {}).values():
            for widget in field.widgets:
                if widget.name == name:
                    return widget
        raise AttributeError(f"There is no field {name!r}.")

    def listen(self, changed: Callable[[], None], typed: Callable[[], None]) -> None:
        """Call ``changed`` when a value was chosen, ``typed`` at every key in a text."""
        for field in self._fields.values():
            field.listen(changed, typed)

    def parameters(
        self, before: Parameters, shown: tuple[Interval] | None, complete: bool = False
    ) -> Parameters:
        """Return the parameters that the fields show.

        Parameters
        ----------
        before : Parameters
            Source of parameters without a field, and of a window whose numbers are not typed yet.
        shown : tuple of (low, high), or None
            The layer's contrast limits, if it has any.
        complete : bool
            Whether to refuse a window whose numbers are not typed yet.

        Raises
        ------
        ParameterError
        """
        said = {
            name: field.read(getattr(before, name), shown, complete)
            for name, field in self._fields.items()
        }
        return before.replace(**said)

    def show(self, parameters: Parameters) -> None:
        """Set the fields that show other values; listeners are not called."""
        widgets = [widget for field in self._fields.values() for widget in field.value_widgets]
        for widget in widgets:
            widget.changed.block()
        try:
            for name, field in self._fields.items():
                field.show(getattr(parameters, name))
        finally:
            for widget in widgets:
                widget.changed.unblock()


def _make_field(name: str, info: ParameterInfo) -> _Field:
    texts = _texts_of(name, info)
    match info.kind:
        case Number() as kind:
            return _NumberField(name, info, kind)
        case Intervals() as kind:
            return _IntervalsField(name, info, kind)
        case WholeNumber(names=()) as kind:
            high = _HIGHEST_WHOLE_NUMBER if kind.high is None else kind.high
            return _PlainField(SpinBox(min=kind.low, max=high, value=info.default, **texts))
        case Choice() | NumberedChoice() | WholeNumber() as kind:
            choices = _choices_of(kind)
            return _PlainField(ComboBox(choices=choices, value=info.default, **texts))
    return _TextField(name, info)


def _choices_of(kind: Kind) -> list[tuple[str, object]]:
    match kind:
        case NumberedChoice():
            return [(f"{member.value}  {member.name}", member) for member in kind.members]
        case WholeNumber():
            return [(word, kind.low + step) for step, word in enumerate(kind.names)]
        case Choice():
            return [(word, word) for word in kind.words]
    raise TypeError(f"{type(kind).__name__} is not a choice.")


def _texts_of(name: str, info: ParameterInfo) -> dict[str, Any]:
    sentences = [f"{info.help[0].upper()}{info.help[1:]}.", info.advice]
    if info.default is None:
        sentences += [f"Allowed: {info.kind.allowed}.", f"Otherwise: {info.when_none}."]
    if info.needs_pixels:
        sentences.append("Counts anew.")
    tooltip = " ".join(sentence for sentence in sentences if sentence)
    return {"name": name, "label": info.label, "tooltip": tooltip}
