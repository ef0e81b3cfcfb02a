"""A zarr whose chunks are not there is refused or warned of, and never silently black."""

import json
import shutil

import numpy as np
import pytest
import zarr
from faulty_server import serving_files
from resume_tools import cancelled_at, make_small, picture

from napari_pixseg import Manifest, cli, segment
from napari_pixseg.errors import Cancelled, InputNotFound
from napari_pixseg.sources.chunk_presence import count_chunks
from napari_pixseg.sources.open import open_source

OPTIONS = {"cs": "sRGB", "st": 1.0, "ct": 0.1}
KINDS = {
    "2": {"zarr_format": 2},
    "2 nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "3": {},
    "3 flat": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "sharded": {"shards": (16, 16, 3)},
}
# The pictures are 40 x 36.
TOTALS = {"sharded": 9}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


def written(path, kind="3", **more):
    return zarr.create_array(path, data=picture(), chunks=(8, 8, 3), **KINDS[kind], **more)


def chunk_files(path):
    names = ("zarr.json", ".zarray", ".zattrs")
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in names)


def remove_chunks(path, keep=0):
    for file in chunk_files(path)[keep:]:
        file.unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["local", "memory", "http"])
def test_missing_chunks_are_counted_in_a_warning(kind, place, tmp_path):
    path = tmp_path / "in.zarr"
    written(path, kind)
    total = TOTALS.get(kind, 25)
    assert len(chunk_files(path)) == total
    chunk_files(path)[1].unlink()
    chunk_files(path)[3].unlink()
    sentence = f"2 of {total} chunks do not exist"
    if place == "http":
        with serving_files(tmp_path) as (url, _):
            result = segment(f"{url}/in.zarr", **OPTIONS)
            manifest = result.export(tmp_path / "out.ome.zarr")
    else:
        given = path
        if place == "memory":
            content = {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*")
                       if f.is_file()}  # fmt: skip
            given = zarr.open_array(in_memory(content), mode="r")
        assert count_chunks(open_source(given).array).present == total - 2
        manifest = segment(given, **OPTIONS).export(tmp_path / "out.ome.zarr")
    assert any(sentence in warning for warning in manifest.details["warnings"])


def in_memory(content):
    from zarr.core.buffer import cpu

    return zarr.storage.MemoryStore(
        {name: cpu.Buffer.from_bytes(data) for name, data in content.items()}
    )


def test_an_array_with_all_chunks_has_no_such_warning(tmp_path):
    written(tmp_path / "in.zarr")
    assert not any("exist" in one for one in segment(tmp_path / "in.zarr", **OPTIONS).warnings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["local", "http"])
def test_an_array_without_any_chunk_is_refused_unless_that_is_allowed(kind, place, tmp_path):
    path = tmp_path / "in.zarr"
    written(path, kind)
    remove_chunks(path)
    with serving_files(tmp_path) as (url, _):
        given = path if place == "local" else f"{url}/in.zarr"
        with pytest.raises(InputNotFound, match=r"None of the .* chunks .*--allow-missing"):
            segment(given, **OPTIONS).decision  # noqa: B018
        result = segment(given, cs="sRGB", ct=0, st=1, allow_missing=True)
        assert (result.classes.compute() == 1).all()
        assert any("do not exist" in warning for warning in result.warnings)


@pytest.mark.parametrize("place", ["local", "http"])
@pytest.mark.parametrize(("stored", "said"), [(".", "/"), ("/", ".")])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_separator_that_does_not_fit_is_explained(stored, said, zarr_format, place, tmp_path):
    path = tmp_path / "in.zarr"
    name = "v2" if zarr_format == 2 else "default"
    zarr.create_array(path, data=picture(), chunks=(8, 8, 3), zarr_format=zarr_format,
                      chunk_key_encoding={"name": name, "separator": stored})  # fmt: skip
    document = path / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(document.read_text())
    if zarr_format == 2:
        metadata["dimension_separator"] = said
    else:
        metadata["chunk_key_encoding"]["configuration"]["separator"] = said
    document.write_text(json.dumps(metadata))
    with serving_files(tmp_path) as (url, _):
        given = path if place == "local" else f"{url}/in.zarr"
        with pytest.raises(InputNotFound, match=r"named like .*, but there are files like .*separ"):
            segment(given, **OPTIONS)


