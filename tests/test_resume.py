"""A run that was cancelled, failed or killed is finished by another, to the last byte."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import resume_tools
import zarr
from resume_tools import ALL, cancelled_at, make_small, picture, products, same, segmented, source

from napari_pixseg.classification import pixels
from napari_pixseg.errors import Cancelled, InputChanged, NoSpace, OutputConflict
from napari_pixseg.export import component_cache, pyramid, region_export, store_arrays
from napari_pixseg.export.output_location import (
    LOCK_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    OutputLocation,
)
from napari_pixseg.export.tile_writer import TileWriter
from napari_pixseg.sources import zarr_store

SOAK = bool(os.environ.get("PIXSEG_SOAK"))
DTYPES = {"uint8": {}, "uint16": {"denoise": 2}, "float32": {"min_size": 3, "connectivity": 2}}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


@pytest.fixture
def whole(tmp_path):
    """The output and the steps of an undisturbed run with the same name, for given options."""

    def run(what, outputs=ALL, **options):
        steps, folder = [], tmp_path / "whole" / "out.ome.zarr"
        segmented(what, **options).export(folder, outputs, overwrite=True, on_event=steps.append)
        return folder, len(steps)

    return run


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_cancelled_at_any_step_is_finished_to_the_last_byte(
    dtype, tmp_path, output, whole, monkeypatch
):
    path, options = source(tmp_path, dtype), DTYPES[dtype]
    expected, steps = whole(path, **options)
    assert steps >= 30
    if dtype == "uint16":
        # As on a cluster, where each coarser level is made from the one before.
        for module in (store_arrays, region_export):
            monkeypatch.setattr(module, "runs_here", lambda: False)
        _, steps = whole(path, **options)
        assert steps > 40
    # Every step in a soak; else some of them, which are others for each type.
    first, pace = {"uint8": (1, 3), "uint16": (2, 7), "float32": (3, 7)}[dtype]
    for number in range(1, steps + 1) if SOAK else range(first, steps + 1, pace):
        shutil.rmtree(output, ignore_errors=True)
        try:
            segmented(path, **options).export(output, ALL, **cancelled_at(number))
        except Cancelled:
            assert not (output / MANIFEST_NAME).exists()
            segmented(path, **options).export(output, ALL, resume=True)
        same(output, expected)


def test_a_run_may_be_resumed_again_and_again(tmp_path, output, whole):
    path = source(tmp_path)
    expected, _ = whole(path)
    cancelled = 0
    for number in (6, 9, 12, 16, 22, 22, 28, 28, 34, 40, 0):
        try:
            segmented(path).export(output, ALL, resume=True, **cancelled_at(number))
            break
        except Cancelled:
            cancelled += 1
    assert cancelled > 3
    same(output, expected)


@pytest.mark.parametrize(
    "outputs", ["classes", "recolored", "regions", "classes,recolored", "regions,recolored"]
)
def test_any_outputs_can_be_resumed(outputs, tmp_path, output, whole):
    path, outputs = source(tmp_path), outputs.split(",")
    expected, steps = whole(path, outputs)
    for number in (12, 15, steps - 8, steps - 1):
        shutil.rmtree(output, ignore_errors=True)
        try:
            segmented(path).export(output, outputs, **cancelled_at(number))
            # Too late to cancel once all tiles of the last level have begun.
            assert number == steps - 1
        except Cancelled:
            segmented(path).export(output, outputs, resume=True)
        same(output, expected)


@pytest.mark.parametrize("seed", range(30 if SOAK else 2))
def test_a_run_killed_at_any_moment_is_finished_to_the_last_byte(seed, tmp_path, output, whole):
    path = source(tmp_path)
    whole(path)
    start = time.perf_counter()
    expected, _ = whole(path)
    longest = time.perf_counter() - start
    chance = random.Random(seed)
    for _ in range(2):
        seconds = chance.uniform(0.001, longest)
        arguments = [resume_tools.__file__, path, output, seconds, "resume"]
        paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    if not (output / MANIFEST_NAME).exists():
        segmented(path).export(output, ALL, resume=True)
    same(output, expected)
    assert not any("partial" in name or LOCK_NAME in name for name in products(output))


def test_a_run_killed_before_its_record_was_whole_is_begun_anew(tmp_path, output, whole):
    path = source(tmp_path)
    expected, _ = whole(path)
    output.mkdir()
    partial = OutputLocation(str(output)).child(RECORD_NAME).partial_path()
    partial.write_bytes(b"{")
    segmented(path).export(output, ALL, resume=True)
    same(output, expected)


def test_a_run_that_found_the_disk_full_is_finished(tmp_path, output, whole, monkeypatch):
    path = source(tmp_path)
    expected, _ = whole(path)
    write = pyramid.Pyramid.write
    written = []

    def full(self, *arguments):
        written.append(1)
        if len(written) == 7:
            raise OSError(28, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pyramid.Pyramid, "write", full)
        with pytest.raises(NoSpace, match="with resume"):
            segmented(path).export(output, ALL)
    segmented(path).export(output, ALL, resume=True)
    same(output, expected)


# Inputs and places of other kinds ----------------------------------------------


def test_an_array_in_memory_is_counted_again_and_resumed(output, whole):
    expected, _ = whole(picture())
    with pytest.raises(Cancelled):
        segmented(picture()).export(output, ALL, **cancelled_at(26))
    segmented(picture()).export(output, ALL, resume=True)
    same(output, expected)
    (output / MANIFEST_NAME).unlink()
    with pytest.raises(OutputConflict, match=r"hash of its colors was \w+ and is now \w+"):
        segmented(255 - picture()).export(output, ALL, resume=True)


@pytest.mark.parametrize("step", [15, 26])
@pytest.mark.parametrize("short", [1, 4])
def test_pixels_that_changed_are_noticed_though_the_metadata_are_the_same(
    tmp_path, output, step, short, monkeypatch
):
    """Inputs whose files have no known time, as on servers."""
    monkeypatch.setattr(component_cache, "_SHORT", short)
    monkeypatch.setattr(zarr_store, "_local_fingerprint", lambda _: None)
    path = source(tmp_path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(step))
    zarr.open_array(path)[...] = 255 - picture()
    with pytest.raises(InputChanged):
        segmented(path).export(output, ALL, resume=True)
    assert not (output / MANIFEST_NAME).exists()


@pytest.mark.parametrize("step", [15, 26, 29])
def test_a_change_that_leaves_all_counts_alike_is_noticed(tmp_path, output, step, whole):
    path = source(tmp_path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(step))
    array = zarr.open_array(path)
    # Tiles keep their sets of colors, so a finished tile fits its old and its new pixels.
    for top in range(0, 40, 16):
        array[top : top + 16] = array[top : top + 16][::-1]
    for _ in range(2):
        with pytest.raises(OutputConflict, match="files of the input were written since"):
            segmented(path).export(output, ALL, resume=True)
    assert not (output / MANIFEST_NAME).exists()
    segmented(path).export(output, ALL, overwrite=True)
    same(output, whole(path)[0])


@pytest.mark.parametrize(
    ("target", "outputs", "when"),
    [
        ("out.ome.zarr", ["recolored"], "classes"),
        ("out.ome.zarr", ["classes"], "classes"),
        ("out.ome.zarr", ALL, "seams"),
        ("out.ome.zarr", ALL, "regions"),
        ("out.png", ["recolored"], "picture"),
    ],
)
def test_an_input_that_is_written_meanwhile_is_noticed(tmp_path, target, outputs, when):
    path, output, written = source(tmp_path), tmp_path / target, []

    def write(progress):
        if progress.stage == when and not written:
            os.utime(path / "c" / "0" / "0" / "0")
            written.append(progress)

    with pytest.raises(InputChanged):
        segmented(path).export(output, outputs, on_event=write)
    assert written
    assert not output.is_file()
    assert not (output / MANIFEST_NAME).exists()
    # The colors were counted before, when somebody looked at the table.
    looked_at = segmented(path)
    assert len(looked_at.table)
    os.utime(path / "c" / "0" / "0" / "0")
    with pytest.raises(InputChanged):
        looked_at.export(output, outputs, overwrite=True)


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_an_output_in_an_object_store_is_resumed(kind, tmp_path, whole, request):
    path = source(tmp_path)
    expected, _ = whole(path)
    if kind == "s3":
        request.getfixturevalue("s3_endpoint")
        fsspec.filesystem("s3").mkdir("resumed")
    url = f"{kind}://resumed/out.ome.zarr"
    for number in (13, 20):
        with pytest.raises(Cancelled):
            segmented(path).export(url, ALL, resume=True, **cancelled_at(number))
    segmented(path).export(url, ALL, resume=True)
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.get(root, str(tmp_path / "fetched"), recursive=True)
    same(tmp_path / "fetched", expected)


def test_resume_where_nothing_is_simply_runs(tmp_path, output, whole):
    path = source(tmp_path)
    expected, _ = whole(path)
    assert segmented(path).export(output, ALL, resume=True).status == 200
    same(output, expected)
    assert segmented(path).export(tmp_path / "out.png", ["recolored"], resume=True).status == 200


def test_a_run_over_an_older_output_never_takes_its_tiles(tmp_path, output, whole, monkeypatch):
    path = source(tmp_path)
    expected, _ = whole(path)
    segmented(path, st=30).export(output, ALL)
    remove = OutputLocation.remove

    def killed(location):
        if location.name == "regions.parquet":
            raise KeyboardInterrupt
        remove(location)

    with monkeypatch.context() as patch:
        patch.setattr(OutputLocation, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            segmented(path).export(output, ALL, overwrite=True)
    with pytest.raises(OutputConflict, match=r"st was 30(\.0)? and is now 0\.1"):
        segmented(path).export(output, ALL, resume=True)
    segmented(path).export(output, ALL, overwrite=True)
    same(output, expected)


def test_tiles_read_one_by_one_are_resumed_too(tmp_path, output, whole, monkeypatch):
    monkeypatch.setattr(pixels, "DIRECT_TILES", 2)
    path = source(tmp_path)
    expected, _ = whole(path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(16))
    written, write = [], TileWriter.__call__

    def spy(writer, classes, number):
        written.append(number in writer.done_labels)
        return write(writer, classes, number)

    monkeypatch.setattr(TileWriter, "__call__", spy)
    segmented(path).export(output, ALL, resume=True)
    assert True in written
    assert False in written
    same(output, expected)
