"""What the viewer slices: only what is on the screen is read, and looked up anew."""

import threading

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors, unpack_colors
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.plugin.layers import preview_level, strided_image
from napari_pixseg.plugin.layers.image_layers import levels_of
from napari_pixseg.plugin.layers.image_level import ImageLevel, decode_samples
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.preview_level import PreviewLevel, PreviewPixels
from napari_pixseg.plugin.layers.preview_lookup import PreviewLookup
from napari_pixseg.plugin.layers.strided_image import StridedImage, virtual_levels
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.source import Source

SHAPES = {
    "yx": (37, 29),
    "yxc": (37, 29, 3),
    "cyx": (3, 23, 31),
    "yxa": (21, 17, 4),
    "zyx": (4, 19, 23),
    "tyxc": (3, 19, 23, 3),
    "tzyx": (2, 3, 17, 19),
    "xyz": (17, 19, 3),
    "xtyc": (17, 2, 13, 3),
    "yxc of two": (21, 17, 2),
}
STRIDES = (1, 2, 4)


class Read:
    """An array that remembers how many pixels each read took."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.ndim, self.reads, self.on_read = array.ndim, [], None

    def __getitem__(self, key):
        part = self.array[key]
        self.reads.append(part.size)
        if self.on_read is not None:
            self.on_read()
        return part


def random(shape, dtype=np.uint8, seed=0):
    top = 256 if dtype == np.uint8 else 4000
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def image_of(name, dtype=np.uint8):
    return open_image(random(SHAPES[name], dtype), axes_of(name))


def axes_of(name):
    return name.split()[0].replace("a", "c")


def whole(image, stride=1):
    """All samples of a level, axes in the source's order and colors last."""
    samples = image.read(tuple(slice(0, n) for n in image.shape))
    samples = image.in_own_order(samples[..., ::stride, ::stride, :])
    if image.gray:
        return samples[..., 0]
    black = np.zeros((*samples.shape[:-1], 3 - samples.shape[-1]), samples.dtype)
    return np.concatenate([samples, black], axis=-1)


def strided(array, axes, stride):
    """What a virtual level has of an array over the given axes."""
    return array[tuple(slice(None, None, stride if axis in "yx" else 1) for axis in axes)]


def preview_of(source, radius=0, stride=1, **parameters):
    """A level as the widget makes it, and the segmentation behind it."""
    result = segment(source, denoise=radius, **parameters)
    pixels = PreviewPixels()
    pixels.encode_with(result.color_count.pixels().encoding, radius)
    pixels.lookup.set_decision(result.decision, result.color_table)
    return PreviewLevel(StridedImage(result.image, stride), pixels), pixels, result


# Slicing ---------------------------------------------------------------------------


@st.composite
def keys(draw, shape):
    parts = []
    for n in shape:
        bound = st.none() | st.integers(-n - 2, n + 2)
        step = st.none() | st.integers(-3, 3).filter(bool)
        parts.append(draw(st.one_of(st.integers(-n, n - 1), st.builds(slice, bound, bound, step))))
    kept = draw(st.integers(0, len(parts)))
    if draw(st.booleans()):
        behind = draw(st.integers(0, len(parts) - kept))
        last = parts[len(parts) - behind :]
        return (*parts[:kept], Ellipsis, *last)
    return tuple(parts[:kept]) if kept != 1 else parts[0]


@given(st.data())
@pytest.mark.parametrize("name", SHAPES)
def test_a_shown_image_is_sliced_as_numpy_slices_the_whole(name, data):
    stride = data.draw(st.sampled_from(STRIDES))
    image = image_of(name)
    wanted = whole(image, stride)
    level = ImageLevel(StridedImage(image, stride))
    key = data.draw(keys(wanted.shape))
    assert (level.shape, level.dtype, level.ndim) == (wanted.shape, wanted.dtype, wanted.ndim)
    assert level.size == wanted.size
    part = level[key]
    assert part.shape == wanted[key].shape
    np.testing.assert_array_equal(part, wanted[key])


