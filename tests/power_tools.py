"""Real runs that are killed, and outputs damaged as a machine leaves them that loses power.

As a program: a process that has everything loaded and forks a run for every line it reads.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import tifffile
from resume_tools import ALL, make_small, picture, segmented, source

from napari_pixseg.errors import OutputConflict
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME

OPTIONS = {"zarr": {}, "tiff": {}, "stack": {"axes": "zyx", "cs": "GRAY"}}


def make_input(kind, folder):
    """Write an input of a kind: a zarr, a TIFF of tiles, a contiguous stack of 16 bits."""
    if kind == "zarr":
        return source(folder)
    path = folder / "in.tif"
    if kind == "tiff":
        tifffile.imwrite(path, picture(), photometric="rgb", tile=(16, 16), compression="zlib")
    else:
        planes = np.moveaxis(picture(np.uint16), -1, 0)
        tifffile.imwrite(path, np.ascontiguousarray(planes), photometric="minisblack")
    return path


class Runner:
    """Runs exports in processes of their own, and kills them."""

    def __enter__(self):
        paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
        self._process = subprocess.Popen(
            [sys.executable, __file__], env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, kind, path, output, seconds=None, **options):
        """Export, killed after so many seconds; return the exit code, negative for a signal."""
        order = [kind, str(path), str(output), seconds, options]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def damage(output, chance):
    """Do to some files of an unfinished output what a crash of the machine may do."""
    (output / MANIFEST_NAME).unlink(missing_ok=True)
    files = [path for path in output.rglob("*") if path.is_file() and path.name != RECORD_NAME]
    done = []
    for path in chance.sample(files, min(chance.randrange(5), len(files))):
        size = path.stat().st_size
        how = chance.choice(["half", "empty", "zeros", "garbage", "gone"])
        if how == "gone":
            path.unlink()
        elif how in ("half", "empty"):
            os.truncate(path, size // 2 if how == "half" else 0)
        else:
            path.write_bytes(bytes(size) if how == "zeros" else chance.randbytes(size))
        done.append((str(path.relative_to(output)), how))
    return done


def _export(kind, path, output, seconds, options):
    make_small()
    result = segmented(path, **OPTIONS[kind])
    if seconds is not None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    try:
        result.export(output, ALL, **options)
    except OutputConflict as error:
        sys.stderr.write(f"{error}\n")
        return 9
    return 0


def _serve():
    # Loaded once, so that a run takes a fraction of a second.
    import napari_pixseg.export.region_export
    import napari_pixseg.export.store_transaction  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _export(*json.loads(line))
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
