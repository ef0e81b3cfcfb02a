"""The parameters of a segmentation: one frozen, validated object for everyone.

The fields of :class:`Parameters` are the only home of every range, default and help text. The
command line, the endpoint and its OpenAPI document, the widget, ``Segmentation.update()`` and the
tables of the documentation are made from them: a new parameter is one more field here (and an
argument of :func:`napari_pixseg.segment`, which is written out for the sake of editors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameter_kinds import Choice, Kind, Number, NumberedChoice, WholeNumber
from napari_pixseg.parameter_sequences import AxisLetters, Intervals, WholeNumbers

Semantics: TypeAlias = Literal["documented", "imagemagick6"]
Interval: TypeAlias = tuple[float, float]
Window: TypeAlias = Literal["dtype", "minmax"] | tuple[Interval, ...] | None
Background: TypeAlias = Literal["largest"] | tuple[int, ...] | None

AXES = "tczyx"
_INFO = "parameter"


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


class ParameterInfo:
    """The description of one parameter.

    Attributes
    ----------
    default : object
        The value if the parameter is not given.
    kind : Kind
        The kind of values that are allowed.
    label : str
        A few plain words: the name of the widget's field.
    help : str
        Its meaning, in one clause without a full stop.
    advice : str
        Sentences on how to choose a value.
    exact_kind : Kind or None
        The kind allowed with semantics ``imagemagick6``, if that differs.
    needs_pixels : bool
        Whether another value changes the counts of colors, so that the pixels are read again.
    opens_input : bool
        Whether the value is needed to open the input.
    is_endpoint : bool
        Whether it is in the SEGMENT API, so that every endpoint has it.
    is_extension : bool
        Whether our own server has it as an extension of the SEGMENT API.
    in_widget : bool
        Whether the widget has a field for it.
    metavar : str or None
        Name of the value in the command line's help.
    when_none : str
        What happens if the value is None.
    """

    def __init__(
        self,
        default: Any,
        kind: Kind,
        label: str,
        help: str,
        *,
        advice: str = "",
        exact_kind: Kind | None = None,
        needs_pixels: bool = False,
        opens_input: bool = False,
        is_endpoint: bool = False,
        is_extension: bool = False,
        in_widget: bool = True,
        metavar: str | None = None,
        when_none: str = "",
    ) -> None:
        self.default: Final[Any] = default
        self.kind: Final = kind
        self.label: Final = label
        self.help: Final = help
        self.advice: Final = advice
        self.exact_kind: Final = exact_kind
        self.needs_pixels: Final = needs_pixels
        self.opens_input: Final = opens_input
        self.is_endpoint: Final = is_endpoint
        self.is_extension: Final = is_extension
        self.in_widget: Final = in_widget
        self.metavar: Final = metavar
        self.when_none: Final = when_none

    @property
    def default_text(self) -> str:
        """The default as text."""
        return self.when_none if self.default is None else self.kind.format(self.default)

    def check(self, name: str, value: object, semantics: object) -> object:
        """Return a value in its plain form.

        Raises
        ------
        ParameterError
            If the value is not allowed.
        """
        if value is None and self.default is None:
            return None
        if semantics == "imagemagick6" and self.exact_kind is not None:
            return self.exact_kind.check(name, value)
        return self.kind.check(name, value)


def parameter(*arguments: Any, **options: Any) -> Any:
    """Return a field of :class:`Parameters`; the arguments are those of :class:`ParameterInfo`."""
    info = ParameterInfo(*arguments, **options)
    return field(default=info.default, metadata={_INFO: info})


@dataclass(frozen=True)
class Parameters:
    """Everything that a caller may choose about a segmentation.

    The attributes are described by :meth:`descriptions`, and on the page of the parameters.

    Raises
    ------
    ParameterError
        If a value is out of its range or not of its kind.
    """

    ct: float = parameter(
        1.0,
        Number(0, 100, remark=" (percent of the counted pixels)"),
        "smallest class, % (ct)",
        "cluster threshold: the smallest share of the pixels that a class may have in its box",
        advice="Lower: more and smaller classes.",
        # Not a percentage there.
        exact_kind=Number(0),
        is_endpoint=True,
    )
    cs: ColorSpace = parameter(
        ColorSpace.YUV,
        NumberedChoice(ColorSpace, "color space"),
        "color space (cs)",
        "color space in which the histograms are taken",
        advice="YUV suits most pictures; Lab and HSL separate hues.",
        is_endpoint=True,
    )
    st: float = parameter(
        1.5,
        Number(
            0,
            255,
            excludes_low=True,
            remark="; useful values are 1 to 50",
            smallest_useful=0.05,
        ),
        "smoothing (st)",
        "smoothing threshold: how much structure of the histograms is ignored as noise",
        advice="Higher: mostly fewer classes. It means the same at every image size.",
        # Raw counts there, and 0 acts as 1.
        exact_kind=Number(0, 255),
        is_endpoint=True,
    )
    semantics: Semantics = parameter(
        "documented",
        Choice(("documented", "imagemagick6")),
        "semantics",
        "the documented meaning of the parameters, or ImageMagick 6 bug for bug",
        advice="Leave it unless you must reproduce ImageMagick's results.",
        is_extension=True,
    )
    denoise: int = parameter(
        0,
        WholeNumber(0, 32, remark=" pixels; 0 turns it off"),
        "denoise, radius",
        "radius of a median filter over y and x before classification",
        advice="It removes grain and thin structures.",
        needs_pixels=True,
        is_extension=True,
        metavar="RADIUS",
    )
    window: Window = parameter(
        None,
        Intervals(("dtype", "minmax")),
        "window",
        "range of samples mapped to 0..255 in each channel, if samples are not bytes",
        advice="The range of the type, the range that occurs, or numbers; the rest is clipped.",
        needs_pixels=True,
        metavar="LOW:HIGH",
        when_none="the 0.1 % to the 99.9 % point; for floats minimum to maximum",
    )
    axes: str | None = parameter(
        None,
        AxisLetters(AXES),
        "axes",
        "names of the dimensions, one letter for each",
        needs_pixels=True,
        opens_input=True,
        in_widget=False,
        when_none="metadata, or a guess that is reported",
    )
    channels: tuple[int, ...] | None = parameter(
        None,
        WholeNumbers(
            WholeNumber(0, remark="; channels are counted from 0"),
            "one to three indices from 0, for example 0,1,2",
            fewest=1,
            most=3,
        ),
        "channels",
        "channels that make up the color, in this order",
        needs_pixels=True,
        opens_input=True,
        when_none="the first three",
    )
    connectivity: int = parameter(
        1,
        WholeNumber(1, 3, remark="; 1 joins over faces", names=("faces", "edges", "corners (3-D)")),
        "connectivity",
        "along how many axes a step within a region may move at once",
        advice="At most the number of spatial axes, which joins over corners, too.",
    )
    background: Background = parameter(
        None,
        WholeNumbers(
            WholeNumber(1, remark="; classes are counted from 1"),
            "'largest', or class numbers from 1, for example 1,2",
            word="largest",
        ),
        "background classes",
        "classes that are not divided into regions",
        is_extension=True,
        when_none="none",
    )
    min_size: int = parameter(
        0,
        WholeNumber(0, remark=" pixels; 0 keeps all regions"),
        "smallest region, pixels",
        "fewest pixels of a region; smaller ones are dropped",
        advice="The size is that of the whole region, after tiles are stitched.",
        is_extension=True,
        metavar="PIXELS",
    )

    def __post_init__(self) -> None:
        # The checks of the others depend on it.
        semantics = self.descriptions()["semantics"].check("semantics", self.semantics, None)
        for name, info in self.descriptions().items():
            object.__setattr__(self, name, info.check(name, getattr(self, name), semantics))

    @classmethod
    def descriptions(cls) -> dict[str, ParameterInfo]:
        """Return the description of each parameter, by name, in order."""
        return {part.name: part.metadata[_INFO] for part in fields(cls)}

    @classmethod
    def names_where(cls, **wanted: bool) -> tuple[str, ...]:
        """Return the names of parameters with certain attributes of :class:`ParameterInfo`.

        ``names_where(needs_pixels=False)`` are those that ``update()`` can change.
        """
        return tuple(
            name
            for name, info in cls.descriptions().items()
            if all(getattr(info, attribute) == value for attribute, value in wanted.items())
        )

    def needs_pixels_again(self, before: Parameters) -> bool:
        """Whether colors counted with other parameters cannot be used with these."""
        names = self.names_where(needs_pixels=True)
        return any(getattr(self, name) != getattr(before, name) for name in names)

    def replace(self, **changes: Any) -> Parameters:
        """Return a copy with some values changed, validated like a new object.

        Raises
        ------
        ParameterError
            If a name is unknown or a value out of range.
        """
        self._refuse_unknown(changes)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the color space as its number."""
        return {name: _to_json(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parameters:
        """Build from JSON values as :meth:`to_dict` gives them.

        Raises
        ------
        ParameterError
            If a name is unknown or a value out of range.
        """
        cls._refuse_unknown(values)
        return cls(**values)

    @classmethod
    def _refuse_unknown(cls, values: Mapping[str, Any]) -> None:
        known = cls.descriptions()
        for name in values:
            if name not in known:
                raise ParameterError(
                    f"There is no parameter {name!r}; there are {', '.join(known)}."
                )


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    return int(value) if isinstance(value, IntEnum) else value
