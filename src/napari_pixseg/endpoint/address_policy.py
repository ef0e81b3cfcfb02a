"""Decides from which addresses the server may fetch images: public ones, resolved only once."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from napari_pixseg.endpoint.settings import Network
from napari_pixseg.errors import InputNotFound, ParameterError

HostLookup: TypeAlias = Callable[[str, int], Sequence[str]]

# Python calls these networks public, but their hosts are not.
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's host, which tells each machine about itself
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata server is at .192
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # local translation to IPv4
        "fec0::/10",  # site-local, the former private networks
        "5f00::/16",  # segment routing
    )
)
# NAT64: the last 32 bits are the IPv4 address that a connection really reaches.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host from the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def pin_addresses(
    host: str, port: int, allowed: Sequence[Network], look_up: HostLookup
) -> list[str]:
    """Resolve a host and check every address; the caller must connect to one of these.

    If the name were looked up a second time, its owner could switch to a private address after the
    check (DNS rebinding).

    Parameters
    ----------
    host : str
        Name or number in any notation the resolver accepts; the resolved addresses are checked.
    port : int
    allowed : sequence of networks
        Networks that are accepted although they are not public.
    look_up : callable
        Host and port to numeric addresses.

    Returns
    -------
    list of str
        At least one numeric address.

    Raises
    ------
    ParameterError
        If any address of the host is neither public nor allowed.
    InputNotFound
        If the host is unknown.
    """
    try:
        addresses = list(look_up(host, port))
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise InputNotFound(f"img cannot be fetched: no server is known by the name {host}.")
    # One private address is enough to refuse the host, because a connection might use it.
    if not all(is_allowed(address, allowed) for address in addresses):
        raise ParameterError(
            f"img leads to {host}, which is not a public address; upload the image instead, or ask "
            "whoever runs this server to allow that network."
        )
    return addresses


def is_allowed(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether an address is public, or in an allowed network.

    Parameters
    ----------
    address : str
        Numeric. If an IPv6 address embeds an IPv4 address, both are checked.
    allowed : sequence of networks
    """
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    return all(_is_public_or_allowed(target, allowed) for target in _reached_addresses(number))


def _is_public_or_allowed(number: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> bool:
    if any(number in network for network in allowed):
        return True
    if any(number in network for network in _REFUSED):
        return False
    # `is_global` alone lets some of these through.
    special = number.is_multicast or number.is_reserved or number.is_unspecified
    return number.is_global and not special


def _reached_addresses(number: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return every address that a connection to this one may reach."""
    if isinstance(number, IPv4Address):
        return [number]
    if number.ipv4_mapped is not None:
        return [number.ipv4_mapped]
    if number in _NAT64:
        return [IPv4Address(int(number) & 0xFFFFFFFF)]
    reached: list[IPv4Address | IPv6Address] = [number]
    if number.sixtofour is not None:
        # For a 6to4 address both are checked, because a relay decides where a connection ends.
        reached.append(number.sixtofour)
    return reached
