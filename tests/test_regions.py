"""Regions over tiles: the numbers scikit-image gives on the whole class map, whatever the tiles."""

import tracemalloc
from collections import Counter
from itertools import pairwise, product
from threading import Lock

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_components import ADVERSARIAL, frame_labels, noisy

from napari_pixseg import label_regions, segment
from napari_pixseg.algorithm.components import BYTES_PER_COMPONENT, BYTES_PER_RUN
from napari_pixseg.classification.tile import Tile
from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.execution import tiling
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.regions import region_pass as seams
from napari_pixseg.regions.label import open_class_map
from napari_pixseg.regions.numbering import BYTES_PER_SEAM_COMPONENT, TileNumbers
from napari_pixseg.regions.regions import Relabel, lazy_dtype, smallest_dtype
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.seams import sum_up
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import Layout
from napari_pixseg.regions.whole_map import label_whole_map

AXES = ("yx", "yx", "zyx", "zyx", "tyx", "tzyx", "tzyx", "xy", "xyz", "zxy", "xty", "ztyx")
LENGTHS = {
    "t": (2, 3, 1),
    "z": (3, 4, 1),
    "y": (7, 10, 13, 4, 1),
    "x": (6, 9, 14, 5, 3),
    "c": (3, 1),
}


# The whole class map at once -----------------------------------------------------


def background_of(class_map, background):
    if background == "largest":
        numbers, counts = np.unique(class_map[class_map != 0], return_counts=True)
        return numbers[np.argmax(counts)] if len(numbers) else 0
    return [] if background is None else background


def whole_regions(class_map, axes, connectivity=1, background=None, min_size=0):
    """Regions of a class map that is looked at whole, by scikit-image."""
    class_map = np.where(np.isin(class_map, background_of(class_map, background)), 0, class_map)
    order = [axes.index(axis) for axis in "tzyx" if axis in axes]
    ordered = class_map.transpose(order)
    frames = ordered if "t" in axes else ordered[np.newaxis]
    found, offset = np.zeros(frames.shape, np.int64), 0
    for t, frame in enumerate(frames):
        labels = frame_labels(frame, connectivity)
        found[t] = np.where(labels, labels + offset, 0)
        offset += labels.max()
    sizes = np.bincount(found.reshape(-1))
    stays = (sizes >= min_size) & (np.arange(len(sizes)) > 0)
    numbers = np.where(stays, np.cumsum(stays), 0)
    return numbers[found].reshape(ordered.shape).transpose(np.argsort(order))


MANY_CLASSES = {"ct": 0, "cs": "sRGB", "st": 0.5}


def painted(shape, axes, seed):
    """A picture of several classes: four colors that vary a little, in patches."""
    rng = np.random.default_rng(seed)
    own = [n for n, axis in zip(shape, axes, strict=True) if axis != "c"]
    patches = noisy(own, 3, 0.2, seed) * 70
    if "c" in axes:
        patches = np.expand_dims(patches, axes.index("c"))
    return (patches + rng.integers(0, 12, shape)).astype(np.uint8)


def force_tiles(patch, pixels=1, longest=1000):
    """Tiles of so many pixels, where storage chunks are not larger."""
    patch.setattr(tiling, "_SMALLEST_UNIT", 1)
    patch.setattr(tiling, "WRITE_SIDE", 1)
    patch.setattr(tiling, "TILE_SIDE", longest)
    patch.setattr(tiling, "TILE_PIXELS", pixels)


@pytest.fixture
def tiled(monkeypatch):
    """Make a class map whose tiles are of a given size."""
    force_tiles(monkeypatch)
    monkeypatch.setattr(dask.config, "config", {**dask.config.config, "scheduler": "synchronous"})
    return lambda class_map, tile: da.from_array(class_map, chunks=tile)


def check(lazy, class_map, axes, **options):
    assert isinstance(lazy, da.Array)
    assert (lazy.shape, lazy.dtype) == (class_map.shape, np.uint32)
    found, expected = lazy.compute(), whole_regions(class_map, axes, **options)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(found)) | {0} == set(range(int(found.max()) + 1))
    return expected


# Properties --------------------------------------------------------------------