@given(st.data())
@pytest.mark.parametrize("name", SHAPES)
def test_a_preview_is_sliced_as_numpy_slices_the_whole(name, data):
    stride = data.draw(st.sampled_from(STRIDES))
    source = random(SHAPES[name])
    level, _, result = preview_of(source, axes=axes_of(name), stride=stride, ct=0, st=0.5)
    wanted = strided(np.asarray(result.classes), result.image.own_axes, stride)
    key = data.draw(keys(wanted.shape))
    assert level.dtype == level[key].dtype == result.decision.dtype
    assert level[key].shape == wanted[key].shape
    np.testing.assert_array_equal(level[key], wanted[key])


def test_slices_of_slices_are_those_of_numpy():
    image = image_of("tzyx")
    level, wanted = ImageLevel(StridedImage(image)), whole(image)
    part, same = level[:, 1:, 3:12, 2:], wanted[:, 1:, 3:12, 2:]
    np.testing.assert_array_equal(part[1, 0, ::2, -4:], same[1, 0, ::2, -4:])
    np.testing.assert_array_equal(np.asarray(part), same)


def test_a_level_ends_where_it_ends():
    level = ImageLevel(StridedImage(image_of("yx")))
    assert len(list(iter(level))) == 37
    for key in (37, -38, (0, 29)):
        with pytest.raises(IndexError):
            level[key]


@pytest.mark.parametrize(
    "make", [lambda a: a, da.from_array, zarr.array], ids=["numpy", "dask", "zarr"]
)
def test_all_kinds_of_arrays_can_be_shown(make):
    array = random((40, 30))
    level = ImageLevel(StridedImage(open_image(make(array)), 2))
    np.testing.assert_array_equal(level[3:, 2:9], array[::2, ::2][3:, 2:9])


# The table -------------------------------------------------------------------------


@pytest.mark.parametrize("cs", [1, 5, 11, 12, 15])
def test_looked_up_classes_are_those_of_segment(cs):
    picture = random((40, 40, 3)) // 8 * 8
    result = segment(picture, cs=cs, ct=0, st=0.5)
    lookup = PreviewLookup()
    lookup.set_decision(result.decision, result.color_table)
    np.testing.assert_array_equal(lookup.look_up(pack_colors(picture)), np.asarray(result.classes))


@given(st.integers(0, 99))
def test_colors_not_counted_are_classified_when_met(seed):
    result = segment(random((30, 30, 3)), ct=0.5, st=3)
    lookup = PreviewLookup()
    lookup.set_decision(result.decision, result.color_table)
    others = pack_colors(random((50, 3), seed=seed + 1))
    others[::7] = NO_DATA
    wanted, known = np.zeros(len(others), np.uint16), others != NO_DATA
    wanted[known] = result.decision.classify(unpack_colors(others[known]))
    for _ in range(2):
        np.testing.assert_array_equal(lookup.look_up(others), wanted)


def test_another_decision_leaves_nothing_of_the_one_before():
    picture, other = random((30, 30, 3)), random((30, 30, 3), seed=1)
    first, second = segment(picture, ct=0, st=0.5), segment(other, ct=1, st=5)
    lookup = PreviewLookup()
    lookup.set_decision(first.decision, first.color_table)
    lookup.look_up(pack_colors(other))
    lookup.set_decision(second.decision, second.color_table)
    wanted = second.decision.classify(picture.reshape(-1, 3)).reshape(30, 30)
    np.testing.assert_array_equal(lookup.look_up(pack_colors(picture)), wanted)


def test_more_than_255_classes_need_16_bits_and_fewer_do_not():
    picture = random((57, 23, 3))
    many = segment(picture, ct=0, st=0.5)
    few = many.update(ct=0.3)
    assert len(few.decision) < 256 < len(many.decision)
    lookup, packed = PreviewLookup(), pack_colors(picture)
    for result, dtype in ((few, np.uint8), (many, np.uint16), (few, np.uint8)):
        lookup.set_decision(result.decision, result.color_table)
        found = lookup.look_up(packed)
        assert found.dtype == lookup.dtype == dtype
        np.testing.assert_array_equal(found, np.asarray(result.classes))


def test_colors_met_under_one_decision_are_classified_anew_under_the_next():
    result, others = segment(random((30, 30, 3)), ct=0.5, st=3), random((50, 3), seed=1)
    lookup = PreviewLookup()
    for st_ in (3.0, 0.5, 8.0):
        decision = result.update(st=st_).decision
        lookup.set_decision(decision, result.color_table)
        np.testing.assert_array_equal(
            lookup.look_up(pack_colors(others)), decision.classify(others)
        )


