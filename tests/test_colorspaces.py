"""Color spaces against independent libraries, against themselves and back.

ImageMagick's own numbers are checked by the golden and the live tests. Here it is the
formulas of the field: `colorsys`, `skimage.color` and textbook lines, on 16-bit samples.
"""

import colorsys
import re

import numpy as np
import pytest
import skimage.color
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from napari_pixseg.algorithm.colorspaces import convert
from napari_pixseg.algorithm.colorspaces.convert import (
    forward,
    forward_bytes,
    from_byte,
    inverse,
    to_byte,
)
from napari_pixseg.endpoint import page
from napari_pixseg.parameters import ColorSpace
from napari_pixseg.plugin.widget.channel_names import CHANNEL_NAMES

S = ColorSpace
QUANTUM = 65535
GRAYS = np.repeat(np.arange(65536, dtype=np.uint16)[:, np.newaxis], 3, axis=1)
LUMA_WEIGHTS = {
    S.GRAY: (0.212656, 0.715158, 0.072186),
    S.Rec709Luma: (0.212656, 0.715158, 0.072186),
    S.Rec601Luma: (0.298839, 0.586811, 0.114350),
}

every_space = pytest.mark.parametrize("space", list(S), ids=lambda space: space.name)
random_colors = some.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 65536, (2000, 3), dtype=np.uint16)
)
any_colors = random_colors | arrays.arrays(
    np.uint16, some.tuples(some.integers(1, 9), some.just(3))
)


def table(values: dict, names: str) -> pytest.MarkDecorator:
    """Parametrize over a table keyed by color space."""
    rows = [(space, *(row if isinstance(row, tuple) else (row,))) for space, row in values.items()]
    return pytest.mark.parametrize(f"space, {names}", rows, ids=[row[0].name for row in rows])


