"""Checks that client and workers see the same output folder.

Client and workers write tokens, which are small files in the output, and look for each other's
tokens. The client's token stays until the run ends, for workers that join late.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from napari_pixseg.errors import ClusterUnfit
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.late_workers import WorkerProof, note_proved, require_proof
from napari_pixseg.execution.worker_checks import ask_workers, name_worker
from napari_pixseg.export.output_location import TOKEN_PREFIX, OutputLocation

# On network file systems, a new file may take a while to appear.
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class SharedOutput(WorkerProof):
    """An output that all workers must see, and the run that proves it.

    Attributes
    ----------
    location : OutputLocation
    run_id : str
    """

    location: OutputLocation
    run_id: str

    def open(self) -> None:
        """Write the client's token."""
        self._token().write_bytes(self.run_id.encode())

    def close(self) -> None:
        """Remove all tokens of this run; ignore an output that is out of reach."""
        with suppress(Exception):
            remove_tokens(self.location, self.run_id)

    def refuse_other_disks(self, client: Any) -> None:
        """Refuse a cluster if one of its workers does not see this output.

        Raises
        ------
        ClusterUnfit
        """
        answers = ask_workers(client, _leave_token_aside, self)
        for address, (host, token, reason) in answers.items():
            if token is None or not _wait_until(partial(self.confirm, token)):
                raise self._unfit(name_worker(address, host), reason)

    def leave_token(self) -> str | None:
        """Write a worker's token if the worker sees the client's, and return its name."""
        if not _wait_until(lambda: self._token().read_bytes() == self.run_id.encode(), 1.0):
            return None
        name = os.urandom(8).hex()
        self._token(name).write_bytes(name.encode())
        return name

    def confirm(self, token: str) -> bool:
        """Whether this process sees a worker's token; removing it tells the worker so."""
        place = self._token(token)
        if place.read_bytes() != token.encode():
            return False
        place.remove()
        return True

    def prove(self, tell: Callable[[str], None]) -> None:
        """Exchange tokens with the client, from a worker that joined late."""
        token = self.leave_token()
        is_seen = token is not None
        if token is not None:
            tell(token)
            is_seen = _wait_until(lambda: self._token(token).read_bytes() is None)
        if not is_seen:
            raise self._unfit(f"process {os.getpid()} on {socket.gethostname()}", "")

    def _token(self, name: str = "client") -> OutputLocation:
        return self.location.child(f"{TOKEN_PREFIX}{self.run_id}-{name}")

    def _unfit(self, worker: str, reason: str) -> ClusterUnfit:
        because = f" ({reason})" if reason else ""
        return ClusterUnfit(
            f"The worker {worker} does not see the output {self.location.uri} as the client "
            f"does{because}; give a path on a disk that all of them share and may write to, or a "
            "URL, and run again."
        )


@contextmanager
def shared_output(location: OutputLocation, run_id: str) -> Iterator[None]:
    """Check that the workers of a cluster, if any, see an output, now and while it is written.

    Raises
    ------
    ClusterUnfit
        Before anything but tokens was written; the tokens are removed.
    """
    client = active_client()
    if client is None:
        yield
        return
    shared = SharedOutput(location, run_id)
    try:
        shared.open()
        shared.refuse_other_disks(client)
        with require_proof(shared):
            yield
    finally:
        shared.close()


def remove_tokens(location: OutputLocation, run_id: str = "") -> None:
    """Remove the tokens of a run from an output, or those of all runs."""
    for name in location.list_names():
        if name.startswith(TOKEN_PREFIX + run_id):
            location.child(name).remove()


async def _leave_token_aside(shared: SharedOutput) -> tuple[str, str | None, str]:
    """Return the worker's host, the name of its token, and the reason if there is none."""
    host = socket.gethostname()
    try:
        # The worker's event loop must not wait for a slow disk.
        token = await asyncio.to_thread(shared.leave_token)
    except Exception as error:  # noqa: BLE001 - every protocol has its own
        return host, None, getattr(error, "strerror", None) or type(error).__name__
    note_proved(shared.run_id)
    return host, token, ""


def _wait_until(is_so: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    return so
