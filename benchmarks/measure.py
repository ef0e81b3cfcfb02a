"""How benchmarks measure: fresh processes, wall and CPU seconds, peak memory, medians.

CPU seconds and memory are those of a process with all its children. Each figure carries the
load of the machine when it was taken, because on a shared machine only ratios can be believed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

Row = dict[str, Any]
_SAMPLE_SECONDS = 0.02
_MB = 1e6


@dataclass(frozen=True)
class Run:
    """One run of a process.

    Attributes
    ----------
    wall, cpu : float
        Seconds; CPU of all children, too.
    peak : float
        Highest sum of resident memory over the process and its children, in MB.
    answer : dict
        What the process printed as JSON on its last line, if it did.
    """

    wall: float
    cpu: float
    peak: float
    answer: dict[str, Any]


def run(command: Sequence[str], env: dict[str, str] | None = None) -> Run:
    """Run a command to its end.

    Raises
    ------
    RuntimeError
        If it fails, with what it wrote.
    """
    before, start = os.times(), time.perf_counter()
    environment = {**os.environ, **(env or {})}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        with _peak_of(process.pid) as peak:
            process.wait()
            wall, after = time.perf_counter() - start, os.times()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {err.read()[-2000:]}")
        answer = _last_json(out.read())
    used = after.children_user + after.children_system
    return Run(wall, used - before.children_user - before.children_system, peak(), answer)


def run_python(module: str, *arguments: object, env: dict[str, str] | None = None) -> Run:
    """Run a module of this interpreter in a fresh process."""
    return run([sys.executable, "-m", module, *map(str, arguments)], env)


def _last_json(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    with suppress(ValueError, IndexError):
        answer = json.loads(lines[-1])
        return answer if isinstance(answer, dict) else {}
    return {}


@contextmanager
def _peak_of(pid: int) -> Iterator[Callable[[], float]]:
    """Sample the memory of a process tree; the value given tells the highest sum, in MB."""
    highest, ended = [0], threading.Event()

    def sample() -> None:
        pause = _SAMPLE_SECONDS
        while not ended.wait(pause):
            began = time.perf_counter()
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                total = 0
                for process in [root, *root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        total += process.memory_info().rss
                highest[0] = max(highest[0], total)
            # Looking for children reads of all processes: it must not take a core from them.
            pause = max(_SAMPLE_SECONDS, 20 * (time.perf_counter() - began))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: highest[0] / _MB
    finally:
        ended.set()
        thread.join()


@dataclass
class Clock:
    """Wall and CPU seconds of this process, summed over the times it was on."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._start
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu

    def answer(self, **more: Any) -> None:
        """Print the result as the last line, for the process that started this one."""
        sys.stdout.write(json.dumps({**asdict(self), **more}) + "\n")


def medians(runs: Sequence[Run]) -> dict[str, float]:
    """Return the medians of wall and CPU seconds and the highest peak of several runs."""
    return {
        "wall_s": round(statistics.median(run.wall for run in runs), 3),
        "cpu_s": round(statistics.median(run.cpu for run in runs), 3),
        "peak_mb": round(max(run.peak for run in runs), 1),
    }


@contextmanager
def work_folder(parent: str | None) -> Iterator[Path]:
    """Give a folder for what a benchmark writes; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pixseg-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_small_disk(folder: Path, needed: float) -> None:
    """Exit with one sentence if fewer than the needed bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{needed / 1e9:.1f} GB are needed at {folder}, but {free / 1e9:.1f} GB are free; "
            "give another folder with --folder."
        )


def options(description: str | None, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the large sizes, too")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which medians are taken")
    parser.add_argument("--folder", help="where temporary files go; they are removed")
    parser.add_argument("--json", help="file the rows are also written to")
    parser.add_argument("--sizes", type=int, nargs="*", help="megapixels, instead of the usual")
    return parser.parse_args(arguments)


def report(name: str, rows: Sequence[Row], path: str | None = None) -> None:
    """Print rows as a table and, after it, as JSON; write that to a file, too."""
    described = {
        "benchmark": name,
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "rows": list(rows),
    }
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        padded = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded) + "\n")
    text = json.dumps(described)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    if path:
        Path(path).write_text(text + "\n")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and value < 100
        else (
            f"{value:,.0f}"
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            else str(value)
        )
    )


def load() -> float:
    """Return the load of the machine over the last minute."""
    return round(os.getloadavg()[0], 1)
