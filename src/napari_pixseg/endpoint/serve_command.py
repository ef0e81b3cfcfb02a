"""Runs ``napari-pixseg serve``: checks the options, listens, and runs uvicorn.

This module needs the packages of the extra ``server``.
"""

from __future__ import annotations

import argparse
import logging
import signal
from dataclasses import fields
from types import FrameType
from typing import Any

from napari_pixseg.endpoint.app import make_app
from napari_pixseg.endpoint.http_server import HttpServer, open_listener
from napari_pixseg.endpoint.keys import KeyRing, load_keys
from napari_pixseg.endpoint.option_units import parse_duration, parse_rate, parse_size
from napari_pixseg.endpoint.request_log import ServerLog
from napari_pixseg.endpoint.settings import Settings, parse_network
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
    log = ServerLog(options.log_format, options.log_file)
    app = make_app(settings)
    listener = open_listener(settings)
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    _log.info(
        "Listening at http://%s:%s/segment; results go to %s", shown_host, port, settings.storage
    )
    # uvicorn handles signals itself.
    INTERRUPTION.hand_over()
    try:
        _reload_on_hangup(app.state.keys, log)
        HttpServer(app, settings).run(sockets=[listener])
    finally:
        listener.close()


def _read_settings(options: argparse.Namespace) -> Settings:
    made: dict[str, Any] = {
        "keys": load_keys(options.keys) if options.keys else (),
        "keys_file": options.keys or "",
        "allowed": tuple(parse_network(text) for text in options.allow_network),
        "cors": tuple(options.cors),
        "rate": parse_rate("rate", options.rate) if options.rate else None,
        "keep": parse_duration("keep", options.keep) if options.keep else None,
        "keep_bytes": parse_size("keep_bytes", options.keep_bytes) if options.keep_bytes else None,
    }
    names = [part.name for part in fields(Settings) if part.name not in made]
    given = made | {name: getattr(options, name) for name in names}
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _reload_on_hangup(keys: KeyRing, log: ServerLog) -> None:
    """Read the keys and open the log again on SIGHUP, as services do."""

    def reload(_number: int, _frame: FrameType | None) -> None:
        log.reopen()
        keys.reload()

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, reload)
