"""Small pictures: plain kernels agree with the compiled ones, and nothing heavy is loaded."""

import json
import subprocess
import sys
import threading
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from napari_pixseg import segment
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.algorithm.kernels import dispatch as compiling
from napari_pixseg.algorithm.kernels import threads, vectorized
from napari_pixseg.errors import Cancelled
from napari_pixseg.execution import local_threads, scheduler, tiling
from napari_pixseg.execution.progress import Progress, RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling

HEAVY = ("dask", "zarr", "numba", "scipy", "skimage", "pyarrow", "distributed", "imagecodecs")
WITH_PLAIN = [name for name, k in vars(kernels).items() if getattr(k, "vectorized", None)]


def both(name, *arguments):
    """Run a kernel in both versions; what each returns and writes."""
    kernel, outcomes = getattr(kernels, name), []
    for version in (kernel.vectorized, kernel.compiled):
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        outcomes.append((version(*copies), copies))
    return outcomes


def assert_alike(name, *arguments):
    (one, ones), (other, others) = both(name, *arguments)
    np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))
    for mine, theirs in zip(ones, others, strict=True):
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs, strict=True)


def many(draw):
    """A length around the size of blocks now and then, and short mostly."""
    return draw(st.sampled_from([0, 1, 7, 300, vectorized._BLOCK, vectorized._BLOCK + 9]))


@st.composite
def partitions(draw):
    """Colors with counts, and three channels cut into intervals that are close to each other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = many(draw)
    colors = rng.integers(0, 256, (n, 3), np.uint8)
    counts = rng.integers(1, draw(st.sampled_from([2, 1 << 50])), n)
    intervals = []
    for _ in range(3):
        edges = np.sort(rng.choice(256, 2 * draw(st.integers(0, 6)), replace=False))
        intervals.append(edges.reshape(-1, 2).astype(np.int64))
    first, last = np.full((3, 256), -1, np.int64), np.full((3, 256), -2, np.int64)
    for channel, bounds in enumerate(intervals):
        for value in range(256):
            inside = np.flatnonzero((value >= bounds[:, 0] - 3) & (value <= bounds[:, 1] + 3))
            if len(inside):
                first[channel, value], last[channel, value] = inside[0], inside[-1]
    return rng, colors, counts, first, last, tuple(len(bounds) for bounds in intervals)


def test_every_kernel_of_a_small_picture_is_compared():
    tested = {
        "pack_pixels",
        "merge_counts",
        "add_histograms",
        "add_box_totals",
        "number_kept_boxes",
        "classify_colors",
        "find_nearest_centers",
    }
    tested |= {
        "add_class_totals",
        "look_up_colors",
        "look_up_pixels",
        "count_numbers",
        "paint_classes",
    }
    assert set(WITH_PLAIN) == tested


@given(partitions())
def test_plain_boxes_and_classes_are_the_compiled_ones(made):
    rng, colors, counts, first, last, sizes = made
    shape, boxes = sizes[1:], int(np.prod(sizes))
    assert_alike("add_histograms", colors, counts, np.zeros((3, 256), np.int64))
    assert_alike("add_box_totals", colors, counts, first, shape, np.zeros((boxes, 4), np.int64))
    numbers = np.full(boxes, -1, np.int64)
    kept = rng.random(boxes) < rng.random()
    numbers[kept] = np.arange(kept.sum())
    for number in (max(int(kept.sum()), 1), 5000):
        # Few different values: many colors are as near to one center as to another.
        centers = rng.integers(0, rng.choice([4, 256]), (number, 3))
        assert_alike("find_nearest_centers", colors, centers, np.zeros(len(colors), np.uint16))
    result = np.zeros(len(colors), np.uint16)
    assert_alike("classify_colors", colors, first, last, shape, numbers, result)
    classes = rng.integers(0, 9, len(colors)).astype(np.uint16)
    assert_alike("add_class_totals", classes, colors, counts, np.zeros((9, 4), np.int64))


@given(
    arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 5) | st.integers(0, 1 << 60)),
    st.floats(0, 300),
    st.booleans(),
)
def test_the_same_boxes_are_kept(counts, share, relative):
    assert_alike("number_kept_boxes", counts, share, relative)


@cache
def whole_table(dtype):
    return np.random.default_rng(0).integers(0, 3, (1 << 24) + 1).astype(dtype)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.data())
def test_pixels_are_packed_looked_up_counted_and_painted_alike(seed, channels, data):
    rng = np.random.default_rng(seed)
    n = many(data.draw)
    pixels = rng.integers(0, 256, (n, channels), np.uint8)
    assert_alike("pack_pixels", pixels, np.zeros(n, np.uint32))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    assert_alike("look_up_pixels", pixels, whole_table(dtype), np.zeros(n, dtype))
    table = rng.integers(0, 3, 1000).astype(dtype)
    packed = rng.integers(0, 1000, n).astype(np.uint32)
    assert_alike("look_up_colors", packed, table, np.zeros(n, dtype))
    numbers = rng.integers(0, 12, n).astype(dtype)
    assert_alike("count_numbers", numbers, np.zeros(7, np.int64))
    assert_alike("paint_classes", numbers, rng.integers(0, 256, 9, np.uint8), np.zeros(n, np.uint8))


@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.integers(0, 500))
def test_tables_are_merged_alike(seed, one, other):
    rng = np.random.default_rng(seed)
    tables = []
    for n in (one, other):
        colors = np.unique(rng.integers(0, 700, n).astype(np.uint32))
        tables += [colors, rng.integers(1, 1 << 60, len(colors))]
    most = len(tables[0]) + len(tables[2])
    room = np.zeros(most, np.uint32), np.zeros(most, np.int64)
    (n, written), (m, expected) = both("merge_counts", *tables, *room)
    assert n == m
    for mine, theirs in zip(written[-2:], expected[-2:], strict=True):
        np.testing.assert_array_equal(mine[:n], theirs[:n], strict=True)


@given(
    arrays(np.uint32, st.integers(0, 300), elements=st.integers(0, 3) | st.integers(0, 1 << 24)),
    st.integers(1, 5),
)
def test_colors_are_counted_alike(packed, cores):
    """By one thread, and by several that have a part of the colors each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_FEWEST", 20)
        patch.setattr(threads.os, "cpu_count", lambda: cores)
        patch.setattr(compiling, "is_worth_compiling", lambda *_: False)
        color_count = ColorTable.from_packed(packed)
        patch.setattr(compiling, "is_worth_compiling", lambda *_: True)
        assert ColorTable.from_packed(packed) == color_count
    assert color_count.packed.dtype == np.uint32
    assert color_count.counts.dtype == np.int64


