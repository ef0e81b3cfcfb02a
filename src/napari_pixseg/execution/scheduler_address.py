"""Whether a Dask scheduler listens at an address, found out within a time limit.

Once connected, Dask's client would wait for another kind of server without a time limit.
"""

from __future__ import annotations

import socket
import struct
import time

# A scheduler greets with the length of its message, which has a few hundred bytes.
_LENGTH = struct.Struct("<Q")
_LONGEST_GREETING = 1 << 20


def refuse_other_server(address: str, seconds: float) -> None:
    """Refuse an address whose server does not greet the way a Dask scheduler does.

    Addresses that are not plain TCP are left to Dask.

    Raises
    ------
    OSError, ValueError
        If nothing can be reached there, if another server answers, or if none answers in time.
    """
    from distributed.comm.addressing import parse_address, parse_host_port

    scheme, place = parse_address(address)
    if scheme != "tcp":
        return
    host, port = parse_host_port(place, 8786)
    if not 0 < port < 1 << 16:
        raise ValueError(f"{port} is no port")
    end = time.monotonic() + seconds
    with socket.create_connection((host, port), seconds) as connection:
        greeting = b""
        while len(greeting) < _LENGTH.size:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            received = connection.recv(_LENGTH.size - len(greeting))
            if not received:
                raise ConnectionError("the server closed the connection")
            greeting += received
    (length,) = _LENGTH.unpack(greeting)
    if length > _LONGEST_GREETING:
        raise ValueError("the server there is no Dask scheduler")
