"""One writer at a time: locks, and heartbeats where there are none."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import dask
import fsspec
import numpy as np
import pytest
import resume_tools
from resume_tools import ALL, cancelled_at, content, make_small, picture, segmented, source

from napari_pixseg.errors import Cancelled, OutputConflict
from napari_pixseg.export import lock, pyramid, run_record
from napari_pixseg.export.output_location import LOCK_NAME, MANIFEST_NAME, RECORD_NAME


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


@pytest.fixture
def half(tmp_path, output):
    """An input, and an output of it that was cancelled halfway."""
    path = source(tmp_path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, **cancelled_at(15))
    return path


def refused(output, match, call):
    """Check that a call is refused in one sentence with code 409 and changes nothing."""
    before = content(output)
    with pytest.raises(OutputConflict, match=match) as caught:
        call()
    assert caught.value.manifest.status == 409
    assert "\n" not in str(caught.value)
    assert content(output) == before


# One writer at a time ----------------------------------------------------------


@pytest.fixture
def writer(tmp_path, output):
    """Another process that is in the middle of writing the output."""
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    process = subprocess.Popen(
        [sys.executable, resume_tools.__file__, str(source(tmp_path)), str(output), "0", "new"],
        env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: signals of Unix")
def test_a_second_writer_is_refused_while_the_first_lives(writer, tmp_path, output):
    path, match = tmp_path / "in.zarr", "is being written by another run at this moment"
    for options in ({}, {"resume": True}, {"overwrite": True}):
        refused(output, match, partial(segmented(path).export, output, ALL, **options))
    assert (output / LOCK_NAME).exists()
    writer.kill()
    writer.wait()
    segmented(tmp_path / "in.zarr").export(output, ALL, resume=True)
    assert not (output / LOCK_NAME).exists()


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png"])
def test_a_second_writer_in_this_process_is_refused(name, tmp_path):
    told = []

    def second(_step):
        if not told:
            with pytest.raises(OutputConflict, match="is being written") as caught:
                segmented(picture()).export(tmp_path / name)
            told.append(caught.value)

    segmented(picture()).export(tmp_path / name, on_event=second)
    assert told
    assert not [path for path in tmp_path.rglob("*") if "lock" in path.name]


def test_a_lock_that_was_removed_between_open_and_lock_is_taken_anew(output, monkeypatch):
    taken, try_lock = [], lock._try_lock

    def late(file):
        taken.append(file)
        if len(taken) == 1:
            (output / LOCK_NAME).unlink()
        return try_lock(file)

    monkeypatch.setattr(lock, "_try_lock", late)
    segmented(picture()).export(output)
    assert len(taken) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: locks of Unix")
def test_a_file_system_without_locks_is_written_all_the_same(output, monkeypatch):
    import fcntl

    def unknown(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert segmented(picture()).export(output).status == 200


def test_no_thread_writes_after_a_run_has_ended(output, monkeypatch):
    write, calls, ended = pyramid.Pyramid.write, [], []
    started, cancel = threading.Event(), threading.Event()

    def slow(*arguments):
        calls.append(1)
        if len(calls) == 3:
            # The second tile is slow. Meanwhile the first finishes and the run is cancelled.
            started.set()
            time.sleep(1)
        write(*arguments)
        ended.append(1)

    def listen(step):
        if step.stage == "classes" and step.done == 1:
            assert started.wait(30)
            cancel.set()

    monkeypatch.setattr(pyramid.Pyramid, "write", slow)
    with dask.config.set(scheduler="threads", num_workers=2), pytest.raises(Cancelled):
        segmented(picture()).export(output, on_event=listen, cancel=cancel)
    assert len(ended) == len(calls)


# Object stores have no locks ---------------------------------------------------


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


URL = "memory://beats/out.ome.zarr"


def aged(memory, seconds, **changes):
    """Set the age of the last heartbeat of the run in the store."""
    values = json.loads(memory.cat_file(f"/beats/out.ome.zarr/{RECORD_NAME}"))
    beat = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    values |= {"state": "running", "beat": beat, **changes}
    memory.pipe_file(f"/beats/out.ome.zarr/{RECORD_NAME}", json.dumps(values).encode())


@pytest.mark.parametrize("policy", ["resume", "overwrite"])
def test_a_run_that_beat_a_moment_ago_is_not_disturbed(policy, memory):
    with pytest.raises(Cancelled):
        segmented(picture()).export(URL, **cancelled_at(15))
    aged(memory, 20)
    with pytest.raises(OutputConflict, match="alive 20 s ago; wait until that has ended, or 40 s"):
        segmented(picture()).export(URL, **{policy: True})
    aged(memory, 61)
    assert segmented(picture()).export(URL, **{policy: True}).status == 200


def test_a_long_run_beats_and_stops_beating(memory, monkeypatch):
    monkeypatch.setattr(run_record, "BEAT_SECONDS", 0.01)
    beats, enough = set(), threading.Event()
    write = run_record.OutputLocation.write_bytes

    def spy(location, data):
        write(location, data)
        if location.name == RECORD_NAME:
            beats.add(json.loads(data)["beat"])
            if len(beats) > 3:
                enough.set()

    monkeypatch.setattr(run_record.OutputLocation, "write_bytes", spy)
    segmented(picture()).export(URL, on_event=lambda _: enough.wait(20))
    assert enough.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "beat"]
    said = json.loads(memory.cat_file(f"/beats/out.ome.zarr/{RECORD_NAME}"))
    assert said["state"] == "finished"


def test_a_run_whose_output_was_taken_stops_and_commits_nothing(memory):
    def take(step):
        if step.stage == "classes" and step.done == 2:
            aged(memory, 0, id="another")

    with pytest.raises(OutputConflict, match="taken by another run meanwhile"):
        segmented(picture()).export(URL, on_event=take)
    assert not memory.exists(f"/beats/out.ome.zarr/{MANIFEST_NAME}")
    assert json.loads(memory.cat_file(f"/beats/out.ome.zarr/{RECORD_NAME}"))["id"] == "another"


def test_of_two_runs_that_overwrite_the_second_clears_nothing(memory):
    segmented(picture()).export(URL)

    def take(step):
        if step.stage == "colors" and step.done == 2:
            aged(memory, 0, id="another")

    before = memory.find("/beats")
    with pytest.raises(OutputConflict, match="taken by another run meanwhile"):
        segmented(picture()).export(URL, overwrite=True, on_event=take)
    assert memory.find("/beats") == before


def test_a_local_record_has_no_beat_and_names_the_pass(half, output):
    said = json.loads((output / RECORD_NAME).read_text())
    assert "beat" not in said
    assert said["pass"] == "classes"
    assert re.fullmatch("[0-9a-f]{64}", said["color_table"]["sha256"])
    assert np.array_equal(said["input"]["shape"], picture().shape)