def chosen(choice, elements):
    return choice.run(elements, lambda: "vectorized", lambda: "compiled")


def test_numba_is_loaded_after_much_work_or_for_a_large_image_or_for_repetition(monkeypatch):
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    some = compiling.KernelChoice(10)
    assert [chosen(some, 6) for _ in range(3)] == ["vectorized", "vectorized", "compiled"]
    told = compiling.KernelChoice(10)
    told.expect_image(compiling.MOST_VECTORIZED_PIXELS)
    assert chosen(told, 1) == "vectorized"
    told.expect_image(compiling.MOST_VECTORIZED_PIXELS + 1)
    told.expect_image(1)
    assert chosen(told, 1) == "compiled"
    repeated = compiling.KernelChoice(10)
    repeated.expect_repetition()
    assert chosen(repeated, 1) == "compiled"
    monkeypatch.setitem(sys.modules, "numba", object())
    assert chosen(compiling.KernelChoice(10), 1) == "compiled"


def test_asking_which_kernel_is_used_changes_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    choice = compiling.KernelChoice(10)
    assert not any(choice.uses_compiled for _ in range(99))
    assert chosen(choice, 6) == "vectorized"


# Tiles without Dask -------------------------------------------------------------


@pytest.fixture
def no_dask(monkeypatch):
    """Runs behave as in a process where nobody has asked for Dask."""
    monkeypatch.setattr(scheduler, "dask_is_wanted", lambda: False)


TILES = Tiling((40, 40), (8, 8), (8, 8))


