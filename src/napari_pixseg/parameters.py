"""The parameters of a segmentation: one frozen, validated object for everyone.

Widget, notebook, command line, endpoint and manifest all speak through
:class:`Parameters`; a range or a default stands here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, cast

from napari_pixseg.errors import ParameterError

Semantics: TypeAlias = Literal["documented", "imagemagick6"]
Interval: TypeAlias = tuple[float, float]
Window: TypeAlias = Literal["dtype", "minmax"] | tuple[Interval, ...] | None
Background: TypeAlias = Literal["largest"] | tuple[int, ...] | None

SEMANTICS: tuple[Semantics, ...] = ("documented", "imagemagick6")
AXES = "tczyx"
MAX_DENOISE = 32
MAX_SMOOTHING = 255.0


class ColorSpace(IntEnum):
    """The 22 color spaces, numbered as in the SEGMENT API."""

    RGB = 1
    GRAY = 2
    Transparent = 3
    OHTA = 4
    Lab = 5
    XYZ = 6
    YCbCr = 7
    YCC = 8
    YIQ = 9
    YPbPr = 10
    YUV = 11
    CMYK = 12
    sRGB = 13  # noqa: N815
    HSB = 14
    HSL = 15
    HWB = 16
    Rec601Luma = 17
    Rec601YCbCr = 18
    Rec709Luma = 19
    Rec709YCbCr = 20
    Log = 21
    CMY = 22


@dataclass(frozen=True)
class Parameters:
    """Everything a caller may decide about a segmentation.

    Attributes
    ----------
    ct : float
        Cluster threshold in percent: a class is valid if at least ``ct`` % of
        the counted pixels lie in its box. 0 to 100, ends included
        (``imagemagick6``: 0 or more, and not a percentage there).
    cs : ColorSpace
        Color space in which the histograms are taken; number 1 to 22 or name.
    st : float
        Smoothing threshold on the second derivative of the histogram of the
        image normalised to 1024 x 1024 pixels; above 0, to 255
        (``imagemagick6``: of raw counts, 0 to 255, and 0 acts as 1).
    semantics : {"documented", "imagemagick6"}
        What the parameters are documented to mean, or what ImageMagick 6 does,
        faults included.
    denoise : int
        Radius in pixels of a median filter over y and x; 0 (none) to 32.
    window : {"dtype", "minmax"}, tuple of (low, high), or None
        What is mapped to 0..255 in each channel; one pair serves all channels.
        None: everything for uint8, the 0.1 % and 99.9 % points for other
        integers, the finite minimum and maximum for floats.
    axes : str or None
        One letter of ``t c z y x`` for each dimension; None: metadata, or a guess.
    channels : tuple of int or None
        One to three indices along ``c``, in this order; None: the first three.
    connectivity : int
        Steps along how many axes still connect two pixels: 1 (faces) to the
        number of spatial axes (corners).
    background : {"largest"}, tuple of int, or None
        Classes that are no regions.
    min_size : int
        Regions of fewer pixels are dropped; 0 or more.

    Raises
    ------
    ParameterError
        If a value is out of its range or not of its kind.
    """

    ct: float = 1.0
    cs: ColorSpace = ColorSpace.YUV
    st: float = 1.5
    semantics: Semantics = "documented"
    denoise: int = 0
    window: Window = None
    axes: str | None = None
    channels: tuple[int, ...] | None = None
    connectivity: int = 1
    background: Background = None
    min_size: int = 0

    def __post_init__(self) -> None:
        checked = {
            "semantics": _semantics(self.semantics),
            "cs": _color_space(self.cs),
            "ct": _cluster_threshold(self.ct, self.semantics),
            "st": _smoothing_threshold(self.st, self.semantics),
            "denoise": _whole("denoise", self.denoise, 0, MAX_DENOISE, " pixels; 0 turns it off"),
            "window": _window(self.window),
            "axes": _axes(self.axes),
            "channels": _channels(self.channels),
            "connectivity": _whole("connectivity", self.connectivity, 1, 3, "; 1 joins over faces"),
            "background": _background(self.background),
            "min_size": _whole("min_size", self.min_size, 0, None, " pixels; 0 keeps all regions"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Parameters:
        """Return a copy with some values changed, validated like a new object.

        Raises
        ------
        ParameterError
            If a name is unknown or a value out of range.
        """
        _refuse_unknown(changes)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the color space as its number."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parameters:
        """Build from JSON values as :meth:`to_dict` gives them.

        Raises
        ------
        ParameterError
            If a name is unknown or a value out of range.
        """
        _refuse_unknown(values)
        return cls(**values)


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Parameters)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ParameterError(f"There is no parameter {unknown[0]!r}; there are {', '.join(known)}.")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, IntEnum) else value


def _number(name: str, value: object, allowed: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(cast(Real, value))
        if isinstance(value, Real) and math.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ParameterError(f"{name} = {value!r} is not a finite number; it must be {allowed}.")


def _listed(value: object) -> object:
    """Take NumPy arrays for what they hold, and text for no sequence."""
    if isinstance(value, str | bytes):
        return repr(value) if isinstance(value, bytes) else value
    return value.tolist() if hasattr(value, "tolist") else value


def _whole(name: str, value: object, low: int, high: int | None, remark: str) -> int:
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    number = int(cast(Integral, value)) if whole else low - 1
    if number < low or (high is not None and number > high):
        raise ParameterError(f"{name} = {value!r} must be a whole number, {allowed}{remark}.")
    return number


def _semantics(value: object) -> Semantics:
    for known in SEMANTICS:
        if isinstance(value, str) and value == known:
            return known
    raise ParameterError(f"semantics = {value!r} must be 'documented' or 'imagemagick6'.")


def _cluster_threshold(value: object, semantics: object) -> float:
    exact = semantics == "imagemagick6"
    allowed = "0 or more" if exact else "0 to 100 (percent of the counted pixels)"
    number = _number("ct", value, allowed)
    if number < 0 or (number > 100 and not exact):
        raise ParameterError(f"ct = {value!r} is out of range; it must be {allowed}.")
    return number


def _smoothing_threshold(value: object, semantics: object) -> float:
    exact = semantics == "imagemagick6"
    allowed = "0 to 255" if exact else "above 0, to 255; useful values are 1 to 50"
    number = _number("st", value, allowed)
    if number < 0 or number > MAX_SMOOTHING or (number == 0 and not exact):
        raise ParameterError(f"st = {value!r} is out of range; it must be {allowed}.")
    return number


def _color_space(value: object) -> ColorSpace:
    if isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= 22:
        return ColorSpace(int(value))
    if isinstance(value, str):
        text = value.strip().lower()
        for space in ColorSpace:
            if text in (space.name.lower(), str(space.value)):
                return space
    names = ", ".join(f"{space.value} {space.name}" for space in ColorSpace)
    raise ParameterError(f"cs = {value!r} is no color space; give a number or a name of: {names}.")


def _window(value: object) -> Window:
    value = _listed(value)
    if value is None or value in ("dtype", "minmax"):
        return cast(Window, value)
    allowed = "'dtype', 'minmax', (low, high), or one (low, high) for each channel"
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ParameterError(f"window = {value!r} must be {allowed}.")
    pairs = [value] if isinstance(value[0], Real) else value
    return tuple(_interval(_listed(pair), value, allowed) for pair in pairs)


def _interval(pair: object, window: object, allowed: str) -> Interval:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ParameterError(f"window = {window!r} must be {allowed}.")
    low, high = (_number("window", end, allowed) for end in pair)
    if low > high:
        raise ParameterError(f"window = {window!r} has low above high; give (low, high).")
    return low, high


def _axes(value: object) -> str | None:
    if value is None:
        return None
    text = value.lower() if isinstance(value, str) else ""
    known = set(text) <= set(AXES) and len(set(text)) == len(text)
    if not known or "y" not in text or "x" not in text:
        raise ParameterError(
            f"axes = {value!r} must name each dimension by one of the letters t, c, z, y, x, "
            "each at most once, y and x among them, for example 'zyx'."
        )
    return text


def _channels(value: object) -> tuple[int, ...] | None:
    value = _listed(value)
    if value is None:
        return None
    indices = [value] if isinstance(value, Integral) else value
    if isinstance(indices, str) or not isinstance(indices, Sequence) or not 1 <= len(indices) <= 3:
        raise ParameterError(
            f"channels = {value!r} must be one to three indices from 0, for example 0,1,2."
        )
    remark = "; channels are counted from 0"
    return tuple(_whole("channels", index, 0, None, remark) for index in indices)


def _background(value: object) -> Background:
    value = _listed(value)
    if value is None or value == "largest":
        return cast(Background, value)
    numbers = [value] if isinstance(value, Integral) else value
    if isinstance(numbers, str) or not isinstance(numbers, Sequence):
        raise ParameterError(
            f"background = {value!r} must be 'largest', or class numbers from 1, for example 1,2."
        )
    remark = "; classes are counted from 1"
    return tuple(_whole("background", number, 1, None, remark) for number in numbers)
