"""The manifest: what the API answers, valid, complete, and ready to run again."""

import json
from datetime import datetime
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_pixseg import Manifest, Parameters, cli, segment
from napari_pixseg.errors import InputNotFound, ParameterError, PixsegError
from napari_pixseg.export.manifest import new_id
from napari_pixseg.segmentation import open_segmentation
from napari_pixseg.sources import image, location, source

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/manifest.schema.json").read_text())


def valid(manifest):
    """The JSON of a manifest, after validating it against the schema."""
    values = json.loads(manifest.to_json())
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(SCHEMA, format_checker=checker).validate(values)
    return values


@pytest.fixture
def picture(tmp_path):
    """A small picture on disk."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


# Success ----------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.png", "out.tif"])
def test_a_success_has_a_link_and_no_error(output, picture, tmp_path):
    manifest = segment(picture, ct=0, st=0.1).export(tmp_path / output)
    values = valid(manifest)
    assert list(values) == ["status", "link", "id", "details"]
    assert values["status"] == 200
    assert values["link"] == (tmp_path / output).as_uri()
    assert Manifest.load(tmp_path / output) == Manifest.load(values["link"]) == manifest


def test_details_tell_what_was_made_from_what_by_what(picture, tmp_path):
    result = segment(picture, ct=0.2, cs="Lab", st=0.1, axes="yxc", denoise=1)
    before = datetime.now().astimezone()
    details = valid(result.export(tmp_path / "out.ome.zarr"))["details"]
    assert details["parameters"] == result.parameters.to_dict()
    assert details["semantics"] == "documented"
    assert details["outputs"] == ["classes", "recolored"]
    found = {name: details["input"][name] for name in ("uri", "shape", "dtype", "axes", "kind")}
    assert found == {
        "uri": picture.as_uri(), "shape": [30, 40, 3], "dtype": "uint8", "axes": "yxc",
        "kind": "picture",
    }  # fmt: skip
    for row, entry in zip(result.table, details["classes"], strict=True):
        assert entry == {name: row[name].tolist() for name in row.dtype.names}
    assert sum(entry["count"] for entry in details["classes"]) == 1200
    assert details["color_table"]["sha256"] == result.color_table.hash()
    assert {"python", "numpy", "dask", "zarr", "napari-pixseg"} <= set(details["software"])
    started, finished = (datetime.fromisoformat(details[n]) for n in ("started", "finished"))
    assert started.utcoffset() is not None
    assert before.timestamp() - 1 <= started.timestamp() <= finished.timestamp()


@pytest.mark.parametrize(
    ("dtype", "window", "expected"),
    [("uint8", None, None), ("uint16", (3, 90), [[3.0, 90.0]]),
     ("int32", "minmax", [[0.0, 99.0]] * 3), ("float32", None, [[0.0, 99.0]] * 3)],
)  # fmt: skip
def test_the_window_that_was_measured_is_recorded(dtype, window, expected, tmp_path):
    array = np.random.default_rng(1).integers(0, 100, (20, 20, 3)).astype(dtype)
    array[0, 0], array[0, 1] = 0, 99
    manifest = segment(array, ct=0, st=0.1, window=window).export(tmp_path / "out.ome.zarr")
    assert valid(manifest)["details"]["window"] == expected


@pytest.mark.parametrize("shape", [(1, 1), (2, 5, 6), (2, 2, 5, 6, 1)])
@pytest.mark.parametrize("semantics", ["documented", "imagemagick6"])
def test_manifests_of_every_kind_of_image_are_valid(shape, semantics, tmp_path):
    axes = {2: "yx", 3: "zyx", 5: "tzyxc"}[len(shape)]
    array = np.zeros(shape, np.uint8)
    result = segment(array, axes=axes, semantics=semantics)
    values = valid(result.export(tmp_path / "out.ome.zarr"))
    assert values["details"]["warnings"] == list(result.warnings) != []
    assert values["details"]["input"]["uri"] is None


def test_the_parameters_run_again_to_the_same_bytes(picture, tmp_path):
    options = {"ct": 0.3, "cs": "HSL", "st": 0.2, "denoise": 1, "channels": (2, 0), "axes": "yxc"}
    options |= {"window": (10, 200), "background": (1, 2), "connectivity": 2, "min_size": 3}
    segment(picture, **options).export(tmp_path / "one/out.ome.zarr")
    first = Manifest.load(tmp_path / "one/out.ome.zarr")
    assert first.parameters == Parameters(**options)
    again = open_segmentation(picture, first.parameters)
    again.export(tmp_path / "two/out.ome.zarr")
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        files = [p for p in folder.rglob("*") if p.is_file()]
        files = [p for p in files if p.name not in ("manifest.json", "pixseg-run.json")]
        written.append({str(p.relative_to(folder)): p.read_bytes() for p in files})
    assert written[0] == written[1]
    second = Manifest.load(tmp_path / "two/out.ome.zarr")
    for name in ("classes", "color_table", "input", "parameters"):
        assert second.details[name] == first.details[name]


# Failure, and both ------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422, 499, 500, 507])
def test_a_failure_has_an_error_and_no_link(status):
    manifest = Manifest.of_error(status, "It is so.", {"parameters": {}})
    values = valid(manifest)
    assert list(values) == ["status", "id", "error", "details"]
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_every_error_of_ours_has_a_code_of_the_schema():
    codes = set(SCHEMA["properties"]["status"]["enum"])
    pending = [PixsegError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        assert error.status in codes - {200}


def test_ids_are_unique_and_cannot_be_guessed():
    ids = {new_id() for _ in range(1000)} | {Manifest.of_error(400, "No.").id for _ in range(1000)}
    assert len(ids) == 2000
    assert min(map(len, ids)) >= 16


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.text(min_size=1), st.dictionaries(st.text(), json_values))
def test_a_manifest_survives_its_json(error, details):
    failed = Manifest.of_error(400, error, details)
    assert Manifest.from_json(failed.to_json()) == failed
    good = Manifest(200, new_id(), "file:///out.ome.zarr", None, details)
    assert Manifest.from_json(good.to_json().encode()) == good


# Reading back -----------------------------------------------------------------


def test_it_is_read_from_the_output_its_file_or_a_url(picture, tmp_path):
    result = segment(picture, ct=0, st=0.1)
    store, plane = tmp_path / "out.ome.zarr", tmp_path / "out.png"
    of_store, of_plane = result.export(store), result.export(plane)
    for path in (store, str(store), f"{store}/", store.as_uri(), store / "manifest.json"):
        assert Manifest.load(path) == of_store
    for path in (plane, plane.as_uri(), tmp_path / "out.png.json"):
        assert Manifest.load(path) == of_plane
    (tmp_path / "answer.json").write_text(of_store.to_json())
    assert Manifest.load(tmp_path / "answer.json") == of_store


@pytest.mark.parametrize("name", ["nothing", "nothing.json", "folder", "in.png"])
def test_where_there_is_none_it_says_that_the_output_is_unfinished(name, picture, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputNotFound, match="unfinished"):
        Manifest.load(tmp_path / name)


def test_a_file_of_another_kind_is_no_manifest(tmp_path):
    (tmp_path / "note.txt").write_text("{}")
    with pytest.raises(ParameterError, match=r"note\.txt is not a manifest"):
        Manifest.load(tmp_path / "note.txt")


GARBAGE = [
    b"", b"{", b"\xff\xfe", b"[]", b"7", b"null", b'"text"', b"{}", b'{"status": 200}',
    b'{"id": "a"}', b'{"status": "fine", "id": "a"}', b'{"status": 200, "id": "a", "details": [1]}',
    b'{"status": null, "id": "a"}',
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_manifest_is_refused_in_one_sentence(text, tmp_path):
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(ParameterError, match=r"/manifest\.json is not a manifest") as caught:
        Manifest.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize(
    "details",
    [{}, {"parameters": None}, {"parameters": 5}, {"parameters": "ct"}, {"parameters": ["ct"]},
     {"parameters": {"ct": "much"}}, {"parameters": {"pony": 1}}, {"parameters": {"cs": 99}}],
)  # fmt: skip
def test_parameters_that_cannot_run_are_refused(details):
    manifest = Manifest(200, new_id(), "file:///out", None, details)
    with pytest.raises(ParameterError):
        manifest.parameters  # noqa: B018


# Secrets ----------------------------------------------------------------------


def test_the_input_is_named_without_its_secrets(tmp_path):
    array = np.random.default_rng(2).integers(0, 256, (20, 20), np.uint8)
    stored = zarr.create_array("memory://secrets/in.zarr", shape=(20, 20), dtype=np.uint8)
    stored[...] = array
    opened = image.open_source("memory://secrets/in.zarr")
    assert "secrets/in.zarr" in opened.uri
    url = "https://someone:hush@example.org/in.zarr?X-Amz-Signature=hush&key=hush"
    hidden = source.Source(array, uri=location.locate(url).uri, name=location.locate(url).name)
    manifest = segment(hidden, ct=0, st=0.1).export(tmp_path / "out.ome.zarr")
    assert valid(manifest)["details"]["input"]["uri"] == "https://example.org/in.zarr"
    for file in tmp_path.rglob("*.json"):
        assert "hush" not in file.read_text()


SECRET = "https://someone:hush@127.0.0.1:9/out.ome.zarr?token=hush"


@pytest.mark.parametrize(
    "arguments",
    [["segment", "PICTURE", SECRET, "--ct=0", "--st=0.1"], ["segment", SECRET, "OUTPUT"],
     ["segment", "PICTURE", "OUTPUT", "--parameters", SECRET], ["info", SECRET],
     ["segment", "PICTURE", SECRET.replace("out.ome.zarr", "out.png"), "--ct=0", "--st=0.1"]],
)  # fmt: skip
def test_no_answer_quotes_the_secrets_of_an_address(arguments, picture, capsys, caplog, tmp_path):
    places = {"PICTURE": str(picture), "OUTPUT": str(tmp_path / "out.ome.zarr")}
    assert cli.main([places.get(argument, argument) for argument in arguments]) == 1
    said = capsys.readouterr()
    assert "hush" not in said.out + said.err + caplog.text
    answer = json.loads(said.out)
    assert answer["error"]
    # Nothing answers at this address, which is not a fault of this program.
    assert answer["status"] in (400, 404, 503)
