"""The client, and the two commands: against this server, and against the documented contract."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from endpoint_tools import (
    LOOPBACK,
    encoded,
    picture_server,
    pixels_of,
    scene,
    sends,
    serving,
    until,
)
from PIL import Image

from napari_pixseg import Endpoint, Manifest, cli, segment
from napari_pixseg.endpoint.upload import read_upload
from napari_pixseg.errors import (
    Cancelled,
    ClassError,
    InputNotFound,
    KeyRefused,
    NotAnImage,
    OutputConflict,
    ParameterError,
    PixsegError,
    TooLarge,
    Unavailable,
    error_of,
)
from napari_pixseg.parameters import Parameters

PICTURE = scene(1)
PNG = encoded(PICTURE)
KEY = "hush-hush-17"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    with serving(storage=str(folder), keys=(KEY,), allowed=LOOPBACK, max_pixels=50_000) as running:
        yield running


@pytest.fixture
def endpoint(server):
    return Endpoint(server.url, KEY)


def test_whatever_is_given_the_picture_is_the_librarys(endpoint, tmp_path):
    path = tmp_path / "ä b.png"
    path.write_bytes(PNG)
    wanted = segment(PICTURE, 0.5, "Lab", 3).recolored.compute()
    with picture_server(sends(PNG)) as url:
        for img in (path, str(path), PNG, PICTURE, url, Image.fromarray(PICTURE)):
            got = endpoint.segment(img, 0.5, "Lab", 3, blob=True)
            assert np.array_equal(pixels_of(got), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_any_type_arrive_as_they_are(endpoint, dtype, channels):
    pixels = (scene(1, channels=channels).astype(dtype) * (1 if dtype == np.uint8 else 100)).astype(
        dtype
    )
    got = pixels_of(endpoint.segment(pixels, ct=0.1, blob=True))
    wanted = segment(pixels, ct=0.1).recolored.compute()
    assert np.array_equal(got if got.ndim == 2 else got[..., :3],
                          wanted[..., 0] if got.ndim == 2 else wanted)  # fmt: skip
    assert got.shape[2:] == ((channels,) if channels > 1 else ())


def test_without_blob_there_is_a_link_that_needs_no_key(endpoint):
    answer = endpoint.segment(PICTURE)
    assert isinstance(answer, Manifest)
    assert answer.status == 200
    with urlopen(answer.link) as response:
        assert response.read() == endpoint.download(answer.link)
    assert np.array_equal(pixels_of(endpoint.download(answer.link)),
                          segment(PICTURE).recolored.compute())  # fmt: skip


def test_errors_are_those_of_the_library(server, endpoint, tmp_path):
    cases = [
        (ParameterError, endpoint, {"img": PICTURE, "ct": 101}),
        (ParameterError, endpoint, {"img": "http://a:b@example.org/"}),
        (KeyRefused, Endpoint(server.url, "wrong"), {"img": PICTURE}),
        (KeyRefused, Endpoint(server.url), {"img": PICTURE}),
        (InputNotFound, endpoint, {"img": "http://127.0.0.1:9/"}),
        (InputNotFound, endpoint, {"img": tmp_path / "none.png"}),
        (TooLarge, endpoint, {"img": np.zeros((300, 300), np.uint8)}),
        (NotAnImage, endpoint, {"img": b"<svg/>"}),
        (NotAnImage, endpoint, {"img": np.zeros((3, 4, 5, 6))}),
        (NotAnImage, endpoint, {"img": None}),
        (ClassError, endpoint, {"img": PICTURE, "ct": 99.9}),
        (Unavailable, Endpoint("http://127.0.0.1:9"), {"img": PICTURE}),
        (InputNotFound, Endpoint(f"{server.url}/elsewhere"), {"img": PICTURE}),
    ]
    for kind, where, arguments in cases:
        with pytest.raises(kind) as caught:
            where.segment(**arguments)
        assert isinstance(caught.value, PixsegError)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://h", "http://", "http://h:x"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(ParameterError, match="not the address"):
        Endpoint(url)


def test_the_key_is_shown_nowhere():
    assert KEY not in repr(Endpoint("http://h", KEY))
    with pytest.raises(ParameterError) as caught:
        Endpoint("http://h", KEY + "\n")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 415, 422, 499, 500, 502, 503, 507])
def test_every_code_becomes_an_error_of_that_code(status):
    error = error_of(status, "Why.")
    assert (error.status, str(error)) == (status, "Why.")
    assert type(error) is not PixsegError or status in (500, 502)


def original(answer):
    """A server of the documented contract that is not ours; it keeps what it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers), body))
            answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()

    def stop():
        server.shutdown()
        thread.join()
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}", seen, stop


