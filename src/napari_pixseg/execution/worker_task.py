"""Runs inside a task of a Dask worker, which use the worker's own threads.

If such a run used the cluster, its task would wait for tiles while it holds a thread that they
need. If such tasks held all threads, they would all wait forever.
"""

from __future__ import annotations

import sys


def threads_of_task() -> int | None:
    """Return how many threads a run inside this task of a Dask worker may use.

    Returns
    -------
    int or None
        The worker's threads divided by the tasks that share them. None outside of tasks, and in a
        task that has seceded (as Dask's ``worker_client()`` does), because it holds no thread.
    """
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker, threadpoolexecutor

    try:
        worker = get_worker()
    except ValueError:
        return None
    # Threads that a task has started lack this mark; their task waits for them.
    if not getattr(threadpoolexecutor.thread_state, "proceed", True):
        return None
    # The worker's event loop may change this set meanwhile, but taking its length is safe.
    sharing = len(worker.state.executing)
    return max(1, worker.state.nthreads // max(1, sharing))
