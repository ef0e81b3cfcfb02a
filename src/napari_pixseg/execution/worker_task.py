"""Inside a task of a Dask worker, a run uses the worker's own threads.

If it went to the cluster, the task would wait for tiles while it holds the thread that they need.
Where every thread is held by such a task, all of them would wait for ever.
"""

from __future__ import annotations

import sys


def threads_of_task() -> int | None:
    """Return how many threads a run inside this task of a Dask worker may use.

    Returns
    -------
    int or None
        The worker's threads divided by the tasks that share them. None outside of tasks, and in a
        task that has seceded, as in Dask's ``worker_client()``: nobody waits for its thread.
    """
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker, threadpoolexecutor

    try:
        worker = get_worker()
    except ValueError:
        return None
    # Threads that the task has started have no such mark: their task waits for them.
    if not getattr(threadpoolexecutor.thread_state, "proceed", True):
        return None
    # The worker's event loop may change this set meanwhile; its length is one value.
    sharing = len(worker.state.executing)
    return max(1, worker.state.nthreads // max(1, sharing))
