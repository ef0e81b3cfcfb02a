"""Reads the parameters of a request strictly, each given once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from napari_pixseg.endpoint import ANSWER_PICTURES
from napari_pixseg.errors import ParameterError
from napari_pixseg.parameter_kinds import Kind, Number, NumberedChoice, WholeNumber
from napari_pixseg.parameter_sequences import WholeNumbers
from napari_pixseg.parameters import Parameters

# Spellings in a query or a form, in any case; PHP sends true and false as 1 and 0.
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")
# The characters that trim() removes in other languages; Python's strip() removes more.
_SPACES = " \t\r\n"
# float() also accepts 1_000 and nan, which other languages do not write.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MOST_OF_COMMENT = 1000
# How many characters of a refused value the answer repeats.
_MOST_SHOWN = 40


@dataclass(frozen=True)
class Wanted:
    """The requested job.

    Attributes
    ----------
    parameters : Parameters
    blob : bool
        Whether the answer is the picture itself.
    output : str
        What the picture shows.
    img : str or None
        URL of the image, if it was not uploaded.
    """

    parameters: Parameters
    blob: bool
    output: str
    img: str | None


def served_parameters() -> tuple[str, ...]:
    """Return the names of the original's parameters, and of those that this server adds."""
    return (
        *Parameters.names_where(is_endpoint=True),
        *Parameters.names_where(is_extension=True),
    )


def single(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the parameters this API knows, and leave out all others and empty ones.

    Raises
    ------
    ParameterError
        If one is given twice, with different values.
    """
    known = ("img", *served_parameters(), "key", "blob", "outputs", "comment")
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in known or (isinstance(value, str) and not value.strip(_SPACES)):
            # A form sends an unfilled field as empty text.
            continue
        # A value may be text in the query and a number in the body.
        if name in values and str(values[name]) != str(value):
            raise ParameterError(
                f"{name} is given more than once, with different values; give it once."
            )
        values[name] = value
    return values


def understood(values: Mapping[str, Any]) -> Wanted:
    """Interpret the values of a request; a number may be given as text.

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
        for name in served_parameters()
        if name in values
    }
    img = values.get("img")
    if img is not None and not isinstance(img, str):
        raise ParameterError(f"img = {_shorten(img)} must be a URL.")
    if not isinstance(values.get("key", ""), str):
        raise ParameterError("key must be text.")
    blob = _read_switch(values.get("blob", False))
    output = values.get("outputs", ANSWER_PICTURES[0])
    if output not in ANSWER_PICTURES:
        raise ParameterError(
            f"outputs = {_shorten(output)} must be {' or '.join(ANSWER_PICTURES)}."
        )
    url = img.strip(_SPACES) if img else None
    return Wanted(Parameters.from_dict(given), blob, str(output), url)


def read_comment(values: Mapping[str, Any]) -> str:
    """Return the comment to a stored image.

    Raises
    ------
    ParameterError
        If it is too long.
    """
    comment = values.get("comment", "")
    if not isinstance(comment, str) or len(comment) > MOST_OF_COMMENT:
        raise ParameterError(f"comment must be text of at most {MOST_OF_COMMENT:,} characters.")
    return comment


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
    if isinstance(kind, WholeNumbers) and not re.fullmatch(pattern_of(kind), value, re.ASCII):
        raise ParameterError(f"{name} = {_shorten(value)} must be {kind.allowed}.")
    return kind.parse(value)


def pattern_of(kind: WholeNumbers) -> str:
    """Return a regular expression that matches a list of numbers."""
    number = "[1-9][0-9]{0,4}" if kind.item.low else "(0|[1-9][0-9]{0,4})"
    numbers = f"{number}(,{number})*"
    return f"^({kind.word}|{numbers})$" if kind.word else f"^{numbers}$"


def _read_number(name: str, value: object) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip(_SPACES)):
        value = float(text)
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
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    text = value.strip(_SPACES).lower() if isinstance(value, str) else ""
    if text in TRUE + FALSE:
        return text in TRUE
    raise ParameterError(
        f"blob = {_shorten(value)} must be true or false (also 1, yes, on and 0, no, off)."
    )


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
