"""Strangers, slow clients, full disks, killed servers: faults of one kind each, with real ones."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from endpoint_tools import (
    LOOPBACK,
    Running,
    encoded,
    form,
    picture_server,
    scene,
    sends,
    serving,
    until,
)
from resume_tools import small_device

from napari_pixseg.endpoint.work_folder import WorkFolder
from napari_pixseg.errors import ParameterError

PNG = encoded(scene(1))
HEAD = b"POST /segment HTTP/1.1\r\nHost: localhost\r\n"


def refused(answer, status, words):
    assert answer.status == answer.json["status"] == status, answer.body
    assert words in answer.json["error"], answer.body


def line_to(server, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", server.port), 30, (source, 0))


def said_by(line):
    """All that a server says until it closes."""
    said = b""
    while block := line.recv(1 << 16):
        said += block
    return said


@contextmanager
def started(folder, *options, temporary=None, log=None):
    """The command itself, in a process of its own; its address is in the first line it logs."""
    environment = {**os.environ, **({"TMPDIR": str(temporary)} if temporary else {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_pixseg", "serve", "--port", "0",
         "--storage", str(folder / "storage"), *options],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        if log is not None:
            until(lambda: log.exists() and log.read_text())
        first = process.stderr.readline() if log is None else log.read_text()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", first)
        assert found, first + process.stderr.read()
        yield process, Line(int(found[1]))
    finally:
        process.kill()
        process.wait(30)
        process.stderr.close()


class Line(Running):
    """A server in another process."""

    def __init__(self, port):
        super().__init__(port, None)

    @property
    def health(self):
        return self.request("GET", "/health").json


# Connections -----------------------------------------------------------------------


def test_connections_do_not_wait_to_fill_packets(tmp_path):
    # Otherwise each answer on a kept connection comes 40 ms late.
    with serving(storage=str(tmp_path)) as server, line_to(server):
        until(lambda: server.server.server_state.connections)
        (one,) = server.server.server_state.connections
        accepted = one.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("start", [b"", b"GET /segm", HEAD, HEAD + b"X-A: 1\r\nX-B"])
def test_a_head_that_does_not_come_is_cut(tmp_path, start):
    with serving(storage=str(tmp_path), header_seconds=0.5) as server, line_to(server) as line:
        line.sendall(start)
        said = said_by(line)
        if start:
            assert said.startswith(b"HTTP/1.1 408 ")
            assert json.loads(said.partition(b"\r\n\r\n")[2])["status"] == 408
        else:
            assert said == b""
        assert server.post(PNG).status == 200


def test_a_further_head_on_a_kept_connection_is_cut_as_well(tmp_path):
    with serving(storage=str(tmp_path), header_seconds=0.5) as server, line_to(server) as line:
        line.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(12) == b"HTTP/1.1 200"
        line.sendall(b"GET /open")
        assert b"HTTP/1.1 408 " in said_by(line)


def test_a_body_of_a_byte_a_second_or_none_is_cut(tmp_path):
    kind = b"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 9000\r\n\r\n"
    with serving(storage=str(tmp_path), header_seconds=0.5) as server:
        for trickle in (False, True):
            with line_to(server) as line:
                line.sendall(HEAD + kind + b"--B\r\n")
                line.settimeout(0.1)
                said = b""
                for _ in range(100):
                    try:
                        said += line.recv(1 << 16)
                    except TimeoutError:
                        if trickle:
                            line.sendall(b"x")
                    if said:
                        break
                assert said.startswith(b"HTTP/1.1 408 ")
                assert b"bytes a second" in said or b"bytes a second" in line.recv(1 << 16)


def test_a_refused_client_that_goes_on_sending_is_cut(tmp_path):
    options = {"storage": str(tmp_path), "keys": ("k",), "header_seconds": 0.5}
    with serving(**options) as server, line_to(server) as line:
        kind = b"Content-Type: multipart/form-data; boundary=B\r\n"
        key = b"Authorization: Bearer wrong\r\nContent-Length: 999999999\r\n\r\n"
        line.sendall(HEAD + kind + key)
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 401 ")

        def is_closed():
            try:
                line.sendall(b"x" * 1000)
            except OSError:
                return True
            return False

        until(is_closed)


def test_an_address_has_a_number_of_connections_and_idle_ones_give_way(tmp_path):
    with serving(storage=str(tmp_path), connections=5, waiting=10) as server:
        many = [line_to(server, "127.0.0.2") for _ in range(20)]
        until(lambda: len(server.server.server_state.connections) == 5)
        assert server.post(PNG).status == 200  # From another address.
        busy = [line_to(server, "127.0.0.3") for _ in range(6)]
        for line in busy[:5]:  # Requests that go on: none of them gives way.
            line.sendall(HEAD + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n")
        for line in many + busy:
            line.close()


def test_1100_idle_connections_shut_out_nobody(tmp_path):
    with serving(storage=str(tmp_path)) as server:
        many = [line_to(server, "127.0.0.2") for _ in range(1100)]
        assert server.post(PNG).status == 200
        assert len(server.server.server_state.connections) <= 300
        for line in many:
            line.close()


def test_two_lengths_are_refused_and_the_connection_is_closed(tmp_path):
    body, kind = form({}, PNG)
    with serving(storage=str(tmp_path)) as server, line_to(server) as line:
        line.sendall(
            HEAD
            + f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
            + b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        said = said_by(line)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1


def test_what_is_not_http_is_refused_in_the_form_of_all_errors(tmp_path):
    with serving(storage=str(tmp_path)) as server, line_to(server) as line:
        line.sendall(b"hello there\r\n\r\n")
        head, _, body = said_by(line).partition(b"\r\n\r\n")
    assert b"Content-Type: application/json\r\n" in head
    assert json.loads(body)["status"] == 400


def test_pages_of_elsewhere_are_refused_however_they_call(tmp_path):
    with picture_server(sends(PNG)) as url:
        with serving(storage=str(tmp_path), allowed=LOOPBACK) as server:
            for site in ("same-origin", "same-site", "none"):
                assert server.get({"Sec-Fetch-Site": site}, img=url).status == 200
            refused(server.get({"Sec-Fetch-Site": "cross-site"}, img=url), 401, "no keys")
        with serving(storage=str(tmp_path), allowed=LOOPBACK, keys=("k",)) as server:
            assert server.get({"Sec-Fetch-Site": "cross-site"}, img=url, key="k").status == 200


# Disks -----------------------------------------------------------------------------


def test_no_request_looks_through_the_storage(tmp_path, monkeypatch):
    looked = []
    for name in ("listdir", "scandir"):
        real = getattr(os, name)

        def spy(path=".", real=real):
            looked.append(str(path))
            return real(path)

        monkeypatch.setattr(os, name, spy)
    with serving(storage=str(tmp_path)) as server:
        until(lambda: str(tmp_path) in looked)  # Once, at the start, for leftovers.
        looked.clear()
        link = server.post(PNG).json["link"]
        assert server.request("GET", link.removeprefix(server.url)).status == 200
        assert server.get(img=link).status == 200
    assert str(tmp_path) not in looked


@pytest.mark.parametrize("full", ["storage", "temporary"])
def test_a_full_disk_is_507_and_the_server_goes_on(tmp_path, full):
    large = encoded(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    assert len(large) > 2 << 20
    with small_device(tmp_path / "device", 1 << 20) as device:
        storage = device if full == "storage" else tmp_path
        temporary = device if full == "temporary" else tmp_path
        fill = device / "ballast"
        with started(storage, temporary=temporary) as (_, server):
            if full == "storage":
                fill.write_bytes(bytes((1 << 20) - (16 << 10)))
            picture = encoded(scene(1, (300, 300))) if full == "storage" else large
            refused(server.post(picture, ct=0.001), 507, "no space")
            assert not list((storage / "storage").glob("*.png*"))
            fill.unlink(missing_ok=True)
            assert server.post(PNG).status == 200


def test_what_a_fetch_cannot_keep_is_507_and_no_fault_of_the_other_server(tmp_path):
    large = encoded(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    with small_device(tmp_path / "device", 1 << 20) as device, picture_server(sends(large)) as url:
        options = ("--allow-network", "127.0.0.0/8")
        with started(tmp_path, *options, temporary=device) as (_, server):
            refused(server.get(img=url), 507, "no space")


def test_what_a_killed_server_left_is_removed_by_the_next(tmp_path):
    with started(tmp_path, temporary=tmp_path) as (process, server):
        assert server.post(PNG).status == 200
        (folder,) = tmp_path.glob("napari-pixseg-serve-*")
        (folder / "upload").write_bytes(PNG)
        process.kill()
        process.wait(30)
        assert folder.exists()
        with started(tmp_path, temporary=tmp_path) as (_, other):
            assert other.post(PNG).status == 200
            assert not folder.exists()


def test_the_folder_of_a_server_that_runs_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with WorkFolder() as one:
        (one.path / "upload").write_bytes(b"1")
        with WorkFolder() as other:
            assert one.path != other.path
            assert (one.path / "upload").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", ["s3://not-there/deep", "/proc/nowhere"])
def test_a_storage_that_cannot_be_written_is_noticed_at_the_start(storage, request):
    if storage.startswith("s3"):
        request.getfixturevalue("s3_endpoint")
    with pytest.raises(ParameterError, match="cannot be written"), serving(storage=storage):
        pass


# Keys ------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_sighup_reads_the_keys_again(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    with started(tmp_path, "--keys", str(keys)) as (process, server):

        def status(key):
            return server.post(PNG, {"Authorization": f"Bearer {key}"}).status

        assert (status("old"), status("new")) == (200, 401)
        keys.write_text("new\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: status("new") == 200)
        assert status("old") == 401
        keys.write_text("two words\n")  # No key: the others stay.
        process.send_signal(signal.SIGHUP)
        until(lambda: "stay as they were" in process.stderr.readline())
        assert status("new") == 200


def test_nothing_of_a_strangers_request_is_kept(tmp_path):
    large = encoded(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    with started(tmp_path, "--keys", str(write(tmp_path / "keys", "k\n")),
                 temporary=tmp_path) as (process, server):  # fmt: skip
        body, kind = form({}, large)
        assert server.post(PNG).status == 401
        before = opened_by(process)
        with line_to(server) as line:
            line.sendall(HEAD + f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                         .encode() + body[: 1 << 19])  # fmt: skip
            (folder,) = tmp_path.glob("napari-pixseg-serve-*")
            assert list(folder.iterdir()) == []
            until(lambda: opened_by(process) != before)
            new = opened_by(process) - before
            assert all(name.startswith("socket:") for name in new)  # No file without a name.
            line.sendall(body[1 << 19 :])
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 401 ")


def opened_by(process):
    return {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()}


def write(path, text):
    path.write_text(text)
    return path