@st.composite
def class_maps(draw):
    axes = draw(st.sampled_from(AXES))
    shape = tuple(draw(st.sampled_from(LENGTHS[axis])) for axis in axes)
    classes = draw(st.sampled_from((3, 5, 4, 2, 1)))
    noise = draw(st.sampled_from((0.05, 0.2, 1.0)))
    class_map = noisy(shape, classes, noise, draw(st.integers(0, 9999)))
    return class_map.astype(draw(st.sampled_from(("u1", "u2", "i4", ">i2", "i8")))), axes


@st.composite
def cuts(draw, length):
    """Uneven chunk lengths that add up to a length."""
    ends = sorted(
        draw(st.sets(st.integers(1, length), min_size=length > 3, max_size=4)) | {0, length}
    )
    return tuple(b - a for a, b in pairwise(ends))


@st.composite
def wrapped(draw, array):
    """The same class map as NumPy, in uneven Dask chunks, or in a zarr array."""
    kind = draw(st.sampled_from(("numpy", "dask", "dask", "zarr")))
    if kind == "dask":
        return da.from_array(array, chunks=tuple(draw(cuts(n)) for n in array.shape))
    if kind == "zarr":
        chunks = tuple(draw(st.integers(1, min(n, 6))) for n in array.shape)
        stored = zarr.create_array({}, shape=array.shape, chunks=chunks, dtype=array.dtype)
        stored[...] = array
        return stored
    return array


SIDES = st.sampled_from((3, 1, 2, 4, 5, 6))


@st.composite
def choices(draw):
    backgrounds = (None, None, "largest", 1, 2, (1, 3), (5,), (9,))
    return {
        "background": draw(st.sampled_from(backgrounds)),
        "min_size": draw(st.integers(0, 9)),
    }


@given(data=st.data())
def test_region_numbers_equal_those_of_the_whole_map_for_any_chunks_tiles_and_scheduler(data):
    class_map, axes = data.draw(class_maps())
    options, source = data.draw(choices()), data.draw(wrapped(class_map))
    scheduler = data.draw(st.sampled_from(("synchronous", "threads")))
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler=scheduler):
        force_tiles(patch, data.draw(SIDES) ** 2, data.draw(st.integers(1, 8)))
        for connectivity in range(1, len(axes.replace("t", "")) + 1):
            lazy = label_regions(source, axes, connectivity, **options)
            check(lazy, class_map, axes, connectivity=connectivity, **options)


def test_most_examples_have_several_regions_and_tiles_and_options_that_matter():
    facts = []

    @settings(max_examples=200)
    @given(data=st.data())
    def look(data):
        class_map, axes = data.draw(class_maps())
        options, source = data.draw(choices()), data.draw(wrapped(class_map))
        with pytest.MonkeyPatch.context() as patch:
            force_tiles(patch, data.draw(SIDES) ** 2, data.draw(st.integers(1, 8)))
            tiles = len(tiling.plan_tiles(open_class_map(source, axes)))
        regions = whole_regions(class_map, axes).max()
        left = whole_regions(class_map, axes, **options).max()
        facts.append((regions > 2, tiles > 2, 0 < left < regions))

    look()
    several, tiled, shrunk = np.mean(facts, axis=0)
    assert several > 0.6
    assert tiled > 0.5
    assert shrunk > 0.2


@given(data=st.data())
def test_slices_of_the_lazy_result_are_those_of_the_whole(data):
    class_map, axes = data.draw(class_maps())
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        force_tiles(patch, data.draw(SIDES) ** 2)
        lazy = label_regions(data.draw(wrapped(class_map)), axes, min_size=2)
        index = tuple(slice(data.draw(st.integers(0, n - 1)), None, 2) for n in class_map.shape)
        expected = whole_regions(class_map, axes, min_size=2)
        np.testing.assert_array_equal(lazy[index].compute(), expected[index])


