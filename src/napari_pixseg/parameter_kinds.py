"""The kinds of value a parameter can have: what is allowed, and how text is read.

A kind knows neither the parameter's name nor its purpose. The command line, the endpoint and the
widget have a reader, a schema or a field for each kind, so a new parameter needs none of its own.
These classes are not dataclasses, because creating a dataclass takes a millisecond at every start.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from numbers import Integral, Real
from typing import Final, TypeVar, cast

from napari_pixseg.errors import ParameterError

_Value = TypeVar("_Value")


class Kind(ABC):
    """The values that a parameter accepts."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """The allowed values in words, for messages and tables."""

    @property
    def allowed_text(self) -> str:
        """The allowed values as a user types them, for the command line's help."""
        return self.allowed

    @abstractmethod
    def check(self, name: str, value: object) -> object:
        """Return the value in its plain form.

        Raises
        ------
        ParameterError
            If the value is not allowed; names the parameter, the value and what is allowed.
        """

    def parse(self, text: str) -> object:
        """Return the value of a text from a command line or a text field.

        Invalid text is returned unchanged, because :meth:`check` has the better message.
        """
        return text

    def format(self, value: object) -> str:
        """Return a value as people write it; :meth:`parse` reads it back."""
        return str(value)


class Number(Kind):
    """A finite number.

    Attributes
    ----------
    low, high : float
        Ends of the range, both included; a ``high`` of None means no limit.
    excludes_low : bool
        Whether ``low`` itself is not allowed.
    remark : str
        Follows the range in messages and tables.
    smallest_useful : float
        Where a logarithmic slider begins; smaller numbers can still be typed.
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float | None = None,
        *,
        excludes_low: bool = False,
        remark: str = "",
        smallest_useful: float = 0.01,
    ) -> None:
        self.low: Final = low
        self.high: Final = high
        self.excludes_low: Final = excludes_low
        self.remark: Final = remark
        self.smallest_useful: Final = smallest_useful

    @property
    def allowed(self) -> str:
        """The range in words."""
        if self.high is None:
            ends = f"above {self.low:g}" if self.excludes_low else f"{self.low:g} or more"
        elif self.excludes_low:
            ends = f"above {self.low:g}, to {self.high:g}"
        else:
            ends = f"{self.low:g} to {self.high:g}"
        return ends + self.remark

    def check(self, name: str, value: object) -> float:
        """Return the number as a float."""
        number = check_finite(name, value, self.allowed)
        too_low = number < self.low or (number == self.low and self.excludes_low)
        if too_low or (self.high is not None and number > self.high):
            raise ParameterError(f"{name} = {value!r} is out of range; it must be {self.allowed}.")
        return number

    def parse(self, text: str) -> object:
        """Read a decimal number."""
        return parse_or_keep(float, text)

    def format(self, value: object) -> str:
        """Write a number without trailing zeros."""
        return f"{value:g}"


class WholeNumber(Kind):
    """A whole number.

    Attributes
    ----------
    low, high : int
        Ends of the range, both included; a ``high`` of None means no limit.
    remark : str
        Follows the range in messages and tables.
    names : tuple of str
        The meaning of each number from ``low`` on, if there are only a few.
    """

    def __init__(
        self,
        low: int = 0,
        high: int | None = None,
        *,
        remark: str = "",
        names: tuple[str, ...] = (),
    ) -> None:
        self.low: Final = low
        self.high: Final = high
        self.remark: Final = remark
        self.names: Final = names

    @property
    def allowed(self) -> str:
        """The range in words."""
        ends = f"{self.low} or more" if self.high is None else f"{self.low} to {self.high}"
        return ends + self.remark

    def check(self, name: str, value: object) -> int:
        """Return the number as an int."""
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        number = int(cast(Integral, value)) if is_whole else self.low - 1
        if number < self.low or (self.high is not None and number > self.high):
            raise ParameterError(f"{name} = {value!r} must be a whole number, {self.allowed}.")
        return number

    def parse(self, text: str) -> object:
        """Read a whole number."""
        return parse_or_keep(int, text)


class Choice(Kind):
    """One of a few words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words: Final = words

    @property
    def allowed(self) -> str:
        """The words, quoted."""
        return " or ".join(repr(word) for word in self.words)

    def check(self, name: str, value: object) -> str:
        """Return the word."""
        for word in self.words:
            if isinstance(value, str) and value == word:
                return word
        raise ParameterError(f"{name} = {value!r} must be {self.allowed}.")


class NumberedChoice(Kind):
    """A member of an enumeration, by its number or by its name in any case.

    Attributes
    ----------
    members : type of IntEnum
        Numbered from 1.
    noun : str
        The word for a member.
    """

    def __init__(self, members: type[IntEnum], noun: str) -> None:
        self.members: Final = members
        self.noun: Final = noun

    @property
    def allowed(self) -> str:
        """The range of numbers."""
        return f"{self.numbers}, or a name"

    @property
    def numbers(self) -> str:
        """The range of numbers, for interfaces that accept no names."""
        return f"1 to {len(self.members)}"

    @property
    def listing(self) -> str:
        """Every number with its name."""
        return ", ".join(f"{member.value} {member.name}" for member in self.members)

    def check(self, name: str, value: object) -> IntEnum:
        """Return the member."""
        if isinstance(value, Integral) and not isinstance(value, bool):
            if 1 <= int(value) <= len(self.members):
                return self.members(int(value))
        elif isinstance(value, str):
            text = value.strip().lower()
            for member in self.members:
                if text in (member.name.lower(), str(member.value)):
                    return member
        raise ParameterError(
            f"{name} = {value!r} is not a {self.noun}; give a number or a name of: {self.listing}."
        )

    def format(self, value: object) -> str:
        """Write number and name."""
        member = cast(IntEnum, value)
        return f"{member.value} {member.name}"


def parse_or_keep(parse: Callable[[str], _Value], text: str) -> _Value | str:
    """Return the member that a text names, or the text itself if it names none."""
    try:
        return parse(text)
    except ValueError:
        return text


def check_finite(name: str, value: object, allowed: str) -> float:
    """Return a finite number as a float.

    Raises
    ------
    ParameterError
    """
    try:
        number = math.nan if isinstance(value, bool) else float(cast(Real, value))
        if isinstance(value, Real) and math.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ParameterError(f"{name} = {value!r} is not a finite number; it must be {allowed}.")
