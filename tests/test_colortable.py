"""The color table: counting, merging, packing; exact whatever the order and the threads."""

import hashlib
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from napari_pixseg.algorithm.color_table import (
    COLORS,
    NO_DATA,
    ColorTable,
    pack_colors,
    unpack_colors,
)
from napari_pixseg.algorithm.colorspaces.convert import forward_bytes
from napari_pixseg.parameters import ColorSpace

# Few different values, so that colors repeat, and everything up to no data.
packed_colors = arrays.arrays(
    np.uint32,
    some.tuples(some.integers(0, 9), some.integers(0, 9)),
    elements=some.integers(0, 6) | some.integers(0, COLORS - 1) | some.just(int(NO_DATA)),
)
byte_rows = arrays.arrays(
    np.uint8, some.tuples(some.integers(0, 40), some.just(3)), elements=some.integers(0, 3)
)


def expected_counts(packed):
    return np.unique(packed[packed != NO_DATA], return_counts=True)


@given(packed=packed_colors)
def test_counting_is_numpy_unique_without_what_has_no_data(packed):
    table = ColorTable.from_packed(packed)
    colors, counts = expected_counts(packed)
    np.testing.assert_array_equal(table.packed, colors)
    np.testing.assert_array_equal(table.counts, counts)
    assert (table.packed.dtype, table.counts.dtype) == (np.uint32, np.int64)
    assert len(table) == len(colors)
    assert table.pixels == (packed != NO_DATA).sum()


@given(packed=packed_colors)
def test_the_counted_pixels_are_left_as_they_were(packed):
    before = packed.copy()
    packed.setflags(write=False)
    ColorTable.from_packed(packed)
    np.testing.assert_array_equal(packed, before)


@given(packed=packed_colors, data=some.data())
def test_any_split_merged_in_any_order_is_the_table_of_the_whole(packed, data):
    whole = ColorTable.from_packed(packed)
    flat = packed.ravel()
    cuts = data.draw(some.lists(some.integers(0, flat.size), max_size=6).map(sorted))
    parts = [ColorTable.from_packed(part) for part in np.split(flat, cuts)]
    merged = ColorTable.merge(data.draw(some.permutations(parts)))
    assert merged == whole
    assert merged.hash() == whole.hash()


@given(packed=packed_colors, data=some.data())
def test_merging_in_a_tree_is_merging_at_once(packed, data):
    parts = [ColorTable.from_packed(row) for row in packed]
    middle = data.draw(some.integers(0, len(parts)))
    halves = [ColorTable.merge(parts[:middle]), ColorTable.merge(iter(parts[middle:]))]
    assert ColorTable.merge(halves) == ColorTable.from_packed(packed)


@given(packed=packed_colors, times=some.integers(1, 10**12))
def test_counts_are_exact_however_large(packed, times):
    once = ColorTable.from_packed(packed)
    often = ColorTable(once.packed, once.counts * times)
    merged = ColorTable.merge([often, once, often])
    np.testing.assert_array_equal(merged.counts, once.counts * (2 * times + 1))


def test_merging_nothing_is_an_empty_table():
    empty = ColorTable.merge([])
    assert (len(empty), empty.pixels, empty.colors.shape) == (0, 0, (0, 3))
    assert empty == ColorTable.from_packed(np.full((2, 3), NO_DATA))
    table = ColorTable.from_pixels(np.array([[1, 2, 3]], np.uint8))
    assert ColorTable.merge([empty, table, empty]) == table


def test_mixing_color_spaces_is_refused():
    packed = np.array([5], np.uint32)
    spaces = (None, ColorSpace.YUV, ColorSpace.YIQ)
    tables = {space: ColorTable.from_packed(packed, space) for space in spaces}
    assert ColorTable.merge([tables[ColorSpace.YUV]] * 2).space is ColorSpace.YUV
    for first, second in ((None, ColorSpace.YUV), (ColorSpace.YUV, ColorSpace.YIQ)):
        with pytest.raises(ValueError, match="different color spaces"):
            ColorTable.merge([tables[first], tables[second]])


