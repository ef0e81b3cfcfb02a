"""What a run needs is said before it, and is what it then takes at most."""

import json
import os
import subprocess
import sys

import dask
import numpy as np
import pytest
import zarr

from napari_pixseg import cli, segment
from napari_pixseg.classification import counting
from napari_pixseg.errors import ParameterError, TooLarge
from napari_pixseg.execution import memory_estimate as peaks
from napari_pixseg.execution.memory_limit import threads_of_worker

MIB = 1 << 20
# getrusage would not do: its peak begins with that of the process that started this one.
RUN = """
import re, sys
from napari_pixseg.cli import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()
print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1], file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Every pixel another color: no picture needs more."""
    path = tmp_path_factory.mktemp("noise") / "in.zarr"
    array = zarr.create_array(
        path, shape=(2048, 4096, 3), chunks=(1024, 1024, 3), dtype=np.uint8, compressors=None
    )
    array[...] = np.random.default_rng(0).integers(0, 256, array.shape, np.uint8)
    return path


def stated(path, outputs):
    image = segment(path, axes="yxc")
    tiling = image.color_count.tiling
    threads = min(threads_of_worker(), len(tiling))
    return peaks.peak_memory(image.image, tiling.tile_pixels, threads, "regions" in outputs)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: peaks are measured on Linux.")
@pytest.mark.parametrize("outputs", ["classes,recolored", "regions"])
def test_a_run_stays_below_what_was_stated_and_not_far_below(outputs, noise, tmp_path):
    arguments = ["segment", noise, tmp_path / "out.ome.zarr", "--axes=yxc", f"--outputs={outputs}"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments), "--ct=0.01", "--min-size=2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak, said = 1024 * int(done.stderr.split()[-1]), stated(noise, outputs)
    assert peak < said < 4 * peak + 300 * MIB, (peak // MIB, said // MIB)


def never(*_, **__):
    pytest.fail("something was computed")


@pytest.mark.parametrize("limit", [100 * MIB, "100MiB", "0.1 GB"])
def test_a_run_above_the_limit_is_refused_before_it_begins(limit, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "run_tiles", never)
    with pytest.raises(TooLarge, match=r"may need [\d.]+ \wiB .* limit is [\d.]+ MiB; ") as caught:
        segment(noise, axes="yxc").export(tmp_path / "out.ome.zarr", memory_limit=limit)
    assert caught.value.status == 413
    assert os.listdir(tmp_path) == []


def test_the_remedy_is_one_that_helps(noise, tmp_path):
    result = segment(noise, axes="yxc")
    tile = result.color_count.tiling.tile_pixels
    few = peaks.peak_memory(result.image, tile, 1)
    with dask.config.set(num_workers=4), pytest.raises(TooLarge, match="fewer threads"):
        result.export(tmp_path / "out.ome.zarr", memory_limit=few)
    with dask.config.set(num_workers=1), pytest.raises(TooLarge, match=r"leave out .*regions"):
        result.export(tmp_path / "out.ome.zarr", ["regions"], memory_limit=few)
    with dask.config.set(num_workers=1), pytest.raises(TooLarge, match="smaller chunks"):
        result.export(tmp_path / "out.ome.zarr", memory_limit=few - 1)


def test_a_run_below_the_limit_is_as_without_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36, 3), np.uint8)
    result = segment(pixels, ct=0, st=0.1)
    assert result.export(tmp_path / "out.ome.zarr", memory_limit="64GiB").status == 200


@pytest.mark.parametrize("limit", ["much", "", 0, -1, "-4GiB", True, "nan", [1]])
def test_what_is_no_limit_is_refused(limit, tmp_path):
    result = segment(np.zeros((4, 4), np.uint8))
    with pytest.raises(ParameterError, match=r"memory_limit = .*'4GiB'"):
        result.export(tmp_path / "out.ome.zarr", memory_limit=limit)


def test_the_command_refuses_and_info_states_the_peak(noise, tmp_path, capsys):
    out = tmp_path / "out.ome.zarr"
    assert cli.main(["segment", str(noise), str(out), "--axes=yxc", "--memory-limit=1MiB"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == 413
    assert cli.main(["info", str(noise), "--axes=yxc"]) == 0
    said = capsys.readouterr().out
    assert f"at most {stated(noise, 'classes') / MIB:.0f} MiB a worker" in said
    assert f"{stated(noise, 'regions') / MIB:.0f} MiB with regions" in said


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_more_threads_tiles_and_samples_need_no_less(kind):
    image = segment(np.zeros((64, 64), kind)).image
    assert peaks.peak_memory(image, 10, 1) < peaks.peak_memory(image, 10, 2)
    assert peaks.peak_memory(image, 10, 1) < peaks.peak_memory(image, 20, 1)
    assert peaks.peak_memory(image, 10, 1) < peaks.peak_memory(image, 10, 1, regions=True)