def test_what_is_sent_is_the_documented_contract():
    body = json.dumps({"status": 200, "link": "https://x.example/a.png", "id": "1"}).encode()
    url, seen, stop = original(sends(body, Content_Type="application/json"))
    try:
        answer = Endpoint(f"{url}/v1/segment", KEY).segment("https://x.example/b.png", 2, 13, 5)
        Endpoint(url, KEY).segment(PICTURE)
    finally:
        stop()
    assert (answer.status, answer.link, answer.id) == (200, "https://x.example/a.png", "1")
    path, headers, content = seen[0]
    assert path == "/v1/segment"
    assert headers["WWW-Authenticate"] == KEY
    assert json.loads(content) == {"img": "https://x.example/b.png", "ct": 2.0, "cs": 13, "st": 5.0,
                                   "blob": False}  # fmt: skip
    path, headers, content = seen[1]
    assert path == "/segment"
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert KEY.encode() not in content
    assert b'name="cs"\r\n\r\n11\r\n' in content
    assert b'name="file"; filename=' in content
    # A server that knows nothing else is asked for nothing else.
    assert {*re.findall(rb'name="(\w+)"', content)} == {b"ct", b"cs", b"st", b"blob", b"file"}


@pytest.mark.parametrize("blob", [True, False])
def test_whatever_our_server_has_beyond_the_original_the_client_offers(endpoint, blob):
    values = {"semantics": "documented", "denoise": 1, "background": (1, 2), "min_size": 4}
    assert set(values) == {*Parameters.names_where(is_extension=True)}
    wanted = segment(PICTURE, ct=0.5, **values)
    for output in ("recolored", "classes", "regions"):
        got = endpoint.segment(PICTURE, 0.5, blob=blob, outputs=output, **values)
        picture = got if blob else endpoint.download(got.link)
        assert np.array_equal(pixels_of(picture), getattr(wanted, output).compute())
    exact = endpoint.segment(PICTURE, 200, blob=True, semantics="imagemagick6")
    assert np.array_equal(pixels_of(exact), segment(PICTURE, 200, semantics="imagemagick6")
                          .recolored.compute())  # fmt: skip
    for wrong, words in (({"window": "dtype"}, "no parameter 'window'"), ({"x": 1}, "has ct, cs"),
                         ({"outputs": "all"}, "recolored, classes, regions"),
                         ({"denoise": 33}, "denoise = 33")):  # fmt: skip
        with pytest.raises(ParameterError, match=words):
            Endpoint("http://127.0.0.1:9").segment(PICTURE, **wrong)


def test_a_stored_image_is_segmented_by_its_link(server, endpoint, tmp_path):
    stored = endpoint.store(PICTURE, "of a test")
    assert endpoint.download(stored.link) == PNG
    got = endpoint.segment(stored.link, 0.5, blob=True, outputs="classes")
    assert np.array_equal(pixels_of(got), segment(PICTURE, ct=0.5).classes.compute())
    for kind, img, comment in ((ParameterError, stored.link, ""), (ParameterError, PNG, "x" * 1001),
                               (NotAnImage, b"<svg/>", "")):  # fmt: skip
        with pytest.raises(kind):
            endpoint.store(img, comment)
    assert Endpoint(f"{server.url}/segment", KEY).store(PNG).status == 200


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (sends(b'{"status": 401, "error": "No."}', Content_Type="application/json"), KeyRefused),
        (sends(b"<html>", 502), PixsegError),
        (sends(b"{", 400, Content_Type="application/json"), ParameterError),
        (sends(b"[]", Content_Type="application/json"), NotAnImage),
        (sends(b"", 307, Location="http://127.0.0.1:9/"), PixsegError),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), Unavailable),
        (lambda handler: None, Unavailable),
    ],
)
def test_odd_answers_are_one_sentence_and_the_key_follows_no_redirect(answer, kind):
    url, seen, stop = original(answer)
    try:
        with pytest.raises(kind):
            Endpoint(url, KEY).segment(PICTURE)
    finally:
        stop()
    assert len(seen) == 1


def test_a_job_there_can_be_cancelled():
    cancel, stuck = threading.Event(), threading.Event()
    url, _, stop = original(lambda handler: stuck.wait(20))
    try:
        threading.Timer(0.2, cancel.set).start()
        with pytest.raises(Cancelled):
            Endpoint(url).segment(PICTURE, cancel=cancel)
    finally:
        stuck.set()
        stop()


# Commands --------------------------------------------------------------------------


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.png").write_bytes(PNG)
    (tmp_path / "key").write_text(f"# mine\n{KEY}\n")

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert KEY not in said.out + said.err
        return code, json.loads(said.out)

    return call


def test_segment_at_an_endpoint_writes_the_picture_and_says_the_answer(server, run, tmp_path):
    code, answer = run("segment", "in.png", "out.png", "--endpoint", server.url, "--key-file",
                       "key", "--cs", "13")  # fmt: skip
    assert code == 0
    assert answer["link"] == f"{server.url}/results/{answer['id']}.png"
    wanted = segment(PICTURE, cs=13).recolored.compute()
    assert np.array_equal(pixels_of((tmp_path / "out.png").read_bytes()), wanted)


