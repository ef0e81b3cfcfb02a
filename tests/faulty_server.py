"""Real servers on loopback whose answers fail on request."""

import re
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Answers as servers fail: a status, half of the body, or no answer but a reset.
FAULTS = (500, 503, 429, "cut", "reset")


_silence = threading.Event()


def release_silent_answers():
    """Let requests end that were never to be answered, so that their server can end."""
    _silence.set()


class Faults:
    """Which requests fail, and how: the first `times` for each path that fits a pattern.

    Attributes
    ----------
    seen : Counter
        How often each path was asked for.
    """

    def __init__(self):
        self.seen = Counter()
        self.plan = ("$^", None, 0)
        self._lock = threading.Lock()

    def next_of(self, path):
        pattern, fault, times = self.plan
        with self._lock:
            self.seen[path] += 1
            is_meant = re.search(pattern, path) and self.seen[path] <= times
        return fault if is_meant else None

    def inject(self, pattern, fault, times=10**9):
        _silence.clear()
        self.seen.clear()
        self.plan = (pattern, fault, times)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults

    def log_message(self, *_):
        """Say nothing."""

    def answer(self, status, body, headers):
        fault = self.faults.next_of(self.path)
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return
        if fault == "silent":
            _silence.wait(60)
            self.close_connection = True
            return
        if isinstance(fault, int):
            status, body, headers = fault, b"<no/>", {}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()


class _FileHandler(_Handler):
    folder: Path

    def do_GET(self):
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            return self.answer(404, b"nothing", {})
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.answer(200, content, {"Accept-Ranges": "bytes"})
        first = int(asked[1]) if asked[1] else len(content) - int(asked[2])
        last = min(int(asked[2]), len(content) - 1) if asked[1] and asked[2] else len(content) - 1
        if first > last:
            return self.answer(416, b"", {})
        told = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self.answer(206, content[first : last + 1], told)

    do_HEAD = do_GET  # noqa: N815 - as the base class calls it


class _ProxyHandler(_Handler):
    target: str

    def do_GET(self):
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("connection",)}
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        request = urllib.request.Request(self.target + self.path, body, kept, method=self.command)
        try:
            with urllib.request.urlopen(request) as found:
                status, content, headers = found.status, found.read(), found.headers
        except urllib.error.HTTPError as error:
            with error:
                status, content, headers = error.code, error.read(), error.headers
        hop = ("content-length", "connection", "transfer-encoding", "date", "server")
        told = {k: v for k, v in headers.items() if k.lower() not in hop}
        self.answer(status, content, told)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - as above


@contextmanager
def _running(handler, port=0):
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_files(folder, port=0):
    """Serve a folder as plain files, which nobody can list; yields the URL and the faults."""
    faults = Faults()
    handler = type("Handler", (_FileHandler,), {"folder": Path(folder), "faults": faults})
    with _running(handler, port) as url:
        yield url, faults


@contextmanager
def proxying(target):
    """Pass every request on to another server; yields the URL and the faults."""
    faults = Faults()
    handler = type("Handler", (_ProxyHandler,), {"target": target, "faults": faults})
    with _running(handler) as url:
        yield url, faults
