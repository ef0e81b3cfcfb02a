"""Reads options with units: durations, sizes, rates."""

from __future__ import annotations

import re

from napari_pixseg.byte_sizes import read_byte_size
from napari_pixseg.endpoint.rate_limit import Rate
from napari_pixseg.errors import ParameterError

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def parse_duration(name: str, text: str) -> float:
    """Return the seconds of a text such as ``7d``.

    Raises
    ------
    ParameterError
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if found is None or not float(found[1]):
        raise ParameterError(
            f"{name} = {text!r} is not a duration; write it like 12h or 7d (s, min, h, d)."
        )
    return float(found[1]) * _SECONDS[found[2]]


def parse_size(name: str, text: str) -> int:
    """Return the bytes of a text such as ``100GiB``.

    Raises
    ------
    ParameterError
    """
    if (size := read_byte_size(text)) is None:
        raise ParameterError(f"{name} = {text!r} is not a size; write it like 500MiB or 100GiB.")
    return size


def parse_rate(name: str, text: str) -> Rate:
    """Return the rate that a text such as ``60/min`` names.

    Raises
    ------
    ParameterError
    """
    found = re.fullmatch(r"(\d{1,9})\s*/\s*(s|min|h|d)", text.strip())
    if found is None or not int(found[1]):
        raise ParameterError(
            f"{name} = {text!r} is not a rate; write it like 60/min (s, min, h, d)."
        )
    return Rate(int(found[1]), _SECONDS[found[2]])
