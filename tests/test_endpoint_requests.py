"""Requests byte for byte in form as clients make them: curl, PHP, requests, Node, Java."""

import gzip
import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from endpoint_tools import LOOPBACK, encoded, picture_server, scene, sends, serving

from napari_pixseg import segment

PICTURE = scene(1)
PNG = encoded(PICTURE)
KEY = "Xy-17-secret"
EXPECTED = segment(PICTURE, ct=2, cs=13, st=5).recolored.compute()
FIELDS = {"ct": "2", "cs": "13", "st": "5", "blob": "true"}
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a key."""
    folder = tmp_path_factory.mktemp("results")
    with serving(storage=str(folder), allowed=LOOPBACK, keys=(KEY,), max_bytes=3_000_000) as one:
        yield one


@pytest.fixture(scope="module")
def url():
    with picture_server(sends(PNG)) as base:
        yield f"{base}/a.png"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    path.write_bytes(PNG)
    return path


def disposition(name, file_name='; filename="a.png"'):
    return f'Content-Disposition: form-data; name="{name}"{file_name}'


def multipart(*parts, before=b"", after=b""):
    """A form of parts, each a head and a content."""
    middle = b"".join(b"--B\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
                      for head, content in parts)  # fmt: skip
    return before + middle + b"--B--\r\n" + after


def texts(fields):
    return [(disposition(name, ""), value.encode()) for name, value in fields.items()]


def post(server, body, kind="multipart/form-data; boundary=B", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("POST", "/segment", body, {"Content-Type": kind, **BEARER, **named})


def is_expected(answer):
    assert answer.status == 200, answer.body
    assert np.array_equal(answer.pixels, EXPECTED)
    return True


def refused(answer, status, words):
    assert answer.status == answer.json["status"] == status, answer.body
    assert words in answer.json["error"], answer.body


# Forms -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["img", "file", "image", "upload[]", "ct2"])
def test_the_only_file_is_the_image_whatever_its_name(server, name):
    assert is_expected(post(server, multipart(*texts(FIELDS), (disposition(name), PNG))))


@pytest.mark.parametrize(
    "head",
    [
        disposition("file", "; filename*=UTF-8''%C3%A9t%C3%A9.png"),
        disposition("file", "; filename=photo.png"),
        disposition("file", "; filename=\"a.png\"; filename*=UTF-8''a.png"),
        'Content-Disposition: form-data; filename="a.png"',
        'content-disposition: FORM-DATA; Name="file"; FileName="a;b\\"c.png"',
        # PHP's curl extension with CURLFile.
        disposition("file", '; filename="/var/www/photo.png"')
        + "\r\nContent-Type: application/octet-stream",
    ],
)
def test_a_part_with_a_file_name_however_written_is_a_file(server, head):
    assert is_expected(post(server, multipart((head, PNG), *texts(FIELDS))))


def test_two_different_files_are_refused_and_the_same_twice_is_one(server):
    two = [(disposition("file"), PNG), (disposition("img"), encoded(scene(2)))]
    refused(post(server, multipart(*two)), 400, "several files")
    assert is_expected(post(server, multipart(two[0], (disposition("img"), PNG), *texts(FIELDS))))
    empty = (disposition("img", '; filename=""'), b"")  # A browser's field without a choice.
    assert is_expected(post(server, multipart(empty, two[0], *texts(FIELDS))))
    refused(post(server, multipart(empty)), 400, "img is missing")


def test_img_may_be_a_url_in_a_form_of_either_kind(server, url):
    from urllib.parse import urlencode

    fields = {**FIELDS, "img": url}
    assert is_expected(post(server, multipart(*texts(fields))))
    kind = "application/x-www-form-urlencoded"
    for full in (kind, f"{kind}; charset=UTF-8"):
        assert is_expected(post(server, urlencode(fields).encode(), full))
    refused(post(server, b"img=%ff", kind), 400, "percent-encoded UTF-8")
    refused(post(server, b"&".join([b"a=1"] * 40), kind), 400, "at most 32 fields")
    assert is_expected(server.request("POST", f"/segment?{urlencode(fields)}", b"", BEARER))


def test_a_preamble_and_an_epilogue_are_skipped(server):
    parts = [(disposition("file"), PNG), *texts(FIELDS)]
    for before in (b"\r\n", b"This is a multi-part message. --B\r\n", b"--x\r\n"):
        body = multipart(*parts, before=before, after=b"\r\nThe end.\r\n")
        assert is_expected(post(server, body))
    refused(post(server, multipart(*parts, before=b"x" * 9000)), 400, "boundary")


def test_the_same_value_twice_is_given_once(server):
    parts = [*texts(FIELDS), *texts({"cs": "13"}), (disposition("file"), PNG)]
    assert is_expected(post(server, multipart(*parts)))
    refused(post(server, multipart(*parts, *texts({"cs": "12"}))), 400, "cs is given more than")


def test_empty_fields_are_absent(server):
    fields = {**dict.fromkeys(("ct", "cs", "st", "key", "img"), ""), "blob": " "}
    answer = post(server, multipart(*texts(fields), (disposition("file"), PNG)))
    assert set(answer.json) == {"status", "link", "id"}


@pytest.mark.parametrize("yes", ["true", "True", "TRUE", "1", "yes", "Yes", "on", " true "])
def test_every_spelling_of_true_is_true(server, url, yes):
    assert is_expected(post(server, multipart(*texts({**FIELDS, "blob": yes}),
                                              (disposition("file"), PNG))))  # fmt: skip
    body = json.dumps({**FIELDS, "img": url, "blob": yes})
    assert is_expected(post(server, body, "application/json; charset=utf-8"))


@pytest.mark.parametrize("no", ["false", "False", "FALSE", "0", "no", "off", False, 0])
def test_every_spelling_of_false_is_false(server, url, no):
    answer = post(server, json.dumps({"img": url, "blob": no}), "application/json;charset=UTF-8")
    assert answer.json["status"] == 200
    assert answer.headers["content-type"] == "application/json"


def test_json_takes_numbers_as_text_with_spaces_and_1_for_true(server, url):
    values = {"img": f" {url}\n", "ct": " 2 ", "cs": "13\t", "st": 5.0, "blob": 1}
    assert is_expected(post(server, json.dumps(values), "application/json"))


# Transfer ---------------------------------------------------------------------------


def test_gzip_bodies_are_unpacked_within_the_limit(server, url):
    body = multipart((disposition("file"), PNG), *texts(FIELDS))
    packed = gzip.compress(body)
    assert is_expected(post(server, packed, Content_Encoding="gzip"))
    members = gzip.compress(body[:99]) + gzip.compress(body[99:])
    assert is_expected(post(server, members, Content_Encoding="x-gzip"))
    values = gzip.compress(json.dumps({**FIELDS, "img": url}).encode())
    assert is_expected(post(server, values, "application/json", Content_Encoding="GZIP"))
    for wrong in (packed[:-9], body, packed + b"x"):
        refused(post(server, wrong, Content_Encoding="gzip"), 400, "not valid gzip")
    bomb = gzip.compress(multipart((disposition("file"), bytes(50_000_000))))
    refused(post(server, bomb, Content_Encoding="gzip"), 413, "MiB")
    refused(post(server, gzip.compress(bytes(50_000_000)), "application/json",
                 Content_Encoding="gzip"), 413, "more than 64 KiB")  # fmt: skip
    refused(post(server, body, Content_Encoding="br"), 415, "gzip or identity")


def exchange(server, *pieces):
    """Send raw pieces; after each, return what has come by then."""
    said = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        for piece in pieces:
            line.sendall(piece)
            said.append(line.recv(1 << 16))
    return said


def head_of(*lines):
    start = ["POST /segment HTTP/1.1", "Host: localhost"]
    kind = "Content-Type: multipart/form-data; boundary=B"
    return "\r\n".join([*start, kind, *lines, "", ""]).encode()


def test_expect_100_is_answered_before_the_body_and_a_wrong_key_without_it(server):
    body = multipart((disposition("file"), PNG))
    size = f"Content-Length: {len(body)}"
    right = head_of(size, f"Authorization: Bearer {KEY}", "Expect: 100-continue")
    first, second = exchange(server, right, body)
    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    (only,) = exchange(server, head_of(size, "Authorization: Bearer x", "Expect: 100-continue"))
    assert only.startswith(b"HTTP/1.1 401 ")


def test_chunked_uploads_of_any_chunk_size_are_read(server):
    body = multipart(*texts(FIELDS), (disposition("file"), PNG))
    for size in (1, 7, 4096):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert is_expected(post(server, iter(chunks)))


def test_a_key_may_be_in_the_form_and_is_judged_when_it_comes(server):
    def send(*parts):
        kind = {"Content-Type": "multipart/form-data; boundary=B"}
        return server.request("POST", "/segment", multipart(*parts), kind)

    file, right, wrong = (disposition("file"), PNG), texts({"key": KEY}), texts({"key": "x"})
    assert is_expected(send(*right, file, *texts(FIELDS)))
    assert is_expected(send(file, *texts(FIELDS), *right))
    refused(send(file, *wrong), 401, "not known")
    refused(send(file), 401, "A key is needed")
    large = encoded(np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8))
    assert len(large) > 1 << 20
    assert send(*right, (disposition("file"), large), *texts({"ct": "0"})).status != 401
    refused(send((disposition("file"), large), *right), 401, "before the file")


def test_a_wrong_key_is_refused_while_its_form_is_still_coming(server):
    start = multipart(*texts({"key": "wrong"}), (disposition("file"), PNG))[:-20]
    (only,) = exchange(server, head_of("Content-Length: 999999") + start)
    assert only.startswith(b"HTTP/1.1 401 ")


# The clients themselves --------------------------------------------------------------


@pytest.mark.parametrize("field", ["img", "file"])
@pytest.mark.parametrize("extra", [(), ("-H", "Transfer-Encoding: chunked"),
                                   ("-H", "Expect: 100-continue")])  # fmt: skip
def test_curl(server, photo, field, extra):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-F", f"{field}=@{photo}", "-F", "ct=2", "-F", "cs=13",
         "-F", "st=5", "-F", "blob=true", "-H", f"WWW-Authenticate: {KEY}", *extra,
         f"{server.url}/segment"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith(b"\x89PNG"), done.stdout


def test_php(server):
    """What PHP's curl extension sends for CURLFile and an array of fields."""
    line = "------------------------d74496d66958873e"
    fields = {"ct": "2", "cs": "13", "st": "5", "blob": "1"}
    parts = [
        f'--{line}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    file = (
        f'--{line}\r\nContent-Disposition: form-data; name="file"; filename="photo.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body = b"".join([*parts, file, PNG, b"\r\n", f"--{line}--\r\n".encode()])
    head = (
        f"POST /segment HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: */*\r\n"
        f"WWW-Authenticate: {KEY}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={line}\r\nExpect: 100-continue\r\n\r\n"
    )
    first, second = exchange(server, head.encode(), body)
    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: image/png" in second.lower()


PHP = """<?php
[$_, $base, $key, $file, $url] = $argv;
function send($path, $body, $headers) {
  $line = curl_init($path);
  curl_setopt_array($line, [CURLOPT_POST => true, CURLOPT_POSTFIELDS => $body, CURLOPT_PROXY => "",
    CURLOPT_RETURNTRANSFER => true, CURLOPT_HTTPHEADER => $headers]);
  $said = curl_exec($line);
  $kind = curl_getinfo($line, CURLINFO_CONTENT_TYPE);
  echo curl_getinfo($line, CURLINFO_RESPONSE_CODE), " ", $kind, "\n";
  return $said;
}
$headers = ["WWW-Authenticate: $key"];
$upload = ["file" => new CURLFile($file), "ct" => 2, "blob" => true];
send("$base/segment", $upload, $headers);
$json = ["img" => $url, "ct" => 2, "cs" => 13, "st" => 5, "blob" => true, "key" => $key];
send("$base/segment", json_encode($json), ["Content-Type: application/json"]);
send("$base/segment", http_build_query($json), []);
$stored = json_decode(send("$base/store", ["file" => new CURLFile($file, "image/png", "p.png"),
  "comment" => "from PHP", "key" => $key], []), true);
$json["img"] = $stored["link"];
send("$base/segment", json_encode($json), ["Content-Type: application/json"]);
send("$base/segment", $upload, ["WWW-Authenticate: wrong"]);
send("$base/segment", $upload, []);
"""


def test_the_curl_extension_of_php(server, photo, url, tmp_path):
    if shutil.which("php") is None:
        pytest.skip("NOT TESTED: php is not installed")
    modules = subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split()
    if "curl" not in modules:
        pytest.skip("NOT TESTED: php-curl is not installed")
    script = tmp_path / "client.php"
    script.write_text(PHP)
    done = subprocess.run(
        ["php", str(script), server.url, KEY, str(photo), url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    picture, told = "200 image/png", "application/json"
    wanted = [picture] * 3 + [f"200 {told}", picture] + [f"401 {told}"] * 2
    assert done.stdout.splitlines() == wanted, done.stdout + done.stderr


def test_requests(server, photo, url):
    requests = pytest.importorskip("requests")
    session = requests.Session()
    session.trust_env = False
    fields = {"ct": 2, "cs": 13, "st": 5, "blob": True}
    headers = {"WWW-Authenticate": KEY}

    def send(**body):
        answer = session.post(f"{server.url}/segment", headers=headers, timeout=60, **body)
        assert answer.content.startswith(b"\x89PNG"), answer.content

    with photo.open("rb") as file:
        send(files={"file": file}, data=fields)
    send(files={"file": ("\u00e9t\u00e9.png", PNG)}, data=fields)
    send(json={"img": url, **fields})
    send(data={"img": url, **fields})
    send(params={"img": url, **fields})
    with photo.open("rb") as file:
        stored = session.post(f"{server.url}/store", headers=headers, files={"file": file})
    send(json={"img": stored.json()["link"], **fields})
    for wrong in ({}, {"WWW-Authenticate": "wrong"}):
        told = session.post(f"{server.url}/segment", headers=wrong, json={"img": url}, timeout=60)
        assert (told.status_code, set(told.json())) == (401, {"status", "error"})
    got = session.get(f"{server.url}/segment", params={"img": url, "key": KEY}, timeout=60)
    assert got.json()["status"] == 200


NODE = """
const [base, key, file, url] = process.argv.slice(1);
const {readFileSync} = require('fs');
const read = async (init) => {
  const answer = await fetch(base + '/segment', {method: 'POST', ...init});
  const bytes = Buffer.from(await answer.arrayBuffer());
  console.log(answer.status, answer.headers.get('content-type'));
};
(async () => {
  const headers = {'Authorization': 'Bearer ' + key};
  const form = new FormData();
  form.append('file', new Blob([readFileSync(file)], {type: 'image/png'}), 'photo.png');
  form.append('blob', true);
  await read({headers, body: form});
  await read({headers, body: new URLSearchParams({img: url, blob: 'true'})});
  const json = {...headers, 'Content-Type': 'application/json; charset=utf-8'};
  await read({headers: json, body: JSON.stringify({img: url, blob: true, key})});
  const kept = new FormData();
  kept.append('file', new Blob([readFileSync(file)]), 'photo.png');
  const stored = await (await fetch(base + '/store', {method: 'POST', headers, body: kept})).json();
  await read({headers: json, body: JSON.stringify({img: stored.link, blob: true})});
  await read({body: new URLSearchParams({img: url})});
})();
"""


def test_fetch_of_node(server, photo, url):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    done = subprocess.run(
        ["node", "-e", NODE, server.url, KEY, str(photo), url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    wanted = ["200 image/png"] * 4 + ["401 application/json"]
    assert done.stdout.splitlines() == wanted, done.stdout + done.stderr


JAVA = r"""
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;

public class Client {
  static final String CRLF = "\r\n", LINE = "----" + Long.toHexString(0x1234abcd);

  // As samples have it: a writer for the heads, the bytes of the file, and a writer again.
  static byte[] form(Path file, String... fields) throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    PrintWriter writer = new PrintWriter(new OutputStreamWriter(out, StandardCharsets.UTF_8), true);
    for (int i = 0; i < fields.length; i += 2) {
      writer.append("--" + LINE).append(CRLF);
      writer.append("Content-Disposition: form-data; name=\"" + fields[i] + "\"").append(CRLF);
      writer.append("Content-Type: text/plain; charset=UTF-8").append(CRLF).append(CRLF);
      writer.append(fields[i + 1]).append(CRLF).flush();
    }
    writer.append("--" + LINE).append(CRLF);
    writer.append("Content-Disposition: form-data; name=\"file\"; filename=\"");
    writer.append(file.getFileName() + "\"").append(CRLF);
    writer.append("Content-Type: " + URLConnection.guessContentTypeFromName("" + file));
    writer.append(CRLF + "Content-Transfer-Encoding: binary" + CRLF + CRLF).flush();
    out.write(Files.readAllBytes(file));
    writer.append(CRLF).flush();
    writer.append("--" + LINE + "--").append(CRLF).flush();
    return out.toByteArray();
  }

  static String send(String url, String key, String type, byte[] body, boolean isChunked)
      throws IOException {
    HttpURLConnection line = (HttpURLConnection) new URL(url).openConnection();
    line.setDoOutput(true);
    line.setUseCaches(false);
    line.setRequestMethod("POST");
    if (key != null) line.setRequestProperty("WWW-Authenticate", key);
    line.setRequestProperty("Content-Type", type);
    if (isChunked) line.setChunkedStreamingMode(512);
    try (OutputStream out = line.getOutputStream()) { out.write(body); }
    int status = line.getResponseCode();
    InputStream in = status < 400 ? line.getInputStream() : line.getErrorStream();
    byte[] answer = in.readAllBytes();
    System.out.println(status + " " + line.getContentType());
    return new String(answer, StandardCharsets.ISO_8859_1);
  }

  public static void main(String[] given) throws Exception {
    String base = given[0], key = given[1], img = given[3];
    Path file = Path.of(given[2]);
    String multipart = "multipart/form-data; boundary=" + LINE, json = "application/json";
    byte[] upload = form(file, "ct", "2", "blob", String.valueOf(true));
    send(base + "/segment", key, multipart, upload, false);
    send(base + "/segment", key, multipart, upload, true);
    String values = "{\"img\": \"%s\", \"ct\": 2.0, \"cs\": 13, \"blob\": true, \"key\": \"%s\"}";
    byte[] text = String.format(values, img, key).getBytes(StandardCharsets.UTF_8);
    send(base + "/segment", null, json, text, false);
    String stored = send(base + "/store", key, multipart, form(file, "comment", "Java"), false);
    String link = stored.replaceAll(".*\"link\": ?\"([^\"]+)\".*", "$1");
    text = String.format(values, link, key).getBytes(StandardCharsets.UTF_8);
    send(base + "/segment", null, json, text, false);
    send(base + "/segment", "wrong", multipart, upload, false);
    send(base + "/segment", null, multipart, upload, false);
    // The newer client asks to go on with HTTP/2.
    HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/segment"))
        .header("Content-Type", multipart).header("WWW-Authenticate", key)
        .POST(HttpRequest.BodyPublishers.ofByteArray(upload)).build();
    HttpResponse<byte[]> answer =
        HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofByteArray());
    String kind = answer.headers().firstValue("content-type").get();
    System.out.println(answer.statusCode() + " " + kind);
  }
}
"""


def test_both_http_clients_of_java(server, photo, url, tmp_path):
    if shutil.which("java") is None or shutil.which("javac") is None:
        pytest.skip("NOT TESTED: java or javac is not installed")
    program = tmp_path / "Client.java"
    program.write_text(JAVA)
    done = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", str(program), server.url, KEY, str(photo), url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    picture, told = "200 image/png", "application/json"
    wanted = [picture] * 3 + [f"200 {told}", picture] + [f"401 {told}"] * 2 + [picture]
    assert done.stdout.splitlines() == wanted, done.stdout + done.stderr


def test_the_curl_lines_of_the_page_run_as_they_stand(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("NOT TESTED: curl is not installed")
    page = (Path(__file__).parents[1] / "docs" / "endpoint.md").read_text()
    lines = re.findall(r"^curl .*$", page.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) >= 4
    (tmp_path / "photo.jpg").write_bytes(encoded(scene(1), "JPEG"))
    link = ""
    with serving(storage=str(tmp_path / "results")) as server:
        for line in lines:
            here = re.sub(r"http://127.0.0.1:8000/results/\S+", link, line)
            here = here.replace("http://127.0.0.1:8000", server.url)
            done = subprocess.run(["sh", "-c", f"{here} --fail -sS --noproxy '*'"], cwd=tmp_path,
                                  capture_output=True, text=True, timeout=60)  # fmt: skip
            assert done.returncode == 0, (here, done.stderr)
            link = json.loads(done.stdout)["link"] if done.stdout else link
    assert (tmp_path / "segmented.png").read_bytes().startswith(b"\x89PNG")
