"""fsspec's file systems, with a limit of time for servers that accept and never answer."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.config import conf

from napari_pixseg.sources.read_options import SECONDS_TO_ANSWER
from napari_pixseg.sources.urls import split_links

_HTTP = ("http", "https")


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it."""
    filesystem, path = fsspec.core.url_to_fs(url, **options_for(url))
    return filesystem, path


def options_for(url: str) -> dict[str, Any]:
    """Return the options of fsspec for a URL, by the protocols in it.

    HTTP has none of its own but five minutes for all of an answer, however long that is; other
    protocols bring limits. What users have set for fsspec stays.
    """
    protocols = {link.partition("://")[0] for link in split_links(url)} & {*_HTTP}
    if not protocols:
        return {}
    # Only they need the HTTP client.
    from fsspec.implementations.http import aiohttp

    limit = aiohttp.ClientTimeout(
        total=None, sock_connect=SECONDS_TO_ANSWER, sock_read=SECONDS_TO_ANSWER
    )
    options: dict[str, Any] = {"timeout": limit}
    for protocol in _HTTP:
        options |= conf.get(protocol, {}).get("client_kwargs", {})
    return {protocol: {"client_kwargs": options} for protocol in protocols}
