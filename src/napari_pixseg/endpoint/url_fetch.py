"""Fetches ``img``, only from public addresses, within limits of size, time and redirects."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import BinaryIO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from napari_pixseg.endpoint.address_policy import HostLookup, pin_addresses, resolve_host
from napari_pixseg.endpoint.cut_connection import cut_when
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import (
    Cancelled,
    InputNotFound,
    NoSpace,
    NotAnImage,
    ParameterError,
    PixsegError,
    TooLarge,
)

_BLOCK_BYTES = 1 << 16
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Characters that stay unquoted in a path or query; "%" because a URL may be quoted already.
_UNQUOTED = "/%:@!$&'()*+,;=~-._?"
_HEADERS = {
    "Accept": "image/*",
    # A compressed answer could be a bomb, and pictures are compressed anyway.
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "napari-pixseg",
}


@dataclass(frozen=True)
class Fetcher:
    """Fetches images from addresses that clients name.

    Attributes
    ----------
    settings : Settings
    look_up : callable
        Host and port to numeric addresses; called once for each hop.
    """

    settings: Settings
    look_up: HostLookup = resolve_host

    def fetch(self, url: str, into: BinaryIO, cancel: threading.Event) -> None:
        """Write the content of a URL to a file.

        No proxy, cookie or password is used, and every redirect is checked like the first URL.

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
            If the URL, or one it redirects to, must not be fetched.
        InputNotFound, NotAnImage, TooLarge, Cancelled
        """
        deadline = time.monotonic() + self.settings.seconds
        for _ in range(self.settings.redirects + 1):
            target = parse_url(url)
            addresses = pin_addresses(
                _host_of(target), _port_of(target), self.settings.allowed, self.look_up
            )
            kind = _PinnedTlsConnection if target.scheme == "https" else _PinnedConnection
            connection = kind(_host_of(target), _port_of(target), addresses, deadline)
            with _guard_connection(connection, cancel, deadline):
                redirect = self._request_once(connection, target, into)
            if redirect is None:
                return
            url = _join_redirect(url, redirect)
        raise InputNotFound(
            f"img cannot be fetched: it redirects more than {self.settings.redirects} times."
        )

    def _request_once(
        self, connection: HTTPConnection, target: SplitResult, into: BinaryIO
    ) -> str | None:
        """Fetch the image, or return the address that it redirects to."""
        path = quote(target.path or "/", _UNQUOTED)
        query = f"?{quote(target.query, _UNQUOTED)}" if target.query else ""
        connection.request("GET", path + query, headers=_HEADERS)
        with connection.getresponse() as response:
            location = response.headers.get("Location")
            if response.status in _REDIRECT_STATUSES and location:
                return location
            _check_picture_response(response, _host_of(target))
            self._copy_body(response, into)
        return None

    def _copy_body(self, response: HTTPResponse, into: BinaryIO) -> None:
        limit = self.settings.max_bytes
        if (response.length or 0) > limit:
            raise too_many_bytes(limit)
        total = 0
        # The announced length may be missing or wrong, so bytes are counted as well.
        while block := response.read(_BLOCK_BYTES):
            total += len(block)
            if total > limit:
                raise too_many_bytes(limit)
            try:
                into.write(block)
            except OSError as error:
                # Unlike all other system errors here, this one is not the network's fault.
                raise NoSpace(f"The image cannot be kept: {error.strerror}.") from error
        if response.length:
            raise InputNotFound("img cannot be fetched: the connection broke in the middle.")


def _check_picture_response(response: HTTPResponse, host: str) -> None:
    if response.status != 200:
        raise InputNotFound(
            f"img cannot be fetched: {host} answers {response.status} instead of 200."
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise NotAnImage(
            f"img cannot be read: {host} sends it compressed, although that was not requested."
        )


def parse_url(url: str) -> SplitResult:
    """Split a URL and check it.

    Raises
    ------
    ParameterError
        If it is not http or https, has a user, or is not a URL.
    """
    try:
        target = urlsplit(url)
        # A bad port raises an error only when it is accessed.
        _port_of(target)
        host = _host_of(target)
    except (ValueError, UnicodeError):
        host = ""
    if not host or target.scheme not in ("http", "https"):
        raise ParameterError("img must be a URL that begins with http:// or https://.")
    if target.username is not None:
        raise ParameterError("img must be a URL without user and password; upload the image.")
    return target


def _join_redirect(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        # The next hop refuses it with the right sentence.
        return location


def too_many_bytes(limit: int) -> TooLarge:
    """Return the error for an image of too many bytes."""
    return TooLarge(
        f"The image has more than {limit / 2**20:.4g} MiB, which is this server's limit; send a "
        "smaller one."
    )


def _host_of(target: SplitResult) -> str:
    return (target.hostname or "").encode("idna").decode()


def _port_of(target: SplitResult) -> int:
    return target.port or (443 if target.scheme == "https" else 80)


class _PinnedConnection(HTTPConnection):
    """Connects to checked addresses, without resolving the name again."""

    def __init__(self, host: str, port: int, addresses: Sequence[str], deadline: float) -> None:
        super().__init__(host, port)
        self._addresses = tuple(addresses)
        self._deadline = deadline
        self._open_socket: socket.socket | None = None

    def find_socket(self) -> socket.socket | None:
        """Return the socket, or None before there is one.

        HTTPConnection itself forgets its socket as soon as a response with
        ``Connection: close`` begins, long before the body was read.
        """
        return self._open_socket

    def connect(self) -> None:
        """Connect to the first address that answers."""
        failure: OSError = OSError("no address")
        for address in self._addresses:
            seconds_left = max(self._deadline - time.monotonic(), 0.01)
            try:
                self.sock = socket.create_connection((address, self.port), seconds_left)
            except OSError as error:
                failure = error
            else:
                self._open_socket = self.sock
                return
        raise failure


class _PinnedTlsConnection(_PinnedConnection, HTTPSConnection):
    """The same over TLS; the certificate must match the name."""

    def connect(self) -> None:
        """Connect, and check the certificate."""
        super().connect()
        # The handshake begins after the socket is known, so that it can be cut as well.
        encrypted = ssl.create_default_context().wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = encrypted
        self._open_socket = encrypted
        encrypted.do_handshake()


@contextmanager
def _guard_connection(
    connection: _PinnedConnection, cancel: threading.Event, deadline: float
) -> Iterator[None]:
    """Cut a connection when its time is over or nobody waits for it, and explain the error."""
    failure: Exception | None = None

    def is_over() -> bool:
        return cancel.is_set() or time.monotonic() > deadline

    try:
        with cut_when(is_over, connection.find_socket):
            yield
    except (OSError, HTTPException, ValueError) as error:
        failure = error
    finally:
        connection.close()
    # A cut connection may look like a regular end, so these checks come first.
    if cancel.is_set():
        raise Cancelled("The client went away.")
    if isinstance(failure, TimeoutError) or time.monotonic() > deadline:
        raise InputNotFound("img cannot be fetched: it takes too long.")
    if isinstance(failure, PixsegError):
        raise failure
    if failure is not None:
        raise InputNotFound(
            f"img cannot be fetched: {connection.host} does not answer as it should."
        )
