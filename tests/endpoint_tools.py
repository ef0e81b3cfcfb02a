"""A real server on loopback, raw requests to it, and servers of pictures that misbehave."""

import http.client
import io
import ipaddress
import json
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra napari-pixseg[server] is not installed")
pytest.importorskip("starlette", reason="the extra napari-pixseg[server] is not installed")
pytest.importorskip("python_multipart", reason="the extra napari-pixseg[server] is not installed")

from napari_pixseg.endpoint.app import make_app
from napari_pixseg.endpoint.http_server import HttpServer, open_listener
from napari_pixseg.endpoint.settings import Settings

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def pixels(self):
        return pixels_of(self.body)


def pixels_of(content):
    """The pixels of a picture; a palette's are its colors."""
    picture = Image.open(io.BytesIO(content))
    return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)


@dataclass
class Running:
    """A server that runs."""

    port: int
    app: object
    server: object = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None, timeout=60):
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            line.request(method, path, body, headers or {})
            response = line.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            line.close()

    def get(self, _headers=None, **values):
        return self.request("GET", f"/segment?{urlencode(values)}", headers=_headers)

    def post(self, picture, _headers=None, _path="/segment", **fields):
        body, kind = form({**fields}, picture)
        return self.request("POST", _path, body, {"Content-Type": kind, **(_headers or {})})

    def json(self, values, _headers=None):
        body = values if isinstance(values, (bytes, str)) else json.dumps(values)
        kind = {"Content-Type": "application/json", **(_headers or {})}
        return self.request("POST", "/segment", body, kind)


def form(fields, picture, name="img"):
    """multipart/form-data, by hand."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
        for k, v in fields.items()
    ]
    if picture is not None:
        head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"\r\n'
        kind = "Content-Type: image/png\r\n\r\n"
        parts.append(f"--{boundary}\r\n{head}{kind}".encode() + picture + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


@contextmanager
def serving(look_up=None, **settings):
    """Run a server as ``napari-pixseg serve`` does, on a free port."""
    chosen = Settings(**{"port": 0, "jobs": 2, **settings})
    app = make_app(chosen, look_up) if look_up else make_app(chosen)
    server = HttpServer(app, chosen)
    listener = open_listener(chosen)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield Running(listener.getsockname()[1], app, server)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def until(condition, seconds=30):
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def scene(seed, size=(40, 50), channels=3):
    """A picture of some blurred colors, which has classes."""
    random = np.random.default_rng(seed)
    centers = random.integers(30, 226, (4, channels))
    pixels = centers[random.integers(0, 4, size)] + random.normal(0, 6, (*size, channels))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return pixels if channels > 1 else pixels[..., 0]


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@contextmanager
def picture_server(answer, tls=None):
    """A server elsewhere: ``answer(handler)`` writes what it likes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(content, status=200, **headers):
    """An answer of a picture server."""

    def answer(handler):
        handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(content)), **named}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer
