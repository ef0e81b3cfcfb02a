"""Workers that join a run late prove, before their first tile, what the others proved before it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[WorkerProof | None] = ContextVar("proof", default=None)
# The runs that this process was admitted to.
_proved: set[str] = set()
_one_at_a_time = threading.Lock()


class WorkerProof(ABC):
    """What a worker has to prove to take part in a run; sent with the tiles.

    Attributes
    ----------
    run_id : str
    """

    run_id: str

    @abstractmethod
    def prove(self, tell: Callable[[str], None]) -> None:
        """Prove it, on the worker; ``tell`` sends the name of a token to the client.

        Raises
        ------
        ClusterUnfit
        """

    @abstractmethod
    def confirm(self, token: str) -> bool:
        """Whether the client sees a token; on the client."""


@contextmanager
def require_proof(proof: WorkerProof | None) -> Iterator[None]:
    """Ask every worker of the runs inside for a proof."""
    before = _current.set(proof)
    try:
        yield
    finally:
        _current.reset(before)


def required_proof() -> WorkerProof | None:
    """Return what workers have to prove for the tiles that are planned now."""
    return _current.get()


def note_proved(run_id: str) -> None:
    """Remember that this process has proved what a run asks for."""
    _proved.add(run_id)


def prove_once(proof: WorkerProof, tell: Callable[[str], None]) -> None:
    """Let this process prove what a run asks for, unless it has."""
    if proof.run_id in _proved:
        return
    with _one_at_a_time:
        if proof.run_id not in _proved:
            proof.prove(tell)
            note_proved(proof.run_id)
