"""What the tests of unfinished outputs share, and a run of its own that they can kill."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import zarr

from napari_pixseg import Manifest, segment
from napari_pixseg.execution import tiling
from napari_pixseg.export import pyramid
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME

SHAPE = (40, 36, 3)
ALL = ("classes", "regions", "recolored")


def make_small(setattr_=setattr):
    """Several tiles and several pyramid levels for an image of 40 x 36 pixels."""
    setattr_(tiling, "_SMALLEST_UNIT", 4)
    setattr_(tiling, "WRITE_SIDE", 8)
    setattr_(tiling, "TILE_SIDE", 16)
    setattr_(tiling, "TILE_PIXELS", 256)
    setattr_(pyramid, "COARSEST_SIDE", 12)


def picture(dtype=np.uint8):
    """Blocks of five pixels and some noise; a float picture has tiles without data."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (8, 8, 3))
    pixels = np.kron(coarse, np.ones((5, 5, 1), int))[: SHAPE[0], : SHAPE[1]]
    pixels[::7, ::3] = random.integers(0, 256, pixels[::7, ::3].shape)
    pixels = (pixels * 37 if np.dtype(dtype).itemsize > 1 else pixels).astype(dtype)
    if pixels.dtype.kind == "f":
        pixels[16:, :20] = np.nan
    return pixels


def source(folder, dtype=np.uint8):
    """The same picture as a zarr array on disk, which has an identity; four chunks make a tile."""
    path = folder / "in.zarr"
    if not path.exists():
        array = zarr.create_array(path, shape=SHAPE, chunks=(8, 8, 3), dtype=dtype)
        array[...] = picture(dtype)
    return path


def segmented(what, **options):
    return segment(what, **{"axes": "yxc", "ct": 0, "st": 0.1, "cs": "sRGB", **options})


def content(folder):
    """Every file of a folder, byte for byte."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def products(folder):
    """The same without what differs from run to run."""
    own = (MANIFEST_NAME, RECORD_NAME)
    return {name: data for name, data in content(folder).items() if name not in own}


def comparable(folder):
    """A manifest without what differs from run to run."""
    values = Manifest.load(folder).to_dict()
    del values["id"], values["link"], values["details"]["started"], values["details"]["finished"]
    return values


def same(output, expected):
    assert products(output) == products(expected)
    assert comparable(output) == comparable(expected)


def cancelled_at(number):
    """Arguments of an export that is cancelled at its n-th step."""
    cancel, seen = threading.Event(), []

    def listen(step):
        seen.append(step)
        if len(seen) == number:
            cancel.set()

    return {"on_event": listen, "cancel": cancel}


@contextmanager
def small_device(folder, size):
    """A file system of so many bytes at a folder; skips where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    may = shutil.which("mount") is not None and hasattr(os, "geteuid") and os.geteuid() == 0
    if not (may and subprocess.run(command, capture_output=True).returncode == 0):
        pytest.skip("NOT TESTED: mounting a small file system needs root.")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _killed(path, output, seconds, resume):
    """Export, and be killed after so many seconds; 0 waits for a line on standard input."""
    make_small()
    result = segmented(path)
    if seconds > 0:
        # Compiled and warm, so that the time is that of the export.
        segmented(picture()).classes.compute()
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
        result.export(output, ALL, resume=resume)
        return

    def wait(_step):
        sys.stdout.write("writing\n")
        sys.stdout.flush()
        sys.stdin.readline()

    result.export(output, ALL, on_event=wait)


if __name__ == "__main__":
    _killed(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "resume")
