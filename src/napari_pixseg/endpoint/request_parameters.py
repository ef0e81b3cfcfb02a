"""What a request asks for: its parameters, read strictly, each given once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameters import Parameters

NAMES = ("img", "ct", "cs", "st", "key", "blob")


# As a query and a form have it; 1 and 0 are what PHP makes of true and false.
TRUE, FALSE = ("true", "True", "1"), ("false", "False", "0")


# What float() takes besides, such as 1_000 and nan, is no number in any other language.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


_MOST_SHOWN = 40


@dataclass(frozen=True)
class Wanted:
    """What is to be done.

    Attributes
    ----------
    parameters : Parameters
    blob : bool
        Whether the answer is the picture itself.
    img : str or None
        URL of the image, if it was not uploaded.
    """

    parameters: Parameters
    blob: bool
    img: str | None


def single(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the parameters this API knows; others are not its business.

    Raises
    ------
    ParameterError
        If one is given twice.
    """
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ParameterError(f"{name} is given more than once; give it once.")
        if name in NAMES:
            values[name] = value
    return values


def understood(values: Mapping[str, Any]) -> Wanted:
    """Return what values mean; text of numbers means the number.

    Parameters
    ----------
    values : mapping
        Of names to text, numbers and booleans. Those absent take their defaults.

    Raises
    ------
    ParameterError
        With one sentence.
    """
    given: dict[str, Any] = {}
    for name in ("ct", "st"):
        if name in values:
            given[name] = _number(name, values[name])
    if "cs" in values:
        given["cs"] = _color_space(values["cs"])
    img = values.get("img")
    if img is not None and not isinstance(img, str):
        raise ParameterError(f"img = {_shown(img)} must be a URL.")
    if not isinstance(values.get("key", ""), str):
        raise ParameterError("key must be text.")
    return Wanted(Parameters(**given), _switch(values.get("blob", False)), img)


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:
            pass
    raise ParameterError(f"{name} = {_shown(value)} is not a finite number; write it like 1.5.")


def _color_space(value: Any) -> int:
    try:
        number = _number("cs", value)
    except ParameterError:
        number = math.nan
    if not 1 <= number <= 22 or not number.is_integer():
        raise ParameterError(f"cs = {_shown(value)} must be a whole number, 1 to 22; 11 is YUV.")
    return int(number)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUE + FALSE:
        return value in TRUE
    raise ParameterError(f"blob = {_shown(value)} must be true or false.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
