"""Fetching img: nobody is sent where strangers have no business, nor kept waiting for ever."""

import io
import ipaddress
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from endpoint_tools import LOOPBACK, encoded, picture_server, scene, sends, serving, until
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg.endpoint.address_policy import is_allowed, pin_addresses, resolve_host
from napari_pixseg.endpoint.settings import Settings, parse_network
from napari_pixseg.endpoint.url_fetch import Fetcher
from napari_pixseg.errors import (
    Cancelled,
    InputNotFound,
    NotAnImage,
    ParameterError,
    PixsegError,
    TooLarge,
)

PNG = encoded(scene(1))


def fetched(url, look_up=resolve_host, cancel=None, **settings):
    into = io.BytesIO()
    chosen = Settings(**{"allowed": LOOPBACK, "seconds": 5, **settings})
    Fetcher(chosen, look_up).fetch(url, into, cancel or threading.Event())
    return into.getvalue()


# Addresses -----------------------------------------------------------------------

REFUSED = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255",
    "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.0.1", "100.64.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
    "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
    "2001::1", "100::1", "", "localhost", "1.2.3", "0x7f.1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "93.184.216.34", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808",
    "::ffff:8.8.8.8", "2a00:1450:4001::1",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(address):
    assert not is_allowed(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    assert is_allowed(address)


@given(st.ip_addresses())
def test_no_address_that_the_standard_library_calls_private_is_allowed(address):
    if not address.is_global or address.is_multicast:
        assert not is_allowed(str(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_ipv6_clothes_is_judged_like_itself(address):
    for clothes in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_allowed(clothes) == is_allowed(str(address))
    if not is_allowed(str(address)):
        assert not is_allowed(str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80))))


def test_a_network_that_was_allowed_is_allowed_and_no_other():
    allowed = (parse_network("10.1.0.0/16"), parse_network("fd00::/8"))
    assert is_allowed("10.1.2.3", allowed)
    assert is_allowed("::ffff:10.1.2.3", allowed)
    assert is_allowed("fd12::1", allowed)
    assert not is_allowed("10.2.0.1", allowed)
    with pytest.raises(ParameterError, match="is not a network"):
        parse_network("10.1.2.3/8")


HOSTS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
    "localhost", "0", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]",
    "169.254.169.254", "[::ffff:169.254.169.254]", "0xa9fea9fe", "2852039166", "10.0.0.1",
    "167772161", "192.168.1.1", "[fe80::1]", "[fd00:ec2::254]", "①②⑦.⓪.⓪.①", "127。0。0。1",
    "localhost.", "LOCALHOST",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_no_notation_of_an_address_gets_anywhere(host, tmp_path):
    with picture_server(sends(PNG)) as url:
        port = url.rpartition(":")[2]
        with pytest.raises((ParameterError, InputNotFound)) as caught:
            fetched(f"http://{host}:{port}/a.png", allowed=())
    # Either it is judged, or no address at all to the resolver; never fetched.
    assert "not" in str(caught.value) or "no " in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "a.png", "//h/a", "file:///etc/passwd", "ftp://h/a", "gopher://h/", "data:,x", "s3://b/k",
     "http://", "http:///a", "http://h:99999/", "http://h:x/", "http://[::1", "http://a@h/",
     "http://user:pass@h/", "javascript:alert(1)", "http://" + "a" * 300 + ".org/", "http://.../",
     "dict://h:11211/stat", "http+unix://x/"],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused(url):
    with pytest.raises(ParameterError):
        fetched(url)


def test_a_host_with_one_private_address_among_public_ones_is_refused():
    with pytest.raises(ParameterError, match="not a public address"):
        pin_addresses("h", 80, (), lambda *_: ["8.8.8.8", "10.0.0.1"])
    assert pin_addresses("h", 80, (), lambda *_: ["8.8.8.8"]) == ["8.8.8.8"]
    with pytest.raises(InputNotFound):
        pin_addresses("h", 80, (), lambda *_: [])


def test_a_name_that_changes_its_address_is_looked_up_once(monkeypatch):
    # DNS rebinding: public when judged, private when connected to.
    asked, connected = [], []

    def look_up(host, port):
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    def connect(address, timeout=None, **_):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(InputNotFound):
        fetched("http://rebinding.example/a.png", look_up, allowed=())
    assert (asked, connected) == (["rebinding.example"], [("93.184.216.34", 80)])


def test_the_name_goes_to_the_server_and_the_address_to_the_socket():
    seen = []

    def answer(handler):
        seen.append((handler.headers["Host"], handler.path, handler.headers["Cookie"]))
        sends(PNG)(handler)

    with picture_server(answer) as url:
        port = url.rpartition(":")[2]
        target = f"http://pictures.example:{port}/ä b/c.png?x=%20y#part"
        assert fetched(target, lambda *_: ["127.0.0.1"]) == PNG
    assert seen == [(f"pictures.example:{port}", "/%C3%A4%20b/c.png?x=%20y", None)]


# Redirects -------------------------------------------------------------------------


def redirecting(to, status=302):
    return lambda handler: sends(b"", status, Location=to)(handler)


