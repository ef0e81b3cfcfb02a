"""One writer at a time: locks, and heartbeats where there are none."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import dask
import fsspec
import numpy as np
import pytest
import resume_tools
from resume_tools import ALL, cancelled_at, content, make_small, picture, segmented, source

from napari_pixseg.errors import Cancelled, OutputConflict
from napari_pixseg.export import heartbeat, lock, pyramid, run_record
from napari_pixseg.export.output_location import (
    LOCK_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    OutputLocation,
)


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


# Locks of other machines ----------


def lock_of(output, is_store):
    return output / LOCK_NAME if is_store else output.with_name(f".{output.name}.lock")


def left_lock(path, silent, **changes):
    """Write a lock file as another machine left it, silent for so many seconds."""
    path.parent.mkdir(exist_ok=True, parents=True)
    writer = {"host": "node7", "pid": 4711, "since": "2026-01-01T00:00:00.000+00:00", **changes}
    path.write_text(json.dumps(writer))
    when = time.time() - silent
    os.utime(path, (when, when))


NAMES = ["out.ome.zarr", "out.png"]


@pytest.fixture
def kept_lock(monkeypatch):
    """A server that keeps a lock although the machine that held it is gone."""
    unix = pytest.importorskip("fcntl", reason="NOT TESTED: locks of Unix")
    real = unix.flock

    def flock(file, how):
        file.seek(0)
        if b"node7" in file.read():
            raise BlockingIOError
        return real(file, how)

    monkeypatch.setattr(unix, "flock", flock)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("kept_lock")
def test_a_lock_that_a_dead_machine_left_is_explained_and_broken_on_request(name, tmp_path):
    target = tmp_path / name
    path = lock_of(target, name.endswith("zarr"))
    left_lock(path, 300)
    match = (
        r"locked by another run that no longer gives a sign of life \(process 4711 on node7 since "
        r"2026-01-01T.*, last heard of 300 s ago\); if it was killed, break its lock"
    )
    with pytest.raises(OutputConflict, match=match):
        segmented(picture()).export(target)
    assert segmented(picture()).export(target, break_lock=True).status == 200
    assert not path.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("silent", [3, 29])
@pytest.mark.usefixtures("kept_lock")
def test_a_lock_that_still_beats_is_not_broken(name, silent, tmp_path):
    target = tmp_path / name
    path = lock_of(target, name.endswith("zarr"))
    left_lock(path, silent)
    with pytest.raises(OutputConflict, match=f"heard of {silent} s ago.*its lock is not broken"):
        segmented(picture()).export(target, break_lock=True)
    with pytest.raises(OutputConflict, match=r"at this moment \(process 4711 on node7"):
        segmented(picture()).export(target)
    assert path.exists()


def test_the_lock_of_a_stopped_process_of_this_machine_is_not_broken(writer, tmp_path, output):
    path = output / LOCK_NAME
    when = time.time() - 900
    os.utime(path, (when, when))
    for options in ({}, {"break_lock": True}):
        with pytest.raises(OutputConflict, match=f"process {writer.pid} on .*, last heard of 90"):
            segmented(tmp_path / "in.zarr").export(output, ALL, resume=True, **options)
    assert path.exists()


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_lock_that_this_machine_does_not_see_holds_while_it_beats(has_locks, output, monkeypatch):
    if not has_locks:
        monkeypatch.setattr(lock, "_try_lock", lambda _file: lock._Hold.UNKNOWN)
    left_lock(output / LOCK_NAME, 20)
    with pytest.raises(OutputConflict, match=r"at this moment \(process 4711 on node7"):
        segmented(picture()).export(output)
    left_lock(output / LOCK_NAME, 61)
    assert segmented(picture()).export(output).status == 200


def test_without_locks_a_process_of_this_machine_holds_while_it_runs(output, monkeypatch):
    monkeypatch.setattr(lock, "_try_lock", lambda _file: lock._Hold.UNKNOWN)
    here = heartbeat.Writer.of_here()
    left_lock(output / LOCK_NAME, 1, host=here.host, pid=here.pid)
    with pytest.raises(OutputConflict, match="at this moment"):
        segmented(picture()).export(output)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left_lock(output / LOCK_NAME, 1, host=here.host, pid=ended.pid)
    assert segmented(picture()).export(output).status == 200


@pytest.mark.parametrize("shift", [-600, 600])
def test_locks_are_judged_by_the_clock_of_their_disk(shift, output, monkeypatch):
    modified = OutputLocation.modified

    def off(location):
        when = modified(location)
        return None if when is None else when + shift

    monkeypatch.setattr(OutputLocation, "modified", off)
    monkeypatch.setattr(lock, "_try_lock", lambda _file: lock._Hold.UNKNOWN)
    left_lock(output / LOCK_NAME, 20)
    with pytest.raises(OutputConflict, match="last heard of 20 s ago"):
        segmented(picture()).export(output)
    left_lock(output / LOCK_NAME, 61)
    assert segmented(picture()).export(output).status == 200


@pytest.mark.parametrize("name", NAMES)
def test_a_living_lock_beats_and_names_its_holder(name, tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    target = tmp_path / name
    path = lock_of(target, name.endswith("zarr"))
    beats, held, end = set(), [], time.monotonic() + 20

    def listen(_step):
        while len(beats) < 3 and time.monotonic() < end:
            beats.add(path.stat().st_mtime_ns)
        held.append(path.read_text())

    segmented(picture()).export(target, on_event=listen)
    assert len(beats) == 3
    assert heartbeat.Writer.from_json(json.loads(held[0])).pid == os.getpid()
    assert not path.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "lock beat"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_whose_lock_was_broken_finishes_nothing(name, tmp_path):
    target = tmp_path / name
    path = lock_of(target, name.endswith("zarr"))

    def take(step):
        if step.stage in ("classes", "picture") and step.done == 2:
            path.unlink()
            left_lock(path, 0)
            if name.endswith("zarr"):
                record = json.loads((target / RECORD_NAME).read_text())
                (target / RECORD_NAME).write_text(json.dumps({**record, "id": "another"}))

    with pytest.raises(OutputConflict, match="taken by another run meanwhile"):
        segmented(picture()).export(target, on_event=take)
    assert path.exists()
    assert not list(tmp_path.rglob("*manifest.json")) + list(tmp_path.glob("*.json"))


# Object stores have no locks ---------------------------------------------------


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


URL = "memory://beats/out.ome.zarr"


RECORD = f"/beats/out.ome.zarr/{RECORD_NAME}"


def aged(memory, seconds, **changes):
    """Set the age of the last heartbeat of the run in the store, by the store's clock."""
    values = json.loads(memory.cat_file(RECORD))
    # What the run's own clock said is of no use to others.
    values |= {"state": "running", "beat": "2001-01-01T00:00:00+00:00", **changes}
    memory.pipe_file(RECORD, json.dumps(values).encode())
    memory.store[RECORD].modified -= timedelta(seconds=seconds)


