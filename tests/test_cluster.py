"""The same result from processes of a Dask cluster, whichever of them dies."""

import json
import os
import random
import shutil
import signal
import threading
import time

import cluster_tools
import dask
import dask.array as da
import fsspec
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import zarr
from resume_tools import (
    ALL,
    SHAPE,
    cancelled_at,
    comparable,
    make_small,
    picture,
    products,
    remount,
    same,
    segmented,
    small_device,
)
from resume_tools import source as zarr_source

from napari_pixseg import cli
from napari_pixseg.errors import Cancelled, ClusterLost, NoSpace, ParameterError
from napari_pixseg.execution.dask_cluster import connected
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME

pytest.importorskip("distributed")
SOAK = bool(os.environ.get("PIXSEG_SOAK"))
# Of a tile, where something is to happen before all tiles of a stage are done.
SLOW = 0.15
PHASES = ["colors", "seams", "regions", "picture level 2", "classes level 2", "regions level 2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, s3_endpoint):
    # Its server comes first, for workers have its address and credentials from the environment.
    assert s3_endpoint
    made = cluster_tools.Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture
def client(cluster):
    cluster.want(2)
    with connected(cluster.address) as client:
        yield client
        client.run(cluster_tools.slow_down, 0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


def on_threads(what, folder, **options):
    """What this machine's threads write, at a path of the same name."""
    expected = folder / "threads" / "out.ome.zarr"
    with dask.config.set(scheduler="threads"):
        segmented(what, **options).export(expected, ALL, overwrite=True)
    return expected


def caught_in(stage, client, act):
    """A listener that slows a stage down, and acts once when a tile of it is done."""
    acted = []

    def listen(step):
        if step.stage != stage or acted:
            return
        if not step.done:
            client.run(cluster_tools.slow_down, SLOW)
        else:
            acted.append(step)
            client.run(cluster_tools.slow_down, 0)
            act()

    return listen, acted


def stack(folder):
    """Four frames: the coarser levels of a pyramid have several tiles, too."""
    array = zarr.create_array(
        folder / "stack.zarr", shape=(4, *SHAPE), chunks=(1, 8, 8, 3), dtype=np.uint8
    )
    array[...] = np.stack([picture(), picture()[::-1], 255 - picture(), picture()[:, ::-1]])
    return folder / "stack.zarr", {"axes": "tyxc"}


def in_phase(stage, folder):
    return stack(folder) if "level" in stage else (zarr_source(folder), {})


# The same result ---------------------------------------------------------------


def as_zarr(folder):
    return zarr_source(folder)


def as_deep_zarr(folder):
    return zarr_source(folder, np.uint16)


def as_float_zarr(folder):
    return zarr_source(folder, np.float32)


def as_tiff(folder):
    tifffile.imwrite(folder / "in.tif", picture(), tile=(16, 16), compression="zlib")
    return folder / "in.tif"


def as_numpy(_folder):
    return picture()


def as_dask(_folder):
    return da.from_array(picture(), chunks=(16, 12, 3))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (as_zarr, {}),
        (as_deep_zarr, {"denoise": 2, "connectivity": 2}),
        (as_float_zarr, {"min_size": 3, "background": "largest"}),
        (as_tiff, {"denoise": 1}),
        (as_numpy, {}),
        (as_dask, {"denoise": 1}),
    ],
)
@pytest.mark.usefixtures("client")
def test_a_cluster_writes_what_threads_write_to_the_last_byte(make, options, tmp_path, output):
    what = make(tmp_path)
    segmented(what, **options).export(output, ALL)
    same(output, on_threads(what, tmp_path, **options))


@pytest.mark.usefixtures("client")
def test_workers_read_and_write_an_object_store(tmp_path):
    filesystem = fsspec.filesystem("s3")
    filesystem.mkdir("cluster")
    path = zarr_source(tmp_path)
    filesystem.put(str(path), "cluster/in.zarr", recursive=True)
    url = "s3://cluster/out.ome.zarr"
    with pytest.raises(Cancelled):
        segmented("s3://cluster/in.zarr").export(url, ALL, **cancelled_at(14))
    manifest = segmented("s3://cluster/in.zarr").export(url, ALL, resume=True)
    assert manifest.link == url
    filesystem.get("cluster/out.ome.zarr", str(tmp_path / "fetched"), recursive=True)
    assert products(tmp_path / "fetched") == products(on_threads(path, tmp_path))


