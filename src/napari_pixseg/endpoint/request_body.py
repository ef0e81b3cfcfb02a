"""Reading requests: query, form and JSON, within limits of bytes and time."""

from __future__ import annotations

import json
import shutil
import time
from asyncio import wait_for
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from email.message import Message as Header
from pathlib import Path
from typing import Any, NoReturn

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from napari_pixseg.endpoint.request_parameters import single
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.endpoint.url_fetch import too_many_bytes
from napari_pixseg.errors import Cancelled, NotAnImage, ParameterError, PixsegError

_MOST_FIELDS = 32


_MOST_TEXT = 64 << 10


# Of a form, besides its file.
_WRAPPING = 256 << 10


@dataclass(frozen=True)
class Body:
    """What a request says.

    Attributes
    ----------
    values : dict
        Parameters by name, each given once.
    has_file : bool
        Whether the image was uploaded.
    """

    values: dict[str, Any]
    has_file: bool = False


class _Stopped(MultiPartException):
    """Leaves the parser in the one way in which it closes its files."""

    def __init__(self, reason: PixsegError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def read_query(request: Request) -> Body:
    """Read a GET request."""
    return Body(single(request.query_params.multi_items()))


async def read_body(request: Request, settings: Settings, into: Path) -> Body:
    """Read a POST request; parameters may be in its query, too.

    Parameters
    ----------
    request : Request
    settings : Settings
    into : Path
        Where an uploaded image is written.

    Raises
    ------
    NotAnImage
        If the content is neither a form nor JSON (415).
    ParameterError
        If it is not what it says.
    TooLarge, Cancelled
    """
    header = Header()
    header["content-type"] = request.headers.get("content-type", "")
    kind = header.get_content_type() if request.headers.get("content-type") else ""
    # A key of the query was judged already; one that is in the body, too, does no harm.
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
    if kind == "multipart/form-data":
        if not header.get_param("boundary"):
            raise ParameterError("The form has no boundary in its Content-Type; let the client's "
                                 "library write that header.")  # fmt: skip
        return await _read_form(request, settings, query, into)
    if kind == "application/json":
        return Body(single([*query, *(await _read_json(request, settings)).items()]))
    raise NotAnImage(
        "The Content-Type must be multipart/form-data, with the image as a file, or "
        "application/json, with img as a URL."
    )


async def _read_form(
    request: Request, settings: Settings, query: list[tuple[str, str]], into: Path
) -> Body:
    stream = _limited(request, settings, settings.max_bytes + _WRAPPING)
    parser = MultiPartParser(
        request.headers, stream, max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT
    )
    try:
        form = await parser.parse()
    except _Stopped as stopped:
        raise stopped.reason from None
    except MultiPartException as error:
        raise ParameterError(f"The form cannot be read: {error.message.rstrip('.')}.") from None
    try:
        return _taken(form, settings, query, into)
    finally:
        await form.close()


def _taken(form: FormData, settings: Settings, query: list[tuple[str, str]], into: Path) -> Body:
    values = single([*query, *form.multi_items()])
    uploads = {name for name, value in values.items() if isinstance(value, UploadFile)}
    if uploads - {"img"}:
        raise ParameterError(f"{min(uploads - {'img'})} is a file, but must be text.")
    if "img" not in values:
        return Body(values)
    if not uploads:
        raise ParameterError(
            "img must be uploaded as a file in multipart/form-data; to give a URL, use GET or "
            "application/json."
        )
    upload = values.pop("img")
    if (upload.size or 0) > settings.max_bytes:
        raise too_many_bytes(settings.max_bytes)
    with into.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return Body(values, has_file=True)


async def _read_json(request: Request, settings: Settings) -> dict[str, Any]:
    content = bytearray()
    try:
        async for chunk in _limited(request, settings, _MOST_TEXT):
            content += chunk
    except _Stopped as stopped:
        raise stopped.reason from None
    try:
        values = json.loads(content, parse_constant=_no_number, object_pairs_hook=single)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError("The JSON cannot be read; check it with a validator.") from None
    if not isinstance(values, dict):
        raise ParameterError('The JSON must be an object such as {"img": "https://..."}.')
    return values


def _no_number(text: str) -> NoReturn:
    raise ParameterError(f"{text} is not a finite number; write it like 1.5.")


async def _limited(request: Request, settings: Settings, limit: int) -> AsyncGenerator[bytes, None]:
    """Yield the body; stop when it is too long, takes too long, or the client goes away."""
    said = request.headers.get("content-length", "")
    total, end = 0, time.monotonic() + settings.seconds
    while True:
        if total > limit or (said.isdecimal() and int(said) > limit):
            raise _Stopped(too_many_bytes(settings.max_bytes))
        try:
            message = await wait_for(request.receive(), max(end - time.monotonic(), 0.01))
        except TimeoutError:
            raise _Stopped(ParameterError(
                f"The request took more than {settings.seconds:g} s to arrive; send a smaller "
                "image."
            )) from None  # fmt: skip
        if message["type"] == "http.disconnect":
            raise _Stopped(Cancelled("The client went away."))
        chunk = message.get("body", b"")
        total += len(chunk)
        yield chunk
        if not message.get("more_body", False):
            return
