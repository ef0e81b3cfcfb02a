"""The server: requests in, one clear answer out, whatever happens between."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from napari_pixseg.endpoint.address_policy import Resolve, resolve
from napari_pixseg.endpoint.job_queue import Jobs
from napari_pixseg.endpoint.keys import check_keys, offered_keys
from napari_pixseg.endpoint.openapi import document
from napari_pixseg.endpoint.request_body import Body, read_body, read_query
from napari_pixseg.endpoint.request_parameters import Wanted, understood
from napari_pixseg.endpoint.result_storage import Storage, write_picture
from napari_pixseg.endpoint.settings import Settings, is_loopback
from napari_pixseg.endpoint.untrusted_image import open_received
from napari_pixseg.endpoint.url_fetch import Fetcher
from napari_pixseg.errors import CorruptInput, KeyRefused, ParameterError, status_of
from napari_pixseg.export.manifest import Manifest, new_id
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.sources.urls import public_uri

_log = logging.getLogger("napari_pixseg.endpoint")
_PNG = "image/png"
_RETRY_SECONDS = 2
# Nobody takes a result for a page or a script.
_INERT = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private"}
_EXTRA: Mapping[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="napari-pixseg"'},
    503: {"Retry-After": str(_RETRY_SECONDS)},
}


def make_app(settings: Settings, look_up: Resolve = resolve) -> Starlette:
    """Return the ASGI application of a server.

    Parameters
    ----------
    settings : Settings
    look_up : callable
        Host and port to numeric addresses.

    Raises
    ------
    ParameterError, OSError
        If there cannot be a storage.
    """
    server = _Server(settings, look_up)
    return Starlette(
        routes=[
            _working("/segment", server.segment),
            Route("/results/{name}", server.result, methods=["GET"]),
            Route("/openapi.json", server.openapi, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_refusal},
        lifespan=server.lifespan,
    )


def _working(path: str, endpoint: Any) -> Route:
    route = Route(path, endpoint, methods=["GET", "POST"])
    # A HEAD request would do all the work and throw it away.
    route.methods = {"GET", "POST"}
    return route


class _Server:
    def __init__(self, settings: Settings, look_up: Resolve) -> None:
        self._settings = settings
        self._storage = Storage(OutputLocation(settings.storage))
        self._storage.prepare()
        self._fetcher = Fetcher(settings, look_up)
        self._jobs = Jobs(settings.jobs, settings.waiting)
        self._document = document(needs_key=bool(settings.keys))
        self._folder = Path()

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Keep a folder for what is being worked on, and leave nothing behind."""
        self._folder = Path(tempfile.mkdtemp(prefix="napari-pixseg-"))
        try:
            yield
        finally:
            self._jobs.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    async def openapi(self, _request: Request) -> Response:
        """Describe this API."""
        return JSONResponse(self._document)

    async def result(self, request: Request) -> Response:
        """Serve a finished picture to whoever knows its name."""
        path = self._storage.path_of(request.path_params["name"])
        if path is None:
            return _answer(Manifest.of_error(404, "There is no such result."))
        return FileResponse(path, media_type=_PNG, headers=_INERT)

    async def segment(self, request: Request) -> Response:
        """Answer GET and POST /segment."""
        job = new_id()
        try:
            response = await self._segmented(request, job)
        except Exception as error:  # noqa: BLE001 - no trace reaches a client
            response = _answer(self._refusal(error, job))
        # The query is left out, as it may hold a key.
        _log.info("%s /segment %s %s", request.method, job, response.status_code)
        return response

    async def _segmented(self, request: Request, job: str) -> Response:
        if not self._settings.keys:
            _refuse_strangers(request)
        query = read_query(request)
        early = offered_keys(request.headers, _key(query))
        if early or request.method == "GET":
            # Before anything is read, or a place is taken.
            self._check_keys(early)
        with self._jobs.place(), self._file(f"{job}.input") as received:
            body = query
            if request.method == "POST":
                body = await read_body(request, self._settings, received)
            if not early:
                self._check_keys(_key(body))
            wanted = understood(body.values)
            await self._obtain(request, body, wanted, received)
            return await self._worked(request, wanted, received, job)

    def _check_keys(self, offered: list[str]) -> None:
        if self._settings.keys:
            check_keys(offered, self._settings.keys)

    async def _obtain(self, request: Request, body: Body, wanted: Wanted, into: Path) -> None:
        if body.has_file:
            return
        url = wanted.img
        if not url:
            raise ParameterError("img is missing; give the URL of an image, or upload one.")

        def fetch(cancel: threading.Event) -> None:
            with into.open("wb") as file:
                self._fetcher.fetch(url, file, cancel)

        await self._jobs.fetch(fetch, lambda: _gone(request))

    async def _worked(self, request: Request, wanted: Wanted, received: Path, job: str) -> Response:
        base = self._settings.public_url or str(request.base_url)
        link = self._storage.link_of(f"{job}.png", base)
        answer = Manifest(200, job, link)
        picture = self._folder / f"{job}.png"

        def work(cancel: threading.Event) -> None:
            uri = public_uri(wanted.img) if wanted.img else None
            source = open_received(received, uri, self._settings.max_pixels)
            if wanted.blob:
                write_picture(str(picture), source, wanted.parameters, cancel)
            else:
                self._storage.keep(source, wanted.parameters, answer, cancel)

        await self._jobs.segment(work, lambda: _gone(request))
        return _Once(picture, media_type=_PNG, headers=_INERT) if wanted.blob else _answer(answer)

    @contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        path = self._folder / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _refusal(self, error: Exception, job: str) -> Manifest:
        status, sentence = status_of(error), str(error)
        if isinstance(error, CorruptInput):
            # Its own remedy is for whoever has the command.
            sentence = "A part cannot be decoded; repair the image, or save it anew."
        places = (str(self._folder), self._settings.storage, self._storage.location.uri)
        if status in (409, 500, 507) or any(place in sentence for place in places):
            _log.error("The job %s failed", job, exc_info=error)
            sentence = (
                "The server has no space for the result; tell who runs it."
                if status == 507
                else f"Something unforeseen went wrong; the server's log has it as {job}."
            )
            status = 507 if status == 507 else 500
        return Manifest.of_error(status, sentence)


