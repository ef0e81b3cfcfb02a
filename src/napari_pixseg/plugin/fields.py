"""The fields of the widget: the endpoint's parameters under their own names."""

from __future__ import annotations

import math
from typing import Any

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FloatSpinBox,
    LineEdit,
    Slider,
    SpinBox,
)

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameters import MAX_DENOISE, MAX_SMOOTHING, SEMANTICS, ColorSpace, Parameters

_STEPS = 1000
_WINDOWS = ("automatic", "dtype", "minmax", "contrast limits")


class LogNumber(Container[Any]):
    """A logarithmic slider beside a number box, which also takes what lies off the slider."""

    def __init__(self, low: float, high: float, value: float, **options: Any) -> None:
        self._low, self._high = low, high
        self._slider = Slider(min=0, max=_STEPS, readout=False)
        self._box = FloatSpinBox(min=0.0, max=high, step=0.1, value=value)
        self._box.native.setDecimals(3)
        self._box.max_width = 90
        super().__init__(
            layout="horizontal", widgets=[self._slider, self._box], labels=False, **options
        )
        self.margins = (0, 0, 0, 0)
        self._follow(value)
        self._slider.changed.connect(self._on_slider)
        self._box.changed.connect(self._follow)

    @property
    def number(self) -> float:
        """The value."""
        return float(self._box.value)

    @number.setter
    def number(self, value: float) -> None:
        self._box.value = value

    @property
    def number_changed(self) -> Any:
        """Emitted with the new value."""
        return self._box.changed

    def _on_slider(self, step: int) -> None:
        value = self._low * (self._high / self._low) ** (step / _STEPS)
        digits = 2 - math.floor(math.log10(value))
        self._box.value = round(value, max(digits, 0))

    def _follow(self, value: float) -> None:
        part = math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        with self._slider.changed.blocked():
            self._slider.value = round(_STEPS * min(part, 1.0))


class Fields:
    """All parameters as widgets, and the way between them and one Parameters object."""

    def __init__(self) -> None:
        self.ct = LogNumber(
            0.01, 100.0, 1.0, name="ct", label="smallest class, % (ct)",
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
            tooltip="What is mapped to 0..255 where samples are not bytes. Counts anew.",
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
            name="min_size", label="smallest region, pixels", min=0, max=2**31 - 1, value=0,
            tooltip="Regions of fewer pixels are dropped.",
        )  # fmt: skip
        self.advanced = Container(
            widgets=[
                self.semantics, self.denoise, self.channels, self.window, self.connectivity,
                self.background, self.min_size,
            ],
            name="advanced",
        )  # fmt: skip

    def signals(self) -> list[Any]:
        """Signals after which the parameters may have changed."""
        return [self.ct.number_changed, self.st.number_changed, self.cs.changed,
                *(field.changed for field in self.advanced)]  # fmt: skip

    def parameters(self, before: Parameters, limits: tuple[float, float] | None) -> Parameters:
        """Return what the fields say.

        Parameters
        ----------
        before : Parameters
            Gives what has no field: axes, and a window of numbers.
        limits : (low, high) or None
            The layer's contrast limits.

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
            window=self._window(before, limits),
            axes=before.axes,
            channels=_numbers("channels", self.channels.value),
            connectivity=self.connectivity.value,
            background=_background(self.background.value),
            min_size=self.min_size.value,
        )

    def _window(self, before: Parameters, limits: tuple[float, float] | None) -> Any:
        choice = self.window.value
        if choice == "contrast limits":
            return before.window if limits is None else (limits,)
        return None if choice == "automatic" else choice

    def show(self, parameters: Parameters) -> None:
        """Set all fields; those who listen hear of it once, afterwards, from the caller."""
        signals = self.signals()
        for signal in signals:
            signal.block()
        try:
            self._show(parameters)
        finally:
            for signal in signals:
                signal.unblock()

    def _show(self, parameters: Parameters) -> None:
        self.ct.number, self.cs.value = parameters.ct, parameters.cs
        self.st.number = parameters.st
        self.ct._follow(parameters.ct)
        self.st._follow(parameters.st)
        self.semantics.value, self.denoise.value = parameters.semantics, parameters.denoise
        self.channels.value = _text(parameters.channels)
        window = parameters.window
        self.window.value = (
            "contrast limits" if isinstance(window, tuple) else window or _WINDOWS[0]
        )
        self.connectivity.value, self.min_size.value = parameters.connectivity, parameters.min_size
        self.background.value = _text(parameters.background)


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
            widgets=[self.path, outputs, self.overwrite, self.blob, self.scheduler], name="run"
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


def _background(text: str) -> Any:
    return text.strip() if text.strip() == "largest" else _numbers("background", text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else ",".join(str(number) for number in value)
