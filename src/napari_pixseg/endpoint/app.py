"""The server: every request gets one clear answer, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from napari_pixseg.endpoint.address_policy import HostLookup, resolve_host
from napari_pixseg.endpoint.image_requests import ImageRequests
from napari_pixseg.endpoint.keys import offered_keys
from napari_pixseg.endpoint.metrics import CONTENT_TYPE, Metrics, ObserveRequests
from napari_pixseg.endpoint.openapi import document
from napari_pixseg.endpoint.page import send_page
from napari_pixseg.endpoint.responses import (
    RefuseTwoLengths,
    http_error_response,
    manifest_response,
    result_response,
)
from napari_pixseg.endpoint.result_storage import ResultStorage
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import KeyRefused
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation

_CORS_HEADERS = ("Authorization", "Content-Type", "WWW-Authenticate")
_CORS_SECONDS = 600


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
    handlers: dict[str, tuple[Callable[[Request], Awaitable[Response]], set[str]]] = {
        "/": (send_page, {"GET"}),
        "/segment": (server.images.handle_segment, {"GET", "POST"}),
        "/store": (server.images.handle_store, {"POST"}),
        "/results/{name}": (server.send_result, {"GET", "HEAD"}),
        "/openapi.json": (server.send_openapi, {"GET", "HEAD"}),
        "/health": (server.send_health, {"GET", "HEAD"}),
        "/metrics": (server.send_metrics, {"GET"}),
    }
    observe = Middleware(ObserveRequests, metrics=server.metrics, routes=tuple(handlers))
    app = Starlette(
        routes=[_make_route(path, *handler) for path, handler in handlers.items()],
        exception_handlers={HTTPException: http_error_response},
        middleware=[observe, Middleware(RefuseTwoLengths), *_cors_middleware(settings)],
        lifespan=server.run_jobs,
    )
    app.state.keys = server.images.keys
    app.state.begin_drain = server.images.queue.begin_drain
    return app


def _make_route(
    path: str, handler: Callable[[Request], Awaitable[Response]], methods: set[str]
) -> Route:
    route = Route(path, handler, methods=sorted(methods))
    # Starlette adds HEAD to GET; for /segment it would do all the work and discard the result.
    route.methods = methods
    return route


def _cors_middleware(settings: Settings) -> list[Middleware]:
    if not settings.cors:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=("GET", "POST"),
            allow_headers=_CORS_HEADERS,
            max_age=_CORS_SECONDS,
        )
    ]


class _Server:
    """The handlers of the small routes, and the objects that all routes share."""

    def __init__(self, settings: Settings, look_up: HostLookup) -> None:
        self._storage = ResultStorage(OutputLocation(settings.storage))
        self._storage.prepare()
        self._capacity = settings.capacity
        self.images = ImageRequests(settings, self._storage, look_up)
        self.metrics = Metrics(self.images.queue)
        self._document = document(needs_key=bool(settings.keys))

    @asynccontextmanager
    async def run_jobs(self, _app: Starlette) -> AsyncIterator[None]:
        """Keep the resources of jobs from the start of the server to its end."""
        async with self.images.run_jobs():
            yield

    async def send_openapi(self, _request: Request) -> Response:
        """Describe this API."""
        return JSONResponse(self._document)

    async def send_result(self, request: Request) -> Response:
        """Send a finished picture to anyone who knows its name."""
        return result_response(self._storage, request.path_params["name"])

    async def send_health(self, _request: Request) -> Response:
        """Say whether this server takes jobs, and how many it has."""
        queue = self.images.queue
        if queue.is_draining:
            return manifest_response(Manifest.of_error(503, "The server is being stopped."))
        return JSONResponse(
            {
                "status": 200,
                "ready": True,
                "requests": queue.places_taken,
                "capacity": self._capacity,
                "running": queue.jobs_running,
                "waiting": queue.jobs_waiting,
            }
        )

    async def send_metrics(self, request: Request) -> Response:
        """Send the metrics for Prometheus; needs a key if there are keys."""
        if not self.images.keys.is_empty:
            try:
                given = request.query_params.getlist("key")
                self.images.keys.check(offered_keys(request.headers, given))
            except KeyRefused as error:
                return manifest_response(Manifest.of_error(401, str(error)))
        if not self.metrics.is_available:
            sentence = "This server has no metrics; ask its operator to install them."
            return manifest_response(Manifest.of_error(404, sentence))
        return Response(self.metrics.to_text(), headers={"Content-Type": CONTENT_TYPE})
