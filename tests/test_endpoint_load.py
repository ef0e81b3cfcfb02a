"""Many clients at a time: nothing lost, nothing mixed up, nothing kept, nobody waited for."""

import gc
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from endpoint_tools import (
    LOOPBACK,
    encoded,
    form,
    picture_server,
    scene,
    sends,
    serving,
    until,
)

from napari_pixseg import segment
from napari_pixseg.endpoint.worker_pool import WorkerPool

CLIENTS = 64
ROUNDS = 20 if os.environ.get("PIXSEG_SOAK") else 2


def inside(server):
    """The server's places that are taken."""
    for route in server.app.router.routes:
        if route.path == "/segment":
            return route.endpoint.__self__.queue.places_taken
    raise AssertionError


def left(server):
    """Files the server is at work on."""
    for route in server.app.router.routes:
        if route.path == "/segment":
            return list(route.endpoint.__self__.work_folder.path.iterdir())
    raise AssertionError


def test_of_many_clients_each_gets_its_own_picture(tmp_path):
    pictures = [scene(seed, (30 + seed, 40)) for seed in range(CLIENTS)]
    wanted = [segment(picture, ct=0.5).recolored.compute() for picture in pictures]
    contents = [encoded(picture) for picture in pictures]
    start = threading.Barrier(CLIENTS)

    def client(number):
        start.wait()
        for turn in range(ROUNDS):
            if (number + turn) % 2:
                answer = server.post(contents[number], blob="true", ct=0.5)
            else:
                said = server.post(contents[number], ct=0.5)
                assert said.status == 200, said.body
                answer = server.request("GET", said.json["link"].removeprefix(server.url))
            assert answer.status == 200, answer.body
            assert np.array_equal(answer.pixels, wanted[number]), number

    with serving(storage=str(tmp_path), waiting=CLIENTS) as server:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))
        # A blob's file is deleted after its last byte was sent: a client may be faster.
        until(lambda: left(server) == [])
        assert inside(server) == 0
        assert left(server) == []
    assert len(list(tmp_path.iterdir())) == CLIENTS * ROUNDS  # Half with a record: two files.


def test_memory_does_not_grow_with_the_number_of_requests(tmp_path):
    # 1 megapixel is 3 MiB decoded, and much more on its way: a leak would show.
    content = encoded(scene(1, (1000, 1000)))
    process = psutil.Process()
    with serving(storage=str(tmp_path), waiting=CLIENTS) as server:

        def rounds(count):
            with ThreadPoolExecutor(8) as pool:
                for answer in pool.map(lambda _: server.post(content, blob="true"), range(count)):
                    assert answer.status == 200
            gc.collect()
            return process.memory_info().rss

        rounds(8)
        before = rounds(8)
        after = rounds(24)
    assert after - before < 60 << 20, f"{(after - before) / 2**20:.0f} MiB more"


@pytest.fixture
def held(monkeypatch):
    """Jobs that wait until they are let go, or are cancelled; and which of these happened."""
    go, events = threading.Event(), []
    real = WorkerPool.run_job

    def slow(self, job, cancel):
        events.append("began")
        while not go.wait(0.01):
            if cancel.is_set():
                events.append("cancelled")
                break
        return real(self, job, cancel)

    monkeypatch.setattr(WorkerPool, "run_job", slow)
    yield go, events
    go.set()


def test_a_full_queue_is_503_with_retry_after_and_those_inside_are_served(tmp_path, held):
    go, events = held
    content = encoded(scene(1))
    with serving(storage=str(tmp_path), jobs=1, waiting=2) as server, ThreadPoolExecutor(3) as pool:
        running = [pool.submit(server.post, content, blob="true") for _ in range(3)]
        until(lambda: inside(server) == 3)
        answer = server.post(content)
        assert (answer.status, answer.json["status"]) == (503, 503)
        assert int(answer.headers["retry-after"]) >= 1
        assert events == ["began"]  # One job at a time.
        go.set()
        assert [one.result().status for one in running] == [200] * 3
        assert server.post(content).status == 200


