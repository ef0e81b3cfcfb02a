"""``napari-pixseg serve``, and ``segment --endpoint``: the endpoint from a shell."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_pixseg.errors import OutputConflict, ParameterError

if TYPE_CHECKING:
    import socket

    from napari_pixseg.endpoint.settings import Settings


KEY_VARIABLE = "NAPARI_PIXSEG_KEY"


_PICTURES = (".png",)


_log = logging.getLogger("napari_pixseg")


def add_serve(commands: Any) -> None:
    """Add the command ``serve`` to a parser's commands."""
    parser = commands.add_parser("serve", help="answer GET and POST /segment (SEGMENT API)")
    add = parser.add_argument
    add("--host", help="address to listen at (default 127.0.0.1: this machine only)")
    add("--port", type=int, help="default 8000")
    add("--storage", metavar="DIR", help="folder or s3:// URL of results (./pixseg-results)")
    add("--keys", metavar="FILE", help="file of keys, one a line; needed for other hosts")
    add("--jobs", type=int, metavar="N", help="images segmented at a time")
    add("--waiting", type=int, metavar="N", help="requests that may wait (default 32)")
    add("--max-bytes", type=int, metavar="N", help="largest image in bytes (default 64 MiB)")
    add("--max-pixels", type=int, metavar="N", help="largest image in pixels (50,000,000)")
    add("--seconds", type=float, help="longest time to upload or fetch an image (default 30)")
    add("--redirects", type=int, metavar="N", help="redirects of img to follow (default 3)")
    add("--allow-network", action="append", metavar="CIDR", default=[],
        help="private network that img may be in, 10.0.0.0/8; may be given again")  # fmt: skip
    add("--public-url", help="what links begin with, behind a proxy")
    parser.set_defaults(command=serve)


def serve(options: argparse.Namespace) -> None:
    """Run the server until it is stopped.

    Raises
    ------
    ParameterError
        If an option is out of range, the extra ``server`` is not installed, or the
        address is taken.
    """
    from dataclasses import fields

    from napari_pixseg.endpoint.keys import load_keys
    from napari_pixseg.endpoint.settings import Settings, network

    names = [part.name for part in fields(Settings) if part.name not in ("keys", "allowed")]
    given = {name: getattr(options, name) for name in names}
    settings = Settings(
        keys=load_keys(options.keys) if options.keys else (),
        allowed=tuple(network(text) for text in options.allow_network),
        **{name: value for name, value in given.items() if value is not None},
    )
    try:
        import uvicorn

        from napari_pixseg.endpoint.app import make_app
    except ImportError as error:
        raise ParameterError(
            f"The server needs a package that is missing ({error.name}); "
            "install napari-pixseg[server]."
        ) from None
    try:
        app = make_app(settings)
    except OSError as error:
        raise ParameterError(
            f"The storage {settings.storage} cannot be made ({error.strerror}); give another."
        ) from None
    listener = _listener(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _log.info("Listening at http://%s:%s/segment; results go to %s", shown, port, settings.storage)
    try:
        uvicorn.Server(configuration(app, settings)).run(sockets=[listener])
    finally:
        listener.close()


def configuration(app: Any, settings: Settings) -> Any:
    """Return uvicorn's configuration; it logs no addresses, as they may hold a key."""
    import uvicorn

    return uvicorn.Config(
        app, settings.host.strip("[]"), settings.port, log_level="warning", access_log=False,
        server_header=False, timeout_keep_alive=5, timeout_graceful_shutdown=10,
        limit_concurrency=max(1000, 4 * settings.capacity), ws="none",
    )  # fmt: skip


def _listener(settings: Settings) -> socket.socket:
    import socket

    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, settings.port), family=family)
    except OSError as error:
        raise ParameterError(
            f"{settings.host}, port {settings.port}, cannot be listened at "
            f"({error.strerror}); give another --host or --port."
        ) from None


# The client ----------------------------------------------------------------------


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``segment`` that let an endpoint do it."""
    add = parser.add_argument
    add("--endpoint", metavar="URL", help="let this server do it; OUTPUT is a .png")
    add("--key-file", metavar="FILE", help=f"holds the endpoint's key; or set {KEY_VARIABLE}")


def segment_there(options: argparse.Namespace, local_only: Sequence[str]) -> str:
    """Segment at an endpoint and write the picture; return the answer as JSON.

    Parameters
    ----------
    options : Namespace
        Of the command ``segment``.
    local_only : sequence of str
        Names of options that were given and that no endpoint knows.

    Raises
    ------
    ParameterError, OutputConflict
        Before anything is sent.
    """
    from napari_pixseg.endpoint.client import Endpoint
    from napari_pixseg.export.manifest import Manifest, new_id
    from napari_pixseg.export.output_location import OutputLocation

    if local_only:
        raise ParameterError(
            f"An endpoint knows ct, cs and st only; leave out --{local_only[0].replace('_', '-')}, "
            "or run it here."
        )
    target = OutputLocation(options.output)
    if target.suffix not in _PICTURES:
        raise ParameterError(f"An endpoint gives a PNG, so {target.name} must end in .png.")
    if not options.overwrite and target.exists():
        raise OutputConflict(
            f"{target.uri} exists already; choose another path, or give --overwrite."
        )
    endpoint = Endpoint(options.endpoint, _key(options.key_file))
    policy = {name: getattr(options, name) for name in ("ct", "cs", "st")}
    policy = {name: value for name, value in policy.items() if value is not None}
    if options.blob:
        target.write_bytes(endpoint.segment(options.input, **policy, blob=True))
        return Manifest(200, new_id(), target.uri).to_json()
    answer: Manifest = endpoint.segment(options.input, **policy)
    target.write_bytes(endpoint.download(str(answer.link)))
    return answer.to_json()


def _key(path: str | None) -> str | None:
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    from napari_pixseg.endpoint.keys import load_keys

    if not Path(path).is_file():
        raise ParameterError(f"There is no key file {path}; write the key into one.")
    return load_keys(path)[0]
