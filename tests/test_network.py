"""What a network spoils is read again, ends as unreachable, and is never damage nor zeros."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress

import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from faulty_server import FAULTS, proxying, release_silent_answers, serving_files
from fsspec.config import conf
from resume_tools import ALL, make_small, picture, same, segmented

from napari_pixseg import cli, segment
from napari_pixseg.errors import (
    CorruptInput,
    InputNotFound,
    NotAnImage,
    ParameterError,
    Unavailable,
)
from napari_pixseg.sources import location, network_faults, remote_filesystem
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.read_options import ReadOptions

OPTIONS = {"cs": "sRGB", "st": 1.0, "ct": 0.1}


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch):
    make_small(monkeypatch.setattr)
    monkeypatch.setattr(network_faults, "_FIRST_PAUSE", 0.001)


def write_inputs(folder):
    """The same picture in every form that is read in parts; the name of a part of each."""
    pixels = picture()
    for name, options in {
        "2.zarr": {"zarr_format": 2},
        "3.zarr": {},
        "s.zarr": {"shards": (16, 16, 3)},
    }.items():
        zarr.create_array(folder / name, data=pixels, chunks=(8, 8, 3), **options)
    tifffile.imwrite(folder / "a.tif", pixels, tile=(16, 16), compression="zlib", photometric="rgb")
    return {"2.zarr": r"/1\.2\.0$", "3.zarr": "/c/1/2/0$", "s.zarr": "/c/1/0/0$", "a.tif": r"tif$"}


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    parts = write_inputs(folder)
    with serving_files(folder) as (url, faults):
        yield url, faults, parts, folder


NAMES = ["2.zarr", "3.zarr", "s.zarr", "a.tif"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_that_arrives_at_the_third_attempt_is_as_good_as_any(name, fault, server):
    url, faults, parts, _ = server
    result = segment(f"{url}/{name}", **OPTIONS)
    faults.inject(parts[name], fault, 2)
    wanted = segment(picture(), **OPTIONS)
    np.testing.assert_array_equal(result.classes, wanted.classes)
    assert any(times > 2 for times in faults.seen.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("fault", "on_error"), [(503, "raise"), (500, "skip"), ("cut", "skip"), ("reset", "skip")]
)
def test_a_part_that_never_arrives_is_unreachable_and_the_run_is_resumed(
    name, fault, on_error, server, tmp_path
):
    url, faults, parts, _ = server
    output = tmp_path / "out.ome.zarr"
    result = segment(f"{url}/{name}", **OPTIONS, retries=1)
    faults.inject(parts[name], fault)
    with pytest.raises(Unavailable, match=r"2 attempts.*resume") as caught:
        result.export(output, ALL, on_error=on_error)
    assert caught.value.status == 503
    assert max(times for path, times in faults.seen.items() if path.endswith(
        name if name == "a.tif" else "0")) >= 2  # fmt: skip
    faults.inject("$^", None)
    segment(f"{url}/{name}", **OPTIONS).export(output, ALL, resume=True)
    segment(f"{url}/{name}", **OPTIONS).export(tmp_path / "whole" / "out.ome.zarr", ALL)
    same(output, tmp_path / "whole" / "out.ome.zarr")


@pytest.mark.parametrize(("name", "stage"), [("s.zarr", "colors"), ("3.zarr", "seams")])
def test_a_run_whose_server_dies_is_resumed_when_it_is_back(name, stage, tmp_path):
    folder, output = tmp_path / "served", tmp_path / "out.ome.zarr"
    folder.mkdir()
    write_inputs(folder)
    stages = []
    with ExitStack() as alive:
        url, faults = alive.enter_context(serving_files(folder))

        def end_server(step):
            stages.append(step.stage)
            if stages.count(stage) == 3:
                # Connections that are open already end as well.
                faults.inject("", "reset")
                alive.close()

        result = segment(f"{url}/{name}", **OPTIONS, retries=1)
        with pytest.raises(Unavailable, match=r"cannot be fetched .*2 attempts.*resume"):
            result.export(output, ALL, on_event=end_server)
    port = int(url.rpartition(":")[2])
    with serving_files(folder, port):
        segment(f"{url}/{name}", **OPTIONS).export(output, ALL, resume=True)
        segment(f"{url}/{name}", **OPTIONS).export(tmp_path / "whole" / "out.ome.zarr", ALL)
    same(output, tmp_path / "whole" / "out.ome.zarr")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", [503, "reset"])
def test_opening_is_tried_again_and_then_unreachable(name, fault, server):
    url, faults, _, _ = server
    faults.inject(name, fault, 2)
    assert open_image(f"{url}/{name}").shape == picture().shape[:2]
    faults.inject(name, fault)
    with pytest.raises(Unavailable, match="3 attempts"):
        open_image(f"{url}/{name}", options=ReadOptions(2))


def test_a_chunk_that_is_not_there_is_the_fill_value_and_not_asked_for_again(server):
    url, faults, _, folder = server
    (folder / "3.zarr/c/1/2/0").unlink()
    pixels = picture()
    pixels[8:16, 16:24] = 0
    result = segment(f"{url}/3.zarr", **OPTIONS)
    faults.inject("$^", None)
    np.testing.assert_array_equal(result.color_table.pixels, pixels[..., 0].size)
    assert faults.seen["/3.zarr/c/1/2/0"] <= 2


def test_a_chunk_that_may_not_be_read_is_blamed_on_the_input(server, tmp_path):
    url, faults, parts, _ = server
    result = segment(f"{url}/3.zarr", **OPTIONS)
    faults.inject(parts["3.zarr"], 403)
    with pytest.raises(InputNotFound, match=r"3\.zarr/c/1/2/0 may not be read"):
        result.export(tmp_path / "out.ome.zarr", on_error="skip")
    assert max(faults.seen.values()) < 4


def test_what_arrives_whole_and_cannot_be_decoded_is_damage(server, tmp_path):
    url, _, _, folder = server
    (folder / "3.zarr/c/1/2/0").write_bytes(b"no zstd at all")
    result = segment(f"{url}/3.zarr", **OPTIONS)
    with pytest.raises(CorruptInput, match="c/1/2/0"):
        result.export(tmp_path / "out.ome.zarr")
    manifest = result.export(tmp_path / "skipped.ome.zarr", on_error="skip")
    assert manifest.details["skipped"]["pixels"] == 64


def test_the_array_of_a_user_is_read_again_as_well(server):
    url, faults, parts, _ = server
    array = zarr.open_array(f"{url}/3.zarr", mode="r")
    faults.inject(parts["3.zarr"], 503, 2)
    wanted = segment(picture(), **OPTIONS)
    np.testing.assert_array_equal(segment(array, **OPTIONS).classes, wanted.classes)


def test_workers_of_a_cluster_try_again_as_often(server, tmp_path):
    distributed = pytest.importorskip("distributed")
    url, faults, parts, _ = server
    with (
        distributed.LocalCluster(1, threads_per_worker=2, processes=True, dashboard_address=None,
                                 host="127.0.0.1") as cluster,
        distributed.Client(cluster),
    ):  # fmt: skip
        result = segment(f"{url}/3.zarr", **OPTIONS, retries=2)
        faults.inject(parts["3.zarr"], 503, 2)
        result.export(tmp_path / "out.ome.zarr", ("classes",))
        faults.inject(parts["3.zarr"], 503)
        with pytest.raises(Unavailable, match="3 attempts"):
            segment(f"{url}/3.zarr", **OPTIONS, retries=2).export(tmp_path / "b.ome.zarr")


def test_the_command_has_both_options(server, tmp_path, capsys):
    url, faults, parts, _ = server
    faults.inject(parts["3.zarr"], 503)
    arguments = ["segment", f"{url}/3.zarr", str(tmp_path / "out.ome.zarr"), "--retries=1"]
    assert cli.main([*arguments, "--on-error=skip", "--ct=0.1", "--st=1", "--cs=13"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == 503
    assert "2 attempts" in answer["error"]
    assert cli.main(["info", f"{url}/3.zarr", "--retries=1"]) == 0
    assert cli.main(["segment", "a", "b", "--retries=-1"]) == 1


@pytest.mark.parametrize("retries", [-1, 1.5, "5", True, 10**6])
def test_odd_numbers_of_retries_are_refused(retries):
    with pytest.raises(ParameterError, match="0 to 100"):
        segment(picture(), retries=retries)


# File systems that are not to be found again, and not to be collected either.
FORGOTTEN = []


def forget_connections(kind):
    """Have new connections made, to an endpoint that may be another.

    Old ones stay alive: s3fs closes them when they are collected, and warns where they belong to
    the event loop of zarr.
    """
    FORGOTTEN.extend(kind._cache.values())
    kind.clear_instance_cache()


@pytest.mark.parametrize("fault", [503, "cut", "reset"])
def test_s3_is_read_again_and_then_unreachable(fault, s3_endpoint, tmp_path, monkeypatch):
    import boto3
    import s3fs

    bucket = f"faulty-{fault}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=bucket)
    zarr.create_array(tmp_path / "a.zarr", data=picture(), chunks=(8, 8, 3))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(tmp_path).as_posix())
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with proxying(s3_endpoint) as (url, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        forget_connections(s3fs.S3FileSystem)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        faults.inject("/c/1/2/0", fault, 3)
        wanted = segment(picture(), **OPTIONS).classes
        np.testing.assert_array_equal(segment(f"s3://{bucket}/a.zarr", **OPTIONS).classes, wanted)
        faults.inject("/c/1/2/0", fault)
        with pytest.raises(Unavailable, match=r"s3://.*c/1/2/0 cannot be fetched"):
            segment(f"s3://{bucket}/a.zarr", **OPTIONS, retries=1).export(
                tmp_path / "out.ome.zarr", on_error="skip"
            )
        forget_connections(s3fs.S3FileSystem)


# Files of this machine, and codecs ----------------------------------------------


def bound_by_permissions():
    """Return the start of a command that may not read what nobody may read."""
    if os.getuid() != 0:
        return []
    # Root reads everything, unless it gives this up.
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--inh-caps={caps}", f"--bounding-set={caps}"]


@pytest.mark.skipif(not hasattr(os, "getuid") or not shutil.which("setpriv"),
                    reason="NOT TESTED: there is no setpriv to give up root's rights.")  # fmt: skip
@pytest.mark.parametrize("part", ["c/1/2/0", "zarr.json", "a.tif"])
def test_a_file_that_may_not_be_read_is_blamed_on_the_input(part, tmp_path):
    path = tmp_path / "in.zarr"
    zarr.create_array(path, data=picture(), chunks=(8, 8, 3))
    tifffile.imwrite(tmp_path / "a.tif", picture(), photometric="rgb", tile=(16, 16),
                     compression="zlib")  # fmt: skip
    closed = tmp_path / part if part == "a.tif" else path / part
    closed.chmod(0)
    given = closed if part == "a.tif" else path
    done = subprocess.run(
        [*bound_by_permissions(), sys.executable, "-m", "napari_pixseg", "segment", given,
         tmp_path / "out.ome.zarr", "--on-error=skip", "--ct=0.1", "--cs=13", "--st=1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    answer = json.loads(done.stdout or "{}")
    assert answer.get("status") == 404, done.stderr
    assert "may not be read by this user" in answer["error"]
    assert str(given if part == "zarr.json" else closed) in answer["error"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("codec", "remedy"),
    [
        ("zfpy_of_the_future", r"numcodecs\[zfpy\]"),
        ("imagecodecs_jpegxl2", "imagecodecs"),
        ("unheard.of", "the package that brings"),
    ],
)
def test_a_codec_that_is_not_installed_is_named_with_its_package(
    zarr_format, codec, remedy, tmp_path
):
    path = tmp_path / "in.zarr"
    zarr.create_array(path, data=picture(), chunks=(8, 8, 3), zarr_format=zarr_format)
    document = path / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(document.read_text())
    if zarr_format == 2:
        metadata["compressor"] = {"id": codec}
    else:
        metadata["codecs"][-1] = {"name": codec, "configuration": {}}
    document.write_text(json.dumps(metadata))
    with pytest.raises(NotAnImage, match=rf"needs the codec '{codec}'.*install {remedy}"):
        segment(path)


def test_a_codec_whose_package_fails_to_load_while_decoding_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "in.zarr"
    zarr.create_array(path, data=picture(), chunks=(8, 8, 3))
    result = segmented(path)

    def broken(*_):
        raise ModuleNotFoundError("No module named 'pcodec'", name="pcodec")

    monkeypatch.setattr("napari_pixseg.sources.zarr_chunks.ChunkFiles._read_chunk", broken)
    with pytest.raises(NotAnImage, match="install the package pcodec"):
        result.export(tmp_path / "out.ome.zarr", on_error="skip")


# Servers that never answer ------------------------------------------------------


@contextmanager
def accepting_and_silent():
    """Accept connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept, ended = [], threading.Event()

        def accept():
            server.settimeout(0.1)
            while not ended.is_set():
                with suppress(TimeoutError):
                    kept.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()
            for connection in kept:
                connection.close()


