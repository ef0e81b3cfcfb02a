"""Parameters with two more fields, as a later version may have them."""

from dataclasses import dataclass

from napari_pixseg.parameter_kinds import WholeNumber
from napari_pixseg.parameter_sequences import WholeNumbers
from napari_pixseg.parameters import Parameters, parameter


@dataclass(frozen=True)
class ExtendedParameters(Parameters):
    """One that needs the pixels again and that endpoints know, and one that is neither."""

    sharpen: int = parameter(
        3,
        WholeNumber(0, 9, remark=" steps"),
        "sharpening",
        "how often edges are sharpened",
        needs_pixels=True,
        is_endpoint=True,
        metavar="STEPS",
    )
    drop_classes: tuple[int, ...] | None = parameter(
        None,
        WholeNumbers(WholeNumber(1), "class numbers from 1"),
        "classes to drop",
        "classes that are given to their neighbors",
        when_none="keeps all",
    )


def extend(monkeypatch, *modules):
    """Let modules use the extended parameters."""
    for module in modules:
        monkeypatch.setattr(f"napari_pixseg.{module}.Parameters", ExtendedParameters)
