"""Limits the connections of clients: their number for each address, and the time for a head."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeAlias

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from napari_pixseg.endpoint.settings import Settings

try:
    import resource
except ImportError:
    # Windows has no such limits.
    resource = None  # type: ignore[assignment]

_MOST_CONNECTIONS = 8192
_MOST_FILES = 1 << 16
_Connections: TypeAlias = "dict[GuardedProtocol, None]"


class ConnectionGuard:
    """All connections of a server, by address.

    Parameters
    ----------
    settings : Settings
    most : int
        Limit for the connections of all addresses together.
    """

    def __init__(self, settings: Settings, most: int = _MOST_CONNECTIONS) -> None:
        self.header_seconds = settings.header_seconds
        self.seconds = settings.seconds
        self._most_of_address = settings.connections_of_address
        self._most = most
        # Dictionaries keep their order, so the oldest connection comes first.
        self._by_address: dict[str, _Connections] = {}
        self._count = 0

    def take_in(self, connection: GuardedProtocol) -> None:
        """Count a new connection; if it is one too many, close an idle one or else the new one."""
        of_address = self._by_address.setdefault(connection.address, {})
        of_address[connection] = None
        self._count += 1
        if len(of_address) > self._most_of_address:
            self._close_idle(of_address, connection)
        elif self._count > self._most:
            self._close_idle(max(self._by_address.values(), key=len), connection)

    def _close_idle(self, candidates: _Connections, newcomer: GuardedProtocol) -> None:
        waiting = (one for one in candidates if one.is_idle and one is not newcomer)
        next(waiting, newcomer).drop()

    def forget(self, connection: GuardedProtocol) -> None:
        """Remove a closed connection from the count."""
        of_address = self._by_address.get(connection.address, {})
        if connection in of_address:
            del of_address[connection]
            self._count -= 1
        if not of_address:
            self._by_address.pop(connection.address, None)


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with limits of time and number, and with errors as JSON.

    A connection either waits for the head of a request, which must arrive within some seconds, or
    has a request, whose body has a time limit of its own.
    """

    def __init__(self, *arguments: Any, guard: ConnectionGuard, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._guard = guard
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """Address of the client."""
        return self.client[0] if self.client else ""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def drop(self) -> None:
        """Close the connection at once."""
        self._guard.forget(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._expect_head()
        self._guard.take_in(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_head_timer()
        self._stop_write_timer()
        self._guard.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first bytes of a further request start its time limit."""
        before = self.cycle
        if self.is_idle and self._head_timer is None:
            self._expect_head()
        super().data_received(data)
        if self.cycle is not before:
            self._stop_head_timer()

    def pause_writing(self) -> None:
        """Start the time limit in which the client must read part of the answer."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._guard.seconds, self.drop)

    def resume_writing(self) -> None:
        """Go on."""
        self._stop_write_timer()
        super().resume_writing()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._guard.header_seconds, self._end_slow_head)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _end_slow_head(self) -> None:
        """Close a connection without a request, or with a refused one that is still arriving."""
        self._head_timer = None
        if not self.is_idle or self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, "The head of the request takes too long; send it at once.")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP, with an error in the usual form."""
        self._refuse(400, "The request is not valid HTTP/1.1; let the client's library write it.")

    def _refuse(self, status: int, sentence: str) -> None:
        body = json.dumps({"status": status, "error": sentence}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if self.cycle is not None:
            # Nothing more may be written after this answer.
            self.cycle.disconnected = True
        self.transport.write(head.encode() + body)
        self.transport.close()


def raise_file_limit() -> int:
    """Raise this process's limit of open files; return how many connections that allows.

    Half of the files are reserved for pictures and their storage.
    """
    if resource is None:
        return _MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return min(_MOST_CONNECTIONS, files // 2)