class _Once(FileResponse):
    """A file that is gone when it was sent, or could not be."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def _answer(manifest: Manifest) -> JSONResponse:
    """Return what the API documents: status, link and id, or status and error."""
    names = ("status", "link", "id") if manifest.status == 200 else ("status", "error")
    content = {name: getattr(manifest, name) for name in names}
    return JSONResponse(content, manifest.status, _EXTRA.get(manifest.status))


async def _http_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: "There is nothing here; the API is at /segment, described at /openapi.json.",
        405: "This method is not allowed here; use GET, or POST for /segment.",
    }.get(error.status_code, f"{error.detail}.")
    content = {"status": error.status_code, "error": sentence}
    return JSONResponse(content, error.status_code, error.headers)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _key(body: Body) -> list[str]:
    key = body.values.get("key")
    return [key] if isinstance(key, str) else []


def _refuse_strangers(request: Request) -> None:
    """Refuse what a page in this machine's browser sends to a server that asks for no key.

    Raises
    ------
    KeyRefused
    """
    origin = request.headers.get("origin")
    called = [f"//{request.headers.get('host', '')}", *([] if origin is None else [origin])]
    for address in called:
        try:
            host = urlsplit(address).hostname or ""
        except ValueError:
            host = ""
        if not is_loopback(host):
            raise KeyRefused(
                "This server asks for no key, so it answers only programs of its own machine that "
                "call it by a loopback address; start it with --keys to let others in."
            )
