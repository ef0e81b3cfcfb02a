"""Storage chunks worked on as they are, against the tile put together."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.algorithm.components import find_components, sum_samples
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.sources import image as image_module
from napari_pixseg.sources.image import open_image

AXES = {2: "yxc", 3: "zyxc", 4: "tzyxc"}


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setattr(image_module, "_SMALLEST_PART", 1)


def stored(path, array, chunks, **more):
    names = ["t", "z", "y", "x", "c"][-array.ndim :]
    return zarr.create_array(path, data=array, chunks=chunks, dimension_names=names, **more)


@st.composite
def pictures(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    bounds = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in shape]
    region = tuple(slice(a, max(b, a + 1)) if a < n else slice(n - 1, n)
                   for (a, b), n in zip(bounds, shape, strict=True))  # fmt: skip
    return shape, chunks, region, draw(st.integers(1, 3))


@given(picture=pictures(), seed=st.integers(0, 99))
def test_the_parts_of_a_region_are_the_region(tmp_path_factory, picture, seed):
    shape, chunks, region, channels = picture
    array = np.random.default_rng(seed).integers(0, 256, (*shape, channels), np.uint8)
    opened = open_image(stored(tmp_path_factory.mktemp("p") / "a", array, (*chunks, channels)))
    colors = Encoding().read_tile(opened, region)
    assert colors.byte_parts is not None
    assert colors.shape == array[region].shape[:-1]
    found = np.zeros((*colors.shape, channels), np.int64)
    for there, part in colors.byte_parts:
        found[there] += part
    np.testing.assert_array_equal(found, array[region])
    packed = Encoding().encode(array[region])
    np.testing.assert_array_equal(colors.packed_colors(), packed)


@given(
    shape=st.tuples(*[st.integers(1, n) for n in (2, 3, 7, 9)]),
    cuts=st.tuples(*[st.integers(1, n) for n in (2, 3, 7, 9)]),
    dtype=st.sampled_from(("u1", "u2", "i8", "f4")), seed=st.integers(0, 99),
)  # fmt: skip
def test_sums_of_parts_are_sums_of_the_whole(shape, cuts, dtype, seed):
    rng = np.random.default_rng(seed)
    components = find_components(rng.integers(0, 3, shape).astype(np.uint8), 1)
    samples = rng.integers(0, 256, (*shape, rng.integers(1, 5))).astype(dtype)
    parts = []
    for first in np.ndindex(*[-(-n // size) for n, size in zip(shape, cuts, strict=True)]):
        start = tuple(i * size for i, size in zip(first, cuts, strict=True))
        key = tuple(slice(a, a + size) for a, size in zip(start, cuts, strict=True))
        parts.append((start, np.ascontiguousarray(samples[key])))
    labels = components.labels.reshape(-1)
    expected = np.zeros((len(components) + 1, samples.shape[-1]))
    np.add.at(expected, labels, samples.reshape(-1, samples.shape[-1]).astype(np.float64))
    np.testing.assert_array_equal(sum_samples(components, parts), expected)


@pytest.mark.parametrize("wider", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sums_of_the_longest_line_are_exact(dtype, wider):
    most = np.iinfo(dtype).max
    width = (1 << 32 - 8 * np.dtype(dtype).itemsize) + wider
    classes = np.ones((1, 1, 1, width), np.uint8)
    classes[..., :2] = 2
    white = np.broadcast_to(dtype(most), (*classes.shape, 3))
    totals = sum_samples(find_components(classes, 1), [((0, 0, 0, 0), white)])
    np.testing.assert_array_equal(totals[1:, 0], [2 * most, (width - 2) * most])


@pytest.mark.parametrize("chunks", [(5, 7, 3), (16, 16, 3), (64, 64, 3)])
def test_what_comes_of_them_is_what_comes_of_the_picture(tmp_path, monkeypatch, chunks):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(6, axis=0).repeat(6, axis=1)
    array = np.clip(blocks + rng.normal(0, 3, blocks.shape), 0, 255).astype(np.uint8)
    stored(tmp_path / "in.zarr", array, tuple(map(min, chunks, array.shape)))
    results = []
    for source in (tmp_path / "in.zarr", array):
        made = segment(source, ct=0, st=5)
        made.export(tmp_path / "out.zarr", ("classes", "regions", "recolored"), overwrite=True)
        root = zarr.open_group(tmp_path / "out.zarr", mode="r")
        arrays = [root[f"{name}0"][...] for name in ("labels/classes/", "labels/regions/", "")]
        table = made.region_table
        results.append([*arrays, *(table[name] for name in table.dtype.names)])
    for ours, whole in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_a_damaged_part_is_named(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    stored(tmp_path / "in.zarr", array, (4, 4, 3))
    (tmp_path / "in.zarr/c/1/0/0").write_bytes(b"no zstd")
    with pytest.raises(Exception, match=r"in\.zarr is damaged: c/1/0/0"):
        _ = segment(tmp_path / "in.zarr").table


def test_chunks_of_one_channel_each_are_put_together(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    opened = open_image(stored(tmp_path / "in.zarr", array, (4, 4, 1)))
    ((_, part),) = opened.read_parts((slice(0, 8), slice(2, 5)))
    np.testing.assert_array_equal(part, array[:, 2:5])
