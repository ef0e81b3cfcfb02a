"""What a request asks for: its parameters, read strictly, each given once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameter_kinds import Kind, Number, NumberedChoice, WholeNumber
from napari_pixseg.parameters import Parameters

# Spellings in a query or a form; PHP sends true and false as 1 and 0.
TRUE = ("true", "True", "1")
FALSE = ("false", "False", "0")
# float() also takes 1_000 and nan, which no other language writes.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Characters of a refused value that are repeated in the answer.
_MOST_SHOWN = 40


@dataclass(frozen=True)
class Wanted:
    """What a request asks for.

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
    """Return the parameters this API knows, and leave out all others.

    Raises
    ------
    ParameterError
        If one is given twice.
    """
    known = ("img", *Parameters.names_where(is_endpoint=True), "key", "blob")
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ParameterError(f"{name} is given more than once; give it once.")
        if name in known:
            values[name] = value
    return values


def understood(values: Mapping[str, Any]) -> Wanted:
    """Return what a request's values mean; a number may be given as text.

    Parameters
    ----------
    values : mapping of str to object
        Text, numbers and booleans by name. Absent ones take their defaults.

    Raises
    ------
    ParameterError
        If a value is not of its kind or out of range; the message is one sentence.
    """
    known = Parameters.descriptions()
    given = {
        name: _read_value(name, known[name].kind, values[name])
        for name in Parameters.names_where(is_endpoint=True)
        if name in values
    }
    img = values.get("img")
    if img is not None and not isinstance(img, str):
        raise ParameterError(f"img = {_shorten(img)} must be a URL.")
    if not isinstance(values.get("key", ""), str):
        raise ParameterError("key must be text.")
    return Wanted(Parameters.from_dict(given), _read_switch(values.get("blob", False)), img)


def _read_value(name: str, kind: Kind, value: object) -> object:
    match kind:
        case Number():
            return _read_number(name, value)
        case WholeNumber():
            return _read_whole(name, value, kind.allowed)
        case NumberedChoice():
            # Names are refused: the API has numbers only.
            number = _read_whole(name, value, kind.numbers)
            if not 1 <= number <= len(kind.members):
                raise _not_whole(name, value, kind.numbers)
            return number
    if not isinstance(value, str):
        raise ParameterError(f"{name} = {_shorten(value)} must be text.")
    return kind.parse(value)


def _read_number(name: str, value: object) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:
            pass
    raise ParameterError(f"{name} = {_shorten(value)} is not a finite number; write it like 1.5.")


def _read_whole(name: str, value: object, allowed: str) -> int:
    try:
        number = _read_number(name, value)
    except ParameterError:
        number = math.nan
    if not number.is_integer():
        raise _not_whole(name, value, allowed)
    return int(number)


def _not_whole(name: str, value: object, allowed: str) -> ParameterError:
    return ParameterError(f"{name} = {_shorten(value)} must be a whole number, {allowed}.")


def _read_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUE + FALSE:
        return value in TRUE
    raise ParameterError(f"blob = {_shorten(value)} must be true or false.")


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
