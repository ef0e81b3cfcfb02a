"""Reading requests: query, form and JSON, within limits of size and time."""

from __future__ import annotations

import json
import shutil
import time
from asyncio import wait_for
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from email.message import Message as Header
from pathlib import Path
from typing import NoReturn

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from napari_pixseg.endpoint.request_parameters import single
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.endpoint.url_fetch import too_many_bytes
from napari_pixseg.errors import Cancelled, NotAnImage, ParameterError, PixsegError

_MAX_FIELDS = 32
_MAX_TEXT_BYTES = 64 << 10
# What a form may have in addition to its file: fields, boundaries and part headers.
_FORM_OVERHEAD = 256 << 10


@dataclass(frozen=True)
class Body:
    """The content of a request.

    Attributes
    ----------
    values : dict
        Parameters by name, each given once: text, or any JSON value.
    has_file : bool
        Whether the image was uploaded.
    """

    values: dict[str, object]
    has_file: bool = False


class _ParsingStopped(MultiPartException):
    """Carries an error out of the form parser.

    Only for exceptions of this type does the parser close its temporary files.
    """

    def __init__(self, reason: PixsegError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def read_query(request: Request) -> Body:
    """Read a GET request."""
    return Body(single(request.query_params.multi_items()))


async def read_body(request: Request, settings: Settings, into: Path) -> Body:
    """Read a POST request; its query may hold parameters, too.

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
        If the content is not valid.
    TooLarge, Cancelled
    """
    header = Header()
    header["content-type"] = request.headers.get("content-type", "")
    kind = header.get_content_type() if request.headers.get("content-type") else ""
    # The key of the query was checked already; the body may repeat it.
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
    if kind == "multipart/form-data":
        if not header.get_param("boundary"):
            raise ParameterError(
                "The form has no boundary in its Content-Type; let the client's library write "
                "that header."
            )
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
    stream = _read_within_limits(request, settings, settings.max_bytes + _FORM_OVERHEAD)
    parser = MultiPartParser(
        request.headers,
        stream,
        max_files=1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except _ParsingStopped as stopped:
        raise stopped.reason from None
    except MultiPartException as error:
        raise ParameterError(f"The form cannot be read: {error.message.rstrip('.')}.") from None
    try:
        return _body_of_form(form, settings, query, into)
    finally:
        await form.close()


def _body_of_form(
    form: FormData, settings: Settings, query: list[tuple[str, str]], into: Path
) -> Body:
    """Check a form's fields, and copy its image to a file."""
    values: dict[str, object] = single([*query, *form.multi_items()])
    uploads = {name for name, value in values.items() if isinstance(value, UploadFile)}
    if uploads - {"img"}:
        raise ParameterError(f"{min(uploads - {'img'})} is a file, but must be text.")
    if "img" not in values:
        return Body(values)
    upload = values.pop("img")
    if not isinstance(upload, UploadFile):
        raise ParameterError(
            "img must be uploaded as a file in multipart/form-data; to give a URL, use GET or "
            "application/json."
        )
    if (upload.size or 0) > settings.max_bytes:
        raise too_many_bytes(settings.max_bytes)
    with into.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return Body(values, has_file=True)


async def _read_json(request: Request, settings: Settings) -> dict[str, object]:
    content = bytearray()
    try:
        async for chunk in _read_within_limits(request, settings, _MAX_TEXT_BYTES):
            content += chunk
    except _ParsingStopped as stopped:
        raise stopped.reason from None
    try:
        # The hook sees a name that is given twice, which a dict would hide.
        values = json.loads(content, parse_constant=_refuse_constant, object_pairs_hook=single)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError("The JSON cannot be read; check it with a validator.") from None
    if not isinstance(values, dict):
        raise ParameterError('The JSON must be an object such as {"img": "https://..."}.')
    return values


def _refuse_constant(text: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python accepts but JSON does not."""
    raise ParameterError(f"{text} is not a finite number; write it like 1.5.")


async def _read_within_limits(
    request: Request, settings: Settings, limit: int
) -> AsyncGenerator[bytes, None]:
    """Yield the body; stop if it is too long or too slow, or the client goes away."""
    announced = request.headers.get("content-length", "")
    total = 0
    end = time.monotonic() + settings.seconds
    while True:
        if total > limit or (announced.isdecimal() and int(announced) > limit):
            raise _ParsingStopped(too_many_bytes(settings.max_bytes))
        try:
            message = await wait_for(request.receive(), max(end - time.monotonic(), 0.01))
        except TimeoutError:
            too_slow = ParameterError(
                f"The request took more than {settings.seconds:g} s to arrive; send a smaller "
                "image."
            )
            raise _ParsingStopped(too_slow) from None
        if message["type"] == "http.disconnect":
            raise _ParsingStopped(Cancelled("The client went away."))
        chunk = message.get("body", b"")
        total += len(chunk)
        yield chunk
        if not message.get("more_body", False):
            return
