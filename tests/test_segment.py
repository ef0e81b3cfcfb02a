"""segment(): chunk invariance, laziness, updates, axes, and refusals."""

import sys
import threading
from fractions import Fraction
from itertools import pairwise
from math import ceil

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_pixseg import segment
from napari_pixseg.algorithm.classes import decide
from napari_pixseg.algorithm.color_table import ColorTable, pack_colors
from napari_pixseg.algorithm.colorspaces.convert import forward, forward_bytes, to_byte
from napari_pixseg.classification import counting
from napari_pixseg.classification import pixels as classify
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.errors import (
    ClassError,
    InputNotFound,
    NotAnImage,
    ParameterError,
    PixsegError,
    RecountNeeded,
)
from napari_pixseg.execution import tiling
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.file_fingerprint import FileFingerprint
from napari_pixseg.sources.source import Source

ENGINE_ORDER = "tzyxc"
AXES = ("yx", "xy", "yxc", "cyx", "xyc", "zyx", "ztyx", "zyxt", "tyxc", "zcyx", "tczyx", "zyxc")
DTYPES = ("uint8", "uint8", "uint16", "int16", "float32")


# The model on the whole array in memory, in plain NumPy and SciPy ---------------


def whole_classes(array, axes, parameters):
    """Classes of an array that is looked at whole, without the engine."""
    order = [axes.index(axis) for axis in ENGINE_ORDER if axis in axes]
    pixels = array.transpose(order) if "c" in axes else array.transpose(order)[..., np.newaxis]
    pixels = pixels[..., : 3 if pixels.shape[-1] == 4 else None]
    missing = np.isnan(pixels).any(axis=-1)
    gray, space = pixels.shape[-1] == 1, None
    if pixels.dtype == np.uint16 and parameters.semantics == "imagemagick6":
        space = parameters.cs
        bytes_ = to_byte(forward(space, three(pixels).reshape(-1, 3))).reshape(*missing.shape, 3)
    else:
        bytes_ = three(np.stack([channel_bytes(c) for c in np.moveaxis(pixels, -1, 0)], -1))
        bytes_ = denoised(bytes_, missing, parameters.denoise)
    table = ColorTable.from_packed(pack_colors(bytes_[~missing]), space)
    decision = decide(table, parameters, gray=gray)
    colors = bytes_.reshape(-1, 3)
    if space is None:
        colors = forward_bytes(parameters.cs, colors)
    classes = decision.partition.classify(colors).reshape(missing.shape)
    classes[missing] = 0
    own, label = axes.replace("c", ""), [a for a in ENGINE_ORDER if a in axes and a != "c"]
    return classes.transpose([label.index(axis) for axis in own])


def three(pixels):
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    missing = np.zeros((*pixels.shape[:-1], 3 - pixels.shape[-1]), pixels.dtype)
    return np.concatenate([pixels, missing], axis=-1)


def channel_bytes(channel):
    if channel.dtype == np.uint8:
        return channel
    samples = np.sort(channel[np.isfinite(channel)], axis=None)
    if not samples.size:
        return np.zeros(channel.shape, np.uint8)
    ends = samples[0], samples[-1]
    if channel.dtype.kind == "i" or channel.dtype.kind == "u":
        ends = [samples[ceil(Fraction(part, 1000) * samples.size) - 1] for part in (1, 999)]
    low, high = (float(end) for end in ends)
    if low == high:
        return np.zeros(channel.shape, np.uint8)
    values = np.clip(np.nan_to_num(channel.astype(float), nan=low), low, high)
    return np.floor(255 * (values - low) / (high - low) + 0.5).astype(np.uint8)


def denoised(bytes_, missing, radius):
    if not radius:
        return bytes_
    size = (1,) * (bytes_.ndim - 3) + (2 * radius + 1,) * 2
    result = np.empty_like(bytes_)
    for channel in range(3):
        plane = bytes_[..., channel]
        if not missing.any():
            result[..., channel] = ndimage.median_filter(plane, size, mode="reflect")
            continue
        holes = np.where(missing, np.nan, plane.astype(float))
        filtered = ndimage.generic_filter(holes, median_of_known, size, mode="reflect")
        result[..., channel] = np.nan_to_num(filtered)
    return result


