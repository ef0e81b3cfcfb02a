"""Components of one array: scikit-image's numbers, with sizes and first lines."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label

from napari_pixseg.algorithm.components import find_components

DTYPES = ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">u2", ">i4", ">u8")


# The oracle: scikit-image ------------------------------------------------------


def renumbered(labels):
    """The same components, 1..n in raster order of first pixels."""
    found, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbers = np.zeros(len(found), np.int64)
    regions = np.flatnonzero(found)
    numbers[regions[np.argsort(firsts[regions])]] = np.arange(1, len(regions) + 1)
    return numbers[inverse].reshape(labels.shape)


def frame_labels(frame, connectivity):
    """Components of one frame (y, x) or (z, y, x)."""
    labels = label(frame.astype(np.int64), background=0, connectivity=connectivity)
    # It permutes axes of length 1 in three dimensions, and then numbers in that order.
    return renumbered(labels) if labels.ndim == 3 and 1 in labels.shape[1:] else labels


def all_labels(frames, connectivity):
    """Components of frames along the first axis, with offsets added."""
    offset, result = 0, []
    for frame in frames:
        labels = frame_labels(frame, connectivity)
        result.append(np.where(labels, labels + offset, 0))
        offset += labels.max()
    return np.stack(result)


def measures(labels):
    """Sizes, and line of each component's first pixel, one component at a time."""
    by_line = labels.reshape(-1, labels.shape[-1])
    count = labels.max()
    lines = [0] + [int(np.argmax((by_line == k).any(axis=1))) for k in range(1, count + 1)]
    return np.bincount(labels.reshape(-1), minlength=count + 1), lines


def check(classes, connectivity):
    expected = all_labels(classes, connectivity)
    found = find_components(classes, connectivity)
    np.testing.assert_array_equal(found.labels, expected)
    sizes, lines = measures(expected)
    np.testing.assert_array_equal(found.sizes, sizes)
    np.testing.assert_array_equal(found.lines, lines)
    assert len(found) == expected.max()
    assert (found.labels.dtype, found.sizes.dtype) == (np.int32, np.int64)
    return found


# Maps ------------------------------------------------------------------------


