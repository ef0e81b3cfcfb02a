"""Connecting to a Dask scheduler within a time limit. This module loads distributed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client

from napari_pixseg.errors import ParameterError
from napari_pixseg.execution.scheduler_address import refuse_other_server

_CONNECT_SECONDS = 10
_LOOK_SECONDS = 0.1


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Run the body of a ``with`` statement on the Dask scheduler at an address.

    Raises
    ------
    ParameterError
        If no scheduler answers there.
    """
    try:
        refuse_other_server(address, _CONNECT_SECONDS)
        client = _open_client(address)
    except Exception as error:
        # Each protocol raises its own errors, and so does a server that is no scheduler.
        raise ParameterError(
            f"No Dask scheduler answers at {address!r}; check the address, for example "
            "tcp://192.0.2.1:8786, or leave it out to run on this machine."
        ) from error
    with _no_tracebacks(client), client, client.as_current():
        yield client


@contextmanager
def _no_tracebacks(client: Any) -> Iterator[None]:
    """Hide distributed's tracebacks about a lost connection; our error message reports it."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return client.status == "running" or record.exc_info is None

    log = logging.getLogger("distributed.client")
    log.addFilter(is_wanted)
    try:
        yield
    finally:
        log.removeFilter(is_wanted)


def _open_client(address: str) -> Any:
    """Connect; if that fails, clean up the client, which distributed does not do itself.

    Otherwise the garbage collector, in whichever thread it runs, would wait 20 seconds in vain for
    the client's loop.

    Raises
    ------
    TimeoutError
        If the server at the address is no scheduler; distributed would wait for it forever.
    """
    client: Any = Client.__new__(Client)
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            client.__init__(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except BaseException as error:  # noqa: BLE001 - told to the caller below
            failures.append(error)

    connecting = threading.Thread(target=connect, name="connect", daemon=True)
    connecting.start()
    connecting.join(_CONNECT_SECONDS + _LOOK_SECONDS)
    if connecting.is_alive():
        failures.append(TimeoutError(f"no answer within {_CONNECT_SECONDS} s"))
    if failures:
        client.status = "closed"
        with suppress(Exception):
            client._loop_runner.stop()
        raise failures[0]
    return client
