"""Closes a connection from another thread while its reader is blocked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Short enough that a user who cancels does not notice, long enough to cost nothing.
_CHECK_SECONDS = 0.1


@contextmanager
def cut_when(
    is_over: Callable[[], bool], find_socket: Callable[[], socket.socket | None]
) -> Iterator[None]:
    """Shut a connection down as soon as a condition holds.

    A socket's own timeout restarts with every byte, and it cannot react to a user who cancels.
    After the cut, the reader may get an error or an apparently regular end.

    Parameters
    ----------
    is_over : callable
        Called several times a second, on another thread.
    find_socket : callable
        Returns the socket, or None while there is none yet.
    """
    finished = threading.Event()

    def watch_condition() -> None:
        while not finished.wait(_CHECK_SECONDS):
            connection = find_socket() if is_over() else None
            if connection is not None:
                with suppress(OSError):
                    # An SSLSocket's own shutdown() would drop its cipher while the reader uses it.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    watcher = threading.Thread(target=watch_condition, name="pixseg-cut", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
