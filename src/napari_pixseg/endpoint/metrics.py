"""Metrics for Prometheus: requests, seconds, bytes and the queue, but no address and no key."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from napari_pixseg.endpoint.request_log import log_request

if TYPE_CHECKING:
    from napari_pixseg.endpoint.job_queue import JobQueue

try:
    import prometheus_client
except ImportError:
    # The server works without this package.
    prometheus_client = None

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The figures of one server.

    Parameters
    ----------
    queue : JobQueue
    """

    def __init__(self, queue: JobQueue) -> None:
        self.is_available = prometheus_client is not None
        if not self.is_available:
            return
        self._registry = prometheus_client.CollectorRegistry()
        common = {"registry": self._registry, "namespace": "pixseg"}
        self._requests = prometheus_client.Counter(
            "requests", "Requests that were answered", ("path", "status"), **common
        )
        self._seconds = prometheus_client.Histogram(
            "request_seconds", "From head to answer", ("path",), buckets=_SECONDS, **common
        )
        self._received = prometheus_client.Counter(
            "received_bytes", "Bytes of the bodies of requests", **common
        )
        self._sent = prometheus_client.Counter(
            "sent_bytes", "Bytes of the bodies of answers", **common
        )
        self._jobs = prometheus_client.Counter(
            "jobs", "Requests with an image, by how they ended", ("result",), **common
        )
        for name, text, value in (
            ("requests_inside", "Requests that have a place", lambda: queue.places_taken),
            ("jobs_running", "Images that are worked on", lambda: queue.jobs_running),
            ("jobs_waiting", "Images that wait for a worker", lambda: queue.jobs_waiting),
        ):
            prometheus_client.Gauge(name, text, **common).set_function(value)

    def count_request(self, exchange: Exchange) -> None:
        """Count an answered request."""
        if not self.is_available:
            return
        path, status = exchange.path, exchange.status
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(exchange.seconds)
        self._received.inc(exchange.bytes_received)
        self._sent.inc(exchange.bytes_sent)
        if exchange.job is not None:
            result = "done" if status == 200 else "refused" if status < 500 else "failed"
            self._jobs.labels(result).inc()

    def to_text(self) -> bytes:
        """Return all figures in the text format."""
        text: bytes = prometheus_client.generate_latest(self._registry)
        return text


class Exchange:
    """The facts about one request and its answer.

    Attributes
    ----------
    path : str
        The route; "other" for unknown paths, which may contain anything.
    """

    def __init__(self, scope: Scope, routes: Iterable[str]) -> None:
        inner = scope["path"].removeprefix(scope.get("root_path", ""))
        known = next((route for route in routes if inner == route), None)
        is_result = inner.startswith("/results/")
        self.path = known or ("/results" if is_result else "other")
        self.method: str = scope["method"]
        self.status = 500
        self.bytes_received = 0
        self.bytes_sent = 0
        self.job: str | None = None
        self._began = time.monotonic()
        self.seconds = 0.0

    def finish(self, job: str | None) -> None:
        """Note the end of the answer."""
        self.job = job
        self.seconds = time.monotonic() - self._began


class ObserveRequests:
    """Counts and logs each request.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    routes : iterable of str
        Paths that are counted separately.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Iterable[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, self._routes)

        async def receive_counted() -> Message:
            message = await receive()
            exchange.bytes_received += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            exchange.bytes_sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            exchange.finish(scope.get("pixseg.job"))
            self._metrics.count_request(exchange)
            log_request(exchange)
