"""The disk may lose power: what a crash of the machine leaves is found, and made again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from power_tools import OPTIONS, Runner, damage, make_input
from resume_tools import ALL, cancelled_at, make_small, picture, same, segmented, source

from napari_pixseg.classification.pixels import Pixels
from napari_pixseg.errors import Cancelled, InputChanged
from napari_pixseg.export import disk_sync, store_transaction
from napari_pixseg.export.output_location import COLORS_NAME, MANIFEST_NAME, RECORD_NAME

KILLS = 200 if os.environ.get("PIXSEG_SOAK") else 5
KINDS = sorted(OPTIONS)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: signals of Unix")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


@pytest.fixture(scope="module")
def runner():
    with Runner() as runner:
        yield runner


@pytest.fixture
def whole(tmp_path, runner):
    """Return an input, its output without a disturbance, and how long that takes."""

    def run(kind):
        path, expected = make_input(kind, tmp_path), tmp_path / "whole" / "out.ome.zarr"
        start = time.perf_counter()
        assert runner.run(kind, path, expected) == 0
        return path, expected, time.perf_counter() - start

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_runs_killed_at_random_and_damaged_at_random_are_finished_to_the_last_byte(
    kind, output, whole, runner
):
    path, expected, longest = whole(kind)
    chance, said = random.Random(len(kind) + KILLS), []
    for _ in range(KILLS):
        code = runner.run(kind, path, output, chance.uniform(0.001, longest), resume=True)
        said.append(code)
        assert code in (0, -signal.SIGKILL), said
        if not (output / RECORD_NAME).exists():
            continue
        said.append(damage(output, chance))
        # Every other time the next run is killed as well.
        if chance.random() < 0.5:
            assert runner.run(kind, path, output, resume=True) == 0, said
            same(output, expected)
            said.clear()
            if chance.random() < 0.7:
                shutil.rmtree(output)
    assert runner.run(kind, path, output, resume=True) == 0, said
    same(output, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["half", "zeros"])
def test_every_file_of_a_store_may_be_damaged(kind, harm, output, whole):
    path, expected, _ = whole(kind)
    shutil.copytree(expected, output)
    for file in [file for file in output.rglob("*") if file.is_file()]:
        if file.name == RECORD_NAME:
            continue
        if harm == "half":
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.write_bytes(bytes(file.stat().st_size))
    segmented(path, **OPTIONS[kind]).export(output, ALL, resume=True)
    same(output, expected)


@pytest.mark.parametrize(
    "harm", [b"", b"\0" * 400, b"\x93NUMPY\1\0\xff\0{'descr': (", None, "half"]
)
def test_a_torn_color_table_is_counted_again(harm, tmp_path, output, whole, monkeypatch):
    path, expected, _ = whole("zarr")
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(15))
    saved = output / COLORS_NAME
    content = saved.read_bytes()
    if harm == "half":
        harm = content[: len(content) // 2]
    if harm is None:
        # As np.load() meets it where a part of the header was lost.
        harm = content[:10] + bytes(range(1, 119)) + content[128:]
    saved.write_bytes(harm)
    counted, count = [], Pixels.count

    def counting(*arguments):
        counted.append(arguments)
        return count(*arguments)

    monkeypatch.setattr(Pixels, "count", counting)
    segmented(path).export(output, ALL, resume=True)
    assert counted
    same(output, expected)


def test_a_store_is_on_the_disk_before_its_manifest_is(tmp_path, output, monkeypatch):
    order, write = [], store_transaction.OutputLocation.write_bytes

    def flush(location):
        order.append("flush")
        disk_sync.flush_disk(location)

    def spy(location, content):
        order.append(location.name)
        write(location, content)

    monkeypatch.setattr(store_transaction, "flush_disk", flush)
    monkeypatch.setattr(store_transaction.OutputLocation, "write_bytes", spy)
    segmented(picture()).export(output)
    assert order[-3] == "flush"
    assert order[-1] == MANIFEST_NAME


def test_a_disk_that_does_not_take_what_was_written_ends_the_run(output, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("NOT TESTED: only Linux says so.")

    def lost(_descriptor):
        disk_sync.ctypes.set_errno(5)
        return -1

    monkeypatch.setattr(disk_sync, "_syncfs", lost)
    with pytest.raises(OSError, match="cannot be written"):
        segmented(picture()).export(output)
    assert not (output / MANIFEST_NAME).exists()


# The input --------------------------------------------------------------------------


SHRINKS = """
import os, sys
from resume_tools import ALL, make_small, segmented
from napari_pixseg.errors import InputChanged
make_small()
path, output, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])