@pytest.mark.parametrize(
    "to", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://[::1]:1/",
           "//192.168.0.1/a", "http://0xa9fea9fe/", "file:///etc/passwd", "ftp://h/"]
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_judged_like_the_first_address(to, status):
    # Only this one address is allowed, so that the redirect itself can be sent.
    with picture_server(redirecting(to, status)) as url, pytest.raises(ParameterError):
        fetched(url, allowed=(parse_network("127.0.0.1"),))


def test_redirects_are_followed_so_far_and_no_further():
    def answer(handler):
        left = int(handler.path.strip("/"))
        (redirecting(f"/{left - 1}") if left else sends(PNG))(handler)

    with picture_server(answer) as url:
        assert fetched(f"{url}/3", redirects=3) == PNG
        with pytest.raises(InputNotFound, match="more than 3"):
            fetched(f"{url}/4", redirects=3)
        with pytest.raises(InputNotFound):
            fetched(f"{url}/1", redirects=0)
    with picture_server(redirecting("/")) as url, pytest.raises(InputNotFound, match="redirects"):
        fetched(url)


# Limits ----------------------------------------------------------------------------


def test_more_bytes_than_allowed_are_refused_whatever_the_header_says():
    for size in ({}, {"Content_Length": "5"}, {"Content_Length": "1000000000"}):
        headers = {"Content_Length": "1001", **size}
        with picture_server(lambda h, headers=headers: endless(h, headers)) as url:
            if headers["Content_Length"] == "5":
                assert len(fetched(url, max_bytes=1000)) == 5
            else:
                with pytest.raises(TooLarge):
                    fetched(url, max_bytes=1000)
    with picture_server(lambda h: endless(h, {})) as url, pytest.raises(TooLarge):
        fetched(url, max_bytes=1000)


def endless(handler, headers):
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b"x" * 1000)
    except OSError:
        pass


def dripping(handler):
    """A byte at a time, for ever, with no length: a cut must not pass for its end."""
    handler.send_response(200)
    handler.end_headers()
    drip(handler)


def dripping_headers(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-A: ")
    drip(handler)


def drip(handler):
    try:
        for _ in range(600):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize("answer", [dripping, dripping_headers, lambda h: time.sleep(3)])
def test_a_server_that_takes_too_long_is_left(answer):
    with picture_server(answer) as url, pytest.raises(InputNotFound, match="too long"):
        fetched(url, seconds=0.5)


@pytest.mark.parametrize("answer", [dripping, dripping_headers, lambda h: time.sleep(3)])
def test_fetching_stops_when_nobody_waits_for_it(answer):
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with picture_server(answer) as url, pytest.raises(Cancelled):
        fetched(url, cancel=cancel, seconds=60)


ODD = {
    "404": (sends(b"no", 404), InputNotFound),
    "206": (sends(PNG, 206), InputNotFound),
    "a redirect to nowhere": (sends(b"", 302), InputNotFound),
    "packed": (sends(PNG, Content_Encoding="gzip"), NotAnImage),
    "no HTTP": (lambda h: h.wfile.write(b"hello\r\n\r\n"), InputNotFound),
    "nothing": (lambda h: None, InputNotFound),
    "a short body": (lambda h: sends(PNG[:20], Content_Length="500")(h), InputNotFound),
    "endless headers": (lambda h: h.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"a: b\r\n" * 500),
                        InputNotFound),
    "bad redirect": (sends(b"", 302, Location="http://[x"), ParameterError),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "error"), ODD.values(), ids=ODD)
def test_odd_servers_are_one_sentence(answer, error):
    with picture_server(answer) as url, pytest.raises(error) as caught:
        fetched(url)
    assert isinstance(caught.value, PixsegError)
    assert str(caught.value).startswith("img ")


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A TLS server for pictures.example whose certificate is trusted; gives its port."""
    certificate, key = certified(tmp_path, "pictures.example")
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: make(cafile=certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with picture_server(sends(PNG), context) as url:
        yield url.rpartition(":")[2]


def certified(folder, name):
    """Make a key, and a certificate of its own for a name."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return folder / "cert", folder / "key"


def test_over_tls_the_certificate_must_be_that_of_the_name(tls):
    def look_up(*_):
        return ["127.0.0.1"]

    assert fetched(f"https://pictures.example:{tls}/a.png", look_up) == PNG
    with pytest.raises(InputNotFound, match="does not answer"):
        fetched(f"https://other.example:{tls}/a.png", look_up)


def test_a_tls_server_that_never_answers_is_left():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(InputNotFound):
        fetched(f"https://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.4)


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with picture_server(sends(PNG)) as url:
        assert fetched(url) == PNG


def test_the_server_refuses_private_images_by_itself(tmp_path):
    with picture_server(sends(PNG)) as url, serving(storage=str(tmp_path)) as server:
        for answer in (server.get(img=url), server.json({"img": url})):
            assert answer.status == 400
            assert "not a public address" in answer.json["error"]
        until(lambda: not list(tmp_path.iterdir()))