def quanta(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(values * QUANTUM, 0, QUANTUM)


def with_centered_chroma(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values + np.array([0, 0.5, 0.5])


def lab_to_unit(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return skimage.color.rgb2lab(rgb) / [100, 255, 255] + [0, 0.5, 0.5]


def rec709_ycbcr(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    red, _, blue = rgb.T
    luma = rgb @ (0.2126, 0.7152, 0.0722)
    return np.stack([luma, (blue - luma) / 1.8556 + 0.5, (red - luma) / 1.5748 + 0.5], axis=1)


def ohta(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    red, green, blue = rgb.T
    centered = [(red - blue) / 2 + 0.5, (2 * green - red - blue) / 4 + 0.5]
    return np.stack([rgb.mean(axis=1), *centered], axis=1)


def hsl(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([colorsys.rgb_to_hls(*color) for color in rgb])[:, [0, 2, 1]]


def hsb(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([colorsys.rgb_to_hsv(*color) for color in rgb])


def hwb(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([hsb(rgb)[:, 0], rgb.min(axis=1), 1 - rgb.max(axis=1)], axis=1)


def linear_light(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def cmyk_without_black(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    black = 1 - rgb.max(axis=1, keepdims=True)
    ink = 1 - rgb - black
    return np.divide(ink, 1 - black, out=np.zeros_like(rgb), where=black < 1)


def cineon(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Printing density: 300 code values a decade, white 685 and black 95 of 1024."""
    black = 10 ** ((95 - 685) / 300)
    return (685 + 300 * np.log10(black + linear_light(rgb) * (1 - black))) / 1024


# Oracle, and by how many quanta it may differ: half of one is the rounding; more where
# the reference's matrix or white has other digits than the library's (up to 3.5e-4).
ORACLES = {
    S.RGB: (linear_light, 0.51),
    S.Lab: (lab_to_unit, 4),
    S.XYZ: (skimage.color.rgb2xyz, 6),
    S.YCbCr: (lambda rgb: with_centered_chroma(skimage.color.rgb2ypbpr(rgb)), 24),
    S.YPbPr: (lambda rgb: with_centered_chroma(skimage.color.rgb2ypbpr(rgb)), 24),
    S.Rec601YCbCr: (lambda rgb: with_centered_chroma(skimage.color.rgb2ypbpr(rgb)), 24),
    S.Rec709YCbCr: (rec709_ycbcr, 6),
    S.YUV: (lambda rgb: with_centered_chroma(skimage.color.rgb2yuv(rgb)), 24),
    S.YIQ: (lambda rgb: with_centered_chroma(skimage.color.rgb2yiq(rgb)), 24),
    S.OHTA: (ohta, 1.5),
    S.HSB: (hsb, 0.51),
    S.HSL: (hsl, 0.51),
    S.HWB: (hwb, 0.51),
    S.CMY: (lambda rgb: 1 - rgb, 0.01),
    S.CMYK: (cmyk_without_black, 0.51),
    S.Log: (cineon, 8),
    S.sRGB: (lambda rgb: rgb, 0),
    S.Transparent: (lambda rgb: rgb, 0),
}


@table(ORACLES, "oracle, tolerance")
@given(colors=any_colors)
def test_a_color_is_where_an_independent_formula_puts_it(space, oracle, tolerance, colors):
    expected = quanta(oracle(colors / QUANTUM))
    error = np.abs(forward(space, colors) - expected)
    if space in (S.HSB, S.HSL, S.HWB):  # 0 and 1 are the same hue
        error[:, 0] = np.minimum(error[:, 0], QUANTUM - error[:, 0])
    assert error.max() <= tolerance + 1e-6


@table(LUMA_WEIGHTS, "r, g, b")
@given(colors=any_colors)
def test_luma_is_a_weighted_sum_three_times(space, r, g, b, colors):
    converted = forward(space, colors)
    assert np.abs(converted - (colors @ np.array([r, g, b]))[:, np.newaxis]).max() <= 0.5 + 1e-6
    assert (converted == converted[:, :1]).all()


# By how many quanta a color may be off after the way there and back. One rounding of half
# a quantum, times the steepest inverse: 12.92 for gamma, 5 to 8 in the dark for XYZ and Lab,
# and for the BT.601 family the digits of the reference's matrices (1.8e-4 of 65535).
ROUND_TRIPS = {
    S.RGB: 7, S.XYZ: 40, S.Lab: 40, S.YCbCr: 25, S.YPbPr: 25, S.Rec601YCbCr: 25,
    S.Rec709YCbCr: 7, S.YUV: 25, S.YIQ: 25, S.OHTA: 3, S.HSB: 4, S.HSL: 5, S.HWB: 4,
    S.CMY: 0, S.CMYK: 1, S.Log: 7, S.sRGB: 0, S.Transparent: 0,
}  # fmt: skip


@table(ROUND_TRIPS, "bound")
@given(colors=any_colors)
def test_colors_that_were_not_clamped_come_back(space, bound, colors):
    converted = forward(space, colors)
    black = QUANTUM - colors.max(axis=1).astype(np.int64)
    returned = inverse(space, converted, black).astype(np.int64)
    if space in (S.XYZ, S.YUV, S.YIQ):  # Z, V, I and Q leave the range
        inside = ((converted > 0) & (converted < QUANTUM)).all(axis=1)
        returned, colors = returned[inside], colors[inside]
    assert np.abs(returned - colors).max(initial=0) <= bound


# Channels of gray g: "g" itself, "-g" its complement, or a constant; with a tolerance.
NEUTRAL = {
    S.GRAY: ("g", "g", "g"), S.Rec601Luma: ("g", "g", "g"), S.Rec709Luma: ("g", "g", "g"),
    S.sRGB: ("g", "g", "g"), S.Transparent: ("g", "g", "g"), S.OHTA: ("g", 32768, 32768),
    S.YCbCr: ("g", 32768, 32768), S.YPbPr: ("g", 32768, 32768), S.YUV: ("g", 32768, 32768),
    S.YIQ: ("g", 32768, 32768), S.Rec601YCbCr: ("g", 32768, 32768),
    S.Rec709YCbCr: ("g", 32768, 32768), S.HSB: (0, 0, "g"), S.HSL: (0, 0, "g"),
    S.HWB: (0, "g", "-g"), S.CMY: ("-g", "-g", "-g"), S.CMYK: (0, 0, 0),
}  # fmt: skip


@table(NEUTRAL, "first, second, third")
def test_each_of_the_65536_grays_is_neutral(space, first, second, third):
    converted = forward(space, GRAYS).astype(np.int64)
    gray = GRAYS[:, 0].astype(np.int64)
    for channel, expected in zip(converted.T, (first, second, third), strict=True):
        wanted = {"g": gray, "-g": QUANTUM - gray}.get(expected, expected)
        assert np.abs(channel - wanted).max() <= (1 if expected == 32768 else 0)


@table(
    {S.OHTA: (0, 32769), S.Rec601YCbCr: (2, 32769), S.Rec709YCbCr: (2, 32769), S.YCbCr: (2, 32768)},
    "lit, expected",
)
def test_neutral_chroma_is_32768_in_the_integer_spaces_and_half_of_65535_elsewhere(
    space, lit, expected
):
    """Seen at half a quantum more: one quantum of red or blue."""
    color = np.zeros((1, 3), np.uint16)
    color[0, lit] = 1
    assert forward(space, color)[0, 1] == expected


@pytest.mark.parametrize("space", [S.RGB, S.XYZ, S.Lab, S.Log, S.YCC], ids=lambda s: s.name)
def test_lighter_grays_are_nowhere_darker(space):
    lightness = forward(space, GRAYS)[:, 1 if space == S.XYZ else 0].astype(np.int64)
    assert (np.diff(lightness) >= 0).all()
    ends = {S.Log: (round(QUANTUM * 95 / 1024), round(QUANTUM * 685 / 1024))}
    assert (lightness[0], lightness[-1]) == ends.get(space, (0, QUANTUM))


# Not Rec601Luma and YCC, whose way back is not the inverse, nor XYZ, where Z clamps.
@pytest.mark.parametrize("space", [S.GRAY, S.Rec709Luma, *sorted(ROUND_TRIPS.keys() - {S.XYZ})])
def test_each_of_the_65536_grays_comes_back(space):
    black = QUANTUM - GRAYS[:, 0].astype(np.int64)
    returned = inverse(space, forward(space, GRAYS), black).astype(np.int64)
    assert np.abs(returned - GRAYS).max() <= ROUND_TRIPS.get(space, 0)


def test_the_way_back_from_rec601_luma_takes_it_for_linear_light():
    bright = inverse(S.Rec601Luma, GRAYS)
    assert np.abs(bright.astype(np.int64) - inverse(S.RGB, GRAYS)).max() <= 1


def test_photo_ycc_of_grays_above_the_toe_is_neutral_and_stretched():
    luma, first, second = forward(S.YCC, GRAYS[1180:]).T.astype(np.int64)
    assert np.abs(luma - np.minimum(1.099 * GRAYS[1180:, 0] - 0.099, QUANTUM)).max() <= 0.51
    # The rows of the reference's matrix sum to 3.5e-4 and -1.6e-4, not to 0.
    assert np.abs(first - 156 * 257).max() <= 3.6e-4 * QUANTUM * 1.099
    assert np.abs(second - 137 * 257).max() <= 1.7e-4 * QUANTUM * 1.099


def test_a_quantum_becomes_the_nearest_byte():
    expected = np.round(np.arange(65536) / 257)
    np.testing.assert_array_equal(to_byte(np.arange(65536, dtype=np.uint16)), expected)


def test_every_byte_comes_back_from_quanta():
    bytes_ = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(from_byte(bytes_), 257 * np.arange(256))
    np.testing.assert_array_equal(to_byte(from_byte(bytes_)), bytes_)


@every_space
def test_bytes_are_the_rounded_samples_wherever_a_color_stands(space):
    """More colors than three internal blocks; each answer is that of the color alone."""
    colors = np.random.default_rng().integers(0, 256, (50_000, 3), dtype=np.uint8)
    whole = forward_bytes(space, colors)
    np.testing.assert_array_equal(whole, to_byte(forward(space, from_byte(colors))))
    for start in (1, 16_383, 16_384, 32_767, 49_999):
        part = forward_bytes(space, colors[start : start + 20_001])
        np.testing.assert_array_equal(part, whole[start : start + 20_001])
        alone = forward_bytes(space, colors[start : start + 1])
        np.testing.assert_array_equal(alone[0], whole[start])


@every_space
@given(colors=any_colors)
def test_inputs_are_neither_changed_nor_returned(space, colors):
    bytes_ = to_byte(colors)
    before = colors.copy(), bytes_.copy()
    colors.setflags(write=False)
    bytes_.setflags(write=False)
    results = [forward(space, colors), inverse(space, colors), forward_bytes(space, bytes_)]
    assert [result.dtype for result in results] == [np.uint16, np.uint16, np.uint8]
    assert all(result.shape == colors.shape and result.flags.writeable for result in results)
    np.testing.assert_array_equal(colors, before[0])
    np.testing.assert_array_equal(bytes_, before[1])


@every_space
def test_no_colors_are_no_problem(space):
    nothing = np.empty((0, 3), np.uint16)
    assert forward(space, nothing).shape == inverse(space, nothing).shape == (0, 3)
    assert forward_bytes(space, nothing.astype(np.uint8)).shape == (0, 3)


def test_every_list_of_color_spaces_has_all_of_them():
    assert set(convert._FORWARD) == set(S)
    assert set(convert._INVERSE) | {S.CMYK} == set(S)
    assert set(CHANNEL_NAMES) == set(S)
    content, _ = page._read_page()
    options = re.findall(r'<option value="(\d+)"( selected)?>\1 (\w+)</option>', content)
    assert [(int(number), name) for number, _, name in options] == [(s.value, s.name) for s in S]
    assert [name for _, chosen, name in options if chosen] == ["YUV"]
