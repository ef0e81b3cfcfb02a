"""The settings of a server, checked before it starts."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias
from urllib.parse import urlsplit

from napari_pixseg.endpoint.rate_limit import Rate
from napari_pixseg.errors import ParameterError

_MAX_SECONDS = 3600.0
_USUAL_CONNECTIONS = 256
Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Settings:
    """All settings of a server.

    Attributes
    ----------
    host : str
        Address to listen at.
    port : int
        0 to 65535; 0 takes a free one.
    storage : str
        Folder or URL that results are written to.
    keys : tuple of str
        A request must give one of these. Without any, the server asks for no key and
        must listen on loopback.
    keys_file : str
        File that the keys were read from; it is read again on SIGHUP.
    jobs : int
        Images that are segmented at a time.
    waiting : int
        Further requests that may wait; any more are answered with 503.
    max_bytes : int
        Largest upload or download, in bytes.
    max_pixels : int
        Largest decoded image, in pixels.
    seconds : float
        Longest time that an upload may take, and the fetching of ``img``.
    header_seconds : float
        Longest time for the head of a request, and the time in which some bytes of a body must
        arrive.
    connections : int
        Connections that one address may hold; 0 stands for 256, or more if more requests
        may wait.
    redirects : int
        How many redirects are followed when ``img`` is fetched.
    allowed : tuple of networks
        Networks that ``img`` may be in even though they are not public.
    public_url : str
        The beginning of links. If empty, it is the address that the client used.
    root_path : str
        The beginning of each path that a proxy removes.
    cors : tuple of str
        Origins of web pages that may call.
    rate : Rate or None
        How often each key may be used.
    grace : float
        Seconds that running jobs have to finish once the server is stopped.
    keep : float
        Seconds after which results are removed; 0 keeps them.
    keep_bytes : int
        Bytes that all results may take; the oldest are removed beyond that. 0 sets no limit.

    Raises
    ------
    ParameterError
        If a value is out of range, or the server has no keys but other machines could reach it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    storage: str = "pixseg-results"
    keys: tuple[str, ...] = field(default=(), repr=False)
    keys_file: str = ""
    jobs: int = min(os.cpu_count() or 1, 4)
    waiting: int = 32
    max_bytes: int = 64 << 20
    max_pixels: int = 50_000_000
    seconds: float = 30.0
    header_seconds: float = 10.0
    connections: int = 0
    redirects: int = 3
    allowed: tuple[Network, ...] = ()
    public_url: str = ""
    root_path: str = ""
    cors: tuple[str, ...] = ()
    rate: Rate | None = None
    grace: float = 10.0
    keep: float = 0.0
    keep_bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ParameterError(f"port = {self.port} must be 0 to 65535; 0 takes a free one.")
        for name in ("jobs", "max_bytes", "max_pixels", "seconds", "header_seconds"):
            if not getattr(self, name) > 0:
                raise ParameterError(f"{name} = {getattr(self, name)} must be above 0.")
        for name in ("seconds", "header_seconds", "grace"):
            if getattr(self, name) > _MAX_SECONDS:
                value = getattr(self, name)
                raise ParameterError(f"{name} = {value} must be at most {_MAX_SECONDS:g}.")
        for name in ("waiting", "redirects", "connections", "grace"):
            if getattr(self, name) < 0:
                raise ParameterError(f"{name} = {getattr(self, name)} must be 0 or more.")
        if not self.storage.strip():
            raise ParameterError("storage is empty; give a folder, or a URL such as s3://bucket.")
        if self.public_url and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise ParameterError(f"public_url = {self.public_url!r} must begin with https://.")
        self._check_web()
        if (self.keep or self.keep_bytes) and "://" in self.storage:
            raise ParameterError(
                f"keep and keep_bytes are for a folder; let rules of {self.storage.split('?')[0]} "
                "itself remove old objects."
            )
        # Without a key, anyone who reaches the server may use it.
        if not self.keys and not is_loopback(self.host):
            raise ParameterError(
                f"A server at {self.host} can be reached from other machines, so it needs keys: "
                "give a file of them with --keys, or listen at 127.0.0.1."
            )

    def _check_web(self) -> None:
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path):
            raise ParameterError(
                f"root_path = {self.root_path!r} must be a path such as /pixseg, without / at its "
                "end."
            )
        for origin in self.cors:
            # Any page could use a server without keys.
            if not (origin == "*" and self.keys) and not re.fullmatch(
                r"https?://[\w.:\[\]-]+", origin
            ):
                raise ParameterError(
                    f"cors = {origin!r} must be an origin such as https://example.org, or * on a "
                    "server with keys."
                )

    @property
    def capacity(self) -> int:
        """Requests that are accepted at a time."""
        return self.jobs + self.waiting

    @property
    def connections_of_address(self) -> int:
        """Connections that one address may have; every waiting request needs one."""
        return self.connections or max(_USUAL_CONNECTIONS, 2 * self.capacity)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens at a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse_network(text: str) -> Network:
    """Return the network that a text such as ``10.0.0.0/8`` names.

    Raises
    ------
    ParameterError
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ParameterError(
            f"{text!r} is not a network; write it like 10.0.0.0/8, or one address like 10.1.2.3."
        ) from None
