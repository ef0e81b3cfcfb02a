"""Makes the server's answers: the documented JSON, pictures, and errors without secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from napari_pixseg.endpoint.rate_limit import Rate
from napari_pixseg.endpoint.result_storage import MEDIA_TYPES, ResultStorage
from napari_pixseg.errors import is_lack_of_space, status_of
from napari_pixseg.export.manifest import Manifest

_log = logging.getLogger("napari_pixseg.endpoint")
_RETRY_SECONDS = 2
# Browsers must not treat a result as a page or a script, and proxies must not keep it.
_PICTURE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_STATUS_HEADERS: Mapping[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="napari-pixseg"'},
    503: {"Retry-After": str(_RETRY_SECONDS)},
}
_HTTP_ERRORS = {
    404: "There is nothing here; the API is at /segment, described at /openapi.json.",
    405: "This method is not allowed here; use GET, or POST for /segment and /store.",
}
# The messages of these errors are written for the owner of the files, not for a client.
_INTERNAL_STATUSES = (409, 500, 507)


def manifest_response(manifest: Manifest, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the documented JSON: status, link and id, or status and error."""
    names = ("status", "link", "id") if manifest.status == 200 else ("status", "error")
    content = {name: getattr(manifest, name) for name in names}
    own = {**_STATUS_HEADERS.get(manifest.status, {}), **(headers or {})}
    return JSONResponse(content, manifest.status, own)


def retry_header(status: int, rate: Rate | None) -> dict[str, str]:
    """Return the header that tells a rate-limited client when to try again."""
    return {"Retry-After": str(rate.pause)} if status == 429 and rate is not None else {}


def picture_response(path: Path, delete: bool = False) -> FileResponse:
    """Return a picture file, which is deleted after sending if asked."""
    kind = _DeletingFileResponse if delete else FileResponse
    return kind(path, media_type=MEDIA_TYPES[path.suffix], headers=_PICTURE_HEADERS)


def result_response(storage: ResultStorage, name: str) -> Response:
    """Return a stored picture, which cannot be removed while it is sent."""
    path = storage.path_of(name)
    if path is None:
        return manifest_response(Manifest.of_error(404, "There is no such result."))
    response = _HeldFileResponse(
        path, media_type=MEDIA_TYPES[path.suffix], headers=_PICTURE_HEADERS
    )
    response.storage = storage
    return response


class _HeldFileResponse(FileResponse):
    """A file in the storage, which is not removed before it was sent."""

    storage: ResultStorage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.storage.hold_result(Path(self.path).name):
            if self.storage.path_of(Path(self.path).name) is None:
                # The result expired at this moment.
                gone = manifest_response(Manifest.of_error(404, "There is no such result."))
                await gone(scope, receive, send)
                return
            await self._send_file(scope, receive, send)

    async def _send_file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or a refusal of the bytes asked for in the form of the API's errors."""
        refused: list[int] = []

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused.append(message["status"])
            if not refused:
                await send(message)

        await super().__call__(_without_foreign_range(scope), receive, send_unless_refused)
        if refused:
            size = Path(self.path).stat().st_size
            sentence = (
                f"The header Range asks for bytes that are not there; this result has {size}, "
                f"numbered from 0: bytes=0-{size - 1}."
            )
            content = {"status": refused[0], "error": sentence}
            headers = {"Content-Range": f"bytes */{size}"}
            await JSONResponse(content, refused[0], headers)(scope, receive, send)


def _without_foreign_range(scope: Scope) -> Scope:
    """Leave out a header Range of a unit other than bytes, as RFC 9110 (14.2) wants it."""
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name != b"range" or value.strip().lower().startswith(b"bytes")
    ]
    return {**scope, "headers": headers}


class _DeletingFileResponse(FileResponse):
    """A file that is deleted after it was sent, or could not be sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


class RefuseTwoLengths:
    """Refuses requests that give their length in two ways, and closes their connection.

    A proxy in front may use the other length. Then bytes that the proxy counts as part of this body
    would be taken for the next request here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        names = {name for name, _ in scope.get("headers", ())}
        if not {b"content-length", b"transfer-encoding"} <= names:
            await self._app(scope, receive, send)
            return
        sentence = "The request has Content-Length and Transfer-Encoding; send one of them."
        content = {"status": 400, "error": sentence}
        await JSONResponse(content, 400, {"Connection": "close"})(scope, receive, send)


async def http_error_response(_request: Request, error: Exception) -> Response:
    """Answer requests that no route accepts, in the form of the API's own errors."""
    assert isinstance(error, HTTPException)
    sentence = _HTTP_ERRORS.get(error.status_code, f"{error.detail}.")
    content = {"status": error.status_code, "error": sentence}
    return JSONResponse(content, error.status_code, error.headers)


def describe_failure(error: Exception, job: str, private: Iterable[str]) -> Manifest:
    """Return the answer for a failed request; details that are internal go to the log only.

    Parameters
    ----------
    error : Exception
    job : str
        Id of the request, under which the log has the details.
    private : iterable of str
        Paths on the server; a message that contains one is not sent.
    """
    status = 507 if is_lack_of_space(error) else status_of(error)
    sentence = str(error)
    if status not in _INTERNAL_STATUSES and not any(place in sentence for place in private):
        return Manifest.of_error(status, sentence)
    _log.error("The job %s failed", job, exc_info=error)
    if status == 507:
        return Manifest.of_error(
            507, "The server has no space for the result; tell whoever runs it."
        )
    return Manifest.of_error(
        500, f"Something unexpected went wrong; the server's log has it under {job}."
    )
