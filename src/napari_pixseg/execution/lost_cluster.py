"""The errors about a cluster that is gone, or whose client was closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from napari_pixseg.errors import ClusterLost


def cluster_lost() -> ClusterLost:
    """Return the error about a cluster that is gone while a run is on it."""
    return ClusterLost(
        "The connection to the Dask scheduler was lost, or its client was closed, so the output "
        "is unfinished; connect to a cluster again, and continue with resume."
    )


@contextmanager
def expecting_answer() -> Iterator[None]:
    """Say in a sentence that a cluster is gone, or its client closed, where it is asked something.

    Raises
    ------
    ClusterLost
    """
    try:
        yield
    except Exception as error:
        # Each way of asking fails in its own ways.
        raise ClusterLost(
            "The Dask scheduler does not answer, or its client was closed; connect to a cluster "
            "again, and run again, with resume if an output was begun."
        ) from error
