"""Turns whatever goes wrong while zarr metadata are read into an error of one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.sources.missing_codecs import describe_missing_codec
from napari_pixseg.sources.network_faults import denied_input, out_of_files

# Errors that Python raises if JSON does not describe an array; their text is about Python's types.
_FORM = (TypeError, AttributeError, LookupError, ArithmeticError)


@contextmanager
def readable_metadata(shown: str, describe: Callable[[Exception], str] = str) -> Iterator[None]:
    """Refuse an input whose metadata cannot be understood by the code in the ``with`` block.

    Parameters
    ----------
    shown : str
        The input's name in error messages.
    describe : callable, optional
        Returns what a message may quote of a library's error, which may contain secrets.

    Raises
    ------
    InputNotFound
        If this user may not read them.
    NotAnImage
    Unavailable
        If the process may open no more files.
    """
    try:
        yield
    except PixsegError:
        raise
    except Exception as error:  # noqa: BLE001 - metadata can be wrong in any way
        if (limit := out_of_files(error)) is not None:
            raise limit from None
        if isinstance(error, PermissionError):
            raise denied_input(shown) from None
        if (missing := describe_missing_codec(error)) is not None:
            raise NotAnImage(f"{shown} {missing}") from None
        raise NotAnImage(
            f"{shown} has zarr metadata that cannot be read: {_find_reason(error, describe)}."
        ) from None


def _find_reason(error: Exception, describe: Callable[[Exception], str]) -> str:
    if isinstance(error, RecursionError):
        return "they nest too deeply"
    if isinstance(error, _FORM):
        return "they do not have the form that zarr and OME-Zarr describe"
    # One sentence, however many the library wrote.
    return " ".join(describe(error).split()).rstrip(".")
