"""Dask schedulers and workers as real processes, and a command line that can be killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from resume_tools import make_small

from napari_pixseg.execution import scheduler

START_SECONDS = 60
_run_task = scheduler._run_task


def environment():
    paths = [*sys.path, str(Path(__file__).parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Cluster:
    """A scheduler and its workers, each a process of its own; on loopback by default."""

    def __init__(self, folder, workers=2, host="127.0.0.1"):
        self._folder, self._host = folder, host
        self.workers = []
        # The scheduler chooses its port and writes it to a file: a port chosen here could be
        # taken by another test before the scheduler listens.
        file = folder / "scheduler.json"
        where = ("--host", host, "--port", "0", "--scheduler-file", str(file))
        # If the tests themselves are killed, the scheduler ends, and its workers after it.
        options = ("--no-show", "--no-dashboard", "--idle-timeout", "600s")
        self.scheduler = self._start((), "scheduler", *where, *options)
        try:
            self.address = self._read_address(file)
            self.want(workers)
        except BaseException:
            self.close()
            raise

    def _start(self, prefix, what, *arguments):
        with open(self._folder / f"{what}.log", "ab") as log:
            return subprocess.Popen(
                [*prefix, sys.executable, "-m", "dask", what, *arguments],
                env=environment(), stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip

    def _read_address(self, file):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.scheduler.poll() is None:
            # The file may be there before it is complete.
            with suppress(FileNotFoundError, json.JSONDecodeError):
                return json.loads(file.read_text())["address"]
            time.sleep(0.05)
        raise TimeoutError((self._folder / "scheduler.log").read_text()[-2000:])

    def want(self, count):
        """Start workers until so many live, and wait for them."""
        from distributed import Client

        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < count:
            prefix, host = self._worker()
            options = ("--host", host, "--nthreads", "1", "--memory-limit", "2GiB")
            alone = ("--no-nanny", "--no-dashboard", "--death-timeout", str(START_SECONDS))
            self.workers.append(self._start(prefix, "worker", self.address, *options, *alone))
        with Client(self.address, timeout=START_SECONDS, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=START_SECONDS)

    def _worker(self):
        """Where the next worker runs: words before its command, and its address."""
        return (), self._host

    def kill_worker(self):
        self.workers[0].kill()

    def kill_scheduler(self):
        self.scheduler.kill()
        self.scheduler.wait()

    def close(self):
        # Workers first: they would wait for a scheduler that is gone.
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def slow_down(seconds):
    """Let every tile take so much longer on this worker, so that it can be caught at work."""

    def slowly(*arguments):
        time.sleep(seconds)
        return _run_task(*arguments)

    scheduler._run_task = slowly if seconds else _run_task


def command(seconds, *arguments):
    """Start the command line with small tiles; after so many seconds it is killed, 0 never."""
    return subprocess.Popen(
        [sys.executable, __file__, str(seconds), *map(str, arguments)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _main(seconds, arguments):
    import distributed  # noqa: F401 - so that the time is that of the run

    from napari_pixseg import cli, segmentation  # noqa: F401

    make_small()
    if seconds:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(_main(float(sys.argv[1]), sys.argv[2:]))
