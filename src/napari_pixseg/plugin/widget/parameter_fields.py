"""The fields of the widget: the endpoint's parameters under their own names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, LineEdit, SpinBox

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameters import (
    MAX_DENOISE,
    MAX_SMOOTHING,
    SEMANTICS,
    ColorSpace,
    Interval,
    Parameters,
)
from napari_pixseg.plugin.widget.log_slider import LogNumber

CONTRAST_LIMITS = "contrast limits"


_NUMBERS = "low, high"


_WINDOWS = ("automatic", "dtype", "minmax", CONTRAST_LIMITS, _NUMBERS)


# semantics='imagemagick6' takes any ct; nobody needs more digits than this.
_HIGHEST_CT = 1e9


_LARGEST_SIZE = 2**53


class Fields:
    """All parameters as widgets, and the way between them and one Parameters object."""

    def __init__(self) -> None:
        self.ct = LogNumber(
            0.01, 100.0, 1.0, _HIGHEST_CT, name="ct", label="smallest class, % (ct)",
            tooltip="A class is kept if at least this share of the counted pixels lies in its "
            "box. Lower: more, smaller classes.",
        )  # fmt: skip
        self.cs = ComboBox(
            name="cs", label="color space (cs)", value=ColorSpace.YUV,
            choices=[(f"{space.value}  {space.name}", space) for space in ColorSpace],
            tooltip="In which channels the histograms are taken. YUV suits most pictures; Lab "
            "and HSL separate hues.",
        )  # fmt: skip
        self.st = LogNumber(
            0.05, MAX_SMOOTHING, 1.5, name="st", label="smoothing (st)",
            tooltip="How much structure of the histograms is ignored. Higher: fewer classes. "
            "Useful values are 1 to 50; it means the same at every image size.",
        )  # fmt: skip
        self._make_advanced()

    def _make_advanced(self) -> None:
        self.semantics = ComboBox(
            name="semantics", choices=list(SEMANTICS), value=SEMANTICS[0],
            tooltip="What the parameters are documented to mean, or ImageMagick 6 bug for bug.",
        )  # fmt: skip
        self.denoise = SpinBox(
            name="denoise", label="denoise, radius", min=0, max=MAX_DENOISE, value=0,
            tooltip="Radius in pixels of a median filter before classification. Counts anew.",
        )  # fmt: skip
        self.channels = LineEdit(
            name="channels", label="channels",
            tooltip="One to three channels, counted from 0, for example 0,1,2. Empty: the first "
            "three. Counts anew.",
        )  # fmt: skip
        self.window = ComboBox(
            name="window", choices=list(_WINDOWS), value=_WINDOWS[0],
            tooltip="What is mapped to 0..255 where samples are not bytes: the whole range of "
            "the type, what occurs, what the layer shows, or numbers. Counts anew.",
        )  # fmt: skip
        self.window_numbers = LineEdit(
            name="window_numbers", label="low, high",
            tooltip="For example 100,900; for each channel: 100,900; 0,4095; 50,700.",
        )  # fmt: skip
        self.connectivity = ComboBox(
            name="connectivity", choices=[("faces", 1), ("edges", 2), ("corners (3-D)", 3)],
            value=1, tooltip="Which neighbors connect to one region.",
        )  # fmt: skip
        self.background = LineEdit(
            name="background", label="background classes",
            tooltip="Classes that are no regions: 'largest', or numbers such as 1,3.",
        )  # fmt: skip
        self.min_size = SpinBox(
            name="min_size", label="smallest region, pixels", min=0, max=_LARGEST_SIZE, value=0,
            tooltip="Regions of fewer pixels are dropped.",
        )  # fmt: skip
        self.advanced = Container(
            widgets=[
                self.semantics, self.denoise, self.channels, self.window,
                self.window_numbers, self.connectivity, self.background, self.min_size,
            ],
            name="advanced",
        )  # fmt: skip

    def listen(self, changed: Callable[[], None], typed: Callable[[], None]) -> None:
        """Call ``changed`` when a value was chosen, ``typed`` at every key in a text."""
        for signal in (self.ct.number_changed, self.st.number_changed, self.cs.changed):
            signal.connect(lambda _value: changed())
        for field in self.advanced:
            slot = typed if isinstance(field, LineEdit) else changed
            field.changed.connect(lambda _value, slot=slot: slot())
        for field in self._texts():
            field.native.editingFinished.connect(changed)
        self.window.changed.connect(lambda _value: self._show_numbers())

    def _texts(self) -> list[LineEdit]:
        return [field for field in self.advanced if isinstance(field, LineEdit)]

    def _show_numbers(self) -> None:
        self.window_numbers.visible = self.window.value == _NUMBERS

    def parameters(
        self, before: Parameters, shown: tuple[Interval] | None, complete: bool = False
    ) -> Parameters:
        """Return what the fields say.

        Parameters
        ----------
        before : Parameters
            Gives what has no field: axes, and a window of numbers.
        shown : tuple of (low, high), or None
            The layer's contrast limits, if it has any.
        complete : bool
            Whether a window of numbers that are still to be typed is refused.

        Raises
        ------
        ParameterError
        """
        return Parameters(
            ct=self.ct.number,
            cs=self.cs.value,
            st=self.st.number,
            semantics=self.semantics.value,
            denoise=self.denoise.value,
            window=self._window(before, shown, complete),
            axes=before.axes,
            channels=_channels(self.channels.value),
            connectivity=self.connectivity.value,
            background=_background(self.background.value),
            min_size=self.min_size.value,
        )

    def _window(self, before: Parameters, shown: tuple[Interval] | None, complete: bool) -> Any:
        choice = self.window.value
        if choice == CONTRAST_LIMITS:
            return shown
        if choice == _NUMBERS:
            if not (complete or self.window_numbers.value.strip()):
                return before.window
            return _pairs(self.window_numbers.value)
        return None if choice == "automatic" else choice

    def show(self, parameters: Parameters) -> None:
        """Set the fields that say something else; those who listen do not hear of it."""
        signals = [self.cs.changed, *(field.changed for field in self.advanced)]
        for signal in signals:
            signal.block()
        try:
            self._show(parameters)
        finally:
            for signal in signals:
                signal.unblock()

    def _show(self, parameters: Parameters) -> None:
        for field, number in ((self.ct, parameters.ct), (self.st, parameters.st)):
            if field.number != number:
                field.number = number
        self.cs.value = parameters.cs
        self.semantics.value, self.denoise.value = parameters.semantics, parameters.denoise
        self.connectivity.value, self.min_size.value = parameters.connectivity, parameters.min_size
        self._show_window(parameters.window)
        # A text that means the same is left as it is: someone may be typing.
        if _meaning(_channels, self.channels.value) != parameters.channels:
            self.channels.value = _text(parameters.channels)
        if _meaning(_background, self.background.value) != parameters.background:
            self.background.value = _text(parameters.background)

    def _show_window(self, window: Any) -> None:
        if not isinstance(window, tuple):
            self.window.value = window or _WINDOWS[0]
        elif self.window.value != CONTRAST_LIMITS:
            self.window.value = _NUMBERS
            if _meaning(_pairs, self.window_numbers.value) != window:
                self.window_numbers.value = "; ".join(
                    f"{low:.17g},{high:.17g}" for low, high in window
                )
        self._show_numbers()


class RunFields(Container[Any]):
    """Where the full job goes, and what it writes."""

    def __init__(self) -> None:
        self.path = LineEdit(
            name="path", label="write to",
            tooltip="A path or URL: .ome.zarr for everything, .png .tif .jpg for the picture. "
            "Empty: in memory, for images that fit.",
        )  # fmt: skip
        self.classes = CheckBox(name="classes", text="classes", value=True)
        self.regions = CheckBox(name="regions", text="regions", value=True)
        self.picture = CheckBox(name="picture", text="picture", value=True)
        self.overwrite = CheckBox(name="overwrite", text="replace an existing output", value=False)
        self.resume = CheckBox(
            name="resume", text="continue an unfinished output", value=False,
            tooltip="Of a run that was cancelled, failed or killed: what is there is kept.",
        )  # fmt: skip
        self.blob = CheckBox(
            name="blob", text="picture file alone (blob)", value=False,
            tooltip="Write just the picture file: no store, no JSON.",
        )  # fmt: skip
        self.scheduler = LineEdit(
            name="scheduler", label="Dask scheduler",
            tooltip="Address such as tcp://host:8786; empty means this machine.",
        )  # fmt: skip
        outputs = Container(
            layout="horizontal", widgets=[self.classes, self.regions, self.picture],
            labels=False, label="outputs",
        )  # fmt: skip
        outputs.margins = (0, 0, 0, 0)
        super().__init__(
            widgets=[self.path, outputs, self.resume, self.overwrite, self.blob, self.scheduler],
            name="run",
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are checked."""
        named = {"classes": self.classes, "regions": self.regions, "recolored": self.picture}
        return tuple(name for name, box in named.items() if box.value)


def _numbers(name: str, text: str) -> Any:
    if not text.strip():
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(
            f"{name} = {text!r} must be whole numbers with commas between them, such as 0,1,2."
        ) from None


def _channels(text: str) -> Any:
    return _numbers("channels", text)


def _background(text: str) -> Any:
    return text.strip() if text.strip() == "largest" else _numbers("background", text)


def _pairs(text: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = [[float(number) for number in pair.split(",")] for pair in text.split(";")]
        return tuple((low, high) for low, high in pairs)
    except ValueError:
        raise ParameterError(
            f"window = {text!r} must be two numbers with a comma between them, such as 100,900."
        ) from None


def _shortest(number: float) -> str:
    text = f"{number:g}"
    return text if float(text) == number else repr(number)


def _meaning(parse: Callable[[str], Any], text: str) -> Any:
    """Return what a text means; itself if it means nothing."""
    try:
        return parse(text)
    except ParameterError:
        return text


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else ",".join(str(number) for number in value)