def cut(step):
    if step.stage == sys.argv[4] and step.done == 1:
        os.truncate(path, 300)

try:
    segmented(path, **options).export(output, ALL, on_event=cut)
except InputChanged as error:
    print(error.status, error)
"""


@pytest.mark.parametrize(("kind", "stage"), [("color", "colors"), ("stack", "seams")])
def test_a_contiguous_tiff_that_is_cut_off_meanwhile_is_an_error_and_no_crash(
    kind, stage, tmp_path, output
):
    path = tmp_path / "in.tif"
    if kind == "color":
        tifffile.imwrite(path, picture(), photometric="rgb")
    else:
        make_input("stack", tmp_path)
    whole = path.read_bytes()
    when = path.stat().st_mtime_ns
    expected = tmp_path / "whole" / "out.ome.zarr"
    options = OPTIONS.get(kind, {})
    segmented(path, **options).export(expected, ALL)
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", SHRINKS, str(path), str(output), repr(options), stage],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("409 ")
    assert done.stdout.count("\n") == 1
    # Put back as it was, it is segmented to the end.
    path.write_bytes(whole)
    os.utime(path, ns=(when, when))
    segmented(path, **options).export(output, ALL, resume=True)
    same(output, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["colors", "seams", "regions"])
def test_an_input_that_was_renamed_and_put_back_can_be_resumed(kind, stage, tmp_path, output):
    path, moved = make_input(kind, tmp_path), tmp_path / "moved"
    expected = tmp_path / "whole" / "out.ome.zarr"
    segmented(path, **OPTIONS[kind]).export(expected, ALL)

    def move(step):
        if step.stage == stage and step.done == 1 and path.exists():
            path.rename(moved)

    # Where everything was read before it went, the run may be finished.
    with pytest.raises(InputChanged):
        segmented(path, **OPTIONS[kind]).export(output, ALL, on_event=move)
    moved.rename(path)
    segmented(path, **OPTIONS[kind]).export(output, ALL, resume=True)
    same(output, expected)


def test_tiles_that_a_killed_run_read_while_the_input_was_away_are_not_kept(tmp_path, output):
    path, moved = source(tmp_path), tmp_path / "moved"
    # Black is what a chunk that is not there is taken for, and so must have been counted.
    zarr.open_array(path, mode="r+")[:20] = 0
    expected = tmp_path / "whole" / "out.ome.zarr"
    segmented(path).export(expected)

    def move(step):
        if step.stage == "classes" and step.done == 1:
            path.rename(moved)
        if step.stage == "classes" and step.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segmented(path).export(output, on_event=move)
    moved.rename(path)
    with pytest.raises(InputChanged, match="run again with resume if it is unchanged"):
        segmented(path).export(output, resume=True)
    segmented(path).export(output, resume=True)
    same(output, expected)


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float32])
def test_parts_of_a_contiguous_tiff_are_those_of_the_array(dtype, tmp_path):
    chance = random.Random(0)
    pixels = np.arange(3 * 11 * 13 * 4).reshape(3, 11, 13, 4).astype(dtype)
    byteorder = ">" if np.dtype(dtype).byteorder == ">" else None
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", byteorder=byteorder,
                     planarconfig="contig", metadata={"axes": "ZYXS"})  # fmt: skip
    array = segmented(tmp_path / "in.tif", axes="zyxc").image.source.array

    def item(length):
        bounds = [chance.choice([None, chance.randrange(-length - 1, length + 2)]) for _ in "ab"]
        step = chance.choice([None, 1, 2, 5, -1, -3])
        return chance.choice([chance.randrange(-length, length), slice(*bounds, step)])

    for _ in range(500):
        key = tuple(map(item, pixels.shape))[: chance.randrange(1, 5)]
        assert np.array_equal(array[key], pixels[key]), key
