"""Reads amounts of bytes, such as 4GiB; imports nothing, so that a server starts without Dask."""

from __future__ import annotations

_UNITS = {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("kmgtp", 1)
    for base, ending in ((1000, ""), (1000, "b"), (1024, "i"), (1024, "ib"))
} | {"": 1, "b": 1}


def read_byte_size(value: object) -> int | None:
    """Return a positive number of bytes, given as a number or as text with a unit.

    Parameters
    ----------
    value : object
        For example 2_000_000_000, "2e9", "4GiB" or "1.5 TB". Units may be in any case.

    Returns
    -------
    int or None
        None if the value is no positive amount.
    """
    # In Python, True is an int; here it is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    number, unit = value, ""
    if isinstance(value, str):
        text = value.replace(" ", "")
        number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        unit = text[len(number) :].lower()
    try:
        size = int(float(number) * _UNITS[unit]) if isinstance(number, str) else int(number)
    except (ValueError, OverflowError, KeyError):
        return None
    return size if size > 0 else None
