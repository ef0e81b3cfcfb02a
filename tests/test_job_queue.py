"""The queue of the endpoint's jobs, without a server."""

import threading
from contextlib import ExitStack

from napari_pixseg.endpoint import job_queue
from napari_pixseg.endpoint.job_queue import JobQueue


def test_memory_is_given_back_once_a_crowd_has_left(monkeypatch):
    given, calls = threading.Event(), []

    def give_back():
        calls.append(threading.current_thread())
        given.set()

    monkeypatch.setattr(job_queue, "give_back_memory", give_back)
    queue = JobQueue(2, 5)
    for _ in range(3):
        with queue.hold_place(), queue.hold_place():
            pass
    assert calls == []
    with ExitStack() as places:
        for _ in range(4):
            places.enter_context(queue.hold_place())
        assert calls == []
    assert given.wait(20)
    with queue.hold_place():
        pass
    queue.close()
    assert len(calls) == 1
    assert calls[0] is not threading.main_thread()
