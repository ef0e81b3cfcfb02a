"""Cutting a connection while another thread waits for what comes through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_LOOK_EVERY = 0.1


@contextmanager
def cut_when(
    enough: Callable[[], bool], line: Callable[[], socket.socket | None]
) -> Iterator[None]:
    """Cut a connection as soon as it is enough.

    A time limit of the socket would begin anew with every byte, and knows nothing
    of people who went away. The reader may see an error, or what looks like the end.

    Parameters
    ----------
    enough : callable
        Asked some times a second, on another thread.
    line : callable
        The socket, or None before there is one.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY):
            found = line() if enough() else None
            if found is not None:
                with suppress(OSError):
                    # Of the class: a TLS socket's own takes the cipher from under the reader.
                    socket.socket.shutdown(found, socket.SHUT_RDWR)

    watcher = threading.Thread(target=watch, name="pixseg-cut", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