def test_without_a_decision_all_is_nothing():
    assert not PreviewLookup().look_up(pack_colors(random((5, 5, 3)))).any()


# Reading ---------------------------------------------------------------------------


def test_another_table_reads_nothing_again():
    source = Read(random((60, 50, 3)))
    level, pixels, result = preview_of(source, ct=0, st=0.5)
    np.asarray(level[10:20, 5:30])
    source.reads.clear()
    other = result.update(st=6.0, ct=2.0)
    pixels.encode_with(other.color_count.pixels().encoding, 0)
    pixels.lookup.set_decision(other.decision, other.color_table)
    np.testing.assert_array_equal(level[10:20, 5:30], np.asarray(other.classes)[10:20, 5:30])
    inner = [n for n in source.reads if n == 10 * 25 * 3]
    assert not inner


def test_a_slice_is_not_read_before_it_is_an_array():
    source = Read(random((6, 60, 50)))
    level, _, _ = preview_of(source, axes="zyx", ct=0)
    source.reads.clear()
    view = level[:, 10:20, 5:30]
    assert not source.reads
    np.asarray(view[3])
    assert source.reads == [10 * 25]


def test_few_views_are_kept():
    source = Read(random((64, 64, 3)))
    level, pixels, _ = preview_of(source, ct=0)
    for start in range(40):
        np.asarray(level[start : start + 8, :8])
    assert len(pixels._views) == preview_level._VIEWS_KEPT
    source.reads.clear()
    np.asarray(level[39:47, :8])
    assert not source.reads
    np.asarray(level[0:8, :8])
    assert len(source.reads) == 1


def test_another_encoding_reads_again():
    array = random((40, 40), np.uint16)
    source = Read(array)
    level, pixels, _ = preview_of(source)
    np.asarray(level)
    source.reads.clear()
    pixels.encode_with(Encoding(((0.0, 100.0),)), 0)
    np.asarray(level)
    assert len(source.reads) == 1
    pixels.encode_with(Encoding(((0.0, 100.0),)), 0)
    np.asarray(level)
    assert len(source.reads) == 1


def test_a_view_read_while_the_encoding_changes_is_not_kept():
    array = random((40, 40), np.uint16)
    source = Read(array)
    level, pixels, result = preview_of(source)
    pixels.encode_with(Encoding(((0.0, 9.0),)), 0)
    started, go = threading.Event(), threading.Event()

    def pause():
        started.set()
        assert go.wait(10)

    source.on_read = pause
    reader = threading.Thread(target=lambda: np.asarray(level))
    reader.start()
    assert started.wait(10)
    pixels.encode_with(result.color_count.pixels().encoding, 0)
    go.set()
    reader.join()
    source.on_read = None
    np.testing.assert_array_equal(level, np.asarray(result.classes))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("radius", [1, 3])
def test_level_0_is_denoised_as_the_engine_does(dtype, radius):
    array = random((50, 44), dtype)
    level, _, result = preview_of(array, radius=radius, ct=0, st=0.5)
    wanted = np.asarray(result.classes)
    np.testing.assert_array_equal(level, wanted)
    for key in ((slice(0, 9), slice(30, 44)), (slice(20, 31), slice(7, 9))):
        np.testing.assert_array_equal(level[key], wanted[key])


# Large images ----------------------------------------------------------------------