@given(data=st.data())
def test_regions_of_a_segmentation_are_those_of_its_classes_and_an_update_counts_nothing(data):
    axes = data.draw(st.sampled_from(("yx", "yxc", "zyx", "tyxc", "xyc", "cxy")))
    shape = tuple(data.draw(st.sampled_from(LENGTHS[axis])) for axis in axes)
    picture = painted(shape, axes, data.draw(st.integers(0, 999)))
    own = axes.replace("c", "")
    options = {
        "connectivity": data.draw(st.integers(1, len(own.replace("t", "")))),
        "background": data.draw(st.sampled_from((None, "largest", 1, (2, 1)))),
        "min_size": data.draw(st.integers(0, 5)),
    }
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        force_tiles(patch, data.draw(SIDES) ** 2)
        plain = segment(picture, **MANY_CLASSES, axes=axes)
        classes = plain.classes.compute()
        check(plain.regions, classes, own)
        updated = plain.update(**options)
        check(updated.regions, classes, own, **options)
        assert updated.color_table is plain.color_table
        fresh = segment(picture, **MANY_CLASSES, axes=axes, **options)
        np.testing.assert_array_equal(fresh.regions, label_regions(classes, own, **options))


# Maps made to break it -----------------------------------------------------------


def hostile_frames(n):
    """Every hostile map, and upside down, as the frames of one film."""
    frames = [make(n) for make in ADVERSARIAL.values()]
    return np.stack([*frames, *(frame[::-1] for frame in frames)])


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("tile", [(4, 4), (1, 67), (67, 1), (1, 33), (66, 66), (5, 64), (64, 3)])
def test_hostile_maps_over_many_tiles(tile, connectivity, tiled):
    film = hostile_frames(67)
    lazy = label_regions(tiled(film, (len(film), *tile)), "tyx", connectivity)
    assert lazy.chunksize[1:] == tile
    check(lazy, film, "tyx", connectivity=connectivity)


@pytest.mark.parametrize("connectivity", [1, 2])
def test_hostile_maps_over_tiles_of_one_pixel(connectivity, tiled):
    film = hostile_frames(13)
    lazy = label_regions(tiled(film, (len(film), 1, 1)), "tyx", connectivity)
    assert lazy.npartitions == 169
    check(lazy, film, "tyx", connectivity=connectivity)


def test_a_spiral_through_hundreds_of_tiles_is_two_regions(tiled):
    lazy = label_regions(tiled(ADVERSARIAL["spiral"](61), 4))
    assert lazy.npartitions == 256
    np.testing.assert_array_equal(lazy, ADVERSARIAL["spiral"](61))


@pytest.mark.parametrize("tile", [(2, 3, 2), (1, 6, 1), (5, 1, 7)])
@pytest.mark.parametrize("connectivity", [1, 2, 3])
def test_a_checkerboard_in_space_is_right_for_every_connectivity(tile, connectivity, tiled):
    class_map = np.indices((5, 6, 7)).sum(axis=0) % 2 + 1
    expected = check(
        label_regions(tiled(class_map, tile), connectivity=connectivity), class_map, "zyx",
        connectivity=connectivity,
    )  # fmt: skip
    assert expected.max() == (210 if connectivity == 1 else 2)


STEPS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("tile", [(2, 2, 2), (1, 1, 1), (2, 1, 2), (1, 2, 4)], ids=str)
def test_two_pixels_touch_over_faces_edges_and_corners_of_tiles(tile, connectivity, tiled):
    film = np.zeros((len(STEPS), 4, 4, 4), np.uint8)
    for frame, step in zip(film, STEPS, strict=True):
        # On both sides of the middle, where tiles meet, along every axis of the step.
        start = tuple(2 if d < 0 else 1 for d in step)
        frame[start] = frame[tuple(np.add(start, step))] = 3
    found = label_regions(tiled(film, (len(film), *tile)), "tzyx", connectivity).compute()
    counts = [len(np.unique(frame)) - 1 for frame in found]
    assert counts == [1 + (connectivity < np.abs(step).sum()) for step in STEPS]


