"""Tells errors of the network or file system from others, and repeats reads after them.

A part of an input is damaged only if it was received whole and cannot be decoded. Other failures
say nothing about the input: another attempt, or another run, may succeed.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from napari_pixseg.errors import InputNotFound, PixsegError, Unavailable

_ResultT = TypeVar("_ResultT")

_FIRST_PAUSE = 0.1

_LONGEST_PAUSE = 10.0


# The server asks to try again: request timeout, too early, too many requests.
_PASSING_STATUSES = (408, 425, 429)


_DENYING_STATUSES = (401, 403, 407)


_PASSING_ERRNOS = (
    errno.EAGAIN,
    errno.EBUSY,
    errno.EIO,
    errno.ESTALE,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
)


# Classes of libraries that may be missing, as (package, class): for requests without an answer, and
# for answers that were cut short.
_PASSING_CLASSES = frozenset(
    {
        ("aiohttp", "ClientConnectionError"),
        ("aiohttp", "ClientPayloadError"),
        ("aiohttp", "ServerTimeoutError"),
        ("asyncio", "IncompleteReadError"),
        ("azure", "ServiceRequestError"),
        ("azure", "ServiceResponseError"),
        ("botocore", "HTTPClientError"),
        ("botocore", "IncompleteReadError"),
        ("botocore", "ResponseStreamingError"),
        ("http", "HTTPException"),
        ("requests", "ConnectionError"),
        ("requests", "ChunkedEncodingError"),
        ("requests", "Timeout"),
        ("urllib3", "HTTPError"),
    }
)


# These requests never reached a server.
_UNCONNECTED_CLASSES = frozenset(
    {("aiohttp", "ClientConnectorError"), ("botocore", "EndpointConnectionError")}
)


# These requests reached a server and were never answered.
_SILENT_CLASSES = frozenset({("aiohttp", "ServerTimeoutError"), ("botocore", "ReadTimeoutError")})


def is_passing(error: BaseException) -> bool:
    """Whether a read may succeed when repeated, because the network or a server failed."""
    return any(map(_is_passing_alone, _causes(error)))


def is_unconnected(error: BaseException) -> bool:
    """Whether no server was reached, for example because an address is wrong."""
    return any(
        isinstance(cause, ConnectionRefusedError) or _is_of(cause, _UNCONNECTED_CLASSES)
        for cause in _causes(error)
    )


def is_silent(error: BaseException) -> bool:
    """Whether a server accepted the connection and then said nothing within the limit of time."""
    return any(_is_of(cause, _SILENT_CLASSES) for cause in _causes(error))


def is_denied(error: BaseException) -> bool:
    """Whether this user may not read the input."""
    return any(
        isinstance(cause, PermissionError) or _status_of_answer(cause) in _DENYING_STATUSES
        for cause in _causes(error)
    )


def pauses(retries: int) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt; they grow and vary at random."""
    for attempt in range(retries):
        longest = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        # Many readers that failed together must not try again at the same moment.
        yield longest * (0.5 + os.urandom(1)[0] / 510)


def read_again(
    attempt: Callable[[], _ResultT],
    retries: int,
    shown: str,
    is_hopeless: Callable[[BaseException], bool] = lambda error: False,
) -> _ResultT:
    """Call a function, and call it again if the network fails.

    Parameters
    ----------
    attempt : callable
    retries : int
        Attempts after the first.
    shown : str
        Name of the input in error messages.
    is_hopeless : callable
        Returns whether a temporary error is not worth another attempt; it is then raised unchanged.

    Raises
    ------
    Unavailable
        If the network failed in all attempts. Other errors are raised unchanged.
    """
    waiting = pauses(retries)
    while True:
        try:
            return attempt()
        except Exception as error:
            if isinstance(error, PixsegError) or not is_passing(error) or is_hopeless(error):
                raise
            fault = error
        # An error raised outside the ``except`` block does not carry the library's error, which
        # cannot be pickled.
        pause = next(waiting, None)
        if pause is None:
            raise unreachable_input(shown, fault, retries)
        time.sleep(pause)


def unreachable_input(shown: str, error: BaseException, retries: int) -> Unavailable:
    """Return the error that ends a run because a part of its input cannot be fetched."""
    attempts = "1 attempt" if retries == 0 else f"{retries + 1} attempts"
    return Unavailable(
        f"{shown} cannot be fetched ({describe_fault(error)}, {attempts}): check the server and "
        "the connection, and finish the run with resume (resume=True, --resume)."
    )


def denied_input(shown: str) -> InputNotFound:
    """Return the error for an input that this user may not read."""
    return InputNotFound(f"{shown} may not be read by this user; check its permissions.")


def out_of_files(error: BaseException) -> Unavailable | None:
    """Return the error for a process that may open no more files; None for any other fault."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    return Unavailable(
        "This process has reached its limit of open files; raise the limit (ulimit -n), and finish "
        "the run with resume (resume=True, --resume)."
    )


def describe_fault(error: BaseException) -> str:
    """Describe an error without quoting its text, which may contain secrets of a URL."""
    causes = list(_causes(error))
    status = next((s for s in map(_status_of_answer, causes) if s is not None), None)
    if status is not None:
        return f"the server answered {status}"
    cause = next(filter(_is_passing_alone, causes), error)
    return type(cause).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, but not errors that were merely being handled meanwhile."""
    seen = 0
    cause: BaseException | None = error
    while cause is not None and seen < 10:
        yield cause
        cause = cause.__cause__
        seen += 1


def _is_passing_alone(error: BaseException) -> bool:
    status = _status_of_answer(error)
    if status is not None:
        return status >= 500 or status in _PASSING_STATUSES
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNOS:
        return True
    # A wrong certificate stays wrong.
    is_certificate = "Certificate" in type(error).__name__ or "SSL" in type(error).__name__
    return _is_of(error, _PASSING_CLASSES) and not is_certificate


def _is_of(error: BaseException, classes: frozenset[tuple[str, str]]) -> bool:
    return any(
        (one.__module__.partition(".")[0], one.__name__) in classes for one in type(error).__mro__
    )


def _status_of_answer(error: BaseException) -> int | None:
    """Return the HTTP status that an error of some library carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        names = ("status", "status_code", "code")
        found = next((getattr(error, name) for name in names if hasattr(error, name)), None)
    return found if isinstance(found, int) and 400 <= found < 600 else None
