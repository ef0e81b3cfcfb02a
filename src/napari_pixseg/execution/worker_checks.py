"""Checks that all workers of a cluster can take part in a run."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from napari_pixseg import __version__
from napari_pixseg.errors import ClusterUnfit, InputUnseen, NotAnImage
from napari_pixseg.execution.lost_cluster import expecting_answer
from napari_pixseg.sources.same_input_on_workers import InputEvidence, other_input
from napari_pixseg.sources.source import Source

# Sent as text: a worker without this package could not load a function of it.
_VERSION = (
    "(lambda found: found and __import__('napari_pixseg').__version__)"
    "(__import__('importlib.util', fromlist=['*']).find_spec('napari_pixseg'))"
)

# Addresses of the workers that have the version of this process, by client.
_alike: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()
# Inputs that workers were checked for, by client; late workers are checked for them as well.
_inputs: WeakKeyDictionary[Any, WeakSet[InputEvidence]] = WeakKeyDictionary()


def refuse_unfit_workers(client: Any, source: Source) -> None:
    """Refuse a cluster if one of its workers cannot do the run.

    Parameters
    ----------
    client : distributed.Client
    source : Source
        The input, which every worker must see.

    Raises
    ------
    ClusterUnfit
        If a worker lacks the package, has another version of it, or sees another disk.
    NotAnImage
        If the input cannot be sent to workers.
    """
    _refuse_unsendable(source)
    refuse_versions(client)
    evidence = source.evidence()
    _refuse_blind_workers(client, evidence)
    if evidence.is_of_graph:
        _inputs.setdefault(client, WeakSet()).add(evidence)


def _refuse_blind_workers(client: Any, evidence: InputEvidence) -> None:
    seen = ask_workers(client, _see_input, evidence)
    for address, (host, shown) in seen.items():
        if shown is not None:
            raise other_input(name_worker(address, host), shown)


def ask_workers(client: Any, function: Any, *arguments: object) -> Mapping[str, Any]:
    """Call a function on every worker; return the answers by address.

    A worker that dies meanwhile gives no answer.

    Raises
    ------
    ClusterLost
        If the scheduler is gone, or the client closed.
    """
    with expecting_answer():
        answers: dict[str, Any] = client.run(function, *arguments, on_error="return")
    return {
        address: answer
        for address, answer in answers.items()
        if not isinstance(answer, OSError)  # of the connection
    }


def refuse_versions(client: Any) -> None:
    """Refuse a scheduler or workers with another version of this package, or without it.

    Raises
    ------
    ClusterUnfit
        Naming one of them and both versions.
    """
    answers = ask_workers(client, eval, _VERSION)
    for address, found in answers.items():
        _refuse_version(f"The worker {address}", found)
    # A scheduler takes graphs apart, so it needs the classes in them, too.
    with expecting_answer():
        found = client.run_on_scheduler(eval, _VERSION)
    _refuse_version("The Dask scheduler", found)
    _alike[client] = frozenset(answers)


def refuse_new_workers(client: Any, addresses: Iterable[str]) -> None:
    """Check again if workers have joined since the last check.

    If a worker lacks the package or has another version, Dask silently retries the task on another
    worker. Tasks of Dask itself, which read the blocks of a Dask array, cannot prove that they see
    the input.

    Raises
    ------
    ClusterUnfit
    InputUnseen
        If one of them may have given zeros for a part of the input.
    """
    if not _alike.get(client, frozenset()).issuperset(addresses):
        refuse_changed_workers(client)


def refuse_changed_workers(client: Any) -> None:
    """Refuse a cluster that no longer has what a run needs; see :func:`refuse_new_workers`.

    Raises
    ------
    ClusterUnfit, InputUnseen
    """
    refuse_versions(client)
    for evidence in list(_inputs.get(client, ())):
        # If the client sees a change as well, the worker is not at fault.
        if evidence.find_difference() is None:
            try:
                _refuse_blind_workers(client, evidence)
            except ClusterUnfit as error:
                raise InputUnseen(str(error)) from None


def refuse_missing_file(client: Any, error: BaseException) -> None:
    """Refuse a worker that lacks a file which this process has, after a task could not open it.

    Raises
    ------
    ClusterUnfit
    """
    name = getattr(error, "filename", None)
    if not isinstance(error, OSError) or not isinstance(name, str) or not os.path.exists(name):
        return
    for address, (host, is_there) in ask_workers(client, _see_file, name).items():
        if not is_there:
            raise other_input(name_worker(address, host), name)


def _refuse_version(who: str, found: object) -> None:
    if found == __version__:
        return
    has = f"napari-pixseg {found}" if isinstance(found, str) else "no napari-pixseg"
    raise ClusterUnfit(
        f"{who} has {has}, but this process has napari-pixseg {__version__}; install the same "
        "version everywhere, and run again."
    )


def name_worker(address: str, host: str) -> str:
    """Return a worker's name for error messages."""
    return f"{address} on {host}"


async def _see_input(evidence: InputEvidence) -> tuple[str, str | None]:
    """Return the worker's host, and a file of the input that differs there."""
    # The worker's event loop must not wait for a slow disk.
    return socket.gethostname(), await asyncio.to_thread(evidence.find_difference)


async def _see_file(name: str) -> tuple[str, bool]:
    return socket.gethostname(), await asyncio.to_thread(os.path.exists, name)


def _refuse_unsendable(source: Source) -> None:
    """Refuse an array that cannot be pickled, as those of open files cannot."""
    from distributed.protocol.pickle import dumps

    buffers: list[object] = []
    try:
        # Pixels in memory are not copied, only counted among the buffers.
        dumps(source.array, buffer_callback=buffers.append)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise NotAnImage(
            f"{_describe_array(source)} cannot be sent to the workers of a cluster "
            f"({type(error).__name__} when pickled); give the path of its file or store, a Dask "
            "array that opens the file in its tasks, or run without the Dask client."
        ) from error


def _describe_array(source: Source) -> str:
    wrapped = getattr(source.array, "_wrapped", source.array)
    return f"An object of type {type(wrapped).__name__}"