def median_of_known(window):
    known = np.sort(window[~np.isnan(window)])
    return known[known.size // 2] if known.size else np.nan


# What hypothesis draws ---------------------------------------------------------


@st.composite
def images(draw, dtypes=DTYPES):
    named = draw(st.sampled_from(AXES))
    longest = {"t": 2, "z": 3, "c": 4, "y": 14, "x": 14}
    shape = tuple(draw(st.integers(1, longest[axis])) for axis in named)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    levels = draw(st.sampled_from((3, 40, 256)))
    array = rng.integers(0, levels, shape) * (255 // (levels - 1))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    if dtype.kind == "f":
        array = array / 7.0 - 3.0
        array[rng.random(shape) < draw(st.sampled_from((0, 0.2)))] = np.nan
    elif dtype != np.uint8:
        array = array * 117 - (3000 if dtype.kind == "i" else 0)
    return array.astype(dtype), named


@st.composite
def cuts(draw, length):
    """Uneven chunk lengths that add up to a length."""
    ends = sorted(draw(st.sets(st.integers(1, length), max_size=3)) | {0, length})
    return tuple(b - a for a, b in pairwise(ends))


@st.composite
def wrapped(draw, array):
    """The same array from another library, in other chunks."""
    kind = draw(st.sampled_from(("numpy", "dask", "zarr")))
    if kind == "dask":
        return da.from_array(array, chunks=tuple(draw(cuts(n)) for n in array.shape))
    if kind == "zarr":
        chunks = tuple(draw(st.integers(1, n)) for n in array.shape)
        stored = zarr.create_array({}, shape=array.shape, chunks=chunks, dtype=array.dtype)
        stored[...] = array
        return stored
    return array


@st.composite
def choices(draw, array):
    exact = array.dtype in (np.uint8, np.uint16) and draw(st.booleans())
    meaning = "imagemagick6" if exact else "documented"
    whole16 = meaning == "imagemagick6" and array.dtype == np.uint16
    return {
        "ct": draw(st.sampled_from((0, 0.5, 20))),
        "cs": draw(st.integers(1, 22)),
        "st": draw(st.sampled_from((0.01, 1.5, 60))),
        "semantics": meaning,
        "denoise": 0 if whole16 else draw(st.integers(0, 3)),
    }


def small_tiles(patch, write=4, pixels=32):
    patch.setattr(tiling, "_SMALLEST_UNIT", 4)
    patch.setattr(tiling, "WRITE_SIDE", write)
    patch.setattr(tiling, "TILE_SIDE", 8)
    patch.setattr(tiling, "TILE_PIXELS", pixels)


def outcome(function):
    """A result, or the sentence that refused it."""
    try:
        return np.asarray(function()), None
    except PixsegError as error:
        return None, (type(error), str(error))


def fed(segmentation):
    """The class map as an export gets it: tile by tile."""
    lookup = segmentation.decision.lookup(segmentation.color_table)
    plan = segmentation.color_count.tiling
    result = np.zeros(plan.shape, lookup.dtype)
    tile_source = segmentation.color_count.pixels().class_tiles(lookup)

    def location(tile, number):
        result[plan.slices(number)] = tile.classes

    run_tiles(tile_source, location, "test")
    return np.asarray(segmentation.image.in_own_order(result))


# Chunk invariance --------------------------------------------------------------


@given(data=st.data())
def test_classes_equal_the_model_on_the_whole_array_for_any_chunks_and_tiles(data):
    array, axes = data.draw(images())
    options = data.draw(choices(array))
    expected, refusal = outcome(
        lambda: whole_classes(array, axes, Parameters(axes=axes, **options))
    )
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch, data.draw(st.sampled_from((4, 5, 8))), data.draw(st.integers(16, 64)))
        source = data.draw(wrapped(array))
        with dask.config.set(scheduler=data.draw(st.sampled_from(("synchronous", "threads")))):
            result = segment(source, axes=axes, **options)
            classes, refused = outcome(lambda: result.classes.compute())
    assert refused == refusal
    if refusal is None:
        assert classes.dtype == (np.uint8 if len(result.table) < 256 else np.uint16)
        np.testing.assert_array_equal(classes, expected)
        counts = np.bincount(expected.ravel(), minlength=len(result.table) + 1)
        np.testing.assert_array_equal(result.table["count"], counts[1:])


@given(data=st.data())
def test_reading_tile_by_tile_gives_what_map_overlap_gives(data):
    array, axes = data.draw(images())
    options = {**data.draw(choices(array)), "ct": 0}
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        small_tiles(patch)
        # A source of chunks may be dear to read in part, a NumPy array is not.
        lazy = segment(Source(array), axes=axes, **options)
        expected, refusal = outcome(lambda: fed(lazy))
        assert not lazy.color_count.pixels().is_direct
        if data.draw(st.booleans()):
            direct = segment(array, axes=axes, **options)
        else:
            patch.setattr(classify, "DIRECT_TILES", 0)
            direct = segment(Source(array), axes=axes, **options)
        classes, refused = outcome(lambda: fed(direct))
        assert direct.color_count.pixels().is_direct
    assert refused == refusal
    assert direct.color_table == lazy.color_table
    np.testing.assert_array_equal(classes, expected)
    if refusal is None:
        np.testing.assert_array_equal(lazy.classes, expected)


def test_other_processes_give_the_same_classes(monkeypatch, two_processes):
    small_tiles(monkeypatch)
    array = np.random.default_rng(5).integers(0, 256, (20, 17, 3), np.uint8)
    options = {"ct": 0, "st": 0.1, "denoise": 2}
    with dask.config.set(two_processes):
        result = segment(array, **options)
        classes = result.classes.compute()
    np.testing.assert_array_equal(classes, whole_classes(array, "yxc", Parameters(**options)))


@given(data=st.data())
def test_the_picture_is_the_palette_of_the_classes(data):
    array, axes = data.draw(images())
    result = segment(data.draw(wrapped(array)), axes=axes, **data.draw(choices(array)))
    refusal = outcome(lambda: result.table)[1]
    if refusal is None:
        assert (result.palette[0] == 0).all()
        assert result.palette.shape == (len(result.table) + 1, 3)
        assert result.recolored.dtype == np.uint8
        assert result.recolored.shape == (*result.classes.shape, 3)
        np.testing.assert_array_equal(result.recolored, result.palette[result.classes.compute()])


@pytest.mark.parametrize(("number", "seed", "dtype"), [(255, 28, np.uint8), (256, 0, np.uint16)])
def test_class_maps_take_two_bytes_only_above_255_classes(number, seed, dtype):
    noise = np.random.default_rng(seed).random((200, 200, 3)) ** 3
    result = segment((noise * 256).astype(np.uint8), ct=0, cs="sRGB", st=1)
    shares = np.sort(result.table["box_percentage"])[::-1]
    # The seeds are chosen for a gap after the box of this rank.
    result = result.update(ct=shares[number - 1 : number + 1].mean())
    assert len(result.table) == number
    assert result.classes.dtype == result.classes.compute().dtype == dtype
    assert result.classes.max().compute() == number


# No data -----------------------------------------------------------------------


def test_nan_is_class_0_and_counted_nowhere():
    array = np.random.default_rng(2).normal(size=(30, 30, 3)).astype(np.float32)
    holes = np.zeros((30, 30), bool)
    holes[3:9, 4:20] = True
    array[holes, 1] = np.nan
    result = segment(array, ct=0, st=0.1)
    np.testing.assert_array_equal(result.classes == 0, holes)
    assert result.color_table.pixels == result.table["count"].sum() == 900 - holes.sum()
    assert result.table["percentage"].sum() == pytest.approx(100)
    assert (result.recolored[5, 5].compute() == 0).all()


def test_an_image_of_nothing_but_nan_is_refused():
    with pytest.raises(ClassError, match="No pixel has data"):
        segment(np.full((4, 4), np.nan)).decide()


@pytest.mark.parametrize("chunks", [2, 16])
def test_infinite_values_are_refused_with_their_count(chunks):
    array = np.zeros((16, 16), np.float32)
    array[1, 2], array[9, 9], array[15, 0], array[0, 0] = np.inf, -np.inf, np.inf, np.nan
    result = segment(da.from_array(array, chunks=chunks))
    with pytest.raises(NotAnImage, match="3 infinite"):
        result.decide()


# Laziness ----------------------------------------------------------------------


class Counting:
    """An array that counts how often each sample is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.reads = np.zeros(array.shape, int)
        self._lock = threading.Lock()

    def __getitem__(self, key):
        with self._lock:
            self.reads[key] += 1
        return self.array[key]


@pytest.mark.parametrize("denoise", [0, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_read_once_a_pass_and_never_by_an_update(dtype, denoise, monkeypatch):
    small_tiles(monkeypatch)
    array = np.random.default_rng(3).integers(0, 256, (21, 30, 3)).astype(dtype)
    source = Counting(array)
    result = segment(source, ct=0, st=0.1, denoise=denoise)
    assert not source.reads.any()
    assert len(result.table)
    passes = 1 if dtype == np.uint8 else 2  # the range, then the colors
    assert (source.reads == passes).all()
    changes = {"ct": 0.2, "cs": "Lab", "st": 0.2, "connectivity": 2, "background": 1}
    updated = result.update(**changes, min_size=3).update(background="largest")
    assert len(updated.palette) + len(result.palette) + len(result.table)
    assert (source.reads == passes).all()
    assert updated.classes.shape == updated.recolored.shape[:-1]
    assert (source.reads == passes).all()
    updated.classes.compute()
    assert (source.reads == passes + 1).all()


@given(data=st.data())
def test_an_update_gives_what_a_fresh_run_gives(data):
    array, axes = data.draw(images(dtypes=("uint8",)))
    before, after = data.draw(choices(array)), data.draw(choices(array))
    after["denoise"] = before["denoise"]
    first = segment(array, axes=axes, **before)
    outcome(lambda: first.table)
    updated = first.update(**{name: after[name] for name in after if name != "denoise"})
    fresh = segment(array, axes=axes, **after)
    assert updated.parameters == fresh.parameters
    classes, refused = outcome(lambda: updated.classes.compute())
    expected, refusal = outcome(lambda: fresh.classes.compute())
    assert refused == refusal
    np.testing.assert_array_equal(classes, expected)
    if refusal is None:
        np.testing.assert_array_equal(updated.palette, fresh.palette)
        np.testing.assert_array_equal(updated.table, fresh.table)


def test_an_update_leaves_the_first_segmentation_as_it_was():
    array = np.random.default_rng(4).integers(0, 256, (16, 16, 3), np.uint8)
    first = segment(array, ct=0, st=0.1)
    before = first.table.copy()
    other = first.update(cs="sRGB", st=2)
    assert len(other.table) != len(before)
    np.testing.assert_array_equal(first.table, before)


def test_16_bit_samples_that_entered_whole_need_a_recount_for_anything_but_thresholds():
    array = np.random.default_rng(6).integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    exact = segment(array, cs="Lab", semantics="imagemagick6")
    same = segment(array, 3, "Lab", 9, semantics="imagemagick6")
    np.testing.assert_array_equal(exact.update(ct=3, st=9).classes, same.classes)
    documented = segment(array)
    for update in (
        lambda: exact.update(cs="YUV"),
        lambda: exact.update(semantics="documented"),
        lambda: documented.update(semantics="imagemagick6"),
    ):
        with pytest.raises(RecountNeeded, match="recount is needed"):
            update()


@pytest.mark.parametrize("change", [{"denoise": 1}, {"window": "minmax"}, {"axes": "yx"}, {"a": 1}])
def test_an_update_refuses_what_needs_the_pixels(change):
    with pytest.raises(ParameterError, match=f"update.. cannot change '{next(iter(change))}'"):
        segment(np.zeros((4, 4), np.uint8)).update(**change)


# Axes and channels -------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 6), "yx"), ((5, 6, 3), "yxc"), ((5, 6, 4), "yxc"), ((5, 6, 7), "zyx"),
     ((2, 5, 6, 3), "zyxc"), ((3, 6, 5), "zyx")],
)  # fmt: skip
def test_unnamed_axes_are_guessed_and_the_guess_is_told(shape, axes):
    image = segment(np.zeros(shape, np.uint8)).image
    assert image.axes == axes
    assert any(repr(axes) in note and "guessed" in note for note in image.notes)
    assert not any("guessed" in n for n in segment(np.zeros(shape), axes=axes).image.notes)


def test_a_fourth_channel_is_alpha_and_takes_no_part():
    array = np.random.default_rng(7).integers(0, 256, (12, 12, 4), np.uint8)
    result = segment(array, ct=0, st=0.1)
    np.testing.assert_array_equal(result.classes, segment(array[..., :3], ct=0, st=0.1).classes)
    assert any("alpha" in note for note in result.image.notes)


@pytest.mark.parametrize("chosen", [(4, 0, 2), (3, 1), (2,), 1])
def test_channels_are_taken_by_index_in_the_order_given(chosen):
    array = np.random.default_rng(8).integers(0, 256, (5, 10, 10), np.uint8)
    result = segment(array, ct=0, st=0.1, axes="cyx", channels=chosen)
    members = [chosen] if isinstance(chosen, int) else list(chosen)
    picked = np.moveaxis(array[members], 0, -1)
    picked = np.concatenate([picked, np.zeros((10, 10, int(len(members) == 2)), np.uint8)], axis=-1)
    expected = segment(picked, ct=0, st=0.1, axes="yxc")
    np.testing.assert_array_equal(result.classes, expected.classes)
    np.testing.assert_array_equal(result.palette, expected.palette)
    assert result.image.gray == (len(members) == 1)


class Unreadable(Counting):
    """An array that fails the test when it is read."""

    def __getitem__(self, key):
        raise AssertionError("A pixel was read.")


def unreadable(*shape, dtype=np.uint8):
    return Unreadable(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        (unreadable(4, 4), {"ct": 101}, ParameterError, "ct = 101 .* 0 to 100"),
        (unreadable(4, 4), {"cs": 23}, ParameterError, "cs = 23 .* 11 YUV"),
        (unreadable(4, 4), {"st": 0}, ParameterError, "st = 0 .* above 0"),
        (unreadable(4, 4), {"denoise": 33}, ParameterError, "denoise = 33 .* 0 to 32"),
        (unreadable(4, 4), {"axes": "zyx"}, ParameterError, r"names 3 dimensions.* \(4, 4\)"),
        (unreadable(4, 4), {"axes": "yq"}, ParameterError, "axes = 'yq' .* letters"),
        (unreadable(4, 4), {"connectivity": 3}, ParameterError, "above the 2 spatial axes.*1 to 2"),
        (unreadable(2, 3, 4, 4), {"axes": "tcyx", "connectivity": 3}, ParameterError, "2 spatial"),
        (unreadable(4, 4), {"channels": (0,)}, ParameterError, "no axis c"),
        (unreadable(4, 4, 3), {"channels": (3,)}, ParameterError, "channels 0 to 2"),
        (unreadable(5, 4, 4), {"axes": "cyx"}, ParameterError, "5 channels.* choose them"),
        (unreadable(2, 3, 4, 4, 5), {}, ParameterError, "What are the dimensions .*axes="),
        (unreadable(2, 3, 4, 5), {}, ParameterError, "What are the dimensions"),
        (unreadable(4, 4, 3), {"window": [(0, 1), (0, 1)]}, ParameterError, "2 pairs.* 3 color"),
        (unreadable(4, 4, dtype=float), {"window": "dtype"}, ParameterError, "no meaning.*minmax"),
        (unreadable(4, 4, dtype=float), {"semantics": "imagemagick6"}, ParameterError, "uint16"),
        (unreadable(4, 4, dtype=np.uint16), {"semantics": "imagemagick6", "denoise": 1},
         ParameterError, "denoise must be 0"),
        (unreadable(4, 4, dtype=np.uint16), {"semantics": "imagemagick6", "window": "minmax"},
         ParameterError, "window must be None"),
        (unreadable(0, 4), {}, NotAnImage, r"\(0, 4\)"),
        (unreadable(4), {}, NotAnImage, r"\(4,\)"),
        (unreadable(4, 4, dtype=complex), {}, NotAnImage, "complex128"),
        (unreadable(4, 4, dtype="M8[s]"), {}, NotAnImage, "datetime64"),
        (None, {}, NotAnImage, "None was given"),
        (7, {}, NotAnImage, "7 was given"),
        ([[1, 2], [3, 4]], {}, NotAnImage, "type list"),
        ("no/such/file.tif", {}, InputNotFound, "does not exist"),
        (None, {"ct": -1}, ParameterError, "ct = -1"),
    ],
)  # fmt: skip
def test_what_cannot_be_segmented_is_refused_before_any_work(source, options, error, words):
    with pytest.raises(error, match=words) as caught:
        segment(source, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_one_class_alone_is_warned_of():
    assert any("only one class" in w for w in segment(np.zeros((8, 8), np.uint8)).warnings)
    noise = np.random.default_rng(9).integers(0, 256, (32, 32, 3), np.uint8)
    assert segment(noise, ct=0, st=0.1, axes="yxc").warnings == ()


def test_a_guess_is_told_with_the_warnings():
    (guess,) = segment(np.random.default_rng(9).integers(0, 256, (9, 9, 3), np.uint8)).warnings
    assert "guessed to be 'yxc'" in guess


def test_files_are_listed_before_all_is_read_and_not_before_a_part(tmp_path, monkeypatch):
    """There may be millions."""
    pixels = np.random.default_rng(9).integers(0, 256, (40, 40, 3), np.uint8)
    zarr.create_array(tmp_path / "in.zarr", data=pixels, chunks=(10, 10, 3))
    listed = []
    fingerprint = FileFingerprint.__call__

    def listing(files, *see):
        listed.append(files)
        return fingerprint(files, *see)

    monkeypatch.setattr(FileFingerprint, "__call__", listing)
    segmentation = segment(tmp_path / "in.zarr", axes="yxc", ct=0, st=0.1)
    part = segmentation.color_count.pixels().read((slice(0, 10), slice(5, 25)))
    np.testing.assert_array_equal(part, pack_colors(pixels[:10, 5:25]))
    assert not listed
    assert segmentation.color_table == ColorTable.from_pixels(pixels)
    assert listed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda block: block[:-1], r"should have the shape \(40, 30\), but has \(36, 30\); give"),
        (lambda block: block * np.float32(1.5), "says that it is uint8, but a block .* float32; g"),
        (
            lambda block: block.astype(">u2"),
            "says that it is uint8, but a block of it is >u2; give",
        ),
    ],
)
def test_a_dask_array_that_is_not_what_it_says_is_refused(change, words):
    blocks = da.from_array(np.arange(3600, dtype=np.uint8).reshape(40, 30, 3), chunks=(10, -1, -1))
    changed = blocks.map_blocks(change, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    with pytest.raises(NotAnImage, match=words):
        _ = segment(changed, ct=0, st=1).table


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
def test_a_dask_array_may_bring_other_floats_than_it_says(dtype):
    picture = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)
    blocks = da.from_array(picture, chunks=(10, -1, -1))
    changed = blocks.map_blocks(lambda block: block.astype(dtype), dtype="f8",
                                meta=np.empty((0, 0, 0), "f8"))  # fmt: skip
    ours = segment(changed, ct=0, st=1, window=(0, 1))
    whole = segment(picture, ct=0, st=1, window=(0, 1))
    np.testing.assert_array_equal(ours.classes, whole.classes)


@pytest.mark.parametrize("said", ["u2", "i4", "i8"])
def test_a_dask_array_may_store_whole_numbers_otherwise_than_it_says(said):
    picture = np.random.default_rng(0).integers(0, 900, (40, 30, 3))
    blocks = da.from_array(picture, chunks=(10, -1, -1))
    changed = blocks.map_blocks(lambda block: block, dtype=said, meta=np.empty((0, 0, 0), said))
    ours = segment(changed, ct=0, st=1, window=(0, 900))
    np.testing.assert_array_equal(
        ours.classes, segment(picture, ct=0, st=1, window=(0, 900)).classes
    )


def test_counting_leaves_what_a_scheduler_brought_as_it_is():
    samples = np.random.default_rng(0).integers(0, 900, (20, 30, 3)).astype(np.uint16)
    encoding = Encoding(((0, 900),))
    colors = encoding.tile_of(samples)
    before = colors.packed_colors().copy()
    counting._CountTile(encoding.space)(colors, 0)
    np.testing.assert_array_equal(colors.packed_colors(), before)
    assert sys.getsizeof(colors) > samples.nbytes + before.nbytes