@pytest.mark.parametrize("policy", ["resume", "overwrite"])
def test_a_run_that_beat_a_moment_ago_is_not_disturbed(policy, memory):
    with pytest.raises(Cancelled):
        segmented(picture()).export(URL, **cancelled_at(15))
    aged(memory, 20)
    match = r"another run \(process \d+ on .* since 20.*\), alive 20 s ago; .* ended, or 40 s if"
    with pytest.raises(OutputConflict, match=match):
        segmented(picture()).export(URL, **{policy: True})
    aged(memory, 61)
    assert segmented(picture()).export(URL, **{policy: True}).status == 200


@pytest.mark.parametrize("shift", [-600, 600])
def test_a_clock_that_is_minutes_off_neither_breaks_a_lock_nor_keeps_it(shift, memory, monkeypatch):
    with pytest.raises(Cancelled):
        segmented(picture()).export(URL, **cancelled_at(15))

    class Off(datetime):
        """The store's clock, which is not that of this machine."""

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=shift)

    monkeypatch.setattr("fsspec.implementations.memory.datetime", Off)
    aged(memory, 20)
    with pytest.raises(OutputConflict, match="alive 20 s ago"):
        segmented(picture()).export(URL, resume=True)
    aged(memory, 61)
    assert segmented(picture()).export(URL, resume=True).status == 200


@pytest.mark.parametrize("lives", [True, False])
def test_a_store_without_times_is_watched_for_a_beat(lives, memory, monkeypatch):
    with pytest.raises(Cancelled):
        segmented(picture()).export(URL, **cancelled_at(15))
    monkeypatch.setattr(heartbeat, "DEAD_SECONDS", 0.3)
    monkeypatch.setattr(heartbeat, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(type(memory), "modified", fsspec.AbstractFileSystem.modified)
    aged(memory, 0)
    looks, load = [], run_record.load_record

    def beating(location):
        looks.append(location)
        if lives:
            aged(memory, 0, beat=f"beat {len(looks)}")
        return load(location)

    with monkeypatch.context() as patch:
        patch.setattr(run_record, "load_record", beating)
        if lives:
            with pytest.raises(OutputConflict, match="alive 0 s ago"):
                segmented(picture()).export(URL, resume=True)
            return
        assert segmented(picture()).export(URL, resume=True).status == 200
    assert len(looks) > 3


def test_a_silent_run_of_an_object_store_may_be_broken_earlier(memory):
    with pytest.raises(Cancelled):
        segmented(picture()).export(URL, **cancelled_at(15))
    aged(memory, 20)
    with pytest.raises(OutputConflict, match="or 10 s if it was killed"):
        segmented(picture()).export(URL, resume=True, break_lock=True)
    aged(memory, 31)
    with pytest.raises(OutputConflict, match=r"29 s if it was killed, or break its lock \(.*-lock"):
        segmented(picture()).export(URL, resume=True)
    assert segmented(picture()).export(URL, resume=True, break_lock=True).status == 200
    assert not [name for name in memory.find("/beats") if "check" in name]


def test_a_long_run_beats_and_stops_beating(memory, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
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