@pytest.mark.parametrize("fan_in", [2, 3, 8])
@pytest.mark.parametrize("cores", [1, 4])
def test_results_are_merged_in_order_whatever_the_number_of_threads(
    no_dask, monkeypatch, fan_in, cores
):
    monkeypatch.setattr(scheduler, "FAN_IN", fan_in)
    monkeypatch.setattr(local_threads, "_count_cores", lambda: cores)
    sizes = []

    def merge(parts):
        sizes.append(len(parts))
        return [n for part in parts for n in part]

    for count in range(1, 26):
        tile_source = TileSource.from_numbers(lambda number: number, TILES).only(range(count))
        steps = []
        monitor = RunMonitor(steps.append)
        merged = run_tiles(tile_source, lambda block, number: [block, number], "x", monitor, merge)
        assert merged == [n for n in range(count) for _ in range(2)]
        assert steps == [Progress("x", done, count) for done in range(count + 1)]
        assert run_tiles(tile_source, lambda block, _: block, "x") == list(range(count))
    assert max(sizes) <= fan_in


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("who", ["tile", "listener", "cancel"])
def test_after_an_error_no_tile_begins_and_none_is_at_work(no_dask, monkeypatch, cores, who):
    monkeypatch.setattr(local_threads, "_count_cores", lambda: cores)
    began, at_work, cancel = [], set(), threading.Event()

    def function(_, number):
        began.append(number)
        at_work.add(number)
        if number == 4 and who == "tile":
            at_work.discard(number)
            raise ZeroDivisionError
        at_work.discard(number)

    def listen(step):
        if step.done == 4 and who == "listener":
            raise ZeroDivisionError
        if step.done == 4:
            cancel.set()

    tile_source = TileSource.from_numbers(lambda number: number, TILES)
    with pytest.raises(Cancelled if who == "cancel" else ZeroDivisionError):
        run_tiles(tile_source, function, "x", RunMonitor(None if who == "tile" else listen, cancel))
    assert not at_work
    after = len(began)
    assert after >= 4
    if cores == 1:
        assert after <= 5
    assert len(began) == after


def test_the_picture_of_many_tiles_is_the_same_without_dask(no_dask, monkeypatch, tmp_path):
    monkeypatch.setattr(tiling, "TILE_SIDE", 16)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 256)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 16)
    array = np.random.default_rng(2).integers(0, 256, (70, 90, 3), np.uint8)
    result = segment(array, ct=0, st=0.1, denoise=2)
    assert len(result.color_count.tiling) > 20
    result.export(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        np.testing.assert_array_equal(written.convert("RGB"), result.recolored.compute())


@pytest.mark.parametrize(("variable", "wanted"), [("DASK_SCHEDULER", True), ("DASHED", False)])
def test_dask_has_a_say_where_it_is_configured(monkeypatch, variable, wanted):
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(local_threads, "_DASK_FOLDERS", ())
    monkeypatch.setenv(variable, "synchronous")
    assert local_threads.dask_is_wanted() == wanted
    monkeypatch.setitem(sys.modules, "dask", object())
    assert local_threads.dask_is_wanted()


# A whole process ----------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "ppm"])
@pytest.mark.parametrize("options", [[], ["--blob"]], ids=["manifest", "blob"])
def test_a_picture_is_segmented_without_anything_heavy(tmp_path, ending, options):
    array = np.random.default_rng(3).integers(0, 256, (60, 50, 3), np.uint8)
    source, target = tmp_path / f"in.{ending}", tmp_path / "out.png"
    Image.fromarray(array).save(source)
    command = ["segment", str(source), str(target), "--ct", "0", "--st", "5", *options]
    code = f"""
import json, sys
from napari_pixseg.cli import main
assert main({command!r}) == 0
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    environment = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
    result = segment(array, ct=0, st=5)
    with Image.open(target) as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(written.convert("RGB"), result.recolored.compute())


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4)])
def test_gray_pictures_and_those_with_alpha_have_no_palette(tmp_path, mode, channels):
    array = np.random.default_rng(4).integers(0, 256, (60, 50, channels), np.uint8)
    segment(array.squeeze(), ct=0, st=5).export(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        assert written.mode == mode


def test_a_picture_of_more_colors_than_a_palette_has_is_whole(tmp_path):
    levels = np.arange(10, 250, 24)
    triples = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    noise = np.random.default_rng(0).normal(0, 2.5, (40, 1000, 3))
    array = np.clip(np.repeat(triples, 40, axis=0).reshape(40, 1000, 3) + noise, 0, 255)
    result = segment(array.astype(np.uint8), 0, "sRGB", 2**20 / 40_000)
    assert len(result.table) > 256
    result.export(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(written, result.recolored.compute())


@pytest.mark.parametrize(("mode", "shape"), [("L", (7, 9)), ("RGB", (7, 9, 3))])
def test_the_bytes_of_a_ppm_are_taken_as_they_are(tmp_path, mode, shape):
    array = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    Image.fromarray(array, mode).save(tmp_path / "a.ppm")
    source = segment(tmp_path / "a.ppm").image.source
    np.testing.assert_array_equal(source.array[...], array)


def test_a_ppm_that_was_cut_off_is_no_image(tmp_path):
    Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(tmp_path / "a.ppm")
    content = (tmp_path / "a.ppm").read_bytes()
    (tmp_path / "a.ppm").write_bytes(content[:-1])
    with pytest.raises(ValueError, match="cannot be decoded"):
        segment(tmp_path / "a.ppm").decide()
