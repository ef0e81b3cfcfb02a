"""Executors for tests that need no threads."""

from concurrent.futures import Executor, Future


class AtOnce(Executor):
    """Runs everything when it is submitted, in the caller's thread."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future
