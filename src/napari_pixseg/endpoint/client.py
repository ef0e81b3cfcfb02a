"""A client of the SEGMENT API, for this package's server or any other with the same contract."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Literal, overload
from urllib.parse import urlsplit

from napari_pixseg.endpoint import ANSWER_PICTURES
from napari_pixseg.endpoint.cut_connection import cut_when
from napari_pixseg.endpoint.upload import build_form, read_upload
from napari_pixseg.errors import (
    Cancelled,
    InputNotFound,
    NotAnImage,
    ParameterError,
    Unavailable,
    error_of,
)
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.parameters import ColorSpace, Parameters

_JSON = "application/json"
# A longer body is not an error message.
_MAX_ERROR_BYTES = 1 << 20


@dataclass(frozen=True)
class Endpoint:
    """A server of the SEGMENT API, and the key for it.

    Parameters
    ----------
    url : str
        Of the server, or of its ``/segment``, such as ``http://127.0.0.1:8000``.
    key : str, optional
        Sent in headers only, because servers log addresses.
    timeout : float
        Longest silence to wait for, in seconds.

    Raises
    ------
    ParameterError
        If the URL is not one of http or https, or the key cannot be sent.

    Examples
    --------
    >>> endpoint = Endpoint("http://127.0.0.1:8000", key="...")
    >>> answer = endpoint.segment("photo.jpg", ct=2.0)  # doctest: +SKIP
    >>> picture = endpoint.segment("photo.jpg", blob=True)  # doctest: +SKIP
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 600.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ParameterError(
                f"{self.url!r} is not the address of an endpoint; write it like "
                "http://127.0.0.1:8000."
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ParameterError("The key must consist of printable ASCII characters.")

    @overload
    def segment(
        self,
        img: object,
        ct: float = ...,
        cs: int | str | ColorSpace = ...,
        st: float = ...,
        blob: Literal[False] = ...,
        *,
        outputs: str = ...,
        cancel: threading.Event | None = ...,
        **extensions: object,
    ) -> Manifest: ...

    @overload
    def segment(
        self,
        img: object,
        ct: float = ...,
        cs: int | str | ColorSpace = ...,
        st: float = ...,
        *,
        blob: Literal[True],
        outputs: str = ...,
        cancel: threading.Event | None = ...,
        **extensions: object,
    ) -> bytes: ...

    def segment(
        self,
        img: object,
        ct: float = Parameters.ct,
        cs: int | str | ColorSpace = Parameters.cs,
        st: float = Parameters.st,
        blob: bool = False,
        *,
        outputs: str = ANSWER_PICTURES[0],
        cancel: threading.Event | None = None,
        **extensions: object,
    ) -> Manifest | bytes:
        """Segment an image on the server.

        Parameters
        ----------
        img : URL, path, bytes or array
            A URL is fetched by the server; everything else is uploaded. Arrays are
            (y, x), or (y, x, c) with 3 or 4 channels.
        ct, cs, st
            As in :func:`napari_pixseg.segment`.
        blob : bool
            Whether to return the picture itself.
        outputs : {"recolored", "classes", "regions"}
            What the picture shows: classes in their colors, or for each pixel the number of
            its class or region. Only servers of this package know it.
        cancel : threading.Event, optional
            When set, the connection is cut, which makes the server stop.
        **extensions
            Parameters that :func:`napari_pixseg.segment` has, and of the servers only those of
            this package, such as ``denoise=2``. What is not given is not sent.

        Returns
        -------
        Manifest or bytes
            ``status``, ``link`` and ``id``, or with `blob` the content of the picture file.

        Raises
        ------
        ParameterError, KeyRefused, InputNotFound, TooLarge, NotAnImage, ClassError
            If the server refuses the request.
        Unavailable
            If it does not answer, or its queue is full.
        Cancelled
        """
        # Checked here, so that a mistake is found before anything is uploaded.
        values = _values_to_send({"ct": ct, "cs": cs, "st": st}, extensions, outputs)
        if isinstance(img, str) and _is_url(img):
            content = json.dumps({"img": img, **values, "blob": blob}).encode()
            kind, body = self._send_post("segment", content, _JSON, cancel)
        else:
            form = build_form({**values, "blob": str(blob).lower()}, *read_upload(img))
            kind, body = self._send_post("segment", *form, cancel)
        if kind == _JSON:
            return _parse_manifest(body)
        return body

    def store(
        self, img: object, comment: str = "", *, cancel: threading.Event | None = None
    ) -> Manifest:
        """Keep an image on the server, which :meth:`segment` then takes by its link.

        Parameters
        ----------
        img : path, bytes or array
        comment : str
            Kept with the image.
        cancel : threading.Event, optional
            When set, the connection is cut.

        Returns
        -------
        Manifest
            ``status``, ``link`` and ``id``.

        Raises
        ------
        ParameterError, KeyRefused, InputNotFound, TooLarge, NotAnImage, Unavailable, Cancelled
        """
        if isinstance(img, str) and _is_url(img):
            raise ParameterError(f"{img} has a link already; give a path, bytes or an array.")
        fields = {"comment": comment} if comment else {}
        form = build_form(fields, *read_upload(img))
        return _parse_manifest(self._send_post("store", *form, cancel)[1])

    def download(self, link: str) -> bytes:
        """Return the picture at an answer's link; no key is sent.

        Raises
        ------
        InputNotFound, Unavailable
        """
        if not _is_url(link):
            # Such as s3://, where a server may store its results.
            content = OutputLocation(link).read_bytes()
            if content is None:
                raise InputNotFound(f"There is nothing at {link}.")
            return content
        return self._send_request("GET", link, None, {}, threading.Event())[1]

    def _send_post(
        self, route: str, content: bytes, kind: str, cancel: threading.Event | None
    ) -> tuple[str, bytes]:
        headers = {"Content-Type": kind, "Accept": "application/json, image/*"}
        if self.key:
            # The original API reads the second header, other servers the first.
            headers |= {"Authorization": f"Bearer {self.key}", "WWW-Authenticate": self.key}
        url = f"{self.url.rstrip('/').removesuffix('/segment')}/{route}"
        return self._send_request("POST", url, content, headers, cancel or threading.Event())

    def _send_request(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: dict[str, str],
        cancel: threading.Event,
    ) -> tuple[str, bytes]:
        """Send one request; redirects are not followed, because they could leak the key."""
        parts = urlsplit(url)
        connection_type = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = connection_type(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            connection.connect()
            # The connection object drops its socket while the response is still being read.
            open_socket = connection.sock
            with cut_when(cancel.is_set, lambda: open_socket):
                with suppress(BrokenPipeError, ConnectionResetError):
                    # A server may refuse a request before it has read all of it.
                    connection.request(method, path, content, headers)
                with connection.getresponse() as response:
                    body = response.read()
        except (OSError, HTTPException) as error:
            if cancel.is_set():
                raise Cancelled("The job at the endpoint was cancelled.") from None
            raise Unavailable(
                f"The endpoint at {parts.netloc.rpartition('@')[2]} does not answer "
                f"({type(error).__name__}); check the address, and that the server runs."
            ) from None
        finally:
            connection.close()
        # A cut connection can look like the end of the response.
        if cancel.is_set():
            raise Cancelled("The job at the endpoint was cancelled.")
        return _check_response(response, body, parts.hostname or url)


def _check_response(response: HTTPResponse, body: bytes, host: str) -> tuple[str, bytes]:
    """Return content type and body, or raise the error that the server reports."""
    kind = response.headers.get_content_type()
    if response.status == 200:
        return kind, body
    sentence = f"The endpoint at {host} answers {response.status} without a reason."
    if kind == _JSON and len(body) <= _MAX_ERROR_BYTES:
        with suppress(ValueError, AttributeError):
            sentence = str(json.loads(body).get("error") or sentence)
    raise error_of(response.status, sentence)


def _parse_manifest(body: bytes) -> Manifest:
    try:
        answer = json.loads(body)
        status = int(answer.get("status", 200))
        sentence = answer.get("error")
    except (ValueError, TypeError, AttributeError):
        raise NotAnImage("The endpoint returned neither an answer nor a picture.") from None
    if status != 200:
        # The original API may report an error in the body of a successful HTTP response.
        raise error_of(status, str(sentence or f"The endpoint answers {status} without a reason."))
    return Manifest.from_json(body)


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _values_to_send(
    common: Mapping[str, object], extensions: Mapping[str, object], outputs: str
) -> dict[str, object]:
    """Check values, and return those of the original API and the requested extensions."""
    known = Parameters.names_where(is_extension=True)
    for name in extensions:
        if name not in known:
            raise ParameterError(
                f"An endpoint has no parameter {name!r}; it has {', '.join([*common, *known])}."
            )
    if outputs not in ANSWER_PICTURES:
        raise ParameterError(f"outputs = {outputs!r} must be one of {', '.join(ANSWER_PICTURES)}.")
    checked = Parameters.from_dict({**common, **extensions})
    usual = Parameters.descriptions()
    values: dict[str, object] = {}
    for name in [*common, *known]:
        value = getattr(checked, name)
        if name in common:
            values[name] = int(value) if isinstance(value, int) else value
        elif value != usual[name].default:
            # A list of numbers is sent as text, because a form has only text.
            values[name] = value if isinstance(value, int) else usual[name].kind.format(value)
    return values if outputs == ANSWER_PICTURES[0] else {**values, "outputs": outputs}
