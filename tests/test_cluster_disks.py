"""Workers with another disk, another version or no package are refused before a run begins."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from weakref import WeakSet

import cluster_tools
import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from resume_tools import ALL, content, make_small, picture, same, segmented
from resume_tools import source as zarr_source

import napari_pixseg
from napari_pixseg import cli, label_regions
from napari_pixseg.errors import (
    ClusterLost,
    ClusterUnfit,
    InputUnseen,
    NotAnImage,
    ParameterError,
    TooLarge,
)
from napari_pixseg.execution import cluster_run, memory_limit, scheduler, worker_checks
from napari_pixseg.execution.dask_cluster import active_client, connected
from napari_pixseg.execution.memory_limit import refuse_small_workers
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import RECORD_NAME, OutputLocation
from napari_pixseg.export.run_record import DISTRUSTED, RunRecord
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.open import open_source

pytest.importorskip("distributed")
MOUNT = 'mount -t tmpfs none "$0" && exec "$@"'


class PrivateCluster(cluster_tools.Cluster):
    """Workers that are started now see an empty folder of their own at a path."""

    def __init__(self, folder, private, workers=1):
        self.private = private
        super().__init__(folder, workers)

    def _worker(self):
        if self.private is None:
            return (), self._host
        return ("unshare", "-rm", "sh", "-c", MOUNT, str(self.private)), self._host


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def private(tmp_path):
    """A folder that workers see empty."""
    may = shutil.which("unshare") is not None and (
        subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0
    )
    if not may:
        pytest.skip("NOT TESTED: mount namespaces need unshare and a kernel that lets users.")
    folder = tmp_path / "private"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path):
    """Starts clusters that end with the test."""
    started = []

    def start_cluster(*arguments):
        (tmp_path / "cluster").mkdir(exist_ok=True)
        started.append(PrivateCluster(tmp_path / "cluster", *arguments))
        return started[-1]

    yield start_cluster
    for cluster in started:
        cluster.close()


def test_an_output_that_a_worker_does_not_see_is_refused_and_nothing_is_left(
    start, private, tmp_path, capsys
):
    path = zarr_source(tmp_path)
    cluster = start(private)
    output = private / "out.ome.zarr"
    arguments = ["segment", str(path), str(output), "--axes=yxc", "--ct=0"]
    assert cli.main([*arguments, "--scheduler", cluster.address]) == 1
    said = capsys.readouterr()
    assert '"status": 503' in said.out
    assert "The worker tcp://127.0.0.1:" in said.err
    assert f"does not see the output {output.as_uri()}" in said.err
    assert "Traceback" not in said.err
    assert not list(private.iterdir())
    # An earlier output stays as it is.
    segmented(path).export(output, ALL)
    before = content(output)
    with connected(cluster.address), pytest.raises(ClusterUnfit, match="does not see the output"):
        segmented(path).export(output, ALL, overwrite=True)
    assert content(output) == before


def test_an_input_that_a_worker_does_not_see_is_refused_and_nothing_is_left(
    start, private, tmp_path
):
    path = zarr_source(private)
    output = tmp_path / "out.ome.zarr"
    cluster = start(private)
    with connected(cluster.address):
        sentence = rf"worker tcp://127.*does not see the input's {path}.*give a path on a disk"
        with pytest.raises(ClusterUnfit, match=sentence):
            segmented(path).export(output, ALL)
        assert not output.exists()
        with pytest.raises(ClusterUnfit, match=sentence):
            _ = segmented(path).table
        refuse_dask_arrays(private, output)


def read_by_number(number):
    return tifffile.imread(f"{os.environ['PIXSEG_TEST_FOLDER']}/{number}.tif")


def tell_folder(folder):
    os.environ["PIXSEG_TEST_FOLDER"] = folder


def refuse_dask_arrays(private, output):
    """Arrays over files that only the client has: each is refused, and none gives zeros."""
    tifffile.imwrite(private / "1.tif", picture())
    tiff = dask.delayed(tifffile.imread)(str(private / "1.tif"))
    for array, name in (
        (da.from_zarr(str(private / "in.zarr")), "in.zarr"),
        (da.from_delayed(tiff, picture().shape, np.uint8), r"1\.tif"),
    ):
        sentence = rf"worker tcp://127.*does not see the input's {private}/{name}"
        with pytest.raises(ClusterUnfit, match=sentence):
            segmented(array).export(output, ALL)
        with pytest.raises(ClusterUnfit, match=sentence):
            label_regions(array[..., 0])
    assert not output.exists()
    # The pixels of a mapped file are sent.
    mapped = da.from_array(tifffile.memmap(private / "1.tif"), chunks=(16, 12, 3))
    np.testing.assert_array_equal(segmented(mapped).classes.compute(), segmented(picture()).classes)
    # A path that is put together in the task is known when it fails.
    client = active_client()
    client.run(tell_folder, str(private))
    array = da.from_delayed(dask.delayed(read_by_number)(1), picture().shape, np.uint8)
    with pytest.raises(ClusterUnfit, match=r"does not see the input's .*/1\.tif"):
        _ = segmented(array).table
    refuse_late_worker(client, da.from_zarr(str(private / "in.zarr")), output)


def refuse_late_worker(client, array, output):
    """One that joined late may have read another block, so nothing that was written is kept."""
    evidence = open_source(array).evidence()
    worker_checks._inputs.setdefault(client, WeakSet()).add(evidence)
    worker_checks.refuse_new_workers(client, client.scheduler_info()["workers"])
    with pytest.raises(InputUnseen) as caught:
        worker_checks.refuse_new_workers(client, ["tcp://late"])
    output.mkdir()
    record = RunRecord(OutputLocation(str(output)), Manifest(200, "late"), None)
    record.write()
    record.record_end(caught.value)
    assert json.loads((output / RECORD_NAME).read_text())[DISTRUSTED]


@pytest.mark.parametrize("what", ["input", "output"])
def test_a_worker_that_joins_late_proves_the_same_before_its_first_tile(
    what, start, private, tmp_path
):
    path = zarr_source(private if what == "input" else tmp_path)
    output = (private if what == "output" else tmp_path) / "out.ome.zarr"
    cluster = start(None)
    joined = []

    def join(_step):
        if not joined:
            joined.append(True)
            cluster.private = private
            cluster.want(2)

    with connected(cluster.address) as client:
        client.run(cluster_tools.slow_down, 0.3)
        with pytest.raises(ClusterUnfit, match=f"does not see the {what}"):
            segmented(path).export(output, ALL, on_event=join)
    assert not (output / "manifest.json").exists()
    assert not [name for name in os.listdir(output) if "check" in name]
    segmented(path).export(output, ALL, resume=True)
    same(output, in_one_process(path, tmp_path))


def in_one_process(path, folder):
    expected = folder / "threads" / "out.ome.zarr"
    segmented(path).export(expected, ALL)
    return expected


def test_a_worker_that_joins_late_and_sees_everything_takes_part(start, tmp_path):
    path = zarr_source(tmp_path)
    output = tmp_path / "out.ome.zarr"
    cluster = start(None)
    joined = []

    def join(_step):
        if not joined:
            joined.append(True)
            cluster.want(2)

    with connected(cluster.address) as client:
        client.run(cluster_tools.slow_down, 0.1)
        segmented(path).export(output, ALL, on_event=join)
        proved = client.run(_runs_proved)
    assert sorted(proved.values()) == [1, 1]
    same(output, in_one_process(path, tmp_path))


def _runs_proved():
    from napari_pixseg.execution import late_workers

    return len(late_workers._proved)


# Versions ----------------------------------------------------------------------------


class OtherVersion(cluster_tools.Cluster):
    """Workers have only what lies in another folder first on their path."""

    def __init__(self, folder, first):
        self._first = first
        super().__init__(folder, 1)

    def _worker(self):
        paths = [str(self._first), *sys.path]
        return ("env", f"PYTHONPATH={os.pathsep.join(paths)}"), self._host


PACKAGES = {
    "0.0.9": ('__version__ = "0.0.9"\n', "has napari-pixseg 0.0.9, but this process has"),
    # Stands for an environment without the package, which shares its folder with ours here.
    "none": ("raise ModuleNotFoundError('none')\n", "has no napari-pixseg, but this process has"),
}


@pytest.mark.parametrize("version", PACKAGES)
def test_a_worker_with_another_version_or_none_is_named_with_both(version, tmp_path):
    text, said = PACKAGES[version]
    package = tmp_path / "first" / "napari_pixseg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    output = tmp_path / "out.ome.zarr"
    cluster = OtherVersion(tmp_path, package.parent)
    try:
        with connected(cluster.address):
            sentence = f"The worker tcp://127.*{said} napari-pixseg {napari_pixseg.__version__}"
            with pytest.raises(ClusterUnfit, match=sentence):
                segmented(zarr_source(tmp_path)).export(output, ALL)
            with pytest.raises(ClusterUnfit, match=sentence):
                _ = segmented(zarr_source(tmp_path)).table
    finally:
        cluster.close()
    assert not output.exists()


class LateVersion(cluster_tools.Cluster):
    """Workers that join later have what lies in another folder first on their path."""

    first = None

    def _worker(self):
        paths = sys.path if self.first is None else [str(self.first), *sys.path]
        return (
            "env",
            f"PYTHONPATH={os.pathsep.join([*paths, str(Path(__file__).parent)])}",
        ), self._host


@pytest.mark.parametrize("version", PACKAGES)
def test_a_worker_of_another_version_that_joins_late_is_named(version, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_run, "_LOOK_AT_WORKERS_SECONDS", 0.1)
    text, said = PACKAGES[version]
    package = tmp_path / "first" / "napari_pixseg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    path, output = zarr_source(tmp_path), tmp_path / "out.ome.zarr"
    cluster = LateVersion(tmp_path, 1)

    def join(_step):
        if cluster.first is None:
            cluster.first = package.parent
            cluster.want(2)

    try:
        with connected(cluster.address) as client:
            client.run(cluster_tools.slow_down, 0.3)
            try:
                segmented(path).export(output, ALL, on_event=join)
                error = ""
            except ClusterUnfit as unfit:
                error = str(unfit)
            has_ended = cluster.workers[-1].poll() is not None
    finally:
        cluster.close()
    if not error and has_ended:
        # Dask ends a worker whose connection brings a task that it cannot unpickle. Nobody is left
        # to be named then, and the first worker did it all.
        same(output, in_one_process(path, tmp_path))
        pytest.skip("the late worker ended by itself before it was asked")
    assert re.match(f"The worker tcp://127.*{said}", error)
    assert not (output / "manifest.json").exists()
    segmented(path).export(output, ALL, resume=True)
    same(output, in_one_process(path, tmp_path))


def test_a_task_knows_the_version_that_made_it(monkeypatch):
    task = scheduler._TileTask(TileSource(range(1), {}, None, int), max)
    assert pickle.loads(pickle.dumps(task))._function is max
    monkeypatch.setattr(scheduler, "__version__", "0.0.9")
    sent = pickle.dumps(task)
    monkeypatch.undo()
    with pytest.raises(ClusterUnfit, match=r"began with napari-pixseg 0\.0\.9"):
        pickle.loads(sent)


# What cannot be sent ------------------------------------------------------------------


class OpenFile:
    """An array of a library whose open files cannot be pickled, such as h5py."""

    def __init__(self):
        self._pixels = picture()
        self.shape, self.dtype, self.ndim = self._pixels.shape, self._pixels.dtype, 3

    def __getitem__(self, key):
        return self._pixels[key]

    def __reduce__(self):
        raise TypeError("h5py objects cannot be pickled")


def test_an_array_that_cannot_be_pickled_is_one_sentence_with_a_client(start, tmp_path):
    output = tmp_path / "out.ome.zarr"
    sentence = r"type OpenFile cannot be sent to the workers .* give the path of its file"
    with connected(start(None).address):
        with pytest.raises(NotAnImage, match=sentence):
            segmented(OpenFile()).export(output, ALL)
        with pytest.raises(NotAnImage, match=sentence):
            _ = segmented(OpenFile()).table
    assert not output.exists()
    # This machine's threads need no pickle.
    segmented(OpenFile()).export(output, ALL)


# Addresses, memory, lost schedulers ---------------------------------------------------


def test_a_server_of_another_kind_is_one_sentence_within_the_time_limit(monkeypatch):
    monkeypatch.setattr("napari_pixseg.execution.cluster_connection._CONNECT_SECONDS", 1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        sentence = pytest.raises(ParameterError, match="No Dask scheduler answers at")
        with sentence, connected(f"tcp://127.0.0.1:{server.server_port}"):
            pytest.fail("connected to a web server")
    finally:
        server.shutdown()
        server.server_close()


def test_a_run_whose_workers_are_all_paused_ends_with_the_remedy(start, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_pixseg.execution.cluster_run._PAUSED_SECONDS", 1)
    monkeypatch.setattr("napari_pixseg.execution.cluster_run._LOOK_AT_WORKERS_SECONDS", 0.2)
    path = zarr_source(tmp_path)
    output = tmp_path / "out.ome.zarr"
    with connected(start(None).address) as client:
        client.run(cluster_tools.slow_down, 0.1)
        with pytest.raises(ClusterLost, match=r"paused for 1 s, .* fewer threads, and continue"):
            segmented(path).export(output, on_event=lambda _step: client.run(_stay_paused))
        assert not (output / "manifest.json").exists()


def _stay_paused(dask_worker):
    from distributed.core import Status

    # Its own look at the memory would let it go on.
    dask_worker.periodic_callbacks["memory_monitor"].stop()
    dask_worker.status = Status.paused


def test_workers_that_are_or_may_be_too_small_are_named_before_the_run(start, tmp_path, caplog):
    array = zarr.create_array(
        tmp_path / "wide.zarr", shape=(5000, 5000, 3), chunks=(5000, 5000, 3), dtype="uint8"
    )
    array[...] = 1
    image = open_image(array, "yxc")
    with connected(start(None).address):
        refuse_small_workers(image, 5000 * 5000, 1, regions=True)
    assert "The worker tcp://127.0.0.1:" in caplog.text
    assert "has 2.00 GiB of memory, but may need" in caplog.text


def test_a_worker_that_cannot_hold_one_tile_is_refused_before_the_run(monkeypatch, tmp_path):
    limits = {"tcp://a": (1, 2 << 30), "tcp://b": (4, 100 << 20), "tcp://c": (1, 0)}
    monkeypatch.setattr(memory_limit, "active_client", lambda: "a client")
    monkeypatch.setattr(memory_limit, "memory_limits", lambda _client: limits)
    image = open_image(str(zarr_source(tmp_path)), "yxc")
    with pytest.raises(TooLarge, match=r"tcp://b has 100.00 MiB .* one tile of this image takes"):
        refuse_small_workers(image, 1000 * 1000, 1, regions=False)
    limits["tcp://b"] = (4, 120 << 20)
    refuse_small_workers(image, 1000 * 1000, 1, regions=False)


def test_a_lost_scheduler_leaves_no_traceback_on_standard_error(start, tmp_path):
    path = zarr_source(tmp_path)
    output = tmp_path / "out.ome.zarr"
    cluster = start(None)
    with connected(cluster.address) as client:
        client.run(cluster_tools.slow_down, 1)
    arguments = ("segment", path, output, "--axes=yxc", "--scheduler", cluster.address)
    with cluster_tools.command(0, *arguments) as command:
        end = time.monotonic() + cluster_tools.START_SECONDS
        while not (output / "pixseg-run.json").exists() and time.monotonic() < end:
            time.sleep(0.1)
        cluster.kill_scheduler()
        _, said = command.communicate(timeout=120)
    assert command.returncode == 1
    assert "The connection to the Dask scheduler was lost" in said
    assert "Traceback" not in said


def test_what_is_asked_of_workers_is_asked_once_for_a_run(start, tmp_path, monkeypatch):
    from distributed import Client

    asked = []
    run = Client.run

    def count(self, function, *arguments, **options):
        asked.append((function, time.perf_counter()))
        return run(self, function, *arguments, **options)

    with connected(start(None, 2).address):
        monkeypatch.setattr(Client, "run", count)
        segmented(zarr_source(tmp_path)).export(tmp_path / "out.ome.zarr", ALL)
    # The version, the input, the output; after counting, the chunks that were not found.
    assert len(asked) == 4
    assert not list(Path(tmp_path).rglob("pixseg-check-*"))
