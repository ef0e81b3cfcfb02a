"""Two writers of one picture on an object store: one of them writes it, and whole."""

import json
import os

import pytest
from resume_tools import make_small, picture, segmented

from napari_pixseg.errors import OutputConflict
from napari_pixseg.export import heartbeat, remote_lock
from napari_pixseg.export.heartbeat import Writer
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.export.remote_lock import RemoteLock

NAMES = ["a.png", "a.tif"]


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """The address of a folder on an S3 server."""
    boto3 = pytest.importorskip("boto3")
    make_small(monkeypatch.setattr)
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="pictures")
    return f"s3://pictures/{os.urandom(4).hex()}"


def lock_of(url):
    folder, _, name = url.rpartition("/")
    return OutputLocation(f"{folder}/.{name}.lock")


def left_lock(url, host="elsewhere", pid=1):
    lock_of(url).write_bytes(json.dumps(Writer(host, pid, "now").to_json()).encode())


def names(bucket):
    return OutputLocation(bucket).list_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_writer_is_refused_while_the_first_one_writes(name, bucket):
    url = f"{bucket}/{name}"
    refused = []

    def try_too(_):
        if not refused:
            with pytest.raises(OutputConflict, match="being written by another run") as caught:
                segmented(picture()).export(url, overwrite=True)
            refused.append(str(caught.value))

    assert segmented(picture()).export(url, on_event=try_too).status == 200
    assert f"process {os.getpid()}" in refused[0]
    assert names(bucket) == [name, f"{name}.json"]
    assert segmented(picture()).export(url, overwrite=True).status == 200


def test_whoever_lost_the_lock_leaves_the_picture_of_the_other(bucket):
    url = f"{bucket}/a.png"
    OutputLocation(url).write_bytes(b"of the other")
    taken = []

    def take(_):
        if not taken:
            taken.append(left_lock(url))

    with pytest.raises(OutputConflict, match="taken by another run meanwhile"):
        segmented(picture()).export(url, overwrite=True, on_event=take)
    assert OutputLocation(url).read_bytes() == b"of the other"
    # The lock of the other one is not removed.
    assert json.loads(lock_of(url).read_bytes())["host"] == "elsewhere"


def test_a_lock_that_was_left_ends_by_itself_or_on_request(bucket, monkeypatch):
    url = f"{bucket}/a.png"
    left_lock(url)
    with pytest.raises(OutputConflict, match=r"process 1 on elsewhere since now, last heard of"):
        segmented(picture()).export(url)
    with pytest.raises(OutputConflict, match="its lock is not broken"):
        segmented(picture()).export(url, break_lock=True)
    monkeypatch.setattr(heartbeat, "BREAK_SECONDS", 0.0)
    with pytest.raises(OutputConflict, match="no longer gives a sign of life"):
        segmented(picture()).export(url)
    assert segmented(picture()).export(url, break_lock=True).status == 200
    left_lock(url)
    monkeypatch.setattr(heartbeat, "DEAD_SECONDS", 0.0)
    assert segmented(picture()).export(url, overwrite=True).status == 200
    assert names(bucket) == ["a.png", "a.png.json"]


def test_a_killed_writer_of_this_machine_holds_nothing(bucket):
    url = f"{bucket}/a.png"
    left_lock(url, Writer.of_here().host, 2**22 + 1)
    OutputLocation(url).write_bytes(b"a picture without its manifest")
    # Resuming writes what was killed between the picture and its manifest.
    assert segmented(picture()).export(url, resume=True).status == 200
    assert names(bucket) == ["a.png", "a.png.json"]


def test_a_writer_beats_until_it_ends(bucket, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    location = OutputLocation(f"{bucket}/a.png")
    lock = RemoteLock.take(location)
    first = remote_lock._read(lock_of(location.target))
    look = lambda: remote_lock._read(lock_of(location.target))  # noqa: E731
    assert heartbeat.watch_silence(look, 20, lambda: None) == 0.0
    assert look()["token"] == first["token"]
    lock.release()
    lock.release()
    assert names(bucket) == []
