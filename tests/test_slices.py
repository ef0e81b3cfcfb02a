"""Keys of arrays are read as NumPy reads them, and boxes are cut without gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from napari_pixseg.slices import (
    box_at_origin,
    cut_along_chunks,
    expand_key,
    move_box,
    plain_box,
    split_key,
    whole_box,
)


def items(length):
    """Integers in and out of bounds, and slices of any kind."""
    bound = some.none() | some.integers(-length - 2, length + 2)
    step = some.none() | some.integers(-3, 3).filter(bool)
    return some.integers(-length - 1, length) | some.builds(slice, bound, bound, step)


@some.composite
def arrays_and_keys(draw):
    shape = draw(some.lists(some.integers(1, 5), min_size=1, max_size=4))
    array = np.arange(np.prod(shape)).reshape(shape)
    # Sometimes one more than there are dimensions.
    count = draw(some.integers(0, len(shape) + 1))
    lengths = [*shape, 1][:count]
    key = [draw(items(length)) for length in lengths]
    if draw(some.booleans()):
        # Behind an ellipsis, items are those of other dimensions, and may be out of bounds.
        key.insert(draw(some.integers(0, count)), ...)
    single = len(key) == 1 and draw(some.booleans())
    return array, key[0] if single else tuple(key)


def result_of(read):
    """What reading gives, or that the key does not fit."""
    try:
        return read()
    except IndexError:
        return None


def assert_same(found, expected):
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected, strict=True)


@given(arrays_and_keys())
def test_an_expanded_key_reads_what_numpy_reads(given_):
    array, key = given_
    expected = result_of(lambda: array[key])
    assert_same(result_of(lambda: array[expand_key(key, array.ndim)]), expected)
    if expected is not None:
        full_key = expand_key(key, array.ndim)
        assert len(full_key) == array.ndim
        assert ... not in full_key


@given(arrays_and_keys())
def test_a_split_key_reads_what_numpy_reads(given_):
    array, key = given_

    def read():
        box, rest = split_key(key, array.shape)
        assert all(
            0 <= part.start <= part.stop <= n for part, n in zip(box, array.shape, strict=True)
        )
        return array[box][rest]

    assert_same(result_of(read), result_of(lambda: array[key]))


@given(arrays_and_keys())
def test_a_plain_box_reads_what_numpy_reads_and_all_else_is_left_alone(given_):
    array, key = given_
    box = result_of(lambda: plain_box(key, array.shape))
    if box is not None:
        np.testing.assert_array_equal(array[box], array[key], strict=True)
        assert all(part.step is None and part.start < part.stop for part in box)
        return
    parts = result_of(lambda: expand_key(key, array.ndim))
    if parts is not None:
        has_integer = any(isinstance(part, int) for part in parts)
        has_step = any(isinstance(part, slice) and part.step not in (None, 1) for part in parts)
        assert has_integer or has_step or not array[key].size


@pytest.mark.parametrize("key", [(..., ...), (..., 0, ...), (0, 0, 0), (..., 0, 0, 0)])
def test_keys_of_too_many_items_or_ellipses_are_refused_as_by_numpy(key):
    with pytest.raises(IndexError):
        np.zeros((2, 2))[key]
    with pytest.raises(IndexError):
        expand_key(key, 2)


def test_masks_and_lists_are_no_boxes():
    mask = np.array([True, False])
    for key in (mask, (mask, mask), [0, 1], (slice(None), [0, 1]), (mask, ...)):
        assert plain_box(key, (2, 2)) is None
        with pytest.raises(TypeError):
            split_key(key, (2, 2))


@some.composite
def boxes(draw):
    ndim = draw(some.integers(1, 3))
    starts = draw(some.lists(some.integers(0, 9), min_size=ndim, max_size=ndim))
    lengths = draw(some.lists(some.integers(1, 7), min_size=ndim, max_size=ndim))
    chunks = draw(some.lists(some.integers(1, 5), min_size=ndim, max_size=ndim))
    pairs = zip(starts, lengths, strict=True)
    return tuple(slice(start, start + length) for start, length in pairs), tuple(chunks)


@given(boxes())
def test_pieces_of_a_box_cover_it_once_and_lie_in_their_chunks(given_):
    box, chunks = given_
    shape = tuple(part.stop - part.start for part in box)
    assert box_at_origin(box) == whole_box(shape)
    seen = np.zeros(shape, int)
    for index, inside, there in cut_along_chunks(box, chunks):
        seen[there] += 1
        chunk = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, chunks, strict=True))
        assert move_box(inside, chunk) == move_box(there, box)
        assert all(
            part.start >= 0 and part.stop <= n for part, n in zip(inside, chunks, strict=True)
        )
    assert (seen == 1).all()
