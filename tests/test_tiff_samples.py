"""The samples of a TIFF become the pixels that Pillow, ImageMagick and tifffile show, by number.

Every file is written here: by tifffile, or byte by byte where that cannot.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from tiff_tools import DEFLATE, NONE, PACKBITS, RawTiff

from napari_pixseg import segment
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.open import open_source

needs_convert = pytest.mark.skipif(
    shutil.which("convert") is None, reason="ImageMagick's convert is not installed"
)
SAMPLES = np.random.default_rng(7).integers(0, 1 << 32, (33, 47, 6), np.uint64)


def drawn(bits: int, channels: int = 1, shape: tuple[int, int] = (33, 47)) -> NDArray[Any]:
    """Random samples of some bits; without a channel axis for one channel."""
    samples = SAMPLES[: shape[0], : shape[1], :channels] & np.uint64(2**bits - 1)
    dtype = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    return samples.astype(dtype)[..., 0 if channels == 1 else slice(None)]


def raw_tiff(path: Path, samples: NDArray[Any], bits: int, photometric: int, **more: Any) -> None:
    RawTiff(samples, bits, photometric, **more).save(path)


def opened(path: Path) -> NDArray[Any]:
    array = open_source(path).array
    return np.asarray(array[(slice(None),) * array.ndim])


def by_pillow(path: Path, mode: str | None = None) -> NDArray[Any]:
    with Pillow.open(path) as image:
        return np.asarray(image if mode is None else image.convert(mode))


def by_imagemagick(path: Path, kind: str, depth: int = 8) -> NDArray[Any]:
    command = ["convert", f"{path}[0]", "-depth", str(depth), "-endian", "LSB", f"{kind}:-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, "u1" if depth == 8 else "<u2")


def counted(pixels: NDArray[Any]) -> str:
    """How many pixels have each color of (..., c) bytes, as one hash."""
    return ColorTable.from_pixels(np.ascontiguousarray(pixels, np.uint8)).hash()


def color_table(path: Path, **keywords: Any) -> str:
    """How many pixels have each color by segment(), as one hash."""
    return segment(path, **keywords).color_table.hash()


# Gray and RGB of any depth


# ImageMagick 6 inverts these depths only, Pillow the others that it reads.
INVERTED = (1, 8, 16)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", range(1, 8))
@needs_convert
def test_few_bits_are_stretched_to_bytes(tmp_path: Path, bits: int, photometric: int) -> None:
    path = tmp_path / "a.tif"
    raw_tiff(path, drawn(bits), bits, photometric)
    if photometric == 1 or bits in INVERTED:
        wide = by_imagemagick(path, "gray", 16)
        np.testing.assert_array_equal(opened(path).ravel(), np.round(wide / 257))
    if bits in (1, 2, 4):
        np.testing.assert_array_equal(opened(path), by_pillow(path, "L"))
    dark = opened(path)
    raw_tiff(path, drawn(bits), bits, 1 - photometric)
    np.testing.assert_array_equal(opened(path), 255 - dark)


@pytest.mark.parametrize("bits", range(1, 8))
@needs_convert
def test_few_bits_of_colors_are_stretched_to_bytes(tmp_path: Path, bits: int) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(bits, 3), bits, 2)
    wide = by_imagemagick(tmp_path / "a.tif", "rgb", 16)
    np.testing.assert_array_equal(opened(tmp_path / "a.tif").ravel(), np.round(wide / 257))


@pytest.mark.parametrize("bits", [8, 9, 12, 16])
@needs_convert
def test_zero_may_be_white_at_any_depth(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.tif"
    raw_tiff(path, drawn(bits), bits, 0)
    np.testing.assert_array_equal(opened(path), 2**bits - 1 - drawn(bits).astype(int))
    if bits in INVERTED:
        shown = by_imagemagick(path, "gray", 16 if bits > 8 else 8)
        np.testing.assert_array_equal(opened(path).ravel(), shown)


@pytest.mark.parametrize("dtype", ["u4", "i1", "i2", "i4", "f2", "f4", "f8"])
def test_zero_may_be_white_for_any_type(tmp_path: Path, dtype: str) -> None:
    samples = (drawn(8) / 255 if dtype[0] == "f" else drawn(32) >> 4).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", metadata=None)
    tifffile.imwrite(tmp_path / "b.tif", samples, photometric="miniswhite", rowsperstrip=5)
    high = {"u": 2**32 - 1, "i": -1, "f": 1}[dtype[0]]
    for name in ("a.tif", "b.tif"):
        found = opened(tmp_path / name)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, (high - samples.astype("f8")).astype(dtype))


@pytest.mark.parametrize("compression", ["ccitt_t4", "ccitt_t6", "packbits", "lzw", "deflate"])
@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_bilevel_pages_are_shown_as_pillow_shows_them(
    tmp_path: Path, compression: str, photometric: str
) -> None:
    names = {"ccitt_t4": "group3", "ccitt_t6": "group4", "deflate": "tiff_adobe_deflate"}
    names |= {"packbits": "packbits", "lzw": "tiff_lzw"}
    page = Pillow.fromarray(drawn(1) * np.uint8(255)).convert("1")
    tags = {262: 0 if photometric == "miniswhite" else 1}
    page.save(tmp_path / "a.tif", compression=names[compression], tiffinfo=tags)
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), by_pillow(tmp_path / "a.tif", "L"))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@needs_convert
def test_samples_of_9_to_15_bits_are_stretched_as_imagemagick_does(
    tmp_path: Path, bits: int
) -> None:
    path = tmp_path / "a.tif"
    raw_tiff(path, drawn(bits), bits, 1)
    assert open_source(path).used_bits == bits
    np.testing.assert_array_equal(opened(path), drawn(bits))
    wide = by_imagemagick(path, "gray", 16).reshape(33, 47)
    keywords: dict[str, Any] = {"semantics": "imagemagick6", "cs": "RGB", "ct": 0, "st": 5}
    ours, theirs = segment(path, **keywords), segment(wide, **keywords)
    assert ours.color_table.hash() == theirs.color_table.hash()
    np.testing.assert_array_equal(ours.classes.compute(), theirs.classes.compute())
    # Elsewhere the range of the type is that of the bits.
    expected = np.floor(drawn(bits).astype(int) * 255 / (2**bits - 1) + 0.5).astype(np.uint8)
    assert color_table(path, window="dtype") == counted(expected[..., np.newaxis])


# Color maps


def color_map(bits: int) -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(0, 65536, (3, 2**bits), np.uint16)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_depth_give_their_colors(tmp_path: Path, bits: int) -> None:
    tags = {320: ("H", tuple(color_map(bits).ravel().tolist()))}
    raw_tiff(tmp_path / "a.tif", drawn(bits), bits, 3, tags=tags)
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), by_pillow(tmp_path / "a.tif", "RGB"))
    assert open_source(tmp_path / "a.tif").axes == "yxc"


def test_a_palette_of_16_bits_gives_its_colors(tmp_path: Path) -> None:
    colors = color_map(16)
    tifffile.imwrite(tmp_path / "a.tif", drawn(16), photometric="palette", colormap=colors)
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), (colors.T >> 8)[drawn(16)])


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_a_palette_with_another_sample_has_alpha_or_not(
    tmp_path: Path, extra: int, planar: int
) -> None:
    both = drawn(8, 2)
    colors = ("H", color_map(8).ravel().tolist())
    tags = {320: colors, 338: ("H", [extra])}
    raw_tiff(tmp_path / "a.tif", both, 8, 3, tags=tags, planes=planar == 2)
    expected = (color_map(8).T >> 8).astype(np.uint8)[both[..., 0]]
    if extra:
        expected = np.concatenate([expected, both[..., 1:]], axis=-1)
    found = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, expected)
    if planar == 1 and extra != 1:
        shown = by_pillow(tmp_path / "a.tif", "RGBA" if extra else "RGB")
        np.testing.assert_array_equal(found, shown)
    image = open_image(tmp_path / "a.tif")
    assert (image.channels, image.alpha) == ((0, 1, 2), 3 if extra else None)


def test_a_palette_that_is_missing_is_refused(tmp_path: Path) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(4), 4, 3)
    with pytest.raises(NotAnImage, match="not its color map: convert it to RGB"):
        open_source(tmp_path / "a.tif")


# More samples than colors


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_fourth_sample_that_is_not_alpha_is_no_alpha(
    tmp_path: Path, photometric: str, planar: str
) -> None:
    samples = drawn(8, 4)
    stored = samples if planar == "contig" else np.moveaxis(samples, -1, 0)
    extra = [0] if photometric == "rgb" else [0, 0, 0]
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric=photometric,
        planarconfig=planar,
        extrasamples=extra,
        metadata=None,
    )
    done = segment(tmp_path / "a.tif", cs="RGB", ct=0)
    assert (done.image.channels, done.image.alpha) == ((0, 1, 2), None)
    assert any("Of 4 channels, 0, 1, 2 are taken as color;" in note for note in done.warnings)
    assert color_table(tmp_path / "a.tif") == counted(samples[..., :3])
    if photometric == "rgb" and planar == "contig":
        np.testing.assert_array_equal(samples[..., :3], by_pillow(tmp_path / "a.tif", "RGB"))


def test_gray_and_another_sample_is_gray(tmp_path: Path) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(8, 2), 8, 1, tags={338: ("H", (0,))})
    np.testing.assert_array_equal(drawn(8, 2)[..., 0], by_pillow(tmp_path / "a.tif"))
    assert color_table(tmp_path / "a.tif") == counted(drawn(8, 2)[..., :1])
    assert open_image(tmp_path / "a.tif", channels=(0, 1)).channels == (0, 1)


def test_channels_that_are_pages_have_no_alpha(tmp_path: Path) -> None:
    planes = np.moveaxis(drawn(8, 4), -1, 0)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX"}
    )
    image = open_image(tmp_path / "a.ome.tif")
    assert (image.channels, image.alpha) == ((0, 1, 2), None)
    assert open_image(tmp_path / "a.ome.tif", channels=(1, 2, 3)).channels == (1, 2, 3)


@pytest.mark.parametrize("extra", [[2], [1, 0], [0, 0], [2, 0, 0], [0, 2]])
def test_colors_come_first_whatever_follows(tmp_path: Path, extra: list[int]) -> None:
    samples = drawn(8, 3 + len(extra))
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=extra)
    shown = by_pillow(tmp_path / "a.tif")[..., :3] if extra != [0, 2] else samples[..., :3]
    assert open_image(tmp_path / "a.tif").channels == (0, 1, 2)
    assert color_table(tmp_path / "a.tif") == counted(shown)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_premultiplied_colors_are_divided_as_pillow_does(
    tmp_path: Path, dtype: str, planar: str, tile: tuple[int, int] | None
) -> None:
    samples = drawn(8 * int(dtype[1]), 4)
    # Alpha of 0 and of everything in between.
    samples[:4, :, 3] = 0
    samples[4:8, :, 3] = 2 ** (8 * int(dtype[1])) - 1
    keywords: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
    tifffile.imwrite(tmp_path / "c.tif", samples, **keywords)
    stored = samples if planar == "contig" else np.moveaxis(samples, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, planarconfig=planar, tile=tile, **keywords)
    found = opened(tmp_path / "a.tif")
    found = found if planar == "contig" else np.moveaxis(found, 0, -1)
    high = 2 ** (8 * int(dtype[1])) - 1
    wide = samples.astype(int)
    divided = np.minimum(wide[..., :3] * high // np.maximum(wide[..., 3:], 1), high)
    np.testing.assert_array_equal(found[..., :3], divided * (wide[..., 3:] > 0))
    np.testing.assert_array_equal(found[..., 3], samples[..., 3])
    if dtype == "u1":
        np.testing.assert_array_equal(found, by_pillow(tmp_path / "c.tif"))


def test_premultiplied_gray_and_floats_are_divided(tmp_path: Path) -> None:
    gray = np.maximum(drawn(8, 2), 1)
    tifffile.imwrite(
        tmp_path / "a.tif", gray, photometric="minisblack", extrasamples=[1], planarconfig="contig"
    )
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), by_pillow(tmp_path / "a.tif", "LA"))
    floats = drawn(8, 4).astype("f4") / 255
    floats[0, 0] = 0
    tifffile.imwrite(tmp_path / "f.tif", floats, photometric="rgb", extrasamples=[1])
    found = opened(tmp_path / "f.tif")
    alpha = floats[..., 3:]
    with np.errstate(all="ignore"):
        expected = np.where(alpha > 0, floats[..., :3] / alpha, 0)
    np.testing.assert_array_equal(found[..., :3], expected)


def test_any_part_of_converted_samples_can_be_read(tmp_path: Path) -> None:
    samples = drawn(8, 4)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=[1])
    array = open_source(tmp_path / "a.tif").array
    whole = array[:]
    everything = slice(None)
    parts = (slice(3, 9), 5, -1, slice(None, None, 2), slice(-4, None), everything)
    for key in itertools.product(parts, parts, (slice(0, 3), 3, slice(1, 2), everything)):
        np.testing.assert_array_equal(array[key], whole[key])


# What is refused, or told of


@pytest.mark.parametrize(("photometric", "name"), [("separated", "CMYK"), ("cielab", "CIE L")])
def test_other_colors_are_refused_with_the_remedy(
    tmp_path: Path, photometric: str, name: str
) -> None:
    samples = drawn(8, 4 if photometric == "separated" else 3)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=photometric)
    with pytest.raises(NotAnImage, match=rf"stores {name}.* colors: convert it to RGB first"):
        open_source(tmp_path / "a.tif")


@pytest.mark.parametrize("photometric", [32844, 32845])
def test_logarithmic_light_is_refused(tmp_path: Path, photometric: int) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(16), 16, photometric)
    with pytest.raises(NotAnImage, match=r"stores LogL.* colors: convert it to RGB first"):
        open_source(tmp_path / "a.tif")


def test_a_file_that_does_not_say_where_its_pixels_are_is_refused(tmp_path: Path) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(8), 8, 1, without=(273,))
    with pytest.raises(NotAnImage, match="neither StripOffsets nor TileOffsets"):
        open_source(tmp_path / "a.tif")


def test_a_jpeg_in_the_old_way_is_refused_before_it_is_read(tmp_path: Path) -> None:
    tags = {259: ("H", (6,)), 513: ("L", (8,)), 514: ("L", (100,))}
    raw_tiff(tmp_path / "a.tif", drawn(8, 3), 8, 6, tags=tags)
    with pytest.raises(NotAnImage, match=r"cannot be decoded here \(OJPEG\): save it with another"):
        open_source(tmp_path / "a.tif")


@needs_convert
@pytest.mark.parametrize("codec", ["Group4", "Fax"])
def test_fax_with_a_sample_for_alpha_is_not_called_damaged(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.tif"
    command = ["convert", "rose:", "-alpha", "set", "-type", "GrayscaleAlpha", "-compress", codec]
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    with pytest.raises(NotAnImage, match="with 2 samples a pixel"):
        open_source(path)


def test_a_predictor_for_single_bits_is_not_called_damage(tmp_path: Path) -> None:
    bits = drawn(8) > 128
    tifffile.imwrite(tmp_path / "a.tif", bits, compression="zlib", predictor=2)
    with pytest.raises(NotAnImage, match="save it without a predictor"):
        open_source(tmp_path / "a.tif")


def test_samples_of_strange_depths_are_refused(tmp_path: Path) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(8, 3), 8, 2, tags={258: ("H", (8, 8, 16))})
    with pytest.raises(NotAnImage, match=r"samples of \(8, 8, 16\) bits"):
        open_source(tmp_path / "a.tif")
    raw_tiff(tmp_path / "a.tif", drawn(24), 24, 1)
    with pytest.raises(NotAnImage, match="samples of 24 bits"):
        open_source(tmp_path / "a.tif")


def test_the_samples_of_a_sensor_are_gray_and_told_of(tmp_path: Path) -> None:
    raw_tiff(tmp_path / "a.tif", drawn(8), 8, 32803)
    assert "color filter array" in open_source(tmp_path / "a.tif").notes[0]
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), drawn(8))


# Any structure


@st.composite
def structures(draw: st.DrawFn) -> tuple[RawTiff, tuple[int, ...]]:
    """Draw a TIFF, and what kinds its extra samples are of."""
    photometric = draw(st.integers(0, 3))
    depths = st.integers(1, 8 if photometric == 3 else 32).filter(lambda bits: bits != 24)
    bits = draw(depths | st.sampled_from([8]))
    extra = draw(st.sampled_from([(), (), (0,), (1,), (2,), (2, 0)]))
    count = (3 if photometric == 2 else 1) + len(extra)
    tags: dict[int, tuple[str, Any]] = {}
    if extra:
        tags[338] = ("H", extra)
    if photometric == 3:
        tags[320] = ("H", color_map(bits).ravel().tolist())
    compression = draw(st.sampled_from([NONE, DEFLATE, PACKBITS]))
    predictor = compression == DEFLATE and bits in (8, 16, 32) and draw(st.booleans())
    strips = draw(st.sampled_from([None, 1, 7]))
    tile = draw(st.sampled_from([None, (16, 32), (48, 16)]))
    return RawTiff(
        drawn(bits, count).reshape(33, 47, count),
        bits,
        photometric,
        tags,
        order=draw(st.sampled_from("<>")),
        planes=count > 1 and draw(st.booleans()),
        rows=strips,
        tile=tile,
        compression=compression,
        predictor=predictor,
    ), extra


def shown_colors(tiff: RawTiff, extra: tuple[int, ...]) -> NDArray[np.uint8]:
    """The colors (..., c) that stored samples (..., s) stand for, as bytes."""
    top = 2**tiff.bits - 1
    wide = tiff.samples.astype(object)
    if tiff.photometric == 3:
        return (color_map(tiff.bits).T >> 8).astype(np.uint8)[tiff.samples[..., 0]]
    colors = wide[..., : wide.shape[-1] - len(extra)]
    alpha = wide[..., colors.shape[-1] :][..., :1]
    if tiff.photometric == 0:
        colors = top - colors
    if tiff.bits < 8:
        colors, alpha, top = to_bytes(colors, top), to_bytes(alpha, top), 255
    if 1 in extra:
        divided = colors * top // np.maximum(alpha, 1)
        colors = np.where(alpha > 0, np.minimum(divided, top), 0)
    return to_bytes(colors, top).astype(np.uint8)


def to_bytes(values: NDArray[Any], top: int) -> NDArray[Any]:
    return (values * 510 + top) // (2 * top)


@given(structures())
def test_the_color_table_is_the_count_of_the_colors(
    tmp_path_factory: pytest.TempPathFactory, drawn_tiff: tuple[RawTiff, tuple[int, ...]]
) -> None:
    tiff, extra = drawn_tiff
    path = tiff.save(tmp_path_factory.mktemp("t") / "a.tif")
    # tifffile reads the samples that were written.
    stored = np.moveaxis(tiff.samples, -1, 0) if tiff.planes else tiff.samples
    np.testing.assert_array_equal(tifffile.imread(path), stored.squeeze())
    colors = 3 if tiff.photometric in (2, 3) else 1
    # Three samples without a word about them are channels.
    channels = tuple(range(colors)) if len(extra) > 1 else None
    window = "dtype" if tiff.bits > 8 else None
    found = color_table(path, window=window, channels=channels)
    assert found == counted(shown_colors(tiff, extra))
