"""Checks workers that join during a run: before their first tile they prove what the others did."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[WorkerProof | None] = ContextVar("proof", default=None)
# The runs for which this process has given its proof.
_proved: set[str] = set()
_one_at_a_time = threading.Lock()


class WorkerProof(ABC):
    """The proof that a worker must give to take part in a run; sent along with the tiles.

    Attributes
    ----------
    run_id : str
    """

    run_id: str

    @abstractmethod
    def prove(self, tell: Callable[[str], None]) -> None:
        """Give the proof, on the worker; ``tell`` sends the name of a token to the client.

        Raises
        ------
        ClusterUnfit
        """

    @abstractmethod
    def confirm(self, token: str) -> bool:
        """Return whether the client sees a token; called on the client."""


@contextmanager
def require_proof(proof: WorkerProof | None) -> Iterator[None]:
    """Require a proof of every worker for runs in the body of the ``with`` statement."""
    before = _current.set(proof)
    try:
        yield
    finally:
        _current.reset(before)


def required_proof() -> WorkerProof | None:
    """Return the proof that workers must give for the tiles that are planned now."""
    return _current.get()


def note_proved(run_id: str) -> None:
    """Remember that this process has given the proof for a run."""
    _proved.add(run_id)


def prove_once(proof: WorkerProof, tell: Callable[[str], None]) -> None:
    """Give the proof for a run, unless this process already has."""
    if proof.run_id in _proved:
        return
    with _one_at_a_time:
        if proof.run_id not in _proved:
            proof.prove(tell)
            note_proved(proof.run_id)
