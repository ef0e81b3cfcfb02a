"""The window to bytes: exact points of the distribution, and exact rounding."""

import os
from fractions import Fraction
from math import ceil, floor

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors, unpack_colors
from napari_pixseg.classification.encoding import Encoding, to_window
from napari_pixseg.errors import InputChanged, NotAnImage, ParameterError
from napari_pixseg.execution import tiling

INTEGERS = [f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)]
INTEGERS.remove("uint8")


def window_of(source, window=None, **options):
    """The numbers that a window came to."""
    return segment(source, window=window, **options).color_count.pixels().encoding.window


def points(samples):
    """The 0.1 % and 99.9 % points: the smallest samples that this share does not exceed."""
    ordered = np.sort(samples, axis=None)
    ranks = (ceil(Fraction(part * ordered.size, 1000)) for part in (1, 999))
    return tuple(float(int(ordered[rank - 1])) for rank in ranks)


@st.composite
def distributions(draw, dtype):
    """Samples of a type: everywhere in its range, at its ends, or nearly all alike."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    low = draw(st.sampled_from((limits.min, limits.max - 99, 0)) | st.integers(0, limits.max))
    high = draw(st.sampled_from((limits.max, min(low + 99, limits.max))))
    size = draw(st.sampled_from((1, 2, 7, 999, 1001, 2500)))
    samples = rng.integers(low, high, size, dtype, endpoint=True)
    same = rng.random(size) < draw(st.sampled_from((0, 0, 0.9)))
    samples[same] = samples[0]
    edges = draw(st.lists(st.sampled_from((limits.min, limits.max)), max_size=3))
    return np.concatenate([samples, np.array(edges, dtype)]).reshape(1, -1)


@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_integers_get_their_exact_outer_thousandths(dtype, data):
    samples = data.draw(distributions(dtype))
    assert window_of(samples) == (points(samples),)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_these_are_the_points_that_numpy_calls_inverted_cdf(dtype):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    samples = rng.integers(limits.min, limits.max, (43, 57), dtype, endpoint=True)
    expected = np.percentile(samples, [0.1, 99.9], method="inverted_cdf")
    assert window_of(samples) == (tuple(float(point) for point in expected),)


@given(
    st.integers(0, 99),
    st.sampled_from(["uint16", "int32", "uint64", "float32"]),
    st.sampled_from([None, "minmax"]),
    st.tuples(*[st.integers(1, 20)] * 3),
)
def test_the_window_does_not_depend_on_chunks_or_tiles(seed, dtype, window, chunks):
    array = (np.random.default_rng(seed).normal(size=(20, 30, 3)) * 999 + 9999).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "_SMALLEST_UNIT", 4)
        patch.setattr(tiling, "WRITE_SIDE", 8)
        patch.setattr(tiling, "TILE_SIDE", 8)
        patch.setattr(tiling, "TILE_PIXELS", 64)
        found = window_of(da.from_array(array, chunks=chunks), window, axes="yxc")
    assert found == window_of(array, window, axes="yxc")


def test_every_channel_has_its_own_window_and_all_planes_share_it():
    array = np.random.default_rng(2).integers(0, 999, (3, 4, 20, 20)).astype(np.uint16)
    array[1] += 3000
    assert window_of(array, axes="czyx") == tuple(points(channel) for channel in array)
    extent = tuple((float(channel.min()), float(channel.max())) for channel in array)
    assert window_of(array, "minmax", axes="czyx") == extent
    chosen = window_of(array, axes="czyx", channels=(2, 1))
    assert chosen == (points(array[2]), points(array[1]))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_dtype_is_the_full_range_and_minmax_that_of_the_data(dtype):
    limits = np.iinfo(dtype)
    samples = np.array([[limits.max - 3, 5, limits.max - 1, 9]], dtype)
    assert window_of(samples, "dtype") == ((float(limits.min), float(limits.max)),)
    assert window_of(samples, "minmax") == ((5.0, float(limits.max - 1)),)


def test_bytes_are_taken_as_they_are_unless_a_window_is_asked_for():
    samples = np.array([[10, 20, 35]], np.uint8)
    assert window_of(samples) is window_of(samples, "dtype") is None
    assert window_of(samples, "minmax") == ((10.0, 35.0),)
    stretched = segment(samples, ct=0, window="minmax").color_table.colors[:, 0]
    assert stretched.tolist() == [0, 102, 255]


@pytest.mark.parametrize("window", [None, "dtype", "minmax"])
def test_truth_values_are_black_and_white(window):
    samples = np.array([[True, False, True]])
    assert window_of(samples, window) == ((0.0, 1.0),)
    table = segment(samples, window=window).color_table
    assert table.colors.tolist() == [[0] * 3, [255] * 3]
    assert table.counts.tolist() == [1, 2]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_get_their_finite_range_and_nan_takes_no_part(dtype):
    array = np.array([[[-3, np.nan], [7.5, np.nan]], [[np.nan, np.nan], [2, np.nan]]], dtype)
    assert window_of(array, axes="yxc") == ((-3.0, 7.5), (0.0, 0.0))


def test_samples_outside_given_numbers_are_clipped_infinite_ones_too():
    samples = np.array([[-np.inf, 0, 10, 15, 20, 30, np.inf, np.nan]])
    table = segment(samples, window=(10, 20)).color_table
    assert table.colors[:, 0].tolist() == [0, 128, 255]
    assert table.counts.tolist() == [3, 1, 3]
    with pytest.raises(NotAnImage, match="2 infinite"):
        window_of(samples, "minmax")


def test_one_pair_serves_all_channels_and_more_must_be_one_each():
    array = np.arange(12, dtype=np.uint16).reshape(2, 2, 3)
    one, each = segment(array, window=(2, 9)), segment(array, window=[(2, 9)] * 3)
    assert one.color_table == each.color_table
    with pytest.raises(ParameterError, match="2 pairs"):
        segment(array, window=[(2, 9)] * 2)
    with pytest.raises(ParameterError, match="low above high"):
        segment(array, window=(9, 2))


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_window_without_width_gives_0(value):
    samples = np.full((3, 3), value, np.uint16)
    assert segment(samples).color_table.packed.tolist() == [0]


def test_the_widest_floats_have_a_window_too():
    samples = np.array([[-1.7e308, 0, 1.7e308]])
    assert segment(samples).color_table.colors[:, 0].tolist() == [0, 128, 255]


# The mapping ------------------------------------------------------------------


@given(
    st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=30),
    st.integers(-(2**30), 2**30),
    st.integers(1, 2**31) | st.integers(1, 600),
)
def test_the_mapping_is_exact_for_integers_rounded_half_up(values, low, width):
    values = [*values, *(low + k * width // 510 for k in range(0, 511, 7))]
    exact = [
        floor(Fraction(255 * (min(max(v, low), low + width) - low), width) + Fraction(1, 2))
        for v in values
    ]
    assert to_window(np.array(values), float(low), float(low + width)).tolist() == exact


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e3, 1e3))
def test_the_mapping_of_floats_is_that_of_exact_arithmetic_but_at_ties(values, low):
    high = low + 777.7
    mapped = to_window(np.array(values), low, high).tolist()
    for value, byte in zip(values, mapped, strict=True):
        clipped = Fraction(min(max(value, low), high))
        exact = 255 * (clipped - Fraction(low)) / (Fraction(high) - Fraction(low))
        assert abs(exact - byte) <= Fraction(1, 2) + Fraction(1, 10**9)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "uint16"])
@given(st.integers(0, 99), st.integers(-300, 66000), st.integers(0, 66000))
def test_mapping_by_table_is_mapping_by_formula(dtype, seed, low, width):
    top = 1 if dtype == "bool" else np.iinfo(dtype).max
    samples = np.random.default_rng(seed).integers(0, top, (9, 9, 2), endpoint=True).astype(dtype)
    window = ((float(low), float(low + width)), (0.0, float(top)))
    formula = [to_window(samples[..., c].astype(np.int64), *window[c]) for c in (0, 1)]
    packed = Encoding(window).encode(samples)
    np.testing.assert_array_equal(packed, pack_colors(np.stack(formula, -1)))
    np.testing.assert_array_equal(unpack_colors(packed)[..., 2], 0)


def test_a_pixel_with_one_channel_missing_has_no_data():
    packed = Encoding(((0.0, 1.0),)).encode(np.array([[0.5, np.nan, 1], [0, 0, 0], [1, 1, 1.0]]))
    assert packed.tolist() == [NO_DATA, 0, 0xFFFFFF]


def test_an_input_that_changes_between_its_window_and_its_count_is_refused(tmp_path):
    path = tmp_path / "in.tif"
    samples = np.random.default_rng(0).integers(0, 4000, (64, 64), np.uint16)
    tifffile.imwrite(path, samples)
    touched = []

    def touch_after_window(step):
        if step.stage == "range" and step.done == step.total and not touched:
            touched.append(os.utime(path, ns=(1, 1)))

    with pytest.raises(InputChanged):
        segment(path, ct=0, st=20).export(tmp_path / "out.ome.zarr", on_event=touch_after_window)
    assert touched