def test_the_command_offers_what_our_server_has_beyond_the_original(server, run, tmp_path):
    there = ("--endpoint", server.url, "--key-file", "key", "--ct", "0.5", "--outputs", "regions",
             "--min-size", "4", "--background", "1,2", "--denoise", "1")  # fmt: skip
    code, answer = run("segment", "in.png", "out.png", *there, "--store")
    assert code == 0
    wanted = segment(PICTURE, ct=0.5, min_size=4, background=(1, 2), denoise=1).regions.compute()
    assert np.array_equal(pixels_of((tmp_path / "out.png").read_bytes()), wanted)
    stored = answer["details"]["stored"]
    assert urlopen(stored).read() == PNG
    code, again = run("segment", stored, "again.png", *there, "--blob")
    assert (code, again["details"]) == (0, {})
    assert np.array_equal(pixels_of((tmp_path / "again.png").read_bytes()), wanted)


def test_the_key_may_be_in_the_environment_and_a_blob_is_written_alone(server, run, monkeypatch,
                                                                      tmp_path):  # fmt: skip
    monkeypatch.setenv("NAPARI_PIXSEG_KEY", KEY)
    code, answer = run("segment", "in.png", "blob.png", "--endpoint", server.url, "--blob")
    assert (code, answer["link"]) == (0, (tmp_path / "blob.png").as_uri())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blob.png", "in.png", "key"]


def test_what_an_endpoint_cannot_do_is_refused_before_anything_is_sent(run, tmp_path):
    nowhere = ("--endpoint", "http://127.0.0.1:9")
    for arguments, words in (
        (("out.png", "--window", "dtype"), "nothing like --window"),
        (("out.png", "--on-error", "skip"), "nothing like --on-error"),
        (("out.png", "--denoise", "33"), "denoise = 33"),
        (("out.png", "--outputs", "classes,regions"), "one picture"),
        (("out.ome.zarr",), "must end in .png"),
        (("out.png", "--key-file", "none"), "no key file"),
        (("in.png",), "exists already"),
        (("out.png", "--ct", "101"), "ct = 101"),
        (("out.png",), "does not answer"),
    ):
        code, answer = run("segment", "in.png", *arguments, *nowhere)
        assert code == 1
        assert words in answer["error"]
    assert not (tmp_path / "out.png").exists()
    for option in (("--store",), ("--key-file", "key")):
        assert "for an endpoint" in run("segment", "in.png", "out.png", *option)[1]["error"]
    with pytest.raises(OutputConflict):
        raise error_of(409, "x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "needs keys"),
        (["--keys", "none"], "cannot be read"),
        (["--port", "99999"], "port"),
        (["--jobs", "0"], "jobs"),
        (["--allow-network", "x"], "not a network"),
        (["--storage", "in.png"], "storage"),
        (["--storage", "nonsense://x"], "cannot be reached"),
        (["--host", "127.256.0.1"], "needs keys"),
    ],
)
def test_serve_refuses_what_cannot_be_in_one_sentence(run, arguments, words):
    code, answer = run("serve", *arguments)
    assert code == 1
    assert words in answer["error"]


def test_serve_says_when_the_port_is_taken(server, run):
    code, answer = run("serve", "--port", str(server.port), "--storage", "made")
    assert (code, answer["status"]) == (1, 400)
    assert "cannot listen at" in answer["error"]


def serve_lines():
    """The options of every line of the pages that starts a server."""
    docs = Path(__file__).parents[1] / "docs"
    for page in ("endpoint.md", "deploy/napari-pixseg.service"):
        for line in (docs / page).read_text().splitlines():
            command, starts, options = line.partition("napari-pixseg serve")
            if starts and "`" not in command:
                yield options.partition("#")[0].strip()


@pytest.mark.parametrize("options", [*serve_lines()])
def test_serve_serves_until_it_is_stopped(options, tmp_path):
    (tmp_path / "keys.txt").write_text("secret\n")
    # A port that is free, and places that are there; what is given last counts.
    own = ["--port", "0", "--storage", "results"]
    own += ["--keys", "keys.txt"] if "--keys" in options else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_pixseg", "serve", *options.split(), *own],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        port = re.search(r"http://[^ ]*:(\d+)/segment", process.stderr.readline())[1]
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url))
        key = "secret" if "--keys" in options else None
        assert Endpoint(url, key).segment(PICTURE).status == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.txt", "results"]


def answers(url):
    try:
        return urlopen(f"{url}/openapi.json").status == 200
    except OSError:
        return False


def test_a_folder_is_not_sent_but_said_to_be_one(tmp_path):
    with pytest.raises(NotAnImage, match="is a folder, but an endpoint takes one picture file"):
        read_upload(tmp_path)