@pytest.mark.parametrize("blob", ["true", "false"])
def test_a_client_that_goes_away_cancels_its_job(tmp_path, held, blob):
    _, events = held
    body, kind = form({"blob": blob}, encoded(scene(1)))
    with serving(storage=str(tmp_path), jobs=1) as server:
        first, second = (going_away(server, body, kind) for _ in range(2))
        until(lambda: events == ["began"] and inside(server) == 2)
        second.close()  # Still waiting: it never begins.
        until(lambda: inside(server) == 1)
        first.close()
        until(lambda: inside(server) == 0)
        assert events == ["began", "cancelled"]
        until(lambda: left(server) == [])
    assert list(tmp_path.iterdir()) == []


def going_away(server, body, kind, headers=None, missing=0):
    """A line on which a request was sent, but for the end of its body."""
    line = socket.create_connection(("127.0.0.1", server.port), 60)
    named = {"Host": "localhost", "Content-Type": kind, "Content-Length": len(body) + missing}
    lines = [f"{name}: {value}\r\n" for name, value in {**named, **(headers or {})}.items()]
    line.sendall(f"POST /segment HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body)
    return line


def test_going_away_while_the_image_is_fetched_or_uploaded_frees_the_place(tmp_path):
    stuck = threading.Event()
    with (
        picture_server(lambda handler: stuck.wait(30)) as url,
        serving(storage=str(tmp_path), allowed=LOOPBACK) as server,
    ):
        get = socket.create_connection(("127.0.0.1", server.port))
        get.sendall(f"GET /segment?img={url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        post = socket.create_connection(("127.0.0.1", server.port))
        post.sendall(
            b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        until(lambda: inside(server) == 2)
        get.close()
        until(lambda: inside(server) == 1)
        post.close()
        until(lambda: inside(server) == 0)
        stuck.set()


def test_an_upload_that_takes_too_long_or_is_too_large_ends(tmp_path):
    with serving(storage=str(tmp_path), seconds=0.5, max_bytes=10_000) as server:
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(
            b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        assert b" 408 " in slow.recv(1000)
        slow.close()
        chunked = socket.create_connection(("127.0.0.1", server.port))
        chunked.sendall(
            b"POST /segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            for _ in range(100):
                chunked.sendall(block)
        except OSError:
            pass
        chunked.close()
        until(lambda: inside(server) == 0)
        content = encoded(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
        assert server.post(content).status == 413
        until(lambda: left(server) == [])


def test_a_slow_picture_server_keeps_nobody_from_being_served(tmp_path):
    stuck = threading.Event()
    with (
        picture_server(lambda handler: stuck.wait(30)) as url,
        serving(storage=str(tmp_path), allowed=LOOPBACK, jobs=1) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        waiting = [pool.submit(server.get, img=url) for _ in range(4)]
        until(lambda: inside(server) == 4)
        assert server.post(encoded(scene(1))).status == 200
        stuck.set()
        assert [one.result().status for one in waiting] == [404] * 4


def test_a_server_that_is_stopped_leaves_nothing_behind(tmp_path, held):
    _, events = held
    body, kind = form({"blob": "true"}, encoded(scene(1)))
    with serving(storage=str(tmp_path), jobs=1) as server:
        line = going_away(server, body, kind)
        until(lambda: events == ["began"])
        folder = left(server)[0].parent
        line.close()
    assert not folder.exists()
    assert "cancelled" in events


def test_pictures_of_all_sizes_come_back_whole(tmp_path):
    with serving(storage=str(tmp_path)) as server:
        for size in ((1, 1), (1, 300), (700, 3), (513, 511)):
            pixels = scene(1, size)
            with picture_server(sends(encoded(pixels))):
                answer = server.post(encoded(pixels), blob="true", ct=0)
            assert answer.status == 200
            assert np.array_equal(answer.pixels, segment(pixels, ct=0).recolored.compute())
