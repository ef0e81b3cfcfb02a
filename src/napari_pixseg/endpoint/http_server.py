"""Configures uvicorn: its listener and its connections."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.applications import Starlette

from napari_pixseg.endpoint.http_connections import (
    ConnectionGuard,
    GuardedProtocol,
    raise_file_limit,
)
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import ParameterError

_KEEP_ALIVE_SECONDS = 5


class HttpServer(uvicorn.Server):
    """Serves an application over HTTP/1.1.

    Parameters
    ----------
    app : Starlette
    settings : Settings
    """

    def __init__(self, app: Starlette, settings: Settings) -> None:
        self._drain: Callable[[], None] = app.state.begin_drain
        guard = ConnectionGuard(settings, raise_file_limit())
        super().__init__(
            uvicorn.Config(
                app,
                settings.host.strip("[]"),
                settings.port,
                http=partial(GuardedProtocol, guard=guard),  # type: ignore[arg-type]
                log_level="warning",
                # URLs may contain a key.
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.grace),
                root_path=settings.root_path,
                ws="none",
                # The program that runs the server decides where the log goes.
                log_config=None,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no new job, let running jobs finish, and end."""
        self._drain()
        await super().shutdown(sockets)


def open_listener(settings: Settings) -> socket.socket:
    """Bind the address before uvicorn starts, so that errors name it and the port is known."""
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By the number of the protocol asyncio knows that connections must not wait to fill packets.
    # Without it a kept connection answers 40 ms later than a fresh one.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, settings.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ParameterError(
            f"The server cannot listen at {settings.host}, port {settings.port} "
            f"({error.strerror}); give another --host or --port."
        ) from None
    return listener