@pytest.mark.usefixtures("client")
def test_lazy_arrays_and_pictures_come_from_the_cluster_too(tmp_path):
    path = zarr_source(tmp_path)
    result = segmented(path)
    np.testing.assert_array_equal(result.classes.compute(), segmented(picture()).classes)
    segmented(path).export(tmp_path / "out.tif", ["recolored"])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), result.recolored)
    segmented(path).export(tmp_path / "out.png", ["recolored"])
    np.testing.assert_array_equal(imageio.imread(tmp_path / "out.png"), result.recolored)


@pytest.mark.usefixtures("client")
def test_nothing_is_scattered_as_what_is_scattered_dies_with_a_worker(
    monkeypatch, tmp_path, output
):
    from distributed import Client

    monkeypatch.setattr(Client, "scatter", lambda *_, **__: pytest.fail("scattered"))
    segmented(zarr_source(tmp_path)).export(output, ("classes", "regions", "recolored"))


@pytest.mark.usefixtures("client")
def test_every_tile_of_every_stage_is_told_once_and_in_order(tmp_path, output):
    there, here = [], []
    path = zarr_source(tmp_path)
    segmented(path).export(output, ALL, on_event=there.append)
    with dask.config.set(scheduler="threads"):
        segmented(path).export(output, ALL, overwrite=True, on_event=here.append)
    assert set(PHASES) <= {step.stage for step in there}
    # One process makes coarser levels along with the finest.
    assert not any("level" in step.stage for step in here)
    assert [step for step in there if "level" not in step.stage] == here


def test_the_command_runs_on_the_scheduler_that_is_named(cluster, tmp_path, output, capsys):
    cluster.want(2)
    path = zarr_source(tmp_path)
    arguments = ["segment", str(path), str(output), "--axes=yxc", "--ct=0", "--st=0.1",
                 "--cs=sRGB", f"--outputs={','.join(ALL)}"]  # fmt: skip
    with connected(cluster.address) as client:
        before = tasks_done(client)
    assert cli.main([*arguments, "--scheduler", cluster.address]) == 0
    with connected(cluster.address) as client:
        assert tasks_done(client) > before
    assert json.loads(capsys.readouterr().out)["status"] == 200
    same(output, on_threads(path, tmp_path))


def tasks_done(client):
    """Something that grows with every task that the scheduler hands out."""
    return client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "carrier-pigeon://roof:1"])
def test_an_address_where_no_scheduler_answers_is_one_sentence(address, monkeypatch, tmp_path):
    monkeypatch.setattr("napari_pixseg.execution.cluster_connection._CONNECT_SECONDS", 1)
    sentence = pytest.raises(ParameterError, match=r"No Dask scheduler answers at .*check the addr")
    with sentence, connected(address):
        pytest.fail("connected to nothing")
    out = tmp_path / "out.ome.zarr"
    assert cli.main(["segment", str(zarr_source(tmp_path)), str(out), "--scheduler", address]) == 1
    assert not out.exists()


# Cancelled ---------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["colors", "seams", "regions", "picture level 2"])
def test_a_cancelled_run_has_stopped_when_it_says_so_and_is_resumed(
    stage, client, tmp_path, output
):
    (path, options), cancel = in_phase(stage, tmp_path), threading.Event()
    listen, acted = caught_in(stage, client, cancel.set)
    with pytest.raises(Cancelled):
        segmented(path, **options).export(output, ALL, on_event=listen, cancel=cancel)
    assert acted[0].done < acted[0].total
    left = products(output)
    assert not (output / MANIFEST_NAME).exists()
    assert not any(client.processing().values())
    time.sleep(2 * SLOW)
    assert products(output) == left
    assert json.loads((output / RECORD_NAME).read_text())["state"] == "cancelled"
    segmented(path, **options).export(output, ALL, resume=True)
    same(output, on_threads(path, tmp_path, **options))


# Killed ------------------------------------------------------------------------


@pytest.mark.parametrize("stage", PHASES)
def test_a_worker_killed_in_any_phase_costs_no_tile(stage, cluster, client, tmp_path, output):
    path, options = in_phase(stage, tmp_path)
    listen, acted = caught_in(stage, client, cluster.kill_worker)
    segmented(path, **options).export(output, ALL, on_event=listen)
    assert acted[0].done < acted[0].total
    assert cluster.workers[0].wait() == -signal.SIGKILL
    assert not any("partial" in name for name in products(output))
    same(output, on_threads(path, tmp_path, **options))


