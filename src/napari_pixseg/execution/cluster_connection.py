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
    """Run what is inside on the Dask scheduler at an address.

    Raises
    ------
    ParameterError
        If no scheduler answers there.
    """
    try:
        refuse_other_server(address, _CONNECT_SECONDS)
        client = _open_client(address)
    except Exception as error:
        # Every protocol fails in its own way, and so does a server that is no scheduler.
        raise ParameterError(
            f"No Dask scheduler answers at {address!r}; check the address, for example "
            "tcp://192.0.2.1:8786, or leave it out to run on this machine."
        ) from error
    with _no_tracebacks(client), client, client.as_current():
        yield client


@contextmanager
def _no_tracebacks(client: Any) -> Iterator[None]:
    """Keep tracebacks of a connection that is lost off standard error; a sentence tells of it."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return client.status == "running" or record.exc_info is None

    log = logging.getLogger("distributed.client")
    log.addFilter(is_wanted)
    try:
        yield
    finally:
        log.removeFilter(is_wanted)


def _open_client(address: str) -> Any:
    """Connect; a client that could not is put out of the way, which it does not do by itself.

    When the garbage collector meets it, it would wait in vain for its loop to answer, for
    20 seconds and in any thread.

    Raises
    ------
    TimeoutError
        If what answers does not speak as a scheduler; distributed would wait for it for ever.
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
