"""A client of the SEGMENT API: this server's, or any other of the same contract."""

from __future__ import annotations

import io
import json
import os
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal, overload
from urllib.parse import urlsplit

import numpy as np

from napari_pixseg.endpoint.connection_guard import cut_when
from napari_pixseg.errors import (
    Cancelled,
    InputNotFound,
    NotAnImage,
    ParameterError,
    Unavailable,
    error_of,
)
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.parameters import ColorSpace, Parameters

_JSON = "application/json"
_LARGEST_JSON = 1 << 20


@dataclass(frozen=True)
class Endpoint:
    """Where the SEGMENT API is, and the key for it.

    Parameters
    ----------
    url : str
        Of the server, or of its ``/segment``; ``http://127.0.0.1:8000``.
    key : str, optional
        Sent in headers only: never in an address, which servers log.
    timeout : float
        Longest silence to wait for, in seconds.

    Raises
    ------
    ParameterError
        If the URL is none.

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
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise ParameterError(
                f"{self.url!r} is no address of an endpoint; write it like http://127.0.0.1:8000."
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ParameterError("The key must be of printable ASCII characters.")

    @overload
    def segment(
        self, img: object, ct: float = ..., cs: int | str | ColorSpace = ..., st: float = ...,
        blob: Literal[False] = ..., *, cancel: threading.Event | None = ...,
    ) -> Manifest: ...  # fmt: skip

    @overload
    def segment(
        self, img: object, ct: float = ..., cs: int | str | ColorSpace = ..., st: float = ...,
        *, blob: Literal[True], cancel: threading.Event | None = ...,
    ) -> bytes: ...  # fmt: skip

    def segment(
        self,
        img: object,
        ct: float = 1.0,
        cs: int | str | ColorSpace = ColorSpace.YUV,
        st: float = 1.5,
        blob: bool = False,
        *,
        cancel: threading.Event | None = None,
    ) -> Manifest | bytes:
        """Segment an image there.

        Parameters
        ----------
        img : URL, path, bytes or array
            A URL is fetched by the server; everything else is uploaded. Arrays are
            (y, x), or (y, x, c) of 3 or 4 channels.
        ct, cs, st
            As in :func:`napari_pixseg.segment`.
        blob : bool
            Whether to give the picture itself.
        cancel : threading.Event, optional
            When set, the connection is cut, by which the server knows to stop.

        Returns
        -------
        Manifest or bytes
            ``status``, ``link`` and ``id``; with `blob` the picture file's content.

        Raises
        ------
        ParameterError, KeyRefused, InputNotFound, TooLarge, NotAnImage, ClassError
            What the server answers.
        Unavailable
            If it does not answer, or has too much to do.
        Cancelled
        """
        known = Parameters(ct=ct, cs=cs, st=st)  # type: ignore[arg-type]
        values = {"ct": known.ct, "cs": int(known.cs), "st": known.st}
        if isinstance(img, str) and img.lower().startswith(("http://", "https://")):
            content = json.dumps({"img": img, **values, "blob": blob}).encode()
            kind, body = self._post(content, _JSON, cancel)
        else:
            fields = {
                **{name: str(value) for name, value in values.items()},
                "blob": str(blob).lower(),
            }
            kind, body = self._post(*_form(fields, *_content(img)), cancel)
        if kind == _JSON:
            return _manifest(body)
        return body

    def download(self, link: str) -> bytes:
        """Return the picture that an answer's link leads to; no key is sent.

        Raises
        ------
        InputNotFound, Unavailable
        """
        if not link.startswith(("http://", "https://")):
            from napari_pixseg.export.output_location import OutputLocation

            content = OutputLocation(link).read_bytes()
            if content is None:
                raise InputNotFound(f"There is nothing at {link}.")
            return content
        return self._exchange("GET", link, None, {}, threading.Event())[1]

    def _post(self, content: bytes, kind: str, cancel: threading.Event | None) -> tuple[str, bytes]:
        headers = {"Content-Type": kind, "Accept": "application/json, image/*"}
        if self.key:
            headers |= {"Authorization": f"Bearer {self.key}", "WWW-Authenticate": self.key}
        base = self.url.rstrip("/")
        url = base if base.endswith("/segment") else f"{base}/segment"
        return self._exchange("POST", url, content, headers, cancel or threading.Event())

    def _exchange(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: dict[str, str],
        cancel: threading.Event,
    ) -> tuple[str, bytes]:
        """Send one request; redirects are not followed, as they would carry the key elsewhere."""
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        line = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            line.connect()
            opened = line.sock
            with cut_when(cancel.is_set, lambda: opened):
                with suppress(BrokenPipeError, ConnectionResetError):
                    # A server that refuses may answer before it has read all.
                    line.request(method, path, content, headers)
                with line.getresponse() as response:
                    body = response.read()
        except (OSError, HTTPException) as error:
            if cancel.is_set():
                raise Cancelled("The job at the endpoint was cancelled.") from None
            raise Unavailable(
                f"The endpoint at {parts.netloc.rpartition('@')[2]} does not answer "
                f"({type(error).__name__}); check the address, and that it runs."
            ) from None
        finally:
            line.close()
        if cancel.is_set():
            raise Cancelled("The job at the endpoint was cancelled.")
        return _checked(response, body, parts.hostname or url)


def _checked(response: HTTPResponse, body: bytes, host: str) -> tuple[str, bytes]:
    kind = response.headers.get_content_type()
    if response.status == 200:
        return kind, body
    sentence = f"The endpoint at {host} answers {response.status} and does not say why."
    if kind == _JSON and len(body) <= _LARGEST_JSON:
        with suppress(ValueError, AttributeError):
            sentence = str(json.loads(body).get("error") or sentence)
    raise error_of(response.status, sentence)


def _manifest(body: bytes) -> Manifest:
    try:
        said = json.loads(body)
        status, sentence = int(said.get("status", 200)), said.get("error")
    except (ValueError, TypeError, AttributeError):
        raise NotAnImage("The endpoint gave back neither an answer nor a picture.") from None
    if status != 200:
        # The original may say so in the body, whatever HTTP says.
        raise error_of(status, str(sentence or "The endpoint does not say why."))
    return Manifest.from_json(body)


def _content(img: object) -> tuple[str, bytes]:
    """Return a file name for an image, and what is in the file."""
    if isinstance(img, bytes):
        return "image", img
    if isinstance(img, str | os.PathLike):
        try:
            with open(img, "rb") as file:
                return "image", file.read()
        except OSError as error:
            reason = error.strerror or "it is no file"
            raise InputNotFound(f"{os.fspath(img)!r} cannot be read: {reason}.") from None
    return _encoded(np.asarray(img))


def _encoded(pixels: np.ndarray[Any, Any]) -> tuple[str, bytes]:
    colored = pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
    if pixels.dtype.kind not in "buif" or 0 in pixels.shape or not (pixels.ndim == 2 or colored):
        raise NotAnImage(
            f"An array of shape {pixels.shape} and type {pixels.dtype} cannot be sent; give "
            "numbers of shape (y, x), or (y, x, c) with 3 or 4 channels."
        )
    file = io.BytesIO()
    if pixels.dtype == np.uint8:
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        return "image.png", file.getvalue()
    import tifffile

    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    alpha = ["unassalpha"] if pixels.shape[2:] == (4,) else None
    tifffile.imwrite(
        file, pixels, photometric="rgb" if colored else "minisblack", metadata=None,
        compression="adobe_deflate", extrasamples=alpha,
    )  # fmt: skip
    return "image.tif", file.getvalue()


def _form(fields: dict[str, str], name: str, content: bytes) -> tuple[bytes, str]:
    """Return the body of multipart/form-data, and its content type."""
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
