"""How the server bears load: many clients of a load tool (ab), and the memory it takes.

Run with ``python -m benchmarks.endpoint``; needs ApacheBench (Debian: apache2-utils).
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
from pathlib import Path

import psutil
import skimage.data
from PIL import Image

CLIENTS, REQUESTS = 64, 200
BOUNDARY = "pixseg-benchmark"
HEAD = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
SHOWN = ("Complete requests", "Failed requests", "Non-2xx responses", "Requests per second",
         "  50%", "  95%", " 100%")  # fmt: skip


def body() -> bytes:
    """Return a form with a picture of 512 x 512 pixels."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "PNG")
    fields = f'{HEAD}"blob"\r\n\r\ntrue\r\n{HEAD}"img"; filename="a.png"\r\n\r\n'
    return fields.encode() + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server; return it and its address."""
    command = ["serve", "--port", "0", "--waiting", str(CLIENTS), "--storage", str(folder / "out")]
    server = subprocess.Popen(
        [sys.executable, "-m", "napari_pixseg", *command], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    address = re.search(r"http://\S+/segment", server.stderr.readline())
    assert address is not None
    threading.Thread(target=server.stderr.read, daemon=True).start()
    time.sleep(2)
    return server, address.group()


def bench(server: int, url: str, file: Path) -> None:
    """Load the server and say what came of it."""
    process, peak = psutil.Process(server), 0
    command = ["ab", "-q", "-n", str(REQUESTS), "-c", str(CLIENTS), "-s", "300", "-p", str(file),
               "-T", f"multipart/form-data; boundary={BOUNDARY}", url]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        while load.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.05)
        said = load.stdout.read() if load.stdout else ""
    lines = [line for line in said.splitlines() if line.startswith(SHOWN)]
    print("\n".join(lines), f"\nPeak memory: {peak / 2**20:.0f} MiB")  # noqa: T201


def main() -> None:
    """Run the load twice: what the first run warms up, the second must not add to."""
    if shutil.which("ab") is None:
        sys.exit("ApacheBench (ab) is needed; on Debian it is in apache2-utils.")
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "body"
        file.write_bytes(body())
        server, url = started(Path(name))
        try:
            for _ in range(2):
                bench(server.pid, url, file)
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
