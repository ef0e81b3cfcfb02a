"""Fetching ``img``: from public addresses only, within limits of size, time and redirects."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import BinaryIO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from napari_pixseg.endpoint.address_policy import Resolve, pinned, resolve
from napari_pixseg.endpoint.connection_guard import cut_when
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import (
    Cancelled,
    InputNotFound,
    NotAnImage,
    ParameterError,
    PixsegError,
    TooLarge,
)

_BLOCK = 1 << 16


_REDIRECTS = (301, 302, 303, 307, 308)


_SAFE = "/%:@!$&'()*+,;=~-._?"


_HEADERS = {
    "Accept": "image/*",
    # What is packed could be a bomb, and pictures are packed already.
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "napari-pixseg",
}


@dataclass(frozen=True)
class Fetcher:
    """Fetches what strangers name.

    Attributes
    ----------
    settings : Settings
    look_up : callable
        Host and port to numeric addresses; called once for each hop.
    """

    settings: Settings
    look_up: Resolve = resolve

    def fetch(self, url: str, into: BinaryIO, cancel: threading.Event) -> None:
        """Write what is at a URL to a file.

        No proxy, cookie or password is used, and every redirect is judged like the first URL.

        Parameters
        ----------
        url : str
            http or https.
        into : binary file
        cancel : threading.Event
            When set, the connection is cut.

        Raises
        ------
        ParameterError
            If the URL, or one it redirects to, is not to be fetched.
        InputNotFound, NotAnImage, TooLarge, Cancelled
        """
        deadline = time.monotonic() + self.settings.seconds
        for _ in range(self.settings.redirects + 1):
            target = parsed(url)
            addresses = pinned(_host(target), _port(target), self.settings.allowed, self.look_up)
            with _watched(_connection(target, addresses, deadline), cancel, deadline) as line:
                location = self._hop(line, target, into)
            if location is None:
                return
            url = _joined(url, location)
        raise InputNotFound(
            f"img cannot be fetched: it redirects more than {self.settings.redirects} times."
        )

    def _hop(self, line: HTTPConnection, target: SplitResult, into: BinaryIO) -> str | None:
        """Fetch, or return where to go on."""
        path = quote(target.path or "/", _SAFE)
        query = f"?{quote(target.query, _SAFE)}" if target.query else ""
        line.request("GET", path + query, headers=_HEADERS)
        with line.getresponse() as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location:
                return location
            self._take(response, _host(target), into)
        return None

    def _take(self, response: HTTPResponse, host: str, into: BinaryIO) -> None:
        if response.status != 200:
            raise InputNotFound(
                f"img cannot be fetched: {host} answers {response.status} instead of 200."
            )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise NotAnImage(
                f"img cannot be read: {host} sends it packed, though that was not asked."
            )
        self._copy(response, into)

    def _copy(self, response: HTTPResponse, into: BinaryIO) -> None:
        limit = self.settings.max_bytes
        if (response.length or 0) > limit:
            raise too_many_bytes(limit)
        total = 0
        while block := response.read(_BLOCK):
            total += len(block)
            if total > limit:
                raise too_many_bytes(limit)
            into.write(block)
        if response.length:
            raise InputNotFound("img cannot be fetched: the connection broke in the middle.")


def parsed(url: str) -> SplitResult:
    """Take a URL apart.

    Raises
    ------
    ParameterError
        If it is not http or https, or has a user, or is no URL.
    """
    try:
        target = urlsplit(url)
        _port(target)
        host = _host(target)
    except (ValueError, UnicodeError):
        host = ""
    if not host or target.scheme not in ("http", "https"):
        raise ParameterError("img must be a URL that begins with http:// or https://.")
    if target.username is not None:
        raise ParameterError("img must be a URL without user and password; upload the image.")
    return target


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def too_many_bytes(limit: int) -> TooLarge:
    """Return the error for an image of too many bytes."""
    return TooLarge(
        f"The image has more than {limit / 2**20:.4g} MiB, which is this server's limit; send a "
        "smaller one."
    )


def _host(target: SplitResult) -> str:
    return (target.hostname or "").encode("idna").decode()


def _port(target: SplitResult) -> int:
    return target.port or (443 if target.scheme == "https" else 80)


class _Pinned(HTTPConnection):
    """Connects to addresses that were judged, whatever the host's name says now."""

    addresses: tuple[str, ...] = ()
    deadline = 0.0
    # HTTPConnection forgets its socket as soon as the response is to end the connection.
    line: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the first address that answers."""
        failed: OSError = OSError("no address")
        for address in self.addresses:
            left = max(self.deadline - time.monotonic(), 0.01)
            try:
                self.line = self.sock = socket.create_connection((address, self.port), left)
                return
            except OSError as error:
                failed = error
        raise failed


class _PinnedTls(_Pinned, HTTPSConnection):
    """The same, the certificate being that of the name."""

    def connect(self) -> None:
        """Connect, and check the certificate."""
        super().connect()
        wrapped = ssl.create_default_context().wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.line = self.sock = wrapped
        wrapped.do_handshake()


def _connection(target: SplitResult, addresses: list[str], deadline: float) -> _Pinned:
    kind = _PinnedTls if target.scheme == "https" else _Pinned
    line = kind(_host(target), _port(target))
    line.addresses, line.deadline = tuple(addresses), deadline
    return line


@contextmanager
def _watched(line: _Pinned, cancel: threading.Event, deadline: float) -> Iterator[_Pinned]:
    """Cut a connection when its time is over, or nobody waits for it any more."""
    failed: Exception | None = None
    try:
        with cut_when(lambda: cancel.is_set() or time.monotonic() > deadline, lambda: line.line):
            yield line
    except (OSError, HTTPException, ValueError) as error:
        failed = error
    finally:
        line.close()
    # A line that was cut may look like one that ended well.
    if cancel.is_set():
        raise Cancelled("The client went away.")
    if isinstance(failed, TimeoutError) or time.monotonic() > deadline:
        raise InputNotFound("img cannot be fetched: it takes too long.")
    if isinstance(failed, PixsegError):
        raise failed
    if failed is not None:
        raise InputNotFound(f"img cannot be fetched: {line.host} does not answer as it should.")
