"""The errors that a caller can act on, and their status codes.

Codes are defined only here: the command line, the manifest and the endpoint take theirs
from :attr:`PixsegError.status`.
"""

from __future__ import annotations

import errno

CANCELLED = (
    "The run was cancelled; what it has written is kept, and can be continued with resume "
    "(resume=True, --resume)."
)


class PixsegError(Exception):
    """Base of all errors raised on purpose; its message is one sentence for the user.

    Attributes
    ----------
    status : int
        Code of the failure in a manifest and in an HTTP response.
    manifest : Manifest
        Manifest of the failed export. Only errors that ended an export have it.
    """

    status: int = 500
    # Typed as an object because this module imports nothing else of the package.
    manifest: object


class ParameterError(PixsegError, ValueError):
    """A parameter is out of range, or does not fit the image."""

    status = 400


class KeyRefused(PixsegError, PermissionError):
    """An endpoint asks for a key, and none or a wrong one was given."""

    status = 401


class InputNotFound(PixsegError, FileNotFoundError):
    """There is nothing at the path or URL given as input."""

    status = 404


class TooSlow(PixsegError):
    """A request takes too long to arrive at an endpoint."""

    status = 408


class OutputConflict(PixsegError, FileExistsError):
    """The output exists, is being written, or cannot be resumed with these arguments."""

    status = 409


class OutputLocked(OutputConflict):
    """Another run locks the output but gives no sign of life, so its lock may be broken."""


class OutputLost(OutputConflict):
    """The output was moved, replaced or changed by others while it was written."""


class InputChanged(PixsegError, RuntimeError):
    """The input has changed since its colors were counted."""

    status = 409


class TooLarge(PixsegError, ValueError):
    """The result does not fit the requested format, or the memory allowed for it."""

    status = 413


class NotAnImage(PixsegError, ValueError, TypeError):
    """The input cannot be read as an image."""

    status = 415


class ClassError(PixsegError, ValueError):
    """No class reaches ``ct``, or there are more classes than allowed."""

    status = 422


class CorruptInput(PixsegError, ValueError):
    """A part of the input cannot be decoded."""

    status = 422


class OversizedChunk(CorruptInput):
    """A damaged chunk, which would decode to more than its metadata say."""

    status = 413


class RecountNeeded(ParameterError):
    """The existing color table is not sufficient: the pixels must be counted again."""


class Cancelled(PixsegError):
    """The user stopped the run."""

    status = 499


class Unavailable(PixsegError, ConnectionError):
    """An endpoint cannot be reached, or is too busy to take another job."""

    status = 503


class RateExceeded(Unavailable):
    """A key was used at an endpoint more often than it may be."""

    status = 429


class ClusterLost(Unavailable):
    """The Dask scheduler or its workers are gone; the output can be resumed."""


class ClusterUnfit(Unavailable):
    """A worker of the Dask cluster cannot take part: it has another disk, or another version."""


class InputUnseen(ClusterUnfit):
    """A late worker does not see the input, and may have returned wrong pixels for it."""


class NoSpace(PixsegError, OSError):
    """The output's device is full or cannot be written."""

    status = 507


def status_of(error: BaseException) -> int:
    """Return the status code that stands for an exception.

    Parameters
    ----------
    error : BaseException
        Any exception, raised by this package or by a library.

    Returns
    -------
    int
        400 to 599; 500 for every error that this package did not foresee.
    """
    if isinstance(error, PixsegError):
        return error.status
    return 499 if isinstance(error, KeyboardInterrupt) else 500


def is_lack_of_space(error: BaseException) -> bool:
    """Whether an error of the system says that a disk, or somebody's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def error_of(status: int, sentence: str) -> PixsegError:
    """Return the error that a status code stands for; the inverse of :func:`status_of`.

    Parameters
    ----------
    status : int
        Code of a response that reports a failure.
    sentence : str
        Message of the response.

    Returns
    -------
    PixsegError
        An instance of the class that has this code, or of `PixsegError` with this code.
    """
    # Some classes share a code; the one listed here stands for it.
    classes: tuple[type[PixsegError], ...] = (
        ParameterError,
        KeyRefused,
        InputNotFound,
        TooSlow,
        OutputConflict,
        TooLarge,
        NotAnImage,
        ClassError,
        Cancelled,
        RateExceeded,
        Unavailable,
        NoSpace,
    )
    error_class = next((one for one in classes if one.status == status), PixsegError)
    error = error_class(sentence)
    error.status = status
    return error
