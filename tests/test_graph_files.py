"""Local files that a Dask array's graph names are found before its tasks meet other disks."""

import threading
from pathlib import Path

import dask
import dask.array as da
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import zarr
from dask.array.image import imread
from zarr.storage import ZipStore

from napari_pixseg.sources.graph_files import find_graph_files
from napari_pixseg.sources.open import open_source

PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
TIFF = "in.tif"


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(TIFF, PIXELS)
    zarr.create_array("in.zarr", data=PIXELS, chunks=(8, 8, 3), attributes={"from": f"{TIFF}"})
    with ZipStore("in.zip", mode="w") as store:
        zarr.create_array(store, data=PIXELS, chunks=(8, 8, 3))
    for number in range(4):
        imageio.imwrite(f"frame{number}.png", PIXELS)


def delayed(path):
    return da.from_delayed(dask.delayed(tifffile.imread)(path), PIXELS.shape, PIXELS.dtype)


def with_closure():
    path = str(Path(TIFF).absolute())
    return da.zeros(4).map_blocks(lambda block: tifffile.imread(path)[block.shape[0]])


def read_relative(block):
    return tifffile.imread("in.tif")[: block.shape[0]]


class Reader:
    """As xarray's and others, with a lock that nobody can pickle."""

    shape, dtype, ndim = PIXELS.shape, PIXELS.dtype, 3

    def __init__(self):
        self.lock, self.path, self.me = threading.Lock(), Path(TIFF), self

    def __getitem__(self, key):
        return tifffile.imread(self.path)[key]


READ = {
    "zarr": (lambda: da.from_zarr(str(Path("in.zarr").absolute())), ["in.zarr"]),
    "open zarr": (lambda: da.from_zarr(zarr.open_array("in.zarr"), inline_array=True), ["in.zarr"]),
    "worked on": (lambda: da.from_zarr("in.zarr").rechunk(5)[::2] + 1, ["in.zarr"]),
    "zip": (lambda: da.from_array(zarr.open_array(ZipStore("in.zip"))), ["in.zip"]),
    "relative": (lambda: delayed(TIFF), [TIFF]),
    "path": (lambda: delayed(Path(TIFF)), [TIFF]),
    "closure": (with_closure, [TIFF]),
    "constant": (lambda: da.zeros(4).map_blocks(lambda _block: tifffile.imread("in.tif")), [TIFF]),
    "object": (lambda: da.from_array(Reader(), chunks=8), [TIFF]),
    "no dask": (Reader, [TIFF]),
    # The first and the last of a folder: its disk is there, or is not.
    "many": (lambda: imread("frame*.png", imageio.imread), ["frame0.png", "frame3.png"]),
    "pixels": (lambda: da.from_array(PIXELS) + 1, []),
    "mapped": (lambda: da.from_array(tifffile.memmap(TIFF), chunks=8), []),
    "random": (lambda: da.random.random((8, 8), chunks=4), []),
    # Sent by its name, so its constants are the worker's own.
    "of a module": (lambda: da.zeros(4).map_blocks(read_relative, dtype=np.uint8), []),
}


@pytest.mark.parametrize("kind", READ)
def test_files_that_tasks_would_read_are_found(kind):
    make, names = READ[kind]
    found = find_graph_files(make())
    assert [Path(name).absolute() for name in found] == [Path(name).absolute() for name in names]


def test_folders_that_a_text_may_mean_by_chance_are_none():
    Path("labels/0").mkdir(parents=True)
    chance = (".", "/", "/tmp", "labels/0", "..", "in.zarr/c", "\0.", "a\nb.c" * 9999)
    assert find_graph_files(da.zeros(4).map_blocks(max, *chance, dtype=int)) == ()


def test_a_huge_graph_is_looked_at_only_so_far():
    looked = []

    class Part:
        def __reduce__(self):
            looked.append(self)
            return Part, ()

    graph = {("x", i): (max, Part()) for i in range(50_000)}
    find_graph_files(da.Array(graph, "x", ((1,) * 50_000,), dtype=int))
    assert 0 < len(looked) < 25_000


def test_what_a_worker_sees_of_a_file_is_what_it_would_read(monkeypatch, tmp_path):
    source = open_source(da.from_zarr("in.zarr"))
    assert source.evidence().find_difference() is None
    relative = open_source(delayed(TIFF)).evidence()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert source.evidence().find_difference() is None
    assert relative.find_difference() == "in.tif (relative to the folder of each process)"
    for path in (tmp_path / "in.zarr/c").rglob("*"):
        if path.is_file():
            path.unlink()
    assert "in.zarr/c/" in source.evidence().find_difference()
