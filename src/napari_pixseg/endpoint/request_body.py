"""Reads requests: query, form and JSON, within limits of size and time."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from email.message import Message as Header
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from napari_pixseg.endpoint.form_parser import FormParser
from napari_pixseg.endpoint.request_parameters import single
from napari_pixseg.endpoint.request_stream import (
    ParsingStopped,
    read_within_limits,
    skip_preamble,
)
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.endpoint.url_fetch import too_many_bytes
from napari_pixseg.errors import NotAnImage, ParameterError, TooLarge

_MAX_FIELDS = 32
_MAX_TEXT_BYTES = 64 << 10
# Bytes that a form may have besides its file, for fields, boundaries and part headers.
_FORM_OVERHEAD = 256 << 10
_BLOCK_BYTES = 1 << 16


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

    @property
    def keys(self) -> list[str]:
        """The values of the parameter ``key``."""
        key = self.values.get("key")
        return [key] if isinstance(key, str) else []


@dataclass(frozen=True)
class BodyReader:
    """Reads the bodies of POST requests.

    Attributes
    ----------
    request : Request
    settings : Settings
    into : Path
        Where an uploaded image is written.
    admit : callable or None
        Receives the keys in the body before its file is stored, and raises an error if the request
        is refused. None if the request was accepted already.
    """

    request: Request
    settings: Settings
    into: Path
    admit: Callable[[list[str]], None] | None = None
    query: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        pairs = _query_pairs(self.request)
        # The key in the query was checked already; the body may repeat it.
        object.__setattr__(self, "query", [pair for pair in pairs if pair[0] != "key"])

    async def read_body(self) -> Body:
        """Read a request; its query may hold parameters, too.

        Raises
        ------
        NotAnImage
            If the content is of no accepted type or encoding (415).
        ParameterError
            If the content is not valid.
        TooLarge, Cancelled, KeyRefused, Unavailable
        """
        header = Header()
        header["content-type"] = self.request.headers.get("content-type", "")
        kind = header.get_content_type() if header["content-type"] else ""
        try:
            if kind == "multipart/form-data":
                return await self._read_form(str(header.get_param("boundary", "")))
            return self._admit_keys(Body(single([*self.query, *await self._read_pairs(kind)])))
        except ParsingStopped as stopped:
            raise stopped.reason from None

    def _admit_keys(self, body: Body) -> Body:
        if self.admit is not None:
            self.admit(body.keys)
        return body

    async def _read_pairs(self, kind: str) -> list[tuple[str, object]]:
        """Return the values of a body without files."""
        if kind == "application/json":
            return list(_parse_json(await self._read_text()).items())
        if kind == "application/x-www-form-urlencoded":
            return list(_parse_urlencoded(await self._read_text()))
        if not kind and self.request.headers.get("content-length") == "0":
            # All values are in the query.
            return []
        raise NotAnImage(
            "The Content-Type must be multipart/form-data, with the image as a file, or "
            "application/json or application/x-www-form-urlencoded, with img as a URL."
        )

    async def _read_text(self) -> bytes:
        content = bytearray()
        too_large = TooLarge(
            f"The body has more than {_MAX_TEXT_BYTES >> 10} KiB, which is the limit without a "
            "file; upload the image as multipart/form-data."
        )
        async for chunk in self._stream(_MAX_TEXT_BYTES, too_large):
            content += chunk
        return bytes(content)

    def _stream(self, limit: int, too_large: TooLarge) -> AsyncGenerator[bytes, None]:
        return read_within_limits(self.request, self.settings, limit, too_large)

    async def _read_form(self, boundary: str) -> Body:
        if not boundary:
            raise ParameterError(
                "The form has no boundary in its Content-Type; let the client's library write "
                "that header."
            )
        most = self.settings.max_bytes
        stream = self._stream(most + _FORM_OVERHEAD, too_many_bytes(most))
        whole = skip_preamble(stream, boundary.encode("latin-1", "replace"))
        parser = FormParser(self.request.headers, whole, _MAX_TEXT_BYTES, self.admit)
        try:
            form = await parser.parse()
        except ParsingStopped:
            raise
        except MultiPartException as error:
            raise ParameterError(f"The form cannot be read: {error.message.rstrip('.')}.") from None
        try:
            if parser.waits_for_key:
                self._admit_keys(Body({}))
            return _body_of_form(form, self.settings, self.query, self.into)
        finally:
            await form.close()


def read_query(request: Request) -> Body:
    """Read a GET request."""
    return Body(single(_query_pairs(request)))


def _query_pairs(request: Request) -> list[tuple[str, str]]:
    if request.url.query.count("&") >= _MAX_FIELDS:
        raise ParameterError(f"The address has too many parameters; give at most {_MAX_FIELDS}.")
    return request.query_params.multi_items()


def _body_of_form(
    form: FormData, settings: Settings, query: list[tuple[str, str]], into: Path
) -> Body:
    """Check a form's fields, and copy its image to a file."""
    texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    values: dict[str, object] = single([*query, *texts])
    # If no file was chosen in a field, a browser sends it without name and content.
    uploads = [
        value
        for _, value in form.multi_items()
        if isinstance(value, UploadFile) and (value.filename or value.size)
    ]
    if not uploads:
        return Body(values)
    if "img" in values:
        raise ParameterError("img is given as text and as a file; give one of them.")
    upload = uploads[0]
    if any(not _are_same(upload, other) for other in uploads[1:]):
        raise ParameterError("The form has several files; send one image, as file or img.")
    if (upload.size or 0) > settings.max_bytes:
        raise too_many_bytes(settings.max_bytes)
    with into.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return Body(values, has_file=True)


def _are_same(one: UploadFile, other: UploadFile) -> bool:
    """Whether two uploads have the same content; afterwards both are at their beginning."""
    if one.size != other.size:
        return False
    try:
        while block := one.file.read(_BLOCK_BYTES):
            if block != other.file.read(_BLOCK_BYTES):
                return False
        return True
    finally:
        one.file.seek(0)
        other.file.seek(0)


def _parse_json(content: bytes) -> dict[str, object]:
    try:
        # The hook sees names that are given twice, which a dict would hide.
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


def _parse_urlencoded(content: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise ParameterError(
            "The form cannot be read: it must be name=value&name=value in percent-encoded UTF-8, "
            f"with at most {_MAX_FIELDS} fields."
        ) from None