@pytest.mark.usefixtures("client")
def test_a_disk_that_fills_up_under_the_workers_is_one_sentence(tmp_path):
    path = zarr_source(tmp_path)
    with small_device(tmp_path / "device", "150k") as device:
        output = device / "out.ome.zarr"
        with pytest.raises(NoSpace, match=r"No space is left at file:.*with resume"):
            segmented(path).export(output, ALL)
        assert not (output / MANIFEST_NAME).exists()
        remount(device, "size=20M")
        segmented(path).export(output, ALL, resume=True)
        same(output, on_threads(path, tmp_path))


def test_a_lost_scheduler_is_one_sentence_and_the_run_is_finished_elsewhere(tmp_path, output):
    path = zarr_source(tmp_path)
    own = cluster_tools.Cluster(tmp_path)
    try:
        with connected(own.address) as client:
            listen, acted = caught_in("seams", client, own.kill_scheduler)
            with pytest.raises(ClusterLost, match=r"scheduler was lost.*with resume") as caught:
                segmented(path).export(output, ALL, on_event=listen)
    finally:
        own.close()
    assert acted
    assert caught.value.status == 503
    assert "\n" not in str(caught.value)
    said = json.loads((output / RECORD_NAME).read_text())
    assert (said["state"], said["status"]) == ("failed", 503)
    assert not (output / MANIFEST_NAME).exists()
    segmented(path).export(output, ALL, resume=True)
    same(output, on_threads(path, tmp_path))


# In the midst of a stage, before it begins, and between two: the latter went on without a cluster.
@pytest.mark.parametrize(("stage", "done"), [("seams", 1), ("regions", 0), ("colors", 9)])
def test_a_closed_client_is_one_sentence_and_the_run_is_finished_elsewhere(
    stage, done, cluster, tmp_path, output
):
    from distributed import Client

    path = zarr_source(tmp_path)
    cluster.want(2)
    # As users have it. Without it nothing would go to the cluster any more.
    client = Client(cluster.address)

    def close(step):
        if (step.stage, step.done) == (stage, done):
            client.close()

    with pytest.raises(ClusterLost, match=r"client was closed.*with resume") as caught:
        segmented(path).export(output, ALL, on_event=close)
    assert "\n" not in str(caught.value)
    assert json.loads((output / RECORD_NAME).read_text())["status"] == 503
    segmented(path).export(output, ALL, resume=True)
    same(output, on_threads(path, tmp_path))


@pytest.mark.parametrize("seed", range(30 if SOAK else 2))
def test_a_client_killed_at_any_moment_is_resumed_to_the_last_byte(
    seed, cluster, client, tmp_path, output
):
    path = zarr_source(tmp_path)
    client.run(cluster_tools.slow_down, SLOW / 5)
    start = time.perf_counter()
    segmented(path).export(output, ALL)
    longest = time.perf_counter() - start
    shutil.rmtree(output)
    arguments = ["segment", path, output, "--axes=yxc", "--ct=0", "--st=0.1", "--cs=sRGB",
                 f"--outputs={','.join(ALL)}", "--resume"]  # fmt: skip
    chance, there = random.Random(seed), ("--scheduler", cluster.address)
    seconds = chance.uniform(0.1, longest)
    code, errors = finished(cluster_tools.command(seconds, *arguments, *there))
    assert code in (0, -signal.SIGKILL), errors
    if code:
        assert not (output / MANIFEST_NAME).exists()
        # On the cluster again, or on this machine alone.
        again = there if seed % 2 else ()
        code, errors = finished(cluster_tools.command(0, *arguments, *again))
        assert code == 0, errors
    expected = on_threads(path, tmp_path)
    same(output, expected)
    assert comparable(output)["details"]["color_table"]["pixels"] == SHAPE[0] * SHAPE[1]
    assert sorted(products(output)) == sorted(products(expected))
    assert not any("partial" in name for name in products(output))
    assert zarr.open_array(output / "labels/regions/0", mode="r").shape == SHAPE[:2]


def finished(process):
    with process:
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    return process.returncode, errors
