"""Which Dask cluster computes, if any. Finding that out does not load distributed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from napari_pixseg.errors import ParameterError
from napari_pixseg.execution.lost_cluster import expecting_answer
from napari_pixseg.execution.worker_task import threads_of_task

if TYPE_CHECKING:
    from napari_pixseg.sources.source import Source


def active_client() -> Any:
    """Return the Dask client that computations go to; None where they stay in this process.

    Importing distributed just to find out would cost half a second.
    """
    if "distributed" not in sys.modules or threads_of_task() is not None:
        return None
    from dask.base import get_scheduler
    from distributed import Client

    owner = getattr(get_scheduler(), "__self__", None)
    return owner if isinstance(owner, Client) else None


def check_workers(source: Source, asked: set[str]) -> None:
    """Refuse an active cluster whose workers cannot read a source.

    Parameters
    ----------
    source : Source
    asked : set of str
        Identities of the clients whose workers were checked; the active one is added.

    Raises
    ------
    ClusterUnfit, ClusterLost, NotAnImage
    """
    client = active_client()
    if client is None or client.id in asked:
        return
    # Loads distributed, which few runs need.
    from napari_pixseg.execution.worker_checks import refuse_unfit_workers

    refuse_unfit_workers(client, source)
    asked.add(client.id)


def connected(address: str) -> AbstractContextManager[Any]:
    """Run the body of a ``with`` statement on a Dask scheduler, and nothing else of this process.

    Parameters
    ----------
    address : str
        Such as ``tcp://host:8786``; if empty, nothing changes.

    Raises
    ------
    ParameterError
        If no scheduler answers there.
    """
    if not address:
        return nullcontext()
    try:
        from napari_pixseg.execution.cluster_connection import connect
    except ImportError:
        raise ParameterError(
            f"The scheduler {address!r} needs the package distributed; install it, or leave "
            "the scheduler out to run on this machine."
        ) from None
    return connect(address)


def union_over_workers(find: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Return what a function finds in this process and, if there is a cluster, in its workers."""
    found = find()
    client = active_client()
    if client is None:
        return found
    with expecting_answer():
        return found.union(*client.run(find, on_error="ignore").values())
