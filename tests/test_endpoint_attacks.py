"""What attackers send: each gets one clean answer, in the form of all errors, and little memory."""

import gzip
import json
import socket
import zlib
from contextlib import suppress
from http.client import HTTPResponse

import psutil
import pytest
from endpoint_tools import serving

HOST = b"Host: localhost\r\n"
JSON = b"application/json"
FORM = b"multipart/form-data; boundary=B"
GZIP = b"Content-Encoding: gzip\r\n"
PART = b'--B\r\nContent-Disposition: form-data; name="x"%s\r\n\r\n1\r\n'
END = b"--B--\r\n"
MOST_MEMORY = 200 << 20


def get(path=b"/health", headers=b"", version=b"1.1"):
    return b"GET " + path + b" HTTP/" + version + b"\r\n" + HOST + headers + b"\r\n"


def post(body, kind=JSON, headers=b"", length=None):
    length = b"%d" % len(body) if length is None else length
    head = b"POST /segment HTTP/1.1\r\n" + HOST + headers + b"Content-Type: " + kind
    return head + b"\r\nContent-Length: " + length + b"\r\n\r\n" + body


def chunked(body, coding=b"chunked"):
    head = b"POST /segment HTTP/1.1\r\n" + HOST + b"Content-Type: " + JSON
    return head + b"\r\nTransfer-Encoding: " + coding + b"\r\n\r\n" + body


def bomb(megabytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*pieces, packer.flush()])


def value(text):
    return post(b'{"img": "http://a.invalid", "ct": ' + text + b"}")


def headers(number):
    return b"".join(b"X%d: 1\r\n" % one for one in range(number))


SMUGGLED = b"0\r\n\r\n" + get(b"/results/x")
# Name, what is sent, status.
ATTACKS = [
    ("another version", b"GET /health\r\n\r\n", 400),
    ("HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    ("HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\n", 200),
    ("TLS", bytes.fromhex("1603010200010001fc0303") + bytes(200), 400),
    ("no host", b"GET /health HTTP/1.1\r\n\r\n", 400),
    ("two hosts", get(headers=b"Host: elsewhere\r\n"), 400),
    ("NUL in the path", get(b"/hea\0lth"), 400),
    ("escaped NUL", get(b"/results/%00.png"), 404),
    ("escaped folders", get(b"/results/..%2f..%2fetc%2fpasswd"), 404),
    ("an address for a proxy", get(b"http://elsewhere.invalid/health"), 404),
    ("CONNECT", b"CONNECT elsewhere.invalid:443 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    ("a long method", b"A" * 8000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    ("a flood of parameters", get(b"/segment?" + b"&".join([b"a"] * 30_000)), 400),
    ("a flood of headers", get(headers=headers(100_000)), 400),
    ("a header without end", get(headers=b"X: " + b"a" * 3_000_000), 400),
    ("a negative length", post(b"", length=b"-1"), 400),
    ("a long length", post(b"", length=b"9" * 30), 400),
    ("a length with a sign", post(b"{}", length=b"+2"), 400),
    ("two lengths", post(b"{}", headers=b"Content-Length: 1\r\n"), 400),
    ("length and chunks", post(SMUGGLED, headers=b"Transfer-Encoding: chunked\r\n"), 400),
    ("unknown coding", chunked(SMUGGLED, b"xchunked"), 400),
    ("coding inside another", chunked(SMUGGLED, b"gzip, chunked"), 400),
    ("two codings", chunked(SMUGGLED, b"chunked\r\nTransfer-Encoding: chunked"), 400),
    ("a coding with a tail", chunked(SMUGGLED, b"chunked\x0b"), 400),
    ("a negative chunk", chunked(b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    ("a chunk with a prefix", chunked(b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    ("a chunk that ends late", chunked(b"2\r\n{}xx" + SMUGGLED), 400),
    ("a line end in an extension", chunked(b'2;a="\n"\r\n{}\r\n0\r\n\r\n'), 400),
    ("an extension without end", chunked(b"2;" + b"a" * 500_000), 400),
    ("trailers", chunked(b"2\r\n{}\r\n0\r\n" + headers(20_000) + b"\r\n"), 400),
    ("tiny chunks", chunked(b"1\r\n \r\n" * 90_000 + SMUGGLED), 413),
    ("deep JSON", post(b"[" * 60_000), 400),
    ("deep objects", post(b'{"img":' * 8000 + b"1" + b"}" * 8000), 400),
    ("a number of 60,000 digits", value(b"9" * 60_000), 400),
    ("a number of 4,000 digits", value(b"9" * 4000), 400),
    ("an infinite number", value(b"1e999"), 400),
    ("half a character", post(b'{"img": "\\ud800", "key": "\\udfff"}'), 400),
    ("not UTF-8", post(b'{"img": "\xff"}'), 400),
    ("a bomb of JSON", post(bomb(200), headers=GZIP), 413),
    ("a bomb of a form", post(gzip.compress(PART % b'; filename="a"' + bytes(100_000_000), 1),
                              FORM, GZIP), 413),
    ("members without content", post(gzip.compress(b"") * 100_000, headers=GZIP), 413),
    ("a comment of gzip", post(b"\x1f\x8b\x08\x10" + bytes(6) + b"a" * 60_000, headers=GZIP), 400),
    ("gzip in gzip", post(bomb(1), headers=b"Content-Encoding: gzip, gzip\r\n"), 415),
    ("100,000 parts", post(PART % b"" * 100_000 + END, FORM), 400),
    ("100,000 files", post(PART % b'; filename="a"' * 100_000 + END, FORM), 400),
    ("a part of 100,000 heads", post(b"--B\r\n" + headers(100_000) + b"\r\n" + END, FORM), 400),
    ("a head without end", post(b"--B\r\nX: " + b"a" * 3_000_000, FORM), 400),
    ("a long field", post(PART[:-3] % b"" + b"1" * 3_000_000 + b"\r\n" + END, FORM), 400),
    ("a long boundary", post(b"--" + b"B" * 60_000, FORM + b"B" * 60_000), 400),
    ("a boundary in parts", post(PART % b"", FORM + b"; boundary*99999999=b"), 400),
    ("a preamble without end", post(b"\n--" * 1_000_000, FORM), 400),
    ("half of a quotation", post(b"{}", b'multipart/form-data; boundary="B'), 400),
    ("a form of &", post(b"&" * 60_000, b"application/x-www-form-urlencoded"), 400),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    with serving(storage=str(folder), jobs=1, max_bytes=50_000_000) as running:
        yield running


def send(server, content):
    """Send bytes whatever the server does; return the first answer."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as line:
        # It may be refused before all of it was read.
        with suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(content)
        answer = HTTPResponse(line)
        answer.begin()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    ("content", "status"), [one[1:] for one in ATTACKS], ids=[one[0] for one in ATTACKS]
)
def test_an_attack_gets_one_clean_answer_and_little_memory(server, content, status):
    before = psutil.Process().memory_info().rss
    found, told = send(server, content)
    assert found == told["status"] == status, told
    assert status == 200 or (set(told) == {"status", "error"} and len(told["error"]) < 300)
    assert psutil.Process().memory_info().rss - before < MOST_MEMORY
    assert server.request("GET", "/health").json["requests"] == 0


def test_pipelined_requests_are_answered_in_order(server):
    with socket.create_connection(("127.0.0.1", server.port), 60) as line:
        line.sendall(get() * 20 + get(b"/nowhere", b"Connection: close\r\n"))
        said = b""
        while block := line.recv(1 << 16):
            said += block
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 20 + [b"404"]
