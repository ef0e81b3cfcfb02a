"""The small copy of a huge image: the image strided, as far as it is known."""

import threading
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.execution import tiling
from napari_pixseg.execution.tiling import Tiling, plan_tiles
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers import strided_image
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.preview_level import PreviewLevel, PreviewPixels
from napari_pixseg.plugin.layers.strided_image import empty_overview, virtual_levels
from napari_pixseg.sources.image import open_image


def packed_of(shape, seed=0):
    colors = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    return pack_colors(colors)


def whole(shape):
    return tuple(slice(0, n) for n in shape)


def level_region(shape, stride):
    *outer, rows, columns = shape
    return whole((*outer, -(-rows // stride), -(-columns // stride)))


@st.composite
def tilings(draw):
    outer = draw(st.lists(st.integers(1, 3), max_size=2))
    sides = [draw(st.integers(1, 60)) for _ in range(2)]
    tile = tuple(draw(st.integers(1, n)) for n in (*outer, *sides))
    return Tiling((*outer, *sides), tile, tile)


@given(tilings(), st.integers(1, 500), st.randoms(use_true_random=False))
def test_all_tiles_in_any_order_give_the_strided_image(plan, most, shuffled):
    packed, overview = packed_of(plan.shape), Overview(plan.shape, most)
    boxes = [plan.slices(number) for number in range(len(plan))]
    shuffled.shuffle(boxes)
    for box in boxes:
        assert not overview.is_complete or overview.stride > 1
        overview.add(box, packed[box])
    assert overview.is_complete
    for factor in (1, 2, 4):
        stride = overview.stride * factor
        np.testing.assert_array_equal(
            overview.read(level_region(plan.shape, stride), stride),
            packed[..., ::stride, ::stride],
        )


@given(tilings(), st.data())
def test_any_part_of_any_coarser_level_is_the_part_of_the_strided_image(plan, data):
    packed, overview = packed_of(plan.shape), Overview(plan.shape, 300)
    overview.add(whole(plan.shape), packed)
    stride = overview.stride * data.draw(st.sampled_from([1, 2, 8]))
    wanted = packed[..., ::stride, ::stride]
    part = tuple(
        slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))))
        for n in wanted.shape
    )
    np.testing.assert_array_equal(overview.read(part, stride), wanted[part])


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((400, 400), 1),
        ((401, 400), 2),
        ((4000, 100), 2),
        ((9, 400, 400), 4),
        ((200_000, 9), 4),
    ],
)
def test_the_stride_is_the_smallest_that_keeps_within_bounds(shape, stride):
    overview = Overview(shape, 160_000)
    assert overview.stride == stride
    assert overview._packed.size <= 160_000


def test_more_planes_than_pixels_to_keep_are_kept_as_one_pixel_each():
    assert Overview((50, 7, 5), 10)._packed.shape == (50, 1, 1)


def test_what_is_not_known_yet_is_no_data():
    packed, overview = packed_of((64, 48)), Overview((64, 48), 1000)
    overview.add((slice(16, 33), slice(0, 24)), packed[16:33, :24])
    stride = overview.stride
    wanted = np.full_like(packed, NO_DATA)
    wanted[16:33, :24] = packed[16:33, :24]
    found = overview.read(level_region((64, 48), stride), stride)
    np.testing.assert_array_equal(found, wanted[::stride, ::stride])
    assert not overview.is_complete


def test_pixels_without_data_are_known():
    overview = Overview((8, 8))
    overview.add(whole((8, 8)), np.full((8, 8), NO_DATA))
    assert overview.is_complete
    assert (overview.read(whole((8, 8)), 1) == NO_DATA).all()


def test_a_finer_level_shows_the_kept_pixels_large():
    packed, overview = packed_of((64, 64)), Overview((64, 64), 64)
    overview.add(whole((64, 64)), packed)
    assert overview.stride == 8
    wanted = packed[::8, ::8].repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(overview.read(whole((32, 32)), 2), wanted)


def test_the_version_grows_with_everything_that_is_added():
    packed, overview = packed_of((64, 64)), Overview((64, 64), 1000)
    seen = [overview.version]
    for _ in overview.sample_pixels(lambda region: packed[region], 16):
        seen.append(overview.version)
    overview.add(whole((64, 64)), packed)
    seen.append(overview.version)
    assert seen == sorted(set(seen))


# Samples ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (3, 50, 60), (1, 1), (2000, 3)])
def test_samples_show_all_of_the_image_roughly_and_read_little(shape):
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    slope = np.broadcast_to(rows * 500 + columns, shape).astype(np.uint32)
    overview, reads = Overview(shape, 5000), []

    def read(region):
        reads.append(slope[region].size)
        return slope[region]

    for _ in overview.sample_pixels(read, 1 << 10):
        pass
    assert len(reads) <= 1 << 10
    assert set(reads) == {1}
    stride = overview.stride
    found = overview.read(level_region(shape, stride), stride).astype(int)
    error = abs(found - slope[..., ::stride, ::stride])
    # Within cells of an eighth of the longer side.
    reach = max(shape) // 8 + 2 * stride
    assert error.max() <= reach * 501
    assert not overview.is_complete


