"""How the server behaves under load: 500 clients of a load tool (ab), and the memory used.

Memory is that of the server and its workers together, at its peak and some seconds after the load.

Run it with ``python -m benchmarks.endpoint``. It needs ApacheBench (Debian: apache2-utils).
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
from pathlib import Path

import psutil
import skimage.data
from PIL import Image

CLIENTS = 500
REQUESTS = 2000
# Before the first figure is taken, so that all workers and threads are there.
WARM_UP = 200
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


def make_body() -> bytes:
    """Return a form that uploads a picture of 512 x 512 pixels."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "PNG")
    fields = f'{HEAD}"blob"\r\n\r\ntrue\r\n{HEAD}"img"; filename="a.png"\r\n\r\n'
    return fields.encode() + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()


def start_server(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server; return it and its address."""
    options = ["--port", "0", "--waiting", str(CLIENTS), "--storage", str(folder / "out")]
    server = subprocess.Popen(
        [sys.executable, "-m", "napari_pixseg", "serve", *options],
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


def main() -> None:
    """Run the load twice: memory may grow in the first run, but not in the second."""
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
