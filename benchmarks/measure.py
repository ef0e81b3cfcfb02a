"""How benchmarks measure: fresh processes, wall and CPU seconds, peak memory, medians.

CPU seconds and memory are those of a process with all its children. Each figure comes with the
load of the machine at that time, because on a shared machine only ratios can be trusted.
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
        Seconds; CPU time includes all children.
    peak : float
        Highest sum of resident memory over the process and its children, in MB.
    answer : dict
        The JSON object on the last line that the process printed; empty if there is none.
    """

    wall: float
    cpu: float
    peak: float
    answer: dict[str, Any]


def run_command(command: Sequence[str], env: dict[str, str] | None = None) -> Run:
    """Run a command to its end.

    Raises
    ------
    RuntimeError
        If it fails; the message has the end of its error output.
    """
    environment = {**os.environ, **(env or {})}
    before = os.times()
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        with _sample_peak(process.pid) as peak:
            process.wait()
            wall = time.perf_counter() - start
            after = os.times()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {err.read()[-2000:]}")
        answer = _parse_last_line(out.read())
    used = after.children_user + after.children_system
    return Run(wall, used - before.children_user - before.children_system, peak(), answer)


def run_python(module: str, *arguments: object, env: dict[str, str] | None = None) -> Run:
    """Run a module of this interpreter in a fresh process."""
    return run_command([sys.executable, "-m", module, *map(str, arguments)], env)


def _parse_last_line(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    with suppress(ValueError, IndexError):
        answer = json.loads(lines[-1])
        return answer if isinstance(answer, dict) else {}
    return {}


@contextmanager
def _sample_peak(pid: int) -> Iterator[Callable[[], float]]:
    """Sample the memory of a process tree; yield a function that returns the peak in MB."""
    highest = 0
    ended = threading.Event()

    def sample_memory() -> None:
        nonlocal highest
        pause = _SAMPLE_SECONDS
        while not ended.wait(pause):
            began = time.perf_counter()
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                total = 0
                for process in [root, *root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        total += process.memory_info().rss
                highest = max(highest, total)
            # Finding the children scans all processes, which must not take up a core.
            pause = max(_SAMPLE_SECONDS, 20 * (time.perf_counter() - began))

    thread = threading.Thread(target=sample_memory)
    thread.start()
    try:
        yield lambda: highest / _MB
    finally:
        ended.set()
        thread.join()


@dataclass
class Clock:
    """Wall and CPU seconds of this process, summed over the times that the clock ran."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Clock:
        self._wall_start = time.perf_counter()
        self._cpu_start = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall_start
        self.cpu += time.process_time() - self._cpu_start

    def answer(self, **more: Any) -> None:
        """Print the result as the last line, for the process that started this one."""
        sys.stdout.write(json.dumps({**asdict(self), **more}) + "\n")


def median_figures(runs: Sequence[Run]) -> dict[str, float]:
    """Return the medians of wall and CPU seconds and the highest peak of several runs."""
    return {
        "wall_s": round(statistics.median(run.wall for run in runs), 3),
        "cpu_s": round(statistics.median(run.cpu for run in runs), 3),
        "peak_mb": round(max(run.peak for run in runs), 1),
    }


@contextmanager
def work_folder(parent: str | None) -> Iterator[Path]:
    """Make a folder for the files of a benchmark, and delete it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pixseg-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_small_disk(folder: Path, needed: float) -> None:
    """Exit with one sentence if the disk has too little space."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{needed / 1e9:.1f} GB are needed at {folder}, but {free / 1e9:.1f} GB are free; "
            "give another folder with --folder."
        )


def parse_options(
    description: str | None, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="include the large sizes")
    parser.add_argument(
        "--repeats", type=int, default=3, help="how many runs the medians are taken from"
    )
    parser.add_argument("--folder", help="parent of the temporary folder, which is removed")
    parser.add_argument("--json", help="file that the rows are also written to")
    parser.add_argument(
        "--sizes", type=int, nargs="*", help="sizes in megapixels, instead of the usual ones"
    )
    return parser.parse_args(arguments)


def print_report(name: str, rows: Sequence[Row], path: str | None = None) -> None:
    """Print rows as a table and then as JSON, which can also be written to a file."""
    described = {
        "benchmark": name,
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "rows": list(rows),
    }
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_format_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        padded = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded) + "\n")
    text = json.dumps(described)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    if path:
        Path(path).write_text(text + "\n")


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value < 100:
        return f"{value:,.3g}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.0f}"
    return str(value)


def machine_load() -> float:
    """Return the load of the machine over the last minute."""
    return round(os.getloadavg()[0], 1)
