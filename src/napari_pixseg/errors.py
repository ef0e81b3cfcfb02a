"""The few errors a caller can act on, and their codes.

Every code has one home, this module: the command line, the manifest and the
endpoint take theirs from :attr:`PixsegError.status`.
"""

from __future__ import annotations

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
        What a failed export answers. Only errors that ended an export have it.
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


class OutputConflict(PixsegError, FileExistsError):
    """The output exists already, is being written, or cannot be resumed with what was given."""

    status = 409


class InputChanged(PixsegError, RuntimeError):
    """The input is no longer what was counted."""

    status = 409


class TooLarge(PixsegError, ValueError):
    """The result does not fit the format or the memory it was asked for."""

    status = 413


class NotAnImage(PixsegError, ValueError, TypeError):
    """What was given cannot be read as an image."""

    status = 415


class ClassError(PixsegError, ValueError):
    """No class reaches ``ct``, or there are more classes than allowed."""

    status = 422


class CorruptInput(PixsegError, ValueError):
    """A part of the input cannot be decoded."""

    status = 422


class RecountNeeded(ParameterError):
    """The color table at hand cannot answer: the pixels must be counted again."""


class Cancelled(PixsegError):
    """The user stopped the run."""

    status = 499


class Unavailable(PixsegError, ConnectionError):
    """An endpoint cannot be reached, or has too much to do to take another job."""

    status = 503


class ClusterLost(Unavailable):
    """The Dask scheduler, or its workers, are gone; the output can be continued."""


class NoSpace(PixsegError, OSError):
    """The output's device is full or cannot be written."""

    status = 507


def status_of(error: BaseException) -> int:
    """Return the status code that stands for an exception.

    Parameters
    ----------
    error : BaseException
        What was raised, by this package or below it.

    Returns
    -------
    int
        400 to 599; 500 for everything this package did not foresee.
    """
    if isinstance(error, PixsegError):
        return error.status
    return 499 if isinstance(error, KeyboardInterrupt) else 500


def error_of(status: int, sentence: str) -> PixsegError:
    """Return the error that a code stands for: the way back from :func:`status_of`.

    Parameters
    ----------
    status : int
        Code of an answer that is no success.
    sentence : str
        What the answer says.

    Returns
    -------
    PixsegError
        Of the class of that code, its :attr:`~PixsegError.status` being the code.
    """
    kinds: tuple[type[PixsegError], ...] = (
        ParameterError, KeyRefused, InputNotFound, OutputConflict, TooLarge, NotAnImage,
        ClassError, Cancelled, Unavailable, NoSpace,
    )  # fmt: skip
    kind = next((kind for kind in kinds if kind.status == status), PixsegError)
    error = kind(sentence)
    error.status = status
    return error
