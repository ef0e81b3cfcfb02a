"""A client of the SEGMENT API, for this package's server or any other with the same contract."""

from __future__ import annotations

import io
import json
import os
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Literal, overload
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.endpoint.cut_connection import cut_when
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
        cancel: threading.Event | None = ...,
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
        cancel: threading.Event | None = ...,
    ) -> bytes: ...

    def segment(
        self,
        img: object,
        ct: float = Parameters.ct,
        cs: int | str | ColorSpace = Parameters.cs,
        st: float = Parameters.st,
        blob: bool = False,
        *,
        cancel: threading.Event | None = None,
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
        cancel : threading.Event, optional
            When set, the connection is cut, which makes the server stop.

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
        checked = Parameters(ct=ct, cs=cs, st=st)  # type: ignore[arg-type]
        values = {"ct": checked.ct, "cs": int(checked.cs), "st": checked.st}
        if isinstance(img, str) and img.lower().startswith(("http://", "https://")):
            content = json.dumps({"img": img, **values, "blob": blob}).encode()
            kind, body = self._send_post(content, _JSON, cancel)
        else:
            fields = {
                **{name: str(value) for name, value in values.items()},
                "blob": str(blob).lower(),
            }
            form, form_type = _build_form(fields, *_read_content(img))
            kind, body = self._send_post(form, form_type, cancel)
        if kind == _JSON:
            return _parse_manifest(body)
        return body

    def download(self, link: str) -> bytes:
        """Return the picture at an answer's link; no key is sent.

        Raises
        ------
        InputNotFound, Unavailable
        """
        if not link.startswith(("http://", "https://")):
            # Such as s3://, where a server may store its results.
            content = OutputLocation(link).read_bytes()
            if content is None:
                raise InputNotFound(f"There is nothing at {link}.")
            return content
        return self._send_request("GET", link, None, {}, threading.Event())[1]

    def _send_post(
        self, content: bytes, kind: str, cancel: threading.Event | None
    ) -> tuple[str, bytes]:
        headers = {"Content-Type": kind, "Accept": "application/json, image/*"}
        if self.key:
            # The original API reads the second header, other servers the first.
            headers |= {"Authorization": f"Bearer {self.key}", "WWW-Authenticate": self.key}
        base = self.url.rstrip("/")
        url = base if base.endswith("/segment") else f"{base}/segment"
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
            # The connection forgets its socket while the response is still being read.
            open_socket = connection.sock
            with cut_when(cancel.is_set, lambda: open_socket):
                with suppress(BrokenPipeError, ConnectionResetError):
                    # A server that refuses may answer before it has read everything.
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
        # A cut can look like the end of the response.
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
        # The original API may report an error in the body of an HTTP success.
        raise error_of(status, str(sentence or f"The endpoint answers {status} without a reason."))
    return Manifest.from_json(body)


def _read_content(img: object) -> tuple[str, bytes]:
    """Return a file name for an image, and the content of the file."""
    if isinstance(img, bytes):
        return "image", img
    if isinstance(img, str | os.PathLike):
        try:
            with open(img, "rb") as file:
                return "image", file.read()
        except OSError as error:
            reason = error.strerror or "it is not a file"
            raise InputNotFound(f"{os.fspath(img)!r} cannot be read: {reason}.") from None
    return _encode_array(np.asarray(img))


def _encode_array(pixels: NDArray[np.generic]) -> tuple[str, bytes]:
    """Return pixels as a PNG if they are bytes, else as a TIFF, which keeps any type."""
    colored = pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
    if pixels.dtype.kind not in "buif" or 0 in pixels.shape or not (pixels.ndim == 2 or colored):
        raise NotAnImage(
            f"An array of shape {pixels.shape} and type {pixels.dtype} cannot be sent; give "
            "numbers of shape (y, x), or (y, x, c) with 3 or 4 channels."
        )
    file = io.BytesIO()
    if pixels.dtype == np.uint8:
        # Pillow and tifffile load here, because most images are files or URLs.
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        return "image.png", file.getvalue()
    import tifffile

    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    alpha = ["unassalpha"] if pixels.shape[2:] == (4,) else None
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb" if colored else "minisblack",
        metadata=None,
        compression="adobe_deflate",
        extrasamples=alpha,
    )
    return "image.tif", file.getvalue()


def _build_form(fields: dict[str, str], name: str, content: bytes) -> tuple[bytes, str]:
    """Return the body of a multipart/form-data request, and its content type."""
    boundary = uuid.uuid4().hex
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="img"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
