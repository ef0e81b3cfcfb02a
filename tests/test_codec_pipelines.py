"""Other codec pipelines for zarr: they may read the input, and never write the output."""

import pickle

import numpy as np
import pytest
import zarr

from napari_pixseg import segment
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export import pyramid as ngff

ZARRS = "zarrs.ZarrsCodecPipeline"


@pytest.fixture
def with_zarrs():
    pytest.importorskip("zarrs")
    with zarr.config.set({"codec_pipeline.path": ZARRS}):
        yield


def content(folder):
    """Bytes of all chunks, by name."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("c/**/*") if p.is_file()}


def test_zarrs_reads_the_same_and_leaves_the_same_output(tmp_path, with_zarrs):
    picture = np.random.default_rng(0).integers(0, 40, (700, 611, 3), np.uint8)
    zarr.create_array(tmp_path / "in.zarr", data=picture, chunks=(256, 256, 3))
    outputs = ("classes", "regions", "recolored")
    segment(tmp_path / "in.zarr", ct=0, st=20).export(tmp_path / "one.zarr", outputs)
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
        segment(tmp_path / "in.zarr", ct=0, st=20).export(tmp_path / "two.zarr", outputs)
    one = content(tmp_path / "one.zarr")
    assert one
    assert one == content(tmp_path / "two.zarr")


@pytest.mark.parametrize("resumes", [False, True])
def test_output_is_written_whole_whatever_pipeline_is_set(tmp_path, with_zarrs, resumes):
    store = zarr.storage.LocalStore(tmp_path)
    tiling = Tiling((700, 700), (256, 256), (256, 256))
    for again in {False, resumes}:
        pyramid = ngff.Pyramid.create(store, "a", "yx", tiling, np.uint8, None, again)
        for level in pickle.loads(pickle.dumps(pyramid)).levels:
            assert "zarrs" not in type(level.async_array.codec_pipeline).__module__
            assert level.async_array.config.write_empty_chunks


def test_the_fixture_would_see_zarrs(tmp_path, with_zarrs):
    array = zarr.create_array(tmp_path / "in.zarr", shape=(4, 4), chunks=(2, 2), dtype=np.uint8)
    assert "zarrs" in type(array.async_array.codec_pipeline).__module__
