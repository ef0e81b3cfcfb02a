"""What ``napari-pixseg serve`` does: check the options, listen, and run uvicorn.

This module needs the packages of the extra ``server``.
"""

from __future__ import annotations

import argparse
import logging
import signal
from dataclasses import fields

from napari_pixseg.endpoint.app import make_app
from napari_pixseg.endpoint.http_server import HttpServer, open_listener
from napari_pixseg.endpoint.keys import KeyRing, load_keys
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
    app = make_app(settings)
    listener = open_listener(settings)
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    _log.info(
        "Listening at http://%s:%s/segment; results go to %s", shown_host, port, settings.storage
    )
    # uvicorn has its own way to end.
    INTERRUPTION.hand_over()
    try:
        _reload_on_hangup(app.state.keys)
        HttpServer(app, settings).run(sockets=[listener])
    finally:
        listener.close()


def _read_settings(options: argparse.Namespace) -> Settings:
    own = ("keys", "keys_file", "allowed")
    names = [part.name for part in fields(Settings) if part.name not in own]
    given = {name: getattr(options, name) for name in names}
    return Settings(
        keys=load_keys(options.keys) if options.keys else (),
        keys_file=options.keys or "",
        allowed=tuple(parse_network(text) for text in options.allow_network),
        **{name: value for name, value in given.items() if value is not None},
    )


def _reload_on_hangup(keys: KeyRing) -> None:
    """Read the keys again on SIGHUP, as services do."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: keys.reload())
