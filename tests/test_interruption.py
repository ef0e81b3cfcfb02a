"""Signals to end, at every moment of the command: it answers once and ends, whatever hangs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Interrupts are sent as signals.")

# A long call of a C library, during which Python runs no signal handler.
STARTED = """
import hashlib, importlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)

def hang(*_, **__):
    print("hangs", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2**31 - 1)

place = sys.argv.pop(1)
def install():
    if place:
        module, _, name = place.rpartition(".")
        setattr(importlib.import_module("napari_pixseg." + module), name, hang)

from napari_pixseg import __main__
from napari_pixseg.interruption import INTERRUPTION
real = INTERRUPTION.install
INTERRUPTION.install = lambda: (real(), install())
__main__.program()
"""


def start(*arguments, place=""):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", STARTED, place, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended_by(process, number):
    """Exit code, answer and words of a process that was sent a signal; it must end."""
    process.send_signal(number)
    with process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, json.loads(out), err


@pytest.fixture
def image(tmp_path):
    """A small image of several tiles on disk."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    array = zarr.create_array(
        tmp_path / "in.zarr", shape=pixels.shape, chunks=(32, 32, 3), dtype="u1"
    )
    array[...] = pixels
    return tmp_path / "in.zarr"


PLACES = {
    "the command line": "cli.main",
    "opening": "segmentation.open_image",
    "planning": "segmentation.plan_tiles",
    "checking the output": "export.export.check_target",
    "taking the lock": "export.export.only_writer",
    "counting": "classification.counting.run_tiles",
    "a graph": "execution.scheduler.tile_graph",
    "the decision": "segmentation.decide",
    "a tile on another thread": "regions.tile_components.find_components",
    "stitching": "regions.numbering.number_all",
    "the table": "export.region_export.write_parquet",
    "the manifest": "export.store_transaction.decided_details",
}


def test_memory_is_prepared_before_any_thread_begins():
    # glibc gives the first thread memory of its own, where later threads would work as well.
    code = (
        "import sys, threading\n"
        "from napari_pixseg import __main__\n"
        "real = __main__.prepare_heap\n"
        "def prepare():\n"
        "    print(threading.active_count(), flush=True)\n"
        "    real()\n"
        "__main__.prepare_heap = prepare\n"
        "sys.argv = ['napari-pixseg', '--version']\n"
        "__main__.program()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "1"


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_the_command_wherever_it_hangs(place, image, tmp_path):
    arguments = ["segment", image, tmp_path / "out.ome.zarr", "--axes=yxc", "--ct=0", "--st=20"]
    process = start(*arguments, "--outputs=classes,regions", place=PLACES[place])
    assert process.stderr.readline() == "hangs\n", "The place is never reached."
    code, answer, err = ended_by(process, signal.SIGTERM)
    assert (code, answer["status"], set(answer)) == (1, 499, {"status", "id", "error", "details"})
    assert err == answer["error"] + "\n"
    assert not (tmp_path / "out.ome.zarr/manifest.json").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("how", ["info", "segment"])
def test_a_signal_ends_a_command_whose_url_never_answers(how, name, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.tif"
        process = start(how, url, *([tmp_path / "out.ome.zarr"] if how == "segment" else []))
        # Somebody has asked, and now waits for an answer.
        connection, _ = server.accept()
        with connection:
            code, answer, _ = ended_by(process, getattr(signal, name))
    assert (code, answer["status"]) == (1, 499)


def test_a_signal_ends_a_command_whose_scheduler_never_answers(image, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        output = tmp_path / "out.ome.zarr"
        process = start("segment", image, output, "--axes=yxc", "--scheduler", address)
        connection, _ = server.accept()
        with connection:
            code, answer, _ = ended_by(process, signal.SIGTERM)
    assert (code, answer["status"]) == (1, 499)


def test_a_signal_ends_a_command_whose_answer_nobody_reads(tmp_path):
    # A pipe that is full: neither the answer of the run nor that of the signal can be written.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "wb", buffering=0, closefd=False) as pipe:
        while pipe.write(b"x" * 65536):
            pass
    os.set_blocking(writer, True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", STARTED, "", "info", str(tmp_path / "no.png")]
    with subprocess.Popen(
        arguments, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "does not exist" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
    for end in (reader, writer):
        os.close(end)


def test_a_signal_that_the_shell_ignores_is_ignored(image, tmp_path):
    line = ["segment", image, tmp_path / "out.ome.zarr", "--axes=yxc", "--ct=0", "--st=20"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "napari_pixseg", *map(str, line)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None:
        process.send_signal(signal.SIGHUP) if is_python(process.pid) else None
        time.sleep(0.05)
    out, _ = process.communicate()
    assert (process.returncode, json.loads(out)["status"]) == (0, 200)


def is_python(number):
    """Whether a process has got past nohup, which does not ignore signals from its beginning."""
    try:
        with open(f"/proc/{number}/cmdline", "rb") as file:
            command = file.read()
        # Nothing is told while a program is being loaded.
        return b"napari_pixseg" in command and not command.startswith(b"nohup")
    except OSError:
        return False


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_at_any_moment_gives_one_answer(seed, tmp_path):
    source, output = tmp_path / "in.png", tmp_path / "out.ome.zarr"
    pixels = np.random.default_rng(seed).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(pixels).save(source)
    process = start("segment", source, output, "--ct=0", "--st=20", "--outputs=classes,regions")
    # Until the first lines of Python have run, a signal can only end the process.
    time.sleep(0.5 + 1.5 * np.random.default_rng().random())
    code, answer, _ = ended_by(process, signal.SIGTERM)
    assert (code, answer["status"]) in ((0, 200), (1, 499))
    assert (output / "manifest.json").exists() == (code == 0)
