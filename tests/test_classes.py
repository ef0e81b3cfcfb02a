"""Decisions on a color table: against a naive reading of 3.8 and 3.9, and the two semantics."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from napari_pixseg.algorithm import partition as model
from napari_pixseg.algorithm.classes import decide
from napari_pixseg.algorithm.color_table import COLORS, ColorTable, pack_colors
from napari_pixseg.algorithm.colorspaces.convert import forward, from_byte, inverse, to_byte
from napari_pixseg.algorithm.partition import Partition
from napari_pixseg.errors import ClassError, ParameterError, RecountNeeded
from napari_pixseg.parameters import ColorSpace, Parameters

SRGB = ColorSpace.sRGB
IMAGEMAGICK = {"semantics": "imagemagick6"}


@some.composite
def random_pixels(draw):
    """(n, 3) bytes: a few colors, with or without noise, and some strays."""
    rng = np.random.default_rng(draw(some.integers(0, 2**32 - 1)))
    colors = rng.integers(0, 256, (rng.integers(1, 9), 3))
    chosen = colors[rng.integers(0, len(colors), draw(some.integers(1, 3000)))]
    noisy = chosen + rng.normal(0, draw(some.sampled_from([0, 1, 4, 15])), chosen.shape)
    strays = rng.integers(0, 256, (draw(some.integers(0, 40)), 3))
    return np.clip(np.round(np.concatenate([noisy, strays])), 0, 255).astype(np.uint8)


# Thresholds that doubles hold exactly, so that equality means equality at every image size.
cluster_thresholds = some.integers(0, 80).map(lambda quarters: quarters / 4)
smoothing_thresholds = some.sampled_from([0.125, 1.0, 1.5, 6.0, 25.0, 250.0])
parameters_of = some.builds(
    Parameters,
    ct=cluster_thresholds,
    st=smoothing_thresholds,
    cs=some.sampled_from(ColorSpace),
    semantics=some.sampled_from(["documented", "imagemagick6"]),
)
documented = parameters_of.map(lambda parameters: parameters.replace(semantics="documented"))


def decided(pixels, parameters):
    """Table and classes; an example without classes is no example."""
    table = ColorTable.from_pixels(pixels)
    try:
        return table, decide(table, parameters)
    except ClassError:
        assume(False)


def class_of_pixels(table, classes, pixels):
    return classes.lookup(table)[pack_colors(pixels)]


def in_boxes(colors, boxes):
    """(colors, boxes): whether a color lies in a box with its margin."""
    values = colors[:, np.newaxis].astype(int)
    return ((values >= boxes[..., 0] - 3) & (values <= boxes[..., 1] + 3)).all(axis=-1)


def naive_classes(colors, boxes, centers):
    """Section 3.9 with all boxes and all centers: the first box, else the nearest center."""
    held = in_boxes(colors, boxes)
    distance = ((colors[:, np.newaxis].astype(int) - centers) ** 2).sum(axis=-1)
    return np.where(held.any(axis=1), held.argmax(axis=1), distance.argmin(axis=1)) + 1


def naive_boxes(colors, counts, intervals, parameters):
    """Section 3.8 with all boxes: those kept, their rounded centers and their pixels."""
    boxes = np.array(list(product(*intervals)))
    held = in_boxes(colors, boxes)
    first = np.where(held.any(axis=1), held.argmax(axis=1), -1)
    counted_pixels = counts[first >= 0].sum()
    kept, centers, pixels = [], [], []
    for number, box in enumerate(boxes):
        inside = first == number
        count = counts[inside].sum()
        base = counted_pixels if parameters.semantics == "documented" else len(kept)
        if count > 0 and count >= base * parameters.ct / 100:
            kept.append(box)
            total = (colors[inside] * counts[inside, np.newaxis]).sum(axis=0)
            centers.append(np.floor(total / count + 0.5))
            pixels.append(count)
    return np.array(kept), np.array(centers), pixels


@given(pixels=random_pixels(), parameters=parameters_of)
def test_boxes_centers_and_classes_are_those_of_a_naive_implementation(pixels, parameters):
    table, classes = decided(pixels, parameters)
    partition = classes.partition
    assume(len(partition.centers))
    colors = table.in_space(parameters.cs).astype(int)
    boxes, centers, counts = naive_boxes(colors, table.counts, partition.intervals, parameters)
    np.testing.assert_array_equal(partition.boxes, boxes)
    np.testing.assert_array_equal(partition.centers, centers)
    assert partition.box_counts.tolist() == counts
    np.testing.assert_array_equal(classes.color_classes, naive_classes(colors, boxes, centers))


@some.composite
def random_partitions(draw):
    """Close regions, some boxes dropped, and centers from a coarse grid, so that many tie."""
    rng = np.random.default_rng(draw(some.integers(0, 2**32 - 1)))
    step = draw(some.sampled_from([1, 8, 64]))
    edges = [np.sort(rng.choice(128, 2 * rng.integers(1, 5), replace=False)) for _ in range(3)]
    intervals = tuple(channel.reshape(-1, 2).astype(np.int64) for channel in edges)
    size = int(np.prod([len(channel) for channel in intervals]))
    kept = rng.random(size) < draw(some.sampled_from([0.2, 0.7]))
    kept[rng.integers(size)] = True
    numbers = np.where(kept, np.cumsum(kept) - 1, -1)
    centers = rng.integers(0, 256 // step, (kept.sum(), 3)) * step
    return Partition(intervals, numbers, centers, np.ones(len(centers), np.int64), len(centers))


@given(partition=random_partitions(), seed=some.integers(0, 2**32 - 1))
def test_ties_between_boxes_and_between_centers_go_to_the_lowest_class(partition, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 32, (500, 3)) * 8
    colors = np.concatenate([coarse, rng.integers(0, 256, (500, 3))]).astype(np.uint8)
    expected = naive_classes(colors, partition.boxes, partition.centers)
    np.testing.assert_array_equal(partition.classify(colors), expected)


@given(pixels=random_pixels(), parameters=parameters_of)
def test_every_color_has_a_class_and_the_table_accounts_for_every_pixel(pixels, parameters):
    table, classes = decided(pixels, parameters)
    rows, drawn = classes.table, class_of_pixels(table, classes, pixels)
    assert (drawn >= 1).all()
    assert (drawn <= len(classes)).all()
    assert rows["number"].tolist() == list(range(1, len(classes) + 1))
    np.testing.assert_array_equal(rows["count"], np.bincount(drawn, minlength=len(rows) + 1)[1:])
    assert rows["count"].sum() == len(pixels)
    assert rows["percentage"].sum() == pytest.approx(100)
    if len(classes.partition.centers):
        shares = 100 * rows["box_count"] / classes.partition.counted_pixels
        np.testing.assert_allclose(rows["box_percentage"], shares)
    np.testing.assert_array_equal(classes.palette[1:], rows["color"])
    np.testing.assert_array_equal(classes.palette, to_byte(classes.palette16))
    assert classes.palette[0].tolist() == [0, 0, 0]


@given(pixels=random_pixels(), parameters=parameters_of)
def test_classifying_the_colors_again_gives_the_same_and_other_colors_have_no_data(
    pixels, parameters
):
    table, classes = decided(pixels, parameters)
    again = classes.partition.classify(table.in_space(parameters.cs))
    np.testing.assert_array_equal(again, classes.color_classes)
    lookup = classes.lookup(table)
    assert (lookup.size, lookup.dtype) == (COLORS + 1, classes.dtype)
    np.testing.assert_array_equal(np.flatnonzero(lookup), table.packed)


@given(pixels=random_pixels(), parameters=documented)
def test_a_documented_color_is_the_mean_of_the_pixels_of_its_class(pixels, parameters):
    table, classes = decided(pixels, parameters)
    drawn = class_of_pixels(table, classes, pixels)
    for number in np.unique(drawn):
        members = pixels[drawn == number].astype(int)
        mean = (2 * members.sum(axis=0) + len(members)) // (2 * len(members))
        assert classes.palette[number].tolist() == mean.tolist()


@given(pixels=random_pixels(), parameters=documented, times=some.integers(2, 7), data=some.data())
def test_order_and_repetition_of_pixels_change_no_documented_class(pixels, parameters, times, data):
    table, classes = decided(pixels, parameters)
    order = np.random.default_rng(data.draw(some.integers(0, 99))).permutation(len(pixels) * times)
    repeated = np.tile(pixels, (times, 1))[order]
    other_table, other = decided(repeated, parameters)
    np.testing.assert_array_equal(other.lookup(other_table), classes.lookup(table))
    np.testing.assert_array_equal(other.palette, classes.palette)
    np.testing.assert_array_equal(other.table["count"], classes.table["count"] * times)


@pytest.mark.parametrize(("count", "dtype"), [(1, "u1"), (255, "u1"), (256, "u2"), (65_535, "u2")])
def test_class_numbers_fit_their_type_and_take_no_more_room_than_needed(count, dtype):
    classes = decide(NOBODY, Parameters(**IMAGEMAGICK))
    many = replace(classes, table=np.resize(classes.table, count))
    assert many.dtype == dtype
    assert np.iinfo(many.dtype).max >= len(many)


# Section 8: what differs between the two semantics ------------------------------------


# One channel without curvature: a broad hill, smooth in its counts.
SOFT = np.repeat(
    np.arange(256), np.round(700 * np.exp(-(((np.arange(256) - 128) / 36) ** 2) / 2)).astype(int)
)


def hills(*levels):
    """One channel as large as SOFT: hills around levels, in an order of their own."""
    rng = np.random.default_rng(len(levels))
    return rng.permutation(np.resize(levels, SOFT.size) + rng.integers(-4, 5, SOFT.size))


def picture(*channels):
    return ColorTable.from_pixels(np.stack(channels, axis=-1).astype(np.uint8))


def grid_of_a_thousand_colors():
    levels = np.arange(10, 250, 24)
    triples = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    noise = np.random.default_rng(0).normal(0, 2.5, (40, 1000, 3))
    return ColorTable.from_pixels(np.clip(triples + noise, 0, 255).astype(np.uint8))


CHANNELS = hills(40, 40, 40, 120, 210), hills(60, 180), hills(50, 50, 200)
THREE_HILLS = picture(*CHANNELS)
# Three pixels whose peaks meet in none of them.
NOBODY = ColorTable.from_pixels(np.array([[34, 161, 149], [50, 36, 145], [61, 133, 115]], np.uint8))


@pytest.mark.parametrize("values", [{"ct": 8}, {"ct": 10**5, **IMAGEMAGICK}], ids=str)
def test_ct_compares_with_all_counted_pixels_or_with_the_number_of_boxes_kept(values):
    every = decide(THREE_HILLS, Parameters(**values, cs=SRGB).replace(ct=0))
    counts = every.partition.box_counts
    kept = []
    for count in counts:
        base = counts.sum() if values["ct"] <= 100 else len(kept)
        if count >= base * values["ct"] / 100:
            kept.append(count)
    assert 0 < len(kept) < len(counts)
    classes = decide(THREE_HILLS, Parameters(**values, cs=SRGB))
    assert classes.partition.box_counts.tolist() == kept


def test_st_is_of_a_megapixel_or_of_raw_counts():
    enlarged = ColorTable(THREE_HILLS.packed, THREE_HILLS.counts * 16)
    pixels = THREE_HILLS.pixels
    for semantics, same in (("documented", True), ("imagemagick6", False)):
        parameters = Parameters(ct=0, cs=SRGB, st=250, semantics=semantics)
        small, large = decide(THREE_HILLS, parameters), decide(enlarged, parameters)
        pairs = zip(small.scale_spaces, large.scale_spaces, strict=True)
        assert all(np.array_equal(one.marks, other.marks) for one, other in pairs) is same
    absolute = decide(THREE_HILLS, parameters.replace(st=250 * pixels / 2**20))
    normalized = decide(THREE_HILLS, parameters.replace(st=250, semantics="documented"))
    np.testing.assert_array_equal(absolute.color_classes, normalized.color_classes)


def test_st_0_acts_as_1_in_imagemagick6_and_is_refused_otherwise():
    zero, one, two = (
        decide(THREE_HILLS, Parameters(ct=0, cs=SRGB, st=st, **IMAGEMAGICK)) for st in (0, 1, 200)
    )
    np.testing.assert_array_equal(zero.scale_spaces[0].marks, one.scale_spaces[0].marks)
    assert not np.array_equal(zero.scale_spaces[0].marks, two.scale_spaces[0].marks)
    with pytest.raises(ParameterError, match="above 0"):
        Parameters(st=0)


def test_more_than_256_classes_are_an_error_in_imagemagick6_only(monkeypatch):
    table, st = grid_of_a_thousand_colors(), 2**20 / 40_000
    classes = decide(table, Parameters(ct=0, cs=SRGB, st=st))
    assert len(classes) > 256
    assert classes.lookup(table).dtype == np.uint16
    assert classes.lookup(table).max() == len(classes)
    exceeded = f"There are {len(classes)} classes, more than the 256 .*raise st or ct"
    with pytest.raises(ClassError, match=exceeded):
        decide(table, Parameters(ct=0, cs=SRGB, st=1, **IMAGEMAGICK))
    assert model.MAX_CLASSES["documented"] == 65_535
    monkeypatch.setitem(model.MAX_CLASSES, "documented", len(classes) - 1)
    with pytest.raises(ClassError, match=f"more than the {len(classes) - 1} .*raise st or ct"):
        decide(table, Parameters(ct=0, cs=SRGB, st=st))


@pytest.mark.parametrize("space", ColorSpace, ids=lambda space: space.name)
def test_without_any_box_imagemagick6_has_one_class_of_color_0_in_the_color_space(space):
    table = ColorTable(NOBODY.packed, NOBODY.counts, space)
    classes = decide(table, Parameters(ct=0, cs=space, st=1e-6, **IMAGEMAGICK))
    assert (len(classes.partition.centers), classes.partition.counted_pixels) == (0, 0)
    assert classes.color_classes.tolist() == [1, 1, 1]
    zero = inverse(space, np.zeros((1, 3), np.uint16))
    np.testing.assert_array_equal(classes.palette16[1:], zero)


def test_without_any_box_documented_is_an_error_that_says_why():
    with pytest.raises(ClassError, match=r"boxes found hold no pixel; .*try another cs"):
        decide(NOBODY, Parameters(ct=0, cs=SRGB, st=1))
    parameters = Parameters(ct=0, cs=SRGB, st=1)
    shares = decide(THREE_HILLS, parameters).table["box_percentage"]
    expected = rf"ct = 99 %: the largest box holds {shares.max():.3g} % .*lower ct, or raise st"
    with pytest.raises(ClassError, match=expected):
        decide(THREE_HILLS, parameters.replace(ct=99))


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_a_channel_without_region_is_one_region_or_leaves_the_reference_s_default_box(flat):
    channels = list(CHANNELS)
    channels[flat] = SOFT
    table = picture(*channels)
    classes = decide(table, Parameters(ct=0, cs=SRGB, st=255))
    found = [channel.intervals.tolist() for channel in classes.scale_spaces]
    assert [not intervals for intervals in found] == [channel == flat for channel in range(3)]
    found[flat] = [[0, 255]]
    assert [intervals.tolist() for intervals in classes.partition.intervals] == found
    exact = decide(table, Parameters(ct=0, cs=SRGB, st=15, **IMAGEMAGICK))
    default = [[[0, 255]] if channel <= flat else [[0, 0]] for channel in range(3)]
    assert [intervals.tolist() for intervals in exact.partition.intervals] == default


@pytest.mark.parametrize("space", ColorSpace, ids=lambda space: space.name)
def test_imagemagick6_colors_are_the_centers_taken_back_to_srgb(space):
    classes = decide(THREE_HILLS, Parameters(ct=0, cs=space, st=100, **IMAGEMAGICK))
    centers = from_byte(classes.table["center"])
    numbers = np.arange(len(classes))  # in CMYK the class number stands in K's memory
    np.testing.assert_array_equal(classes.palette16[1:], inverse(space, centers, numbers))


@pytest.mark.parametrize("space", ColorSpace, ids=lambda space: space.name)
def test_a_gray_image_stays_gray_in_both_semantics(space):
    table = picture(*CHANNELS[:1] * 3)
    exact = decide(table, Parameters(ct=0, cs=space, st=1, **IMAGEMAGICK), gray=True)
    plain = decide(table, Parameters(ct=0, cs=space, st=1, **IMAGEMAGICK))
    expected = forward(ColorSpace.GRAY, plain.palette16[1:])
    np.testing.assert_array_equal(exact.palette16[1:], expected)
    documented = decide(table, Parameters(ct=0, cs=space, st=16)).palette
    assert (documented == documented[:, :1]).all()


# Tables that cannot answer -------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [{"cs": SRGB}, {"cs": ColorSpace.YIQ, **IMAGEMAGICK}, {"cs": SRGB, "semantics": "documented"}],
    ids=["another space", "another space again", "documented"],
)
def test_a_table_counted_in_one_color_space_asks_for_a_recount(values):
    foreign = {"cs": ColorSpace.YUV, **IMAGEMAGICK} | values
    table = ColorTable(THREE_HILLS.packed, THREE_HILLS.counts, ColorSpace.YUV)
    with pytest.raises(RecountNeeded, match=r"YUV bytes .*a recount is needed.*segment\(\)"):
        decide(table, Parameters(**foreign))
    own = decide(table, Parameters(cs=ColorSpace.YUV, ct=0, **IMAGEMAGICK))
    srgb = decide(THREE_HILLS, Parameters(cs=SRGB, ct=0, **IMAGEMAGICK))
    np.testing.assert_array_equal(own.color_classes, srgb.color_classes)


@pytest.mark.parametrize("semantics", ["documented", "imagemagick6"])
def test_a_table_without_pixels_is_refused(semantics):
    with pytest.raises(ClassError, match="No pixel has data"):
        decide(ColorTable.merge([]), Parameters(semantics=semantics))
