"""What separate processes cost, and how the server behaves under load.

First the time of a request and of the processors, against a server that decodes in its own process;
both take turns in one run, and the figures are medians of the turns' ratios. Then 500 clients of a
load tool (ab), with the memory of server and workers together, at its peak and some seconds later.

Run it with ``python -m benchmarks.endpoint``. The load needs ApacheBench (Debian: apache2-utils).
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psutil
import skimage.data
from PIL import Image

CLIENTS = 500
REQUESTS = 2000
# Before the first figure is taken, so that all workers and threads are there.
WARM_UP = 200
# Each server has so many turns, of so many requests.
TURNS = 9
IN_A_TURN = 10
OWN_PROCESS = """
from napari_pixseg.cli import main
from napari_pixseg.endpoint.segment_job import run_image_job
from napari_pixseg.endpoint.worker_pool import WorkerPool
WorkerPool.run_job = lambda self, job, cancel: run_image_job(job)
main()
"""
BOUNDARY = "pixseg-benchmark"
HEAD = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
SHOWN = (
    "Complete requests",
    "Failed requests",
    "Non-2xx responses",
    "Requests per second",
    "  50%",
    "  95%",
    " 100%",
)


def make_body(kind: str = "PNG", **fields: str) -> bytes:
    """Return a form that uploads a picture of 512 x 512 pixels."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, kind)
    texts = "".join(f'{HEAD}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    head = f'{texts}{HEAD}"blob"\r\n\r\ntrue\r\n{HEAD}"img"; filename="a"\r\n\r\n'
    return head.encode() + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()


def start_server(folder: Path, program: str = "") -> tuple[subprocess.Popen[str], str]:
    """Start a server, with a program of its own if one is given; return it and its address."""
    options = ["--port", "0", "--waiting", str(CLIENTS), "--storage", str(folder / "out")]
    start = ["-c", program] if program else ["-m", "napari_pixseg"]
    server = subprocess.Popen(
        [sys.executable, *start, "serve", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    address = re.search(r"http://\S+/segment", server.stderr.readline())
    assert address is not None
    # Nobody reads the rest: without this the server would block once the pipe is full.
    threading.Thread(target=server.stderr.read, daemon=True).start()
    time.sleep(2)
    return server, address.group()


def memory_used(process: psutil.Process) -> int:
    """Return the resident bytes of the server and its workers."""
    total = 0
    for one in (process, *process.children()):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def load_server(server: int, url: str, file: Path, requests: int) -> None:
    """Load the server, and print its figures."""
    process = psutil.Process(server)
    peak = 0
    amounts = ["-n", str(requests), "-c", str(min(CLIENTS, requests)), "-s", "300"]
    upload = ["-p", str(file), "-T", f"multipart/form-data; boundary={BOUNDARY}"]
    command = ["ab", "-q", *amounts, *upload, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        while load.poll() is None:
            peak = max(peak, memory_used(process))
            time.sleep(0.1)
        output = load.stdout.read() if load.stdout else ""
    time.sleep(5)
    lines = [line for line in output.splitlines() if line.startswith(SHOWN)]
    figures = f"Memory: peak {peak / 2**20:.0f} MiB, after {memory_used(process) / 2**20:.0f} MiB"
    print("\n".join([*lines, figures]))  # noqa: T201


def processor_seconds(process: psutil.Process) -> float:
    """Return the seconds of processors that the server and its workers have had."""
    total = 0.0
    for one in (process, *process.children()):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def time_requests(server: int, url: str, body: bytes) -> tuple[float, float]:
    """Return seconds and processor seconds of a request, one after the other."""
    process = psutil.Process(server)
    line = HTTPConnection(urlsplit(url).netloc, timeout=60)
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    before = processor_seconds(process)
    began = time.perf_counter()
    for _ in range(IN_A_TURN):
        line.request("POST", "/segment", body, kind)
        answer = line.getresponse()
        if answer.status != 200:
            sys.exit(answer.read().decode())
        answer.read()
    seconds = (time.perf_counter() - began) / IN_A_TURN
    line.close()
    return seconds, (processor_seconds(process) - before) / IN_A_TURN


def compare_processes(folder: Path) -> None:
    """Print what a request costs more than in a server that decodes in its own process."""
    pooled, alone = start_server(folder / "a"), start_server(folder / "b", OWN_PROCESS)
    bodies = {
        "recolored": make_body(),
        "recolored, TIFF": make_body("TIFF"),
        "regions": make_body(outputs="regions", min_size="50"),
    }
    try:
        for name, body in bodies.items():
            turns = []
            for turn in range(TURNS + 1):
                figures = [time_requests(server.pid, url, body) for server, url in (pooled, alone)]
                turns += [figures] if turn else []
            seconds, work = (median(here[i] for here, _ in turns) for i in (0, 1))
            # Of each turn, because other programs make some turns slow.
            longer, more = (median(here[i] / alone[i] for here, alone in turns) for i in (0, 1))
            print(  # noqa: T201
                f"{name}: {1 / seconds:.1f} requests/s, {1000 * work:.0f} ms of processors; "
                f"against its own process {longer:.2f} times the time, "
                f"{more:.2f} times the processors"
            )
    finally:
        for server, _ in (pooled, alone):
            server.terminate()
            server.wait(30)


def main() -> None:
    """Compare; then run the load twice: memory may grow in the first run, not in the second."""
    with tempfile.TemporaryDirectory() as name:
        compare_processes(Path(name))
    if shutil.which("ab") is None:
        sys.exit("ApacheBench (ab) is missing; on Debian, install apache2-utils.")
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "body"
        file.write_bytes(make_body())
        server, url = start_server(Path(name))
        try:
            for requests in (WARM_UP, REQUESTS, REQUESTS):
                load_server(server.pid, url, file, requests)
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
