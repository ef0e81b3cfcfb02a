"""Gathers what libraries log or warn while they open a file, and makes one note of it."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# How many messages a note quotes, and how many characters of each.
_QUOTED = 3
_LETTERS = 160

# The way Python prints the object that a message is about.
_OBJECT = re.compile(r"^<[^>]*> ")

_gathering = threading.local()


class _Gatherer(logging.Filter):
    """Keeps the records of gathering threads; lets the records of other threads through."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to pass a record on to the handlers."""
        kept: list[str] | None = getattr(_gathering, "kept", None)
        if kept is None or record.levelno < logging.WARNING:
            return kept is None
        kept.append(record.getMessage())
        return False


_GATHERER = _Gatherer()


@contextmanager
def gathered_logs(logger_name: str) -> Iterator[list[str]]:
    """Gather what this thread logs to a logger.

    Yields
    ------
    list of str
        The messages, added as they come.
    """
    # Adding the same filter again has no effect.
    logging.getLogger(logger_name).addFilter(_GATHERER)
    before = getattr(_gathering, "kept", None)
    kept: list[str] = []
    _gathering.kept = kept
    try:
        yield kept
    finally:
        _gathering.kept = before


@contextmanager
def gathered_warnings() -> Iterator[list[str]]:
    """Gather Python's warnings; one thread at a time may do so.

    Yields
    ------
    list of str
        Messages, complete at the end.
    """
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield messages
        finally:
            messages += [str(one.message) for one in caught]


def note_remarks(messages: Sequence[str], library: str) -> tuple[str, ...]:
    """Return one sentence that quotes the messages; none if there are no messages."""
    plain = (" ".join(_OBJECT.sub("", message).split()) for message in messages)
    distinct = list(dict.fromkeys(plain))
    if not distinct:
        return ()
    quoted = "; ".join(message[:_LETTERS].rstrip(".") for message in distinct[:_QUOTED])
    more = f"; and {len(distinct) - _QUOTED} more" if len(distinct) > _QUOTED else ""
    return (f"{library} finds the file odd: {quoted}{more}.",)


def note_orientation(value: object) -> tuple[str, ...]:
    """Return a sentence if the file asks to show the picture rotated; else none."""
    if not isinstance(value, int) or not 1 < value <= 8:
        return ()
    return (
        f"The file asks to be shown rotated or mirrored (orientation {value}); pixels are used in "
        "the order in which they are stored.",
    )
