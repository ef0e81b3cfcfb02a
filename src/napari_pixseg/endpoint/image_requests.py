"""Handles requests with an image: checks keys, reads or fetches the image, and runs the job."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from napari_pixseg.endpoint.address_policy import HostLookup
from napari_pixseg.endpoint.job_queue import JobQueue
from napari_pixseg.endpoint.keys import KeyRing, offered_keys, refuse_foreign_pages
from napari_pixseg.endpoint.rate_limit import RateLimiter
from napari_pixseg.endpoint.request_body import Body, BodyReader, read_query
from napari_pixseg.endpoint.request_parameters import Wanted, read_comment, understood
from napari_pixseg.endpoint.responses import (
    describe_failure,
    manifest_response,
    picture_response,
    retry_header,
)
from napari_pixseg.endpoint.result_expiry import ResultExpiry
from napari_pixseg.endpoint.result_storage import ResultStorage
from napari_pixseg.endpoint.segment_job import ImageJob
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.endpoint.untrusted_image import suffix_of
from napari_pixseg.endpoint.url_fetch import Fetcher
from napari_pixseg.endpoint.work_folder import WorkFolder
from napari_pixseg.endpoint.worker_pool import WorkerPool, kernel_environment
from napari_pixseg.errors import ParameterError
from napari_pixseg.export.manifest import Manifest, new_id
from napari_pixseg.sources.urls import public_uri

_log = logging.getLogger("napari_pixseg.endpoint")


@dataclass
class _Admission:
    """One request in progress; its resources are released at its end.

    Attributes
    ----------
    request : Request
    job : str
        Its id.
    folder : Path
        Folder of its files, once it was accepted.
    places : ExitStack
    """

    request: Request
    job: str
    folder: Path
    places: ExitStack = field(default_factory=ExitStack)

    @property
    def image_file(self) -> Path:
        """Path of the image, once it has arrived."""
        return self.folder / "image"


class ImageRequests:
    """Answers POST /store, and GET and POST /segment.

    Parameters
    ----------
    settings : Settings
    storage : ResultStorage
    look_up : callable
        Host and port to numeric addresses.
    """

    def __init__(self, settings: Settings, storage: ResultStorage, look_up: HostLookup) -> None:
        self._settings = settings
        self._storage = storage
        self.keys = KeyRing(settings.keys, settings.keys_file)
        self.queue = JobQueue(settings.jobs, settings.waiting)
        self._fetcher = Fetcher(settings, look_up)
        self._limiter = RateLimiter(settings.rate)
        self.work_folder = WorkFolder()
        self.workers = WorkerPool(settings.jobs, settings.max_pixels, settings.seconds)

    @asynccontextmanager
    async def run_jobs(self) -> AsyncIterator[None]:
        """Provide a folder and workers for running requests; stop and remove them at the end."""
        expiry = ResultExpiry(self._storage, self._settings.keep, self._settings.keep_bytes)
        with self.work_folder:
            self.workers.environment = kernel_environment(self.work_folder.path)
            self.workers.start_worker()
            if self._storage.location.is_local:
                expiry.start()
            try:
                yield
            finally:
                self.queue.close()
                self.workers.close()
                if self._storage.location.is_local:
                    expiry.stop()

    async def handle_segment(self, request: Request) -> Response:
        """Answer GET and POST /segment."""
        return await self._answer(request, self._segment_image)

    async def handle_store(self, request: Request) -> Response:
        """Answer POST /store."""
        return await self._answer(request, self._store_image)

    async def _answer(
        self, request: Request, handle: Callable[[_Admission], Awaitable[Response]]
    ) -> Response:
        job = new_id()
        # The log of requests contains it, too.
        request.scope["pixseg.job"] = job
        admission = _Admission(request, job, self.work_folder.path / job)
        try:
            if self.keys.is_empty:
                refuse_foreign_pages(request.headers, self._settings.cors)
            with admission.places:
                return await handle(admission)
        except Exception as error:  # noqa: BLE001 - a client never sees a traceback
            manifest = describe_failure(error, job, self._private_places())
            return manifest_response(manifest, retry_header(manifest.status, self._settings.rate))

    def _private_places(self) -> tuple[str, ...]:
        """Return texts that an answer must not reveal."""
        return (
            str(self.work_folder.path),
            self._settings.storage,
            self._storage.location.uri,
        )

    async def _read_request(self, admission: _Admission) -> Body:
        """Accept a request as soon as its key is checked, and read it."""
        request = admission.request

        def admit(offered: list[str]) -> None:
            # A request with a wrong key takes no place in the queue, and nothing of it is kept.
            holder = self.keys.check(offered)
            self._limiter.count_request(holder or (request.client and request.client.host))
            admission.places.enter_context(self.queue.hold_place())
            admission.places.enter_context(self.work_folder.temporary_folder(admission.job))

        body = read_query(request)
        early_keys = offered_keys(request.headers, body.keys)
        is_known = bool(early_keys or self.keys.is_empty or request.method == "GET")
        if is_known:
            admit(early_keys)
        if request.method == "POST":
            late = None if is_known else admit
            reader = BodyReader(request, self._settings, admission.image_file, late)
            body = await reader.read_body()
        return body

    async def _segment_image(self, admission: _Admission) -> Response:
        body = await self._read_request(admission)
        wanted = understood(body.values)
        if not body.has_file:
            await self._get_image(admission, wanted.img)
        return await self._segment_file(admission, wanted)

    async def _store_image(self, admission: _Admission) -> Response:
        body = await self._read_request(admission)
        comment = read_comment(body.values)
        if not body.has_file:
            raise ParameterError("file is missing; upload an image as multipart/form-data.")
        file = admission.image_file
        answer = self._answer_of(admission, suffix_of(file))
        job = ImageJob(str(file), "", self._settings.max_pixels)

        def check_and_keep(cancel: threading.Event) -> None:
            checked = self.workers.run_job(job, cancel)
            details = {**checked.details, **({"comment": comment} if comment else {})}
            self._storage.keep_file(file, _name_of(answer), replace(answer, details=details))

        await self._run_job(admission, check_and_keep)
        return manifest_response(answer)

    async def _get_image(self, admission: _Admission, url: str | None) -> None:
        """Fetch the image at a URL; an image stored on this server is read directly."""
        if not url:
            raise ParameterError("img is missing; give the URL of an image, or upload one.")
        name = self._storage.name_of_link(url, self._bases(admission.request))

        def get_file(cancel: threading.Event) -> None:
            if name is not None:
                self._storage.copy_result(name, admission.image_file)
                return
            with admission.image_file.open("wb") as file:
                self._fetcher.fetch(url, file, cancel)

        await self.queue.run_fetch(get_file, lambda: _wait_for_disconnect(admission.request))

    def _bases(self, request: Request) -> tuple[str, ...]:
        """Return the URLs of this server; the one for links comes first."""
        public = self._settings.public_url
        return (*([public] if public else []), str(request.base_url))

    def _answer_of(self, admission: _Admission, suffix: str) -> Manifest:
        name = f"{admission.job}{suffix}"
        link = self._storage.link_of(name, self._bases(admission.request)[0])
        return Manifest(200, admission.job, link)

    async def _run_job(
        self, admission: _Admission, work: Callable[[threading.Event], None]
    ) -> None:
        await self.queue.run_job(work, lambda: _wait_for_disconnect(admission.request))

    async def _segment_file(self, admission: _Admission, wanted: Wanted) -> Response:
        answer = self._answer_of(admission, ".png")
        picture = admission.folder / _name_of(answer)
        job = ImageJob(
            str(admission.image_file),
            str(picture),
            self._settings.max_pixels,
            public_uri(wanted.img) if wanted.img else None,
            wanted.output,
            wanted.parameters.to_dict(),
        )

        def segment_to_file(cancel: threading.Event) -> None:
            made = self.workers.run_job(job, cancel)
            if not wanted.blob:
                # The export has its own id, but clients know the result by the request's id.
                manifest = replace(made, id=answer.id, link=answer.link)
                self._storage.keep_file(picture, picture.name, manifest)

        await self._run_job(admission, segment_to_file)
        if not wanted.blob:
            return manifest_response(answer)
        # The file outlives the request's folder until it has been sent.
        sent = picture.replace(self.work_folder.path / picture.name)
        return picture_response(sent, delete=True)


def _name_of(answer: Manifest) -> str:
    return (answer.link or "").rpartition("/")[2]


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