@pytest.fixture
def _impatient(monkeypatch):
    assert remote_filesystem.SECONDS_TO_ANSWER == 10
    for module in (remote_filesystem, location):
        monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 1.0)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    "address",
    [
        "{}/a.tif",
        "{}/a.png",
        "{}/a.zarr",
        "zip://a.tif::{}/a.zip",
        "simplecache::{}/a.tif",
        "filecache::{}/a.zarr",
    ],
)
def test_a_server_that_never_answers_is_one_sentence(address, tmp_path, capsys):
    with accepting_and_silent() as url:
        for command in (["info"], ["segment"]):
            given = [*command, address.format(url)]
            given += [str(tmp_path / "out.ome.zarr")] if command == ["segment"] else []
            assert cli.main(given) == 1
            answer = json.loads(capsys.readouterr().out)
            assert answer["status"] == 503
            assert "does not answer within 1 s" in answer["error"]


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png"])
def test_an_output_on_a_server_that_never_answers_is_unreachable(name, monkeypatch):
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(remote_filesystem, "SECONDS_TO_ANSWER", 0.1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(variable, "us-east-1")
    result = segment(picture(), **OPTIONS)
    with accepting_and_silent() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(Unavailable) as caught:
            result.export(f"s3://silent/{name}")
    assert re.search(f"s3://silent/{name} cannot be reached .*Timeout.* again with resume",
                     str(caught.value))  # fmt: skip
    # The client of S3 tries again, and nothing around it does.
    assert fsspec.filesystem("s3", **remote_filesystem.options_for("s3://a")["s3"]).retries == 1


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("name", ["3.zarr", "a.tif"])
def test_a_part_that_is_never_sent_is_unreachable(name, server, tmp_path):
    url, faults, parts, _ = server
    result = segment(f"{url}/{name}", **OPTIONS, retries=1)
    faults.inject(parts[name], "silent")
    with pytest.raises(Unavailable, match=r"cannot be fetched .*2 attempts|does not answer"):
        result.export(tmp_path / "out.ome.zarr", on_error="skip")
    release_silent_answers()


def test_what_users_have_set_for_a_protocol_stays(monkeypatch):
    monkeypatch.setitem(conf, "https", {"client_kwargs": {"headers": {"a": "b"}, "timeout": 7}})
    options = remote_filesystem.options_for("simplecache::https://host/a.tif")
    given = options["https"]["client_kwargs"]
    assert given | {"headers": {"a": "b"}, "timeout": 7} == given
    monkeypatch.setitem(conf, "s3", {"config_kwargs": {"read_timeout": 3}})
    limits = remote_filesystem.options_for("s3://bucket/a.tif")["s3"]["config_kwargs"]
    assert limits == {"connect_timeout": 10.0, "read_timeout": 3}
    assert remote_filesystem.options_for("gs://bucket/a.tif") == {}
