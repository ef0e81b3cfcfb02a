"""Kinds of values with several parts: lists of numbers, intervals, letters of axes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Final, cast

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameter_kinds import Kind, WholeNumber, check_finite, parse_or_keep


class WholeNumbers(Kind):
    """A few whole numbers, or a word in place of them.

    Attributes
    ----------
    item : WholeNumber
        The kind of each number.
    wanted : str
        The allowed values in words, with an example.
    fewest, most : int
        Lowest and highest count of numbers; a ``most`` of None means no limit.
    word : str or None
    """

    def __init__(
        self,
        item: WholeNumber,
        wanted: str,
        *,
        fewest: int = 0,
        most: int | None = None,
        word: str | None = None,
    ) -> None:
        self.item: Final = item
        self.wanted: Final = wanted
        self.fewest: Final = fewest
        self.most: Final = most
        self.word: Final = word

    @property
    def allowed(self) -> str:
        """What is allowed, with an example."""
        return self.wanted

    def check(self, name: str, value: object) -> str | tuple[int, ...]:
        """Return the word, or a tuple; a single number becomes a tuple of one."""
        value = _unwrap_array(value)
        if isinstance(value, str) and value == self.word:
            return value
        numbers = [value] if isinstance(value, Integral) else value
        if isinstance(numbers, str) or not isinstance(numbers, Sequence):
            raise ParameterError(f"{name} = {value!r} must be {self.wanted}.")
        if len(numbers) < self.fewest or (self.most is not None and len(numbers) > self.most):
            raise ParameterError(f"{name} = {value!r} must be {self.wanted}.")
        return tuple(self.item.check(name, number) for number in numbers)

    def parse(self, text: str) -> object:
        """Read the word, or numbers with commas between them."""
        return parse_or_keep(lambda text: tuple(int(part) for part in text.split(",")), text)

    def format(self, value: object) -> str:
        """Write the word, or numbers with commas between them."""
        if isinstance(value, str):
            return value
        return ",".join(str(number) for number in cast(Sequence[int], value))


class Intervals(Kind):
    """One interval of numbers for all channels, one for each of them, or a word."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words: Final = words

    @property
    def allowed(self) -> str:
        """The words and forms that are allowed."""
        words = ", ".join(repr(word) for word in self.words)
        return f"{words}, (low, high), or one (low, high) for each channel"

    @property
    def allowed_text(self) -> str:
        """The words and forms, as they are typed."""
        return f"{', '.join(self.words)}, LOW:HIGH, or one LOW:HIGH per channel with commas between"

    def check(self, name: str, value: object) -> str | tuple[tuple[float, float], ...]:
        """Return the word, or a tuple of (low, high)."""
        value = _unwrap_array(value)
        if isinstance(value, str) and value in self.words:
            return value
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ParameterError(f"{name} = {value!r} must be {self.allowed}.")
        pairs = [value] if isinstance(value[0], Real) else value
        return tuple(self._check_interval(name, _unwrap_array(pair), value) for pair in pairs)

    def _check_interval(self, name: str, pair: object, whole: object) -> tuple[float, float]:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ParameterError(f"{name} = {whole!r} must be {self.allowed}.")
        low, high = (check_finite(name, end, self.allowed) for end in pair)
        if low > high:
            raise ParameterError(f"{name} = {whole!r} has low above high; give (low, high).")
        return low, high

    def parse(self, text: str) -> object:
        """Read a word, or LOW:HIGH with commas between several.

        Raises
        ------
        ParameterError
            If the text is neither. The message does not name the parameter, because argparse does.
        """
        if text in self.words:
            return text
        try:
            return self.parse_pairs(text, ",", ":")
        except ValueError:
            raise ParameterError(f"{text!r} must be {self.allowed_text}") from None

    @staticmethod
    def parse_pairs(text: str, apart: str, between: str) -> tuple[tuple[float, float], ...]:
        """Read pairs of numbers.

        Raises
        ------
        ValueError
        """
        pairs = [pair.split(between) for pair in text.split(apart)]
        return tuple((float(low), float(high)) for low, high in pairs)

    def format(self, value: object) -> str:
        """Write a word, or LOW:HIGH with commas between several."""
        if isinstance(value, str):
            return value
        pairs = cast(Sequence[tuple[float, float]], value)
        return ",".join(f"{low:.17g}:{high:.17g}" for low, high in pairs)


class AxisLetters(Kind):
    """One letter for each dimension of an array, ``y`` and ``x`` among them."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet: Final = alphabet

    @property
    def allowed(self) -> str:
        """The letters."""
        return f"letters of {' '.join(self.alphabet)}, for example zyx"

    def check(self, name: str, value: object) -> str:
        """Return the letters in lower case."""
        text = value.lower() if isinstance(value, str) else ""
        letters = set(text)
        is_known = letters <= set(self.alphabet) and len(letters) == len(text)
        if not is_known or "y" not in text or "x" not in text:
            raise ParameterError(
                f"{name} = {value!r} must name each dimension by one of the letters "
                f"{', '.join(self.alphabet)}, each at most once, y and x among them, "
                "for example 'zyx'."
            )
        return text


def _unwrap_array(value: object) -> object:
    """Turn NumPy arrays into lists, and bytes, which are sequences of numbers, into text."""
    if isinstance(value, str | bytes):
        return repr(value) if isinstance(value, bytes) else value
    return value.tolist() if hasattr(value, "tolist") else value
