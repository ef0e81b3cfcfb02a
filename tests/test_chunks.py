"""The pipeline for local chunks, against zarr's own."""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg.engine.chunks import ChunkPipeline, quick_reading, whole_chunks
from napari_pixseg.engine.location import locate
from napari_pixseg.engine.stores import open_store

COMPRESSORS = {
    "zstd": zarr.codecs.ZstdCodec(),
    "gzip": zarr.codecs.GzipCodec(),
    "blosc": zarr.codecs.BloscCodec(),
    "none": None,
}


def pipeline_of(array):
    return type(array._async_array.codec_pipeline)


def created(path, array, chunks, empty=True, **more):
    made = zarr.create_array(
        path, shape=array.shape, dtype=array.dtype, chunks=chunks, fill_value=7,
        config={"write_empty_chunks": empty}, **more,
    )  # fmt: skip
    return made


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    index = tuple(draw(st.one_of(st.slices(n), st.integers(0, n - 1))) for n in shape)
    # zarr has no negative steps.
    index = tuple(forward(part) for part in index)
    dtype = draw(st.sampled_from(("u1", "<u2", ">i4", "f4", "bool")))
    return shape, chunks, index, dtype, draw(st.sampled_from(sorted(COMPRESSORS)))


def forward(part):
    return part if isinstance(part, int) else slice(part.start, part.stop, abs(part.step or 1))


@given(case=cases(), empty=st.booleans(), seed=st.integers(0, 99))
def test_what_it_reads_and_writes_is_what_zarr_does(tmp_path_factory, case, empty, seed):
    shape, chunks, index, dtype, compressor = case
    folder, rng = tmp_path_factory.mktemp("chunks"), np.random.default_rng(seed)
    array = rng.integers(0, 9, shape).astype(dtype)
    part = rng.integers(0, 9, np.empty(shape)[index].shape).astype(dtype)
    stored = []
    for name, pipeline in (("ours", whole_chunks), ("theirs", nullcontext)):
        with pipeline():
            compressors = COMPRESSORS[compressor]
            made = created(folder / name, array, chunks, empty, compressors=compressors)
        assert (pipeline_of(made) is ChunkPipeline) == (name == "ours")
        if seed % 3:
            made[...] = array
        made[index] = part
        stored.append((made[index], made[...], contents(folder / name)))
    (part_of_ours, ours, our_files), (part_of_theirs, theirs, their_files) = stored
    np.testing.assert_array_equal(part_of_ours, part_of_theirs)
    np.testing.assert_array_equal(ours, theirs)
    assert our_files == their_files


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def files(folder):
    return sorted(
        os.path.relpath(os.path.join(path, name), folder)
        for path, _, names in os.walk(folder) for name in names
    )  # fmt: skip


def test_shards_and_filters_are_left_to_zarr_and_come_out_the_same(tmp_path):
    array = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name, more in (
        ("shards", {"shards": (4, 4)}),
        ("transposed", {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]}),
    ):
        with whole_chunks():
            made = created(tmp_path / name, array, (2, 2), **more)
        made[...] = array
        np.testing.assert_array_equal(zarr.open_array(tmp_path / name, mode="r")[...], array)
        with quick_reading():
            np.testing.assert_array_equal(zarr.open_array(tmp_path / name)[...], array)


def test_an_array_that_may_only_be_read_is_not_written(tmp_path):
    created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
    with whole_chunks():
        array = zarr.open_array(tmp_path / "a", mode="r")
    with pytest.raises(ValueError, match=r"read.only"):
        array[...] = 1
    assert files(tmp_path / "a") == ["zarr.json"]


def test_a_write_that_fails_leaves_the_chunk_as_it_was(tmp_path, monkeypatch):
    with whole_chunks():
        array = created(tmp_path / "a", np.zeros((4, 4), np.uint8), (4, 4))
    array[...] = 3
    before = files(tmp_path / "a")

    def fails(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fails)
    with pytest.raises(OSError, match="No space"):
        array[...] = 5
    monkeypatch.undo()
    assert files(tmp_path / "a") == before
    assert (array[...] == 3).all()


def test_a_chunk_that_cannot_be_decoded_raises_as_with_zarr(tmp_path):
    array = created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
    array[...] = 3
    (tmp_path / "a/c/1/1").write_bytes(b"no zstd")
    errors = []
    for opened in (quick_reading, None):
        if opened:
            with quick_reading():
                array = zarr.open_array(tmp_path / "a", mode="r")
        else:
            array = zarr.open_array(tmp_path / "a", mode="r")
        assert (array[:2] == 3).all()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever zarr raises
            array[...]
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


def test_stores_are_read_quickly_unless_users_have_set_a_pipeline(tmp_path):
    created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
    location = locate(str(tmp_path / "a"))
    assert pipeline_of(open_store(location).array) is ChunkPipeline
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        pytest.importorskip("zarrs")
        assert pipeline_of(open_store(location).array) is not ChunkPipeline
