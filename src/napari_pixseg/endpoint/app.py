"""The server: every request gets one clear answer, whatever happens in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from napari_pixseg.endpoint.address_policy import HostLookup, resolve_host
from napari_pixseg.endpoint.job_queue import JobQueue
from napari_pixseg.endpoint.keys import KeyRing, offered_keys, refuse_foreign_pages
from napari_pixseg.endpoint.openapi import document
from napari_pixseg.endpoint.request_body import BodyReader, read_query
from napari_pixseg.endpoint.request_parameters import Wanted, understood
from napari_pixseg.endpoint.responses import (
    RefuseTwoLengths,
    describe_failure,
    http_error_response,
    manifest_response,
    picture_response,
)
from napari_pixseg.endpoint.result_storage import ResultStorage
from napari_pixseg.endpoint.segment_job import ImageJob
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.endpoint.url_fetch import Fetcher
from napari_pixseg.endpoint.work_folder import WorkFolder
from napari_pixseg.endpoint.worker_pool import WorkerPool
from napari_pixseg.errors import ParameterError
from napari_pixseg.export.manifest import Manifest, new_id
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.sources.urls import public_uri

_log = logging.getLogger("napari_pixseg.endpoint")


def make_app(settings: Settings, look_up: HostLookup = resolve_host) -> Starlette:
    """Return the ASGI application of a server.

    Parameters
    ----------
    settings : Settings
    look_up : callable
        Host and port to numeric addresses.

    Raises
    ------
    ParameterError
        If the storage cannot be written.
    """
    server = _Server(settings, look_up)
    app = Starlette(
        routes=[
            _make_segment_route(server.handle_segment),
            Route("/results/{name}", server.send_result, methods=["GET"]),
            Route("/openapi.json", server.send_openapi, methods=["GET"]),
        ],
        exception_handlers={HTTPException: http_error_response},
        middleware=[Middleware(RefuseTwoLengths)],
        lifespan=server.lifespan,
    )
    app.state.keys = server.keys
    return app


def _make_segment_route(handler: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route("/segment", handler, methods=["GET", "POST"])
    # Starlette adds HEAD to GET, which would do all the work and throw the result away.
    route.methods = {"GET", "POST"}
    return route


class _Server:
    """The handlers of the routes, and what they share."""

    def __init__(self, settings: Settings, look_up: HostLookup) -> None:
        self._settings = settings
        self._storage = ResultStorage(OutputLocation(settings.storage))
        self._storage.prepare()
        self.keys = KeyRing(settings.keys, settings.keys_file)
        self._fetcher = Fetcher(settings, look_up)
        self._queue = JobQueue(settings.jobs, settings.waiting)
        self._document = document(needs_key=bool(settings.keys))
        self._work_folder = WorkFolder()
        self._workers = WorkerPool(settings.jobs, settings.max_pixels, settings.seconds)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Keep a folder for running requests; at the end, stop them and remove it."""
        with self._work_folder:
            self._workers.start_worker()
            try:
                yield
            finally:
                self._queue.close()
                self._workers.close()

    async def send_openapi(self, _request: Request) -> Response:
        """Describe this API."""
        return JSONResponse(self._document)

    async def send_result(self, request: Request) -> Response:
        """Send a finished picture to anyone who knows its name."""
        path = self._storage.path_of(request.path_params["name"])
        if path is None:
            return manifest_response(Manifest.of_error(404, "There is no such result."))
        return picture_response(path)

    async def handle_segment(self, request: Request) -> Response:
        """Answer GET and POST /segment."""
        job = new_id()
        try:
            response = await self._segment_request(request, job)
        except Exception as error:  # noqa: BLE001 - a client never sees a traceback
            response = manifest_response(describe_failure(error, job, self._private_places()))
        # The query is not logged, because it may hold a key.
        _log.info("%s /segment %s %s", request.method, job, response.status_code)
        return response

    def _private_places(self) -> tuple[str, ...]:
        """Return what an answer must not reveal."""
        return (
            str(self._work_folder.path),
            self._settings.storage,
            self._storage.location.uri,
        )

    async def _segment_request(self, request: Request, job: str) -> Response:
        if self.keys.is_empty:
            refuse_foreign_pages(request.headers)
        body = read_query(request)
        early_keys = offered_keys(request.headers, body.keys)
        image_file = self._work_folder.path / job / "image"
        with ExitStack() as places:

            def admit(offered: list[str]) -> None:
                # A wrong key takes no place, and nothing of its request is kept.
                self.keys.check(offered)
                places.enter_context(self._queue.hold_place())
                places.enter_context(self._work_folder.temporary_folder(job))

            is_known = bool(early_keys or self.keys.is_empty or request.method == "GET")
            if is_known:
                admit(early_keys)
            if request.method == "POST":
                reader = BodyReader(
                    request, self._settings, image_file, None if is_known else admit
                )
                body = await reader.read_body()
            wanted = understood(body.values)
            if not body.has_file:
                await self._fetch_image(request, wanted.img, image_file)
            return await self._segment_file(request, wanted, image_file, job)

    async def _fetch_image(self, request: Request, url: str | None, into: Path) -> None:
        if not url:
            raise ParameterError("img is missing; give the URL of an image, or upload one.")

        def fetch_to_file(cancel: threading.Event) -> None:
            with into.open("wb") as file:
                self._fetcher.fetch(url, file, cancel)

        await self._queue.run_fetch(fetch_to_file, lambda: _wait_for_disconnect(request))

    async def _segment_file(
        self, request: Request, wanted: Wanted, image_file: Path, job: str
    ) -> Response:
        base = self._settings.public_url or str(request.base_url)
        answer = Manifest(200, job, self._storage.link_of(f"{job}.png", base))
        picture = image_file.with_name(f"{job}.png")
        image_job = ImageJob(
            str(image_file),
            str(picture),
            self._settings.max_pixels,
            public_uri(wanted.img) if wanted.img else None,
            parameters=wanted.parameters.to_dict(),
        )

        def segment_to_file(cancel: threading.Event) -> None:
            made = self._workers.run_job(image_job, cancel)
            if not wanted.blob:
                # The export gave its own id; clients know the result by the request's.
                manifest = replace(made, id=answer.id, link=answer.link)
                self._storage.keep_file(picture, picture.name, manifest)

        await self._queue.run_job(segment_to_file, lambda: _wait_for_disconnect(request))
        if not wanted.blob:
            return manifest_response(answer)
        # It outlives the request's folder, until it was sent.
        sent = picture.replace(self._work_folder.path / picture.name)
        return picture_response(sent, delete=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