def noisy(shape, classes, noise, seed):
    """Random blocks of about three pixels, some pixels redrawn; 0 is one of the classes."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes + 1, [n // 3 + 1 for n in shape])
    for axis, n in enumerate(shape):
        blocks = blocks.repeat(3, axis=axis).take(range(n), axis=axis)
    redrawn = rng.random(shape) < noise
    return np.where(redrawn, rng.integers(0, classes + 1, shape), blocks)


@st.composite
def maps(draw, shape):
    noise = draw(st.sampled_from((0.0, 0.1, 0.4, 1.0)))
    return noisy(shape, draw(st.integers(1, 5)), noise, draw(st.integers(0, 9999)))


def spiral(n):
    """A path one pixel wide from the corner to the middle, walls of class 2 between its turns."""
    path = np.full((n, n), 2, np.uint8)
    y, x, step = 0, -1, (0, 1)
    for length in (n, *(k for k in range(n - 1, 0, -2) for _ in (0, 1))):
        for _ in range(length):
            y, x = y + step[0], x + step[1]
            path[y, x] = 1
        step = (step[1], -step[0])
    return path


def comb(n):
    """Teeth that meet only in the last row: every one is a new component until then."""
    teeth = np.tile((1 + np.arange(n) % 2).astype(np.uint8), (n, 1))
    teeth[-1] = 1
    return teeth


ADVERSARIAL = {
    "checkerboard": lambda n: (np.indices((n, n)).sum(axis=0) % 2 + 1).astype(np.uint8),
    "spiral": spiral,
    "comb": comb,
    "comb upside down": lambda n: np.ascontiguousarray(comb(n)[::-1]),
    "diagonal stripes": lambda n: (np.indices((n, n)).sum(axis=0) % 3 + 1).astype(np.uint8),
    "other diagonal": lambda n: (np.subtract(*np.indices((n, n))) % 3 + 1).astype(np.uint8),
    "all equal": lambda n: np.full((n, n), 7, np.uint8),
    "nothing": lambda n: np.zeros((n, n), np.uint8),
}


# Properties --------------------------------------------------------------------


@given(data=st.data())
def test_components_are_numbered_as_scikit_image_numbers_each_frame(data):
    shape = tuple(data.draw(st.integers(1, longest)) for longest in (3, 5, 9, 12))
    classes = data.draw(maps(shape))
    for connectivity in (1, 2, 3):
        check(classes, connectivity)


@given(data=st.data())
def test_a_flat_picture_gets_the_numbers_of_two_dimensions(data):
    height, width = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    classes = data.draw(maps((height, width)))
    for connectivity in (1, 2):
        found = find_components(classes[np.newaxis, np.newaxis], connectivity)
        np.testing.assert_array_equal(found.labels[0, 0], label(classes, connectivity=connectivity))


@st.composite
def layouts(draw, array):
    """The same values, differently in memory."""
    kind = draw(st.sampled_from(("plain", "strided", "backwards", "fortran", "read-only")))
    if kind == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if kind == "backwards":
        return array[:, ::-1, :, ::-1].copy()[:, ::-1, :, ::-1]
    if kind == "fortran":
        return np.asfortranarray(array)
    copied = array.copy()
    copied.flags.writeable = kind != "read-only"
    return copied


def distinct_values(dtype):
    """Zero, and values that a careless conversion would confuse."""
    if dtype.kind == "b":
        return [0, 1]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return list(dict.fromkeys([0, high, high - 1, low or 1, low + 2, high // 2 + 1]))


@given(data=st.data())
@pytest.mark.parametrize("dtype", DTYPES)
def test_classes_of_every_type_and_layout_are_told_apart_and_left_as_they_were(dtype, data):
    values = np.array(distinct_values(np.dtype(dtype)), dtype)
    plain = data.draw(maps((2, 3, 5, 7))) % len(values)
    classes = data.draw(layouts(values[plain]))
    before = classes.copy()
    for connectivity in (1, 3):
        found = find_components(classes, connectivity)
        np.testing.assert_array_equal(found.labels, all_labels(plain, connectivity))
    np.testing.assert_array_equal(classes, before)
    assert classes.dtype == dtype


@given(data=st.data())
def test_background_classes_become_nothing_and_the_rest_stays(data):
    classes = data.draw(maps((1, 3, 8, 8))).astype(data.draw(st.sampled_from((np.uint8, np.int32))))
    background = data.draw(st.lists(st.integers(1, 6), max_size=4))
    before = classes.copy()
    connectivity = data.draw(st.integers(1, 3))
    kept = np.array([0 if number in background else number for number in range(6)])
    left = find_components(classes, connectivity, background)
    expected = find_components(kept[classes], connectivity)
    np.testing.assert_array_equal(left.labels, expected.labels)
    np.testing.assert_array_equal(left.sizes, expected.sizes)
    np.testing.assert_array_equal(left.lines, expected.lines)
    np.testing.assert_array_equal(classes, before)


@given(data=st.data())
def test_runs_know_class_faces_and_colors_of_their_components(data):
    shape = (1, *(data.draw(st.integers(1, longest)) for longest in (3, 6, 9)))
    classes = data.draw(maps(shape)).astype(np.uint8)
    found = find_components(classes, data.draw(st.integers(1, 3)))
    assert np.repeat(found.values, lengths(found)).tolist() == classes.reshape(-1).tolist()
    sizes = np.bincount(classes.reshape(-1), minlength=9)
    np.testing.assert_array_equal(found.class_sizes(9), sizes)
    for axis, side in product((1, 2, 3), (0, 1)):
        face = found.labels.take([-side], axis=axis)
        np.testing.assert_array_equal(found.face(axis, side), face)
    values = np.random.default_rng(0).integers(0, 1 << 40, len(found) + 1)
    np.testing.assert_array_equal(found.paint(values), values[found.labels])
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    part = tuple(
        slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True)
    )
    np.testing.assert_array_equal(found.paint(values, part), values[found.labels[part]])


def lengths(found):
    """Pixels of each run."""
    width = found.shape[-1]
    lines = np.repeat(np.arange(len(found.first_runs) - 1), np.diff(found.first_runs))
    return np.diff(lines * width + found.starts, append=np.prod(found.shape))


# Maps made to break it ---------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 32, 33])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_hostile_maps_are_numbered_as_by_scikit_image(name, n):
    for classes in (ADVERSARIAL[name](n), ADVERSARIAL[name](n).T, ADVERSARIAL[name](n)[::-1]):
        for connectivity in (1, 2):
            check(classes[np.newaxis, np.newaxis], connectivity)


COUNTS = {
    "checkerboard": (33 * 33, 2),
    "spiral": (2, 2),
    "comb": (1 + 16, 1 + 16),
    "diagonal stripes": (33 * 33, 65),
    "all equal": (1, 1),
    "nothing": (0, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_hostile_maps_have_as_many_components_as_they_were_built_with(name):
    classes = ADVERSARIAL[name](33)[np.newaxis, np.newaxis]
    counts = tuple(len(find_components(classes, connectivity)) for connectivity in (1, 2))
    assert counts == COUNTS[name]


@pytest.mark.parametrize("shape", [(3, 5, 6), (4, 4, 1), (5, 1, 4), (1, 6, 5), (6, 1, 1)])
def test_a_checkerboard_in_space_is_all_pixels_or_two_regions(shape):
    classes = (np.indices(shape).sum(axis=0) % 2 + 1)[np.newaxis]
    check(classes, 3)
    assert len(find_components(classes, 1)) == np.prod(shape)


@pytest.mark.parametrize("step", [s for s in product((-1, 0, 1), repeat=3) if any(s)], ids=str)
def test_two_pixels_touch_from_the_connectivity_on_that_their_distance_asks_for(step):
    classes = np.zeros((1, 3, 3, 3), np.uint8)
    classes[0, 1, 1, 1] = classes[(0, *np.add(step, 1))] = 5
    distance = np.abs(step).sum()
    for connectivity in (1, 2, 3):
        assert len(find_components(classes, connectivity)) == 1 + (connectivity < distance)


def test_frames_never_touch():
    found = check(np.ones((4, 2, 3, 3), np.uint8), 3)
    assert found.sizes.tolist() == [0, 18, 18, 18, 18]
    assert found.lines.tolist() == [0, 0, 6, 12, 18]


@pytest.mark.parametrize("value", [0, 9])
def test_one_pixel_is_one_component_or_none(value):
    found = check(np.full((1, 1, 1, 1), value, np.uint8), 1)
    assert found.sizes.tolist() == ([1] if value == 0 else [0, 1])
