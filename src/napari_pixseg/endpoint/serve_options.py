"""The options of ``napari-pixseg serve`` and ``segment --endpoint`` on the command line.

Every command builds this parser, so the code of the two commands is imported only when they run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TypeVar

from napari_pixseg.endpoint import KEY_VARIABLE
from napari_pixseg.errors import ParameterError

ParserT = TypeVar("ParserT", bound=argparse.ArgumentParser)


def add_serve(commands: argparse._SubParsersAction[ParserT]) -> None:
    """Add the command ``serve`` to a parser's commands."""
    parser = commands.add_parser("serve", help="answer GET and POST /segment (SEGMENT API)")
    add = parser.add_argument
    add("--host", help="address to listen at (default 127.0.0.1: this machine only)")
    add("--port", type=int, help="default 8000; 0 takes a free one")
    add("--storage", metavar="DIR", help="folder or s3:// URL of results (./pixseg-results)")
    add("--keys", metavar="FILE", help="file of keys, one per line; needed for other hosts")
    add("--jobs", type=int, metavar="N", help="images segmented at a time")
    add("--waiting", type=int, metavar="N", help="further requests that may queue (default 32)")
    add("--max-bytes", type=int, metavar="N", help="largest image in bytes (default 64 MiB)")
    add("--max-pixels", type=int, metavar="N", help="largest image in pixels (50,000,000)")
    add("--seconds", type=float, help="longest time to upload, fetch or segment an image (30)")
    add("--header-seconds", type=float, help="longest time for the head of a request (default 10)")
    add("--connections", type=int, metavar="N", help="connections of one address (default 256)")
    add("--redirects", type=int, metavar="N", help="redirects of img to follow (default 3)")
    add(
        "--allow-network",
        action="append",
        metavar="CIDR",
        default=[],
        help="private network that img may be in, such as 10.0.0.0/8; may be repeated",
    )
    add("--public-url", help="what links begin with, behind a proxy")
    add("--root-path", metavar="PATH", help="what a proxy takes away from each path, as /pixseg")
    add(
        "--cors",
        action="append",
        metavar="ORIGIN",
        default=[],
        help="web pages that may call, such as https://example.org; may be repeated",
    )
    add("--rate", metavar="N/min", help="how often a key may be used, such as 60/min")
    add("--grace", type=float, metavar="SECONDS", help="time to finish after SIGTERM (10)")
    add("--keep", metavar="TIME", help="remove results after this time, such as 7d")
    add("--keep-bytes", metavar="SIZE", help="remove the oldest beyond this size, such as 100GiB")
    add("--log-format", choices=("text", "json"), default="text", help="lines for people, or JSON")
    add("--log-file", metavar="FILE", default="", help="log there and not on standard error")
    parser.set_defaults(command=serve)


def serve(options: argparse.Namespace) -> None:
    """Run the server until it is stopped.

    Raises
    ------
    ParameterError
        If an option is out of range, the extra ``server`` is not installed, or the
        address is taken.
    """
    try:
        # Needs packages of the extra `server`, which may be missing.
        from napari_pixseg.endpoint.serve_command import run_server
    except ImportError as error:
        raise ParameterError(
            f"The server needs a package that is missing ({error.name}); "
            "install napari-pixseg[server]."
        ) from None
    run_server(options)


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add the options with which ``segment`` uses an endpoint."""
    add = parser.add_argument
    add("--endpoint", metavar="URL", help="segment on this server; OUTPUT is a .png")
    add("--store", action="store_true", help="keep INPUT on that server, and tell its link")
    add("--key-file", metavar="FILE", help=f"holds the endpoint's key; or set {KEY_VARIABLE}")


def segment_at_endpoint(options: argparse.Namespace, local_only: Sequence[str]) -> str:
    """Segment at an endpoint and write the picture; return the answer as JSON.

    Parameters
    ----------
    options : Namespace
        Of the command ``segment``.
    local_only : sequence of str
        Names of options that were given but that no endpoint supports.
    """
    from napari_pixseg.endpoint.client_command import segment_and_download

    return segment_and_download(options, local_only)