def test_sparse_arrays_of_their_fill_value_are_as_good_as_they_were(tmp_path):
    path = tmp_path / "in.zarr"
    pixels = picture()
    pixels[:24] = 7
    array = zarr.create_array(
        path, shape=pixels.shape, dtype="u1", chunks=(8, 8, 3), fill_value=7,
        config={"write_empty_chunks": False},
    )  # fmt: skip
    array[...] = pixels
    assert len(chunk_files(path)) == 10
    result = segment(path, **OPTIONS)
    np.testing.assert_array_equal(result.classes, segment(pixels, **OPTIONS).classes)
    assert any("15 of 25 chunks do not exist" in warning for warning in result.warnings)


def test_the_command_refuses_and_allows(tmp_path, capsys):
    path = tmp_path / "in.zarr"
    written(path)
    remove_chunks(path)
    out = str(tmp_path / "out.ome.zarr")
    assert cli.main(["segment", str(path), out]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], "--allow-missing" in answer["error"]) == (404, True)
    assert cli.main(["info", str(path)]) == 1
    capsys.readouterr()
    assert cli.main(["segment", str(path), out, "--allow-missing", "--ct=0"]) == 0
    assert "25 of 25" in Manifest.load(out).details["warnings"][0]


def test_chunks_that_vanish_before_the_count_are_noticed(tmp_path):
    path = tmp_path / "in.zarr"
    written(path)
    result = segment(path, **OPTIONS)
    shutil.rmtree(path / "c")
    with pytest.raises(InputNotFound, match="None of the 25"):
        result.export(tmp_path / "out.ome.zarr")


def test_s3_is_listed(s3_endpoint, tmp_path):
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="sparse")
    written(tmp_path / "in.zarr")
    chunk_files(tmp_path / "in.zarr")[4].unlink()
    for file in (tmp_path / "in.zarr").rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "sparse", file.relative_to(tmp_path).as_posix())
    result = segment("s3://sparse/in.zarr", **OPTIONS)
    result.decision  # noqa: B018
    assert any("1 of 25 chunks does not exist" in warning for warning in result.warnings)


def test_chunks_that_workers_do_not_find_are_counted(tmp_path):
    distributed = pytest.importorskip("distributed")
    path = tmp_path / "in.zarr"
    written(path)
    chunk_files(path)[2].unlink()
    with (
        serving_files(tmp_path) as (url, _),
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None,
                                 host="127.0.0.1") as cluster,
        distributed.Client(cluster),
    ):  # fmt: skip
        result = segment(f"{url}/in.zarr", **OPTIONS)
        result.decision  # noqa: B018
    assert any("1 of 25 chunks does not exist" in warning for warning in result.warnings)


def test_a_resumed_run_says_what_the_count_of_the_first_one_found_missing(tmp_path):
    path, output = tmp_path / "in.zarr", tmp_path / "out.ome.zarr"
    written(path)
    chunk_files(path)[2].unlink()
    with serving_files(tmp_path) as (url, _):
        # The second run is cancelled as well, and the third one reads nothing that is missing.
        for resume, step in ((False, 15), (True, 3)):
            with pytest.raises(Cancelled):
                segment(f"{url}/in.zarr", **OPTIONS).export(
                    output, resume=resume, **cancelled_at(step)
                )
        manifest = segment(f"{url}/in.zarr", **OPTIONS).export(output, resume=True)
    said = [one for one in manifest.details["warnings"] if "not exist in the input" in one]
    assert len(said) == 1
    assert said[0].startswith("1 of 25 chunks does not exist")