@given(pixels=byte_rows)
def test_packed_colors_unpack_to_the_bytes_they_were(pixels):
    packed = pack_colors(pixels)
    np.testing.assert_array_equal(packed, pixels.astype(np.uint32) @ (1 << 16, 1 << 8, 1))
    np.testing.assert_array_equal(unpack_colors(packed), pixels)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        pytest.param([[7]], 0x070707, id="one channel is gray"),
        pytest.param([[1, 2]], 0x010200, id="two channels leave the third 0"),
        pytest.param([[1, 2, 3]], 0x010203, id="three channels"),
        pytest.param([[255, 255, 255]], COLORS - 1, id="white is the largest color"),
    ],
)
def test_channels_are_packed_from_the_most_significant_byte(pixels, expected):
    assert pack_colors(np.array(pixels, np.uint8)).tolist() == [expected]


def test_packing_keeps_the_shape_of_any_image_and_of_any_layout():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)
    channels_first = np.moveaxis(image[..., :3], -1, 0)
    packed = pack_colors(np.moveaxis(channels_first, 0, -1))
    assert packed.shape == (3, 4, 5)
    np.testing.assert_array_equal(unpack_colors(packed), image[..., :3])
    assert ColorTable.from_packed(packed[:, ::2]) == ColorTable.from_pixels(image[:, ::2, :, :3])


@given(pixels=byte_rows)
def test_equal_tables_and_only_these_have_equal_hashes(pixels):
    table = ColorTable.from_pixels(pixels)
    assert table == ColorTable.from_pixels(pixels[::-1])
    more = ColorTable.from_pixels(np.concatenate([pixels, [[9, 9, 9]]]).astype(np.uint8))
    converted = ColorTable(table.packed, table.counts, ColorSpace.YUV)
    recounted = ColorTable(more.packed, more.counts + 1)
    tables = [table, more, converted, recounted]
    assert len({each.hash() for each in tables}) == len(tables)
    assert not any(table == other for other in tables[1:])
    assert table != "a table"


def test_the_hash_is_a_documented_digest_that_no_release_may_change():
    table = ColorTable(np.array([1, 0x010203], np.uint32), np.array([2, 3], np.int64))
    content = bytes([1, 0, 0, 0, 3, 2, 1, 0]) + bytes([2, *[0] * 7, 3, *[0] * 7])
    assert table.hash() == hashlib.sha256(content).hexdigest()


@given(pixels=byte_rows, space=some.sampled_from([None, ColorSpace.HSB]))
def test_a_pickled_table_is_the_same_table(pixels, space):
    table = ColorTable.from_packed(pack_colors(pixels), space)
    table.in_space(ColorSpace.Lab)
    copy = pickle.loads(pickle.dumps(table))
    assert copy == table
    assert copy.space is space
    np.testing.assert_array_equal(copy.in_space(ColorSpace.Lab), table.in_space(ColorSpace.Lab))


def test_converted_colors_are_not_sent_along():
    colors = np.random.default_rng(0).integers(0, 256, (1000, 3), dtype=np.uint8)
    table = ColorTable.from_pixels(colors)
    bare = len(pickle.dumps(table))
    table.in_space(ColorSpace.YUV)
    assert len(pickle.dumps(table)) == bare


def test_colors_are_converted_whatever_was_asked_before():
    """More spaces than are kept, twice over."""
    table = ColorTable.from_pixels(np.random.default_rng(0).integers(0, 256, (99, 3), np.uint8))
    for space in [*ColorSpace, *reversed(ColorSpace)]:
        expected = forward_bytes(space, table.colors)
        np.testing.assert_array_equal(table.in_space(space), expected)
        assert table.in_space(space) is table.in_space(space)


def test_bytes_counted_in_a_color_space_are_not_converted_again():
    table = ColorTable.from_packed(np.array([0x102030], np.uint32), ColorSpace.YUV)
    assert table.in_space(ColorSpace.YUV).tolist() == [[0x10, 0x20, 0x30]]


def test_threads_that_count_at_the_same_time_do_not_disturb_each_other():
    """Eight threads, each with its own colors and counts, released together."""
    generators = [np.random.default_rng(seed) for seed in range(8)]
    images = [rng.integers(0, 5000, 300_000, dtype=np.uint32) for rng in generators]
    start = threading.Barrier(len(images))
    tables = [[] for _ in images]

    def count(number: int) -> None:
        start.wait()
        for _ in range(5):
            halves = [ColorTable.from_packed(part) for part in np.split(images[number], 2)]
            tables[number].append(ColorTable.merge(halves))

    threads = [threading.Thread(target=count, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for image, color_count in zip(images, tables, strict=True):
        colors, counts = np.unique(image, return_counts=True)
        assert color_count == [ColorTable(colors, counts)] * 5
