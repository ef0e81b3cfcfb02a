"""Makes fsspec's file systems, with a time limit for servers that accept and never answer."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.config import conf

from napari_pixseg.errors import InputNotFound
from napari_pixseg.sources.read_options import SECONDS_TO_ANSWER
from napari_pixseg.sources.urls import ARCHIVES, split_links

_HTTP = ("http", "https")

_S3 = ("s3", "s3a")


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it.

    Raises
    ------
    InputNotFound
        If the URL is one of an archive, but does not say which.
    """
    _refuse_archive_without_place(url)
    filesystem, path = fsspec.core.url_to_fs(url, **options_for(url))
    limit_attempts(filesystem)
    return filesystem, path


def _refuse_archive_without_place(url: str) -> None:
    """Refuse ``zip:///a.zip``: fsspec would take it for a file in an archive without a name."""
    last = split_links(url)[-1]
    protocol, slashes, path = last.partition("://")
    if slashes and path and protocol in ARCHIVES:
        raise InputNotFound(
            f"{protocol}://{path} does not say in which archive: write {protocol}://::{path} for "
            f"the whole archive {path}, or {protocol}://NAME::{path} for what is in it under NAME."
        )


def limit_attempts(filesystem: fsspec.AbstractFileSystem) -> None:
    """Let a file system of S3 ask once; its client tries again by itself, five times in all.

    Five times five attempts at a silent server would take more than six minutes.
    """
    if any(protocol in _S3 for protocol in filesystem.protocol):
        filesystem.retries = 1


def options_for(url: str) -> dict[str, Any]:
    """Return the options of fsspec for a URL, by the protocols in it.

    By default HTTP has only a limit of five minutes for the whole answer, however long it is; other
    protocols have limits of their own. Settings that users have made for fsspec stay.
    """
    protocols = {link.partition("://")[0] for link in split_links(url)}
    options = _options_of_s3(protocols & {*_S3})
    return options | _options_of_http(protocols & {*_HTTP})


def _options_of_s3(protocols: set[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for protocol in protocols:
        given = conf.get(protocol, {}).get("config_kwargs", {})
        limits = {"connect_timeout": SECONDS_TO_ANSWER, "read_timeout": SECONDS_TO_ANSWER}
        options[protocol] = {"config_kwargs": limits | given}
    return options


def _options_of_http(protocols: set[str]) -> dict[str, Any]:
    if not protocols:
        return {}
    # Only these need the HTTP client.
    from fsspec.implementations.http import aiohttp

    from napari_pixseg.sources.decoding.bounded_answer import BoundedAnswer

    limit = aiohttp.ClientTimeout(
        total=None, sock_connect=SECONDS_TO_ANSWER, sock_read=SECONDS_TO_ANSWER
    )
    options: dict[str, Any] = {"timeout": limit, "response_class": BoundedAnswer}
    for protocol in _HTTP:
        options |= conf.get(protocol, {}).get("client_kwargs", {})
    return {protocol: {"client_kwargs": options} for protocol in protocols}
