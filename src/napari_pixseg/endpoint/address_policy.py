"""Which addresses a server may be sent to by strangers: public ones, looked up once and kept."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from napari_pixseg.endpoint.settings import Network
from napari_pixseg.errors import InputNotFound, ParameterError

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]


# Public by their number, but not by what is there.
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's host, which answers each machine about itself
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata is at .192
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # local translation to IPv4
        "fec0::/10",  # site-local, as private networks once were
        "5f00::/16",  # segment routing
    )
)


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def pinned(host: str, port: int, allowed: Sequence[Network], look_up: Resolve) -> list[str]:
    """Return the addresses to connect to; nothing may look the host up again.

    Parameters
    ----------
    host : str
        Name or number, in any notation the resolver takes: the result is what is judged.
    port : int
    allowed : sequence of networks
        Accepted although they are not public.
    look_up : callable

    Returns
    -------
    list of str
        At least one numeric address.

    Raises
    ------
    ParameterError
        If any address of the host is one that strangers have no business with.
    InputNotFound
        If the host is not known.
    """
    try:
        addresses = list(look_up(host, port))
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise InputNotFound(f"img cannot be fetched: no server is known by the name {host}.")
    if not all(is_allowed(address, allowed) for address in addresses):
        raise ParameterError(
            f"img leads to {host}, which is no public address; upload the image instead, or ask "
            "who runs this server to allow that network."
        )
    return addresses


def is_allowed(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether an address is public, or in an allowed network.

    Parameters
    ----------
    address : str
        Numeric. IPv6 addresses that stand for an IPv4 address are judged by that one, too.
    allowed : sequence of networks
    """
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    return all(_is_fit(one, allowed) for one in _meant(number))


def _is_fit(number: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> bool:
    if any(number in network for network in allowed):
        return True
    if any(number in network for network in _REFUSED):
        return False
    odd = number.is_multicast or number.is_reserved or number.is_unspecified
    return number.is_global and not odd


def _meant(number: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    if isinstance(number, IPv4Address):
        return [number]
    if number.ipv4_mapped is not None:
        return [number.ipv4_mapped]
    if number in _TRANSLATED:
        return [IPv4Address(int(number) & 0xFFFFFFFF)]
    inside: list[IPv4Address | IPv6Address] = [number]
    if number.sixtofour is not None:
        inside.append(number.sixtofour)
    return inside