def test_samples_never_replace_what_is_known_and_are_replaced_by_it():
    packed, overview = packed_of((64, 64)), Overview((64, 64), 1000)
    stride = overview.stride
    overview.add((slice(0, 64), slice(0, 40)), packed[:, :40])
    for _ in overview.sample_pixels(lambda region: packed[region] * 0 + 7):
        pass
    found = overview.read(level_region((64, 64), stride), stride)
    np.testing.assert_array_equal(found[:, : 40 // stride], packed[::stride, :40:stride])
    assert (found[:, 40 // stride :] == 7).all()
    overview.add((slice(0, 64), slice(40, 64)), packed[:, 40:])
    found = overview.read(level_region((64, 64), stride), stride)
    np.testing.assert_array_equal(found, packed[::stride, ::stride])
    assert overview.is_complete


def test_an_image_with_too_many_planes_is_not_sampled():
    overview = Overview((100, 8, 8))
    assert not list(overview.sample_pixels(lambda _region: pytest.fail("read"), 99))


# Counting --------------------------------------------------------------------------


@pytest.fixture
def _small(monkeypatch):
    """Few pixels are many tiles, levels, and too much for a view."""
    monkeypatch.setattr(tiling, "TILE_SIDE", 32)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 32 * 32)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 16)
    monkeypatch.setattr(strided_image, "LARGEST_PLANE", 1000)
    monkeypatch.setattr(strided_image, "_COARSEST_SIDE", 16)
    monkeypatch.setattr(strided_image, "_LARGEST_READ", 1000)


PICTURE = np.random.default_rng(3).integers(0, 256, (150, 130, 3)).astype(np.uint8)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    "make", [lambda a: a, lambda a: da.from_array(a, (32, 32, 3))], ids=["array", "Dask"]
)
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("radius", [0, 2])
def test_counting_fills_it_with_the_colors_that_are_counted(make, direct, radius, monkeypatch):
    if direct:
        monkeypatch.setattr("napari_pixseg.classification.pixels.DIRECT_TILES", 0)
    image = open_image(make(PICTURE))
    color_count = ColorCount(image, plan_tiles(image), Parameters(denoise=radius))
    assert len(color_count.tiling) > 4
    overview = Overview(image.shape, 2000)
    table = color_count.table(observer=overview.add)
    assert overview.is_complete
    stride = overview.stride
    wanted = color_count.pixels().read(whole(image.shape))[::stride, ::stride]
    found = overview.read(level_region(image.shape, stride), stride)
    np.testing.assert_array_equal(found, wanted)
    assert table == ColorCount(image, plan_tiles(image), Parameters(denoise=radius)).table()


def test_a_table_counted_before_shows_an_observer_nothing():
    image = open_image(PICTURE)
    color_count = ColorCount(image, plan_tiles(image), Parameters())
    color_count.table()
    color_count.table(observer=lambda _region, _packed: pytest.fail("counted again"))


@pytest.mark.usefixtures("_small")
def test_many_threads_fill_and_read_it():
    plan = Tiling((400, 300), (20, 20), (20, 20))
    packed, overview = packed_of(plan.shape), Overview(plan.shape, 20_000)
    wanted = packed[:: overview.stride, :: overview.stride]
    region, done = level_region(plan.shape, overview.stride), threading.Event()

    def monitor():
        while not done.is_set():
            found = overview.read(region, overview.stride)
            assert ((found == wanted) | (found == NO_DATA)).all()

    with ThreadPoolExecutor(6) as pool:
        watchers = [pool.submit(monitor) for _ in range(2)]
        try:
            boxes = map(plan.slices, range(len(plan)))
            list(pool.map(lambda box: overview.add(box, packed[box]), boxes))
        finally:
            done.set()
        for watcher in watchers:
            watcher.result()
    assert overview.is_complete
    assert overview.version == len(plan)
    np.testing.assert_array_equal(overview.read(region, overview.stride), wanted)


# Previews --------------------------------------------------------------------------


class Reads:
    """An array that may be forbidden to be read."""

    shape, dtype, ndim = PICTURE.shape, PICTURE.dtype, 3
    forbidden = False

    def __getitem__(self, key):
        assert not self.forbidden
        return PICTURE[key]


@pytest.mark.usefixtures("_small")
def test_previews_of_huge_images_take_coarse_levels_from_it():
    source = Reads()
    result = segment(source, axes="yxc", ct=0, st=0.5)
    image = result.image
    overview = Overview(image.shape, 2000)
    pixels = PreviewPixels()
    pixels.encode_with(result.color_count.pixels().encoding, 0, overview)
    pixels.lookup.set_decision(result.decision, result.color_table)
    previews = [PreviewLevel(level, pixels) for level in virtual_levels(image)]
    wanted = np.asarray(result.classes)
    source.forbidden = True
    # Nothing is known: nothing is shown, nothing is read.
    assert not np.asarray(previews[-1]).any()
    overview.add(whole(image.shape), pack_colors(PICTURE))
    assert overview.stride == 4
    for number in (2, 3):
        stride = 2**number
        np.testing.assert_array_equal(previews[number], wanted[::stride, ::stride])
    # All of a finer level is too much, a part of it is read.
    large = wanted[::4, ::4].repeat(2, 0).repeat(2, 1)[:75, :65]
    np.testing.assert_array_equal(previews[1], large)
    source.forbidden = False
    np.testing.assert_array_equal(previews[1][5:9, 7:30], wanted[::2, ::2][5:9, 7:30])
    np.testing.assert_array_equal(previews[0], wanted)


@pytest.mark.usefixtures("_small")
def test_only_images_whose_views_can_be_too_large_get_one():
    image = open_image(PICTURE)
    assert empty_overview([image]).stride == 1
    assert empty_overview([image, open_image(PICTURE[::2, ::2])]) is None
    assert empty_overview([open_image(PICTURE[:20, :20])]) is None
