"""What ``napari-pixseg serve`` does: check the options, listen, and run uvicorn.

This module needs the packages of the extra ``server``.
"""

from __future__ import annotations

import argparse
import logging
import socket
from dataclasses import fields

import uvicorn
from starlette.types import ASGIApp

from napari_pixseg.endpoint.app import make_app
from napari_pixseg.endpoint.keys import load_keys
from napari_pixseg.endpoint.settings import Settings, parse_network
from napari_pixseg.errors import ParameterError
from napari_pixseg.interruption import INTERRUPTION

_log = logging.getLogger("napari_pixseg")


def run_server(options: argparse.Namespace) -> None:
    """Run the server until it is stopped.

    Raises
    ------
    ParameterError
        If an option is out of range, or the address is taken.
    """
    settings = _read_settings(options)
    try:
        app = make_app(settings)
    except OSError as error:
        raise ParameterError(
            f"The storage {settings.storage} cannot be made ({error.strerror}); give another."
        ) from None
    listener = _open_listener(settings)
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    _log.info(
        "Listening at http://%s:%s/segment; results go to %s", shown_host, port, settings.storage
    )
    # uvicorn has its own way to end.
    INTERRUPTION.hand_over()
    try:
        uvicorn.Server(make_uvicorn_config(app, settings)).run(sockets=[listener])
    finally:
        listener.close()


def _read_settings(options: argparse.Namespace) -> Settings:
    names = [part.name for part in fields(Settings) if part.name not in ("keys", "allowed")]
    given = {name: getattr(options, name) for name in names}
    return Settings(
        keys=load_keys(options.keys) if options.keys else (),
        allowed=tuple(parse_network(text) for text in options.allow_network),
        **{name: value for name, value in given.items() if value is not None},
    )


def make_uvicorn_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration, without access log, as addresses may hold a key."""
    return uvicorn.Config(
        app,
        settings.host.strip("[]"),
        settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        # Above the queue's capacity, so that 503 comes from the queue, with Retry-After.
        limit_concurrency=max(1000, 4 * settings.capacity),
        ws="none",
    )


def _open_listener(settings: Settings) -> socket.socket:
    """Bind the address before uvicorn starts, for an error that names it and a known port."""
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, settings.port), family=family)
    except OSError as error:
        raise ParameterError(
            f"The server cannot listen at {settings.host}, port {settings.port} "
            f"({error.strerror}); give another --host or --port."
        ) from None