@pytest.mark.parametrize("frame", [[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
def test_two_pixels_touch_over_the_corner_of_four_flat_tiles(frame, tiled):
    class_map = np.pad(np.array(frame), 3)
    for tile, connectivity in product((1, 2, 4), (1, 2)):
        found = label_regions(tiled(class_map, tile), connectivity=connectivity)
        assert found.max().compute() == 3 - connectivity


def test_min_size_judges_the_whole_region_and_not_its_parts(tiled):
    class_map = np.ones((1, 12), np.uint8)
    class_map[0, [4, 6]] = 0
    found = label_regions(tiled(class_map, (1, 2)), min_size=4)
    np.testing.assert_array_equal(found.compute(), [[1, 1, 1, 1, 0, 0, 0, 2, 2, 2, 2, 2]])


def test_the_largest_class_is_that_of_most_pixels_and_of_a_tie_the_lowest(tiled):
    class_map = np.array([[0, 0, 0, 0, 0, 0], [7, 7, 3, 3, 2, 7], [3, 0, 0, 0, 0, 0]])
    found = label_regions(tiled(class_map, 2), background="largest").compute()
    np.testing.assert_array_equal(found > 0, (class_map == 7) | (class_map == 2))


# Schedulers --------------------------------------------------------------------


def many_tiles(tiled):
    class_map = noisy((40, 37), 4, 0.2, 8).astype(np.uint8)
    return class_map, tiled(class_map, (9, 10))


def test_other_processes_give_the_same_numbers(tiled, two_processes):
    class_map, source = many_tiles(tiled)
    with dask.config.set(two_processes):
        check(label_regions(source, connectivity=2), class_map, "yx", connectivity=2)


def test_a_cluster_gives_the_same_numbers(tiled, monkeypatch):
    distributed = pytest.importorskip("distributed")
    class_map, source = many_tiles(tiled)
    monkeypatch.delitem(dask.config.config, "scheduler")
    cluster = {"n_workers": 2, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**cluster) as made, distributed.Client(made):
        check(label_regions(source, connectivity=2), class_map, "yx", connectivity=2)


# Cost ------------------------------------------------------------------------


class Calls:
    """A function of blocks that counts how often each block is asked for."""

    def __init__(self, class_map):
        self.class_map, self.counts, self._lock = class_map, Counter(), Lock()

    def __call__(self, block_info=None):
        where = block_info[None]["array-location"]
        with self._lock:
            self.counts[tuple(where)] += 1
        return self.class_map[tuple(slice(*ends) for ends in where)]


@pytest.mark.parametrize("background", [None, "largest"])
@pytest.mark.parametrize("chunks", [((8,) * 5, (10,) * 4), ((3, 8, 8, 1, 20), (17, 23))])
def test_the_class_map_is_computed_once_a_tile_and_pass(chunks, background, monkeypatch):
    force_tiles(monkeypatch, 80)
    class_map = noisy((40, 40), 3, 0.2, 5).astype(np.uint8)
    calls = Calls(class_map)
    source = da.map_blocks(calls, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    with dask.config.set(scheduler="threads"):
        lazy = label_regions(source, background=background)
        passes = 1 if background is None else 2  # how large every class is, then the seams
        assert set(calls.counts.values()) == {passes}
        assert len(calls.counts) == len(chunks[0]) * len(chunks[1])
        check(lazy, class_map, "yx", background=background)
    assert set(calls.counts.values()) == {passes + 1}


class Reads:
    """An array that counts how often each pixel is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.counts, self._lock = np.zeros(array.shape, int), Lock()

    def __getitem__(self, key):
        with self._lock:
            self.counts[key] += 1
        return self.array[key]


def test_an_array_like_is_read_once_a_pass(monkeypatch):
    force_tiles(monkeypatch, 36)
    source = Reads(noisy((4, 15, 20), 3, 0.2, 6))
    lazy = label_regions(source, "zyx", 3)
    assert (source.counts == 1).all()
    lazy.compute()
    assert (source.counts == 2).all()
    lazy[1:2].compute()
    assert (source.counts[0] == 2).all()


def spied(monkeypatch, name):
    """Arguments of every call of a function of the seams module."""
    calls, real = [], getattr(seams, name)

    def spy(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(seams, name, spy)
    return calls


@pytest.mark.parametrize(("axes", "connectivity"), [("yx", 1), ("yx", 2), ("zyx", 3)])
def test_the_number_of_tasks_is_the_same_for_every_tile(axes, connectivity, tiled, monkeypatch):
    graphs, made = spied(monkeypatch, "compute_graph"), spied(monkeypatch, "tile_graph")
    lengths, lazy_lengths = [], []
    for side in (4, 8, 16):
        shape = (2,) * (len(axes) - 2) + (2 * side, 2 * side)
        lazy = label_regions(tiled(np.ones(shape, np.uint8), 2), axes, connectivity)
        assert lazy.npartitions == side**2
        (graph, *_), (tile_source, *_) = graphs[-1], made[-1]
        lengths.append(len(graph) - len(tile_source.graph))
        lazy_lengths.append(len(lazy.__dask_graph__()))
        assert len(lazy.dask.layers[lazy.name]) == side**2
    per_tile = np.diff(lengths) / np.diff((16, 64, 256))
    assert per_tile.tolist() == [seams.TASKS_PER_TILE] * 2
    per_tile = np.diff(lazy_lengths) / np.diff((16, 64, 256))
    assert per_tile[0] == per_tile[1] < 8


def test_only_components_at_a_seam_leave_a_tile(tiled, monkeypatch):
    resolved = spied(monkeypatch, "number_all")
    class_map = np.zeros((24, 24), np.uint8)
    class_map.reshape(3, 8, 3, 8)[:, 1:-1:2, :, 1:-1:2] = 1
    assert label_regions(tiled(class_map, 8)).max().compute() == 81
    class_map[4, 7:9] = 2
    label_regions(tiled(class_map, 8))
    for (digests, pairs, *_), touching in zip(resolved, ([0] * 9, [1, 1] + [0] * 7), strict=True):
        for digest, count in zip(digests, touching, strict=True):
            assert digest.faces == {}
            columns = (digest.lines, digest.ranks, digest.sizes, digest.classes)
            assert [len(column) for column in columns] == [count] * 4
            assert digest.firsts.sum() == 9 + count
        assert sum(map(len, pairs)) == max(touching)


def test_nothing_is_a_seam_between_frames(tiled, monkeypatch):
    resolved = spied(monkeypatch, "number_all")
    film = noisy((6, 12, 12), 3, 0.3, 1)
    check(label_regions(tiled(film, (1, 12, 12)), "tyx"), film, "tyx")
    ((digests, pairs, *_),) = resolved
    assert len(digests) == 6
    assert not sum(len(digest.lines) for digest in digests) + sum(map(len, pairs))


def peak_memory(function):
    """Most bytes in use at a time, above those before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_tile_where_every_pixel_is_a_region_takes_the_stated_memory():
    n, sides, rules = 1024, ((2, 0), (2, 1), (3, 0), (3, 1)), Rules(1, (), 0)
    classes = ADVERSARIAL["checkerboard"](n)[np.newaxis, np.newaxis]
    tile = TileComponents.find(classes, sides, rules)
    assert len(tile.components) == n * n
    summing = peak_memory(
        lambda: sum_up(classes, TileComponents.find(classes, sides, rules), sides)
    )
    stated = BYTES_PER_RUN + BYTES_PER_COMPONENT
    assert 0.7 * stated < summing / n**2 < stated
    m = len(tile.seam)
    numbers = TileNumbers(np.zeros(n, np.int64), np.zeros(m, np.int64), np.zeros(m, np.bool_))
    relabel = Relabel("yx", sides, rules, numbers)
    labelling = peak_memory(lambda: relabel.label_classes(classes[0, 0], np.dtype(np.uint32)))
    assert labelling / n**2 < stated + 4  # the result takes 4
    digest = sum_up(classes, tile, sides)
    leaving = (digest.lines, digest.ranks, digest.sizes, digest.classes, *digest.faces.values())
    assert sum(array.nbytes for array in leaving) < 50 * 4 * n


@pytest.mark.parametrize("noise", [1, 4])
def test_the_central_step_takes_the_stated_memory_for_each_seam_component(noise, monkeypatch):
    resolved, n, side = spied(monkeypatch, "number_all"), 1024, 128
    class_map = np.random.default_rng(3).integers(1, noise + 1, (n, n)).astype(np.uint8)
    if noise == 1:
        class_map = ADVERSARIAL["checkerboard"](n)
    plan = Tiling((n, n), (side, side), (side, side))
    tile_source = TileSource.from_slices(lambda slices: Tile.from_classes(class_map[slices]), plan)
    seams.RegionPass(Layout(plan, "yx"), Rules(1, (), 0)).run(tile_source, RunMonitor())
    ((digests, pairs, *_),) = resolved
    count = sum(len(digest.lines) for digest in digests)
    columns = [(d.lines, d.ranks, d.sizes, d.classes) for d in digests]
    brought = sum(array.nbytes for array in (*(c for cs in columns for c in cs), *pairs))
    central = peak_memory(lambda: seams.number_all(*resolved[0]))
    # Besides seam components, the step counts first pixels for each line and column of tiles.
    lines = n * n // side
    assert count > 25_000 * (noise == 1)
    assert 40 < (brought + central - 32 * lines) / count < BYTES_PER_SEAM_COMPONENT


# Types, sources and refusals -------------------------------------------------------


def test_labels_take_8_bytes_only_for_more_regions_than_4_bytes_can_number():
    assert smallest_dtype(2**32 - 1) == np.uint32
    assert smallest_dtype(2**32) == np.uint64
    assert lazy_dtype(Tiling((2**16, 2**16), (2048, 2048), (1024, 1024))) == np.uint64
    assert lazy_dtype(Tiling((2**16, 2**16 - 1), (2048, 2048), (1024, 1024))) == np.uint32


def test_two_label_images_of_one_class_map_keep_their_own_numbers(tiled):
    class_map, source = many_tiles(tiled)
    choices = [{}, {"connectivity": 2}, {"min_size": 5}, {"background": 1}]
    together = dask.compute(*(label_regions(source, **options) for options in choices))
    for found, options in zip(together, choices, strict=True):
        np.testing.assert_array_equal(found, whole_regions(class_map, "yx", **options))


def test_metadata_name_the_axes_of_an_array_and_of_a_store(tmp_path):
    film = np.ones((2, 3, 3), np.uint8)
    for store in ({}, tmp_path / "film.zarr"):
        array = zarr.create_array(store, shape=film.shape, dtype="u1", dimension_names=list("tyx"))
        array[...] = film
        source = array if isinstance(store, dict) else store
        assert label_regions(source).max().compute() == 2
        assert label_regions(source, axes="zyx").max().compute() == 1


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_three_dimensions_without_metadata_are_space_however_long_the_last(width, tmp_path):
    array = zarr.create_array(tmp_path / "map.zarr", shape=(4, 5, width), dtype="u1")
    array[...] = 1
    assert label_regions(tmp_path / "map.zarr").shape == (4, 5, width)
    assert label_regions(np.ones((4, 5, width), np.uint8)).max().compute() == 1


def never(block):
    raise AssertionError("This was computed.")


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "error", "words"),
    [
        ((4, 4), "f4", {}, NotAnImage, "float32"),
        ((4, 4), "c8", {}, NotAnImage, "complex64"),
        ((4, 4, 3), "u1", {"axes": "yxc"}, ParameterError, "channels"),
        ((4, 4), "u1", {"connectivity": 3}, ParameterError, "1 to 2"),
        ((4, 4), "u1", {"connectivity": 0}, ParameterError, "connectivity = 0"),
        ((4, 4), "u1", {"connectivity": 1.0}, ParameterError, "connectivity = 1.0"),
        ((4, 4, 4), "u1", {"connectivity": 4}, ParameterError, "connectivity = 4"),
        ((4, 4, 4), "u1", {"axes": "tyx", "connectivity": 3}, ParameterError, "1 to 2"),
        ((4, 4), "u1", {"min_size": -1}, ParameterError, "min_size = -1"),
        ((4, 4), "u1", {"min_size": 1.5}, ParameterError, "min_size = 1.5"),
        ((4, 4), "u1", {"background": "smallest"}, ParameterError, "background"),
        ((4, 4), "u1", {"background": 0}, ParameterError, "background = 0"),
        ((4, 4), "u1", {"axes": "zyx"}, ParameterError, "names 3 dimensions"),
        ((4, 4), "u1", {"axes": "yy"}, ParameterError, "axes = 'yy'"),
        ((4, 4), "u1", {"axes": "ab"}, ParameterError, "axes = 'ab'"),
        ((4, 4), "u1", {"axes": "zx"}, ParameterError, "axes = 'zx'"),
        ((2, 4, 4, 5), "u1", {}, ParameterError, "What are the dimensions"),
        ((4,), "u1", {}, NotAnImage, "dimensions"),
        ((0, 4), "u1", {}, NotAnImage, "empty"),
    ],
)
def test_what_cannot_be_labelled_is_refused_before_anything_is_computed(
    shape, dtype, options, error, words
):
    source = da.zeros(shape, dtype=dtype).map_blocks(never, dtype=dtype, meta=np.empty(0, dtype))
    with pytest.raises(error, match=words) as caught:
        label_regions(source, **options)
    assert isinstance(caught.value, ValueError | TypeError)


# Numbers of 64 bits, and below zero ----------------------------------------------


HUGE = (2**63 - 1, 2**63, 2**63 + 5, 2**64 - 1)


@pytest.mark.parametrize(
    "background", [None, "largest", HUGE[:1], HUGE[1:2], HUGE[2:], (3, HUGE[3]), (2**64 + 3, 3)]
)
def test_numbers_of_64_bits_are_classes_and_background_as_others_are(background):
    class_map = np.random.default_rng(6).choice(np.array([0, 3, *HUGE], np.uint64), (12, 17))
    class_map[:6, :9] = HUGE[2]
    # The same classes with small numbers, for which scikit-image is right.
    small = {3: 1, **{huge: 2 + at for at, huge in enumerate(HUGE)}}
    mapped = sum((class_map == np.uint64(huge)) * np.uint8(n) for huge, n in small.items())
    named = background
    if isinstance(background, tuple):
        named = [small[number] for number in background if number in small]
    expected = whole_regions(mapped.astype(np.uint8), "yx", background=named)
    found = label_regions(da.from_array(class_map, chunks=(5, 6)), background=background).compute()
    np.testing.assert_array_equal(found, expected)


def test_the_largest_class_of_64_bits_is_left_out():
    class_map = np.full((4, 5), 2**63 + 5, "uint64")
    class_map[0, 0] = 3
    assert label_regions(class_map, background="largest").max().compute() == 1


@pytest.mark.parametrize("background", [2**62 + 1, np.uint64(2**62 + 1), np.array([2**62 + 1])])
def test_a_background_is_the_exact_number_and_not_its_neighbor(background):
    class_map = np.array([[2**62, 2**62, 2**62 + 1, 2**62 + 1]])
    found = label_regions(class_map, background=background).compute()
    np.testing.assert_array_equal(found, [[1, 1, 0, 0]])


@pytest.mark.parametrize("background", [300, 2**15 + 3, 256 + 3])
def test_a_background_that_the_type_cannot_hold_is_no_class(background):
    class_map = np.full((3, 3), 3, np.uint8)
    assert label_regions(class_map, background=background).compute().all()


@pytest.mark.parametrize("background", [None, "largest"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64])
def test_negative_numbers_are_no_classes(dtype, background):
    class_map = np.array([[1, 2, -7, -7]], dtype)
    with pytest.raises(NotAnImage, match=r"holds -7, .* give each class a positive number"):
        label_regions(class_map, background=background).compute()


@pytest.mark.parametrize("min_size", [0, 2, 5])
@pytest.mark.parametrize("background", [(), (2,)])
@pytest.mark.parametrize(("axes", "shape"), [("yx", (40, 30)), ("tzyx", (2, 3, 9, 8))])
def test_a_map_without_tiles_has_the_same_regions(axes, shape, background, min_size):
    class_map = np.random.default_rng(min_size).integers(0, 4, shape).astype(np.uint8)
    for connectivity in (1, 2):
        found = label_whole_map(class_map, axes, Rules(connectivity, background, min_size))
        wanted = whole_regions(class_map, axes, connectivity, background, min_size)
        assert np.array_equal(found, wanted)