class Endless:
    """A huge image that is a function of the position; refuses to be read as a whole."""

    shape, dtype, ndim = (3_000_000, 2_000_000, 3), np.dtype(np.uint8), 3

    def __init__(self):
        self.largest = self.total = 0

    def __getitem__(self, key):
        rows, columns, channels = (range(n)[k] for k, n in zip(key, self.shape, strict=True))
        pixels = len(rows) * len(columns)
        self.largest, self.total = max(self.largest, pixels), self.total + pixels
        assert pixels <= strided_image._LARGEST_READ
        y, x, c = np.ogrid[: len(rows), : len(columns), : len(channels)]
        return ((y + rows.start) // 1000 + (x + columns.start) // 1000 + c).astype(np.uint8)


def test_small_planes_get_no_levels_and_large_ones_down_to_a_screen():
    assert len(virtual_levels(open_image(random((40, 40))))) == 1
    made = virtual_levels(open_image(Endless(), "yxc"))
    assert [level.stride for level in made] == [2**n for n in range(len(made))]
    assert max(made[-1].shape) <= 1024 < max(made[-2].shape)


def test_no_view_of_a_huge_image_reads_much(monkeypatch):
    monkeypatch.setattr(strided_image, "_LARGEST_READ", 1 << 22)
    source = Endless()
    made = virtual_levels(open_image(source, "yxc"))
    for level in made:
        rows, columns = (min(n, 500) for n in level.shape)
        source.total = 0
        samples = ImageLevel(level)[-rows:, 3:columns, :]
        assert np.asarray(samples).shape == (rows, columns - 3, 3)
        assert source.total <= 1 << 22
    assert source.largest > 0


@given(st.data())
def test_sampled_views_have_the_shape_of_the_part_asked_for(data):
    array = random((203, 167))
    part = tuple(
        slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in (51, 42)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strided_image, "_LARGEST_READ", 64)
        source = Read(array)
        samples = ImageLevel(StridedImage(open_image(source), 4))[part]
        wanted = array[::4, ::4][part]
        assert np.asarray(samples).shape == wanted.shape
        assert max([*source.reads, 0]) <= max(wanted.size, 64)
    assert set(np.unique(samples)) <= set(np.unique(array))


def test_a_sampled_view_shows_pixels_from_where_they_are_shown(monkeypatch):
    monkeypatch.setattr(strided_image, "_LARGEST_READ", 64)
    array = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 256, axis=1)
    samples = np.asarray(ImageLevel(StridedImage(open_image(array), 4)))
    shown = samples[:, 0].astype(int) - array[::4, 0]
    # Within the height of a cell of eight.
    assert abs(shown).max() <= 256 // 8


def test_the_filter_shrinks_on_stored_coarse_levels_too():
    array = random((64, 64))
    fine, coarse = open_image(array), open_image(Source(array[::4, ::4].copy(), axes="yx"))
    result = segment(array, denoise=2)
    pixels = PreviewPixels()
    pixels.encode_with(result.color_count.pixels().encoding, 2)
    pixels.lookup.set_decision(result.decision, result.color_table)
    stored = PreviewLevel(levels_of([fine, coarse])[1], pixels)
    # A radius of 2 at level 0 is half a pixel here, and none.
    _, unfiltered, _ = preview_of(array)
    unfiltered.lookup.set_decision(result.decision, result.color_table)
    np.testing.assert_array_equal(stored, PreviewLevel(StridedImage(coarse), unfiltered))


@pytest.mark.parametrize(
    ("dtype", "window"), [("uint8", None), ("uint16", ((100.0, 9000.0),)), ("float32", ((-3, 5),))]
)
def test_an_encoding_is_undone_but_for_rounding(dtype, window):
    low, high = window[0] if window else (0, 255)
    samples = np.random.default_rng(0).uniform(low, high, (20, 30, 3)).astype(dtype)
    encoding = Encoding(window)
    again = decode_samples(encoding.encode(samples), encoding, np.dtype(dtype))
    assert again.dtype == dtype
    step = (high - low) / 255 if window else 0
    # Half a step, and what whole numbers lose.
    most = step / 2 + (1 if dtype == "uint16" else 1e-5)
    np.testing.assert_allclose(again.astype(float), samples.astype(float), atol=most)


def test_a_huge_image_shows_what_counting_has_seen_of_it(monkeypatch):
    monkeypatch.setattr(strided_image, "_LARGEST_READ", 1000)
    array = random((200, 300))
    level = ImageLevel(StridedImage(open_image(array), 4))
    coarsest = np.asarray(level)
    overview = Overview((200, 300), 1 << 12)
    overview.add((slice(0, 200), slice(0, 300)), Encoding().encode(array[..., np.newaxis]))
    level.use_overview(overview, Encoding())
    wanted = array[::4, ::4]
    assert overview.stride == 4
    assert not np.array_equal(coarsest, wanted)
    np.testing.assert_array_equal(level[3:, 5:40], wanted[3:, 5:40])
    # napari keeps what it was given.
    level.renew()
    np.testing.assert_array_equal(coarsest, wanted)
