"""Chunks of local arrays in one step, against what zarr itself reads and writes."""

import os
import pickle
from itertools import product

import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg.sources.location import locate
from napari_pixseg.sources.zarr_chunks import ChunkFiles, whole_chunks, with_fast_local_io
from napari_pixseg.sources.zarr_store import open_store

COMPRESSORS = {
    2: {"zstd": "auto", "none": None},
    3: {
        "zstd": zarr.codecs.ZstdCodec(),
        "checked": zarr.codecs.ZstdCodec(level=3, checksum=True),
        "gzip": zarr.codecs.GzipCodec(),
        "blosc": zarr.codecs.BloscCodec(),
        "none": None,
    },
}
FORMATS = [(number, name) for number in (2, 3) for name in COMPRESSORS[number]]


def created(path, array, chunks, empty=True, **more):
    return zarr.create_array(
        path, shape=array.shape, dtype=array.dtype, chunks=chunks, fill_value=7,
        config={"write_empty_chunks": empty}, **more,
    )  # fmt: skip


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    index = tuple(draw(st.one_of(st.slices(n), st.integers(0, n - 1))) for n in shape)
    whole = [
        slice(*sorted((draw(st.integers(0, n)) // c * c, n)))
        for n, c in zip(shape, chunks, strict=True)
    ]
    # zarr has no negative steps.
    index = draw(st.sampled_from((tuple(forward(part) for part in index), tuple(whole))))
    dtype = draw(st.sampled_from(("u1", "<u2", ">i4", "f4", "bool")))
    return shape, chunks, index, dtype


def forward(part):
    return part if isinstance(part, int) else slice(part.start, part.stop, abs(part.step or 1))


@given(
    case=cases(), form=st.sampled_from(FORMATS), empty=st.booleans(), seed=st.integers(0, 99)
)  # fmt: skip
def test_what_it_reads_and_writes_is_what_zarr_does(tmp_path_factory, case, form, empty, seed):
    shape, chunks, index, dtype = case
    folder, rng = tmp_path_factory.mktemp("chunks"), np.random.default_rng(seed)
    array = rng.integers(0, 9, shape).astype(dtype)
    part = rng.integers(0, 9, np.empty(shape)[index].shape).astype(dtype)
    stored = []
    for name in ("ours", "theirs"):
        more = {"zarr_format": form[0], "compressors": COMPRESSORS[form[0]][form[1]]}
        made = created(folder / name, array, chunks, empty, **more)
        if name == "ours":
            made = with_fast_local_io(made)
            assert isinstance(made, ChunkFiles)
        if seed % 3:
            made[...] = array
        made[index] = part
        read = made[tuple(slice(None) for _ in shape)]
        assert read.dtype == np.dtype(dtype)
        stored.append((made[index], read, contents(folder / name)))
    (part_of_ours, ours, our_files), (part_of_theirs, theirs, their_files) = stored
    np.testing.assert_array_equal(part_of_ours, part_of_theirs)
    np.testing.assert_array_equal(ours, theirs)
    assert our_files == their_files


def contents(folder):
    return {name: without_time((folder / name).read_bytes()) for name in files(folder)}


def without_time(content):
    """Drop the time that gzip puts into its header: two writers may see different seconds."""
    return content[:4] + content[8:] if content.startswith(b"\x1f\x8b") else content


def files(folder):
    return sorted(
        os.path.relpath(os.path.join(path, name), folder)
        for path, _, names in os.walk(folder) for name in names
    )  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        {"shards": (4, 4)},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"order": "F", "zarr_format": 2},
        {"compressors": [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec()]},
    ],
)
def test_what_is_not_plain_is_left_to_zarr(tmp_path, more):
    array = created(tmp_path / "a", np.zeros((8, 8), np.uint16), (2, 2), **more)
    assert with_fast_local_io(array) is array


def test_a_store_that_is_no_folder_is_left_to_zarr():
    array = created(zarr.storage.MemoryStore(), np.zeros((8, 8), np.uint16), (2, 2))
    assert with_fast_local_io(array) is array


def test_another_process_reads_and_writes_it(tmp_path):
    array = with_fast_local_io(created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2)))
    sent = pickle.loads(pickle.dumps(array))
    sent[2:4, 0:2] = np.full((2, 2), 5, np.uint8)
    np.testing.assert_array_equal(array[1:4, 0:1], [[7], [5], [5]])


def test_the_attributes_of_the_array_are_there(tmp_path):
    array = created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
    made = with_fast_local_io(array)
    for name in ("shape", "chunks", "shards", "dtype", "ndim", "path", "metadata"):
        assert getattr(made, name) == getattr(array, name)
    with pytest.raises(AttributeError):
        made.nothing  # noqa: B018


def test_an_array_that_may_only_be_read_is_not_written(tmp_path):
    created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
    array = with_fast_local_io(zarr.open_array(tmp_path / "a", mode="r"))
    with pytest.raises(ValueError, match=r"read.only"):
        array[0:2, 0:2] = np.ones((2, 2), np.uint8)
    assert files(tmp_path / "a") == ["zarr.json"]


def test_a_write_that_fails_leaves_the_chunk_as_it_was(tmp_path, monkeypatch):
    array = with_fast_local_io(created(tmp_path / "a", np.zeros((4, 4), np.uint8), (4, 4)))
    array[0:4, 0:4] = np.full((4, 4), 3, np.uint8)
    before = files(tmp_path / "a")

    def fails(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="No space"):
        array[0:4, 0:4] = np.full((4, 4), 5, np.uint8)
    monkeypatch.undo()
    assert files(tmp_path / "a") == before
    assert (array[0:4, 0:4] == 3).all()


@pytest.mark.parametrize("compressor", ["zstd", "none"])
@pytest.mark.parametrize("content", [b"no zstd", b""])
def test_a_chunk_that_cannot_be_decoded_raises_as_with_zarr(tmp_path, compressor, content):
    array = created(
        tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2), compressors=COMPRESSORS[3][compressor]
    )
    array[...] = 3
    (tmp_path / "a/c/1/1").write_bytes(content)
    errors = []
    for opened in (array, with_fast_local_io(array)):
        assert (opened[0:2, 0:4] == 3).all()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever zarr raises
            opened[0:4, 0:4]
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


def test_inputs_are_read_quickly(tmp_path):
    created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
    assert isinstance(open_store(locate(str(tmp_path / "a"))).array, ChunkFiles)


def test_pipelines_that_users_set_do_not_write(tmp_path):
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        theirs = created(tmp_path / "a", np.zeros((4, 4), np.uint8), (2, 2))
        with whole_chunks():
            ours = created(tmp_path / "b", np.zeros((4, 4), np.uint8), (2, 2))
    names = [type(array._async_array.codec_pipeline).__name__ for array in (theirs, ours)]
    assert names == ["ZarrsCodecPipeline", "BatchedCodecPipeline"]


def test_pieces_cover_a_region_once(tmp_path):
    array = with_fast_local_io(created(tmp_path / "a", np.zeros((7, 5), np.uint8), (3, 2)))
    whole = np.arange(35, dtype=np.uint8).reshape(7, 5)
    array[0:7, 0:5] = whole
    for top, left in product(range(7), range(5)):
        key = slice(top, 7), slice(left, 5)
        np.testing.assert_array_equal(array[key], whole[key])
