"""POST /store, links of this very server as img, and what /segment takes beyond the original."""

import io
import json

import numpy as np
import pytest
from endpoint_tools import LOOPBACK, encoded, form, pixels_of, scene, serving
from PIL import Image
from test_endpoint_faults import refused

from napari_pixseg import Manifest, segment

PICTURE = scene(1)
PNG = encoded(PICTURE)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def server(storage):
    # Nothing at all may be fetched from: links of its own are read from the storage.
    with serving(storage=str(storage)) as running:
        yield running


def store(server, picture, headers=None, name="file", **fields):
    body, kind = form(fields, picture, name)
    return server.request("POST", "/store", body, {"Content-Type": kind, **(headers or {})})


def at(server, link):
    return server.request("GET", link.removeprefix(server.url))


# Stored images -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_stored_image_is_kept_as_it_is_and_segmented_by_its_link(server, storage, kind):
    content = encoded(PICTURE, kind)
    answer = store(server, content, comment="of the second series")
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"status", "link", "id"}
    link = answer.json["link"]
    got = at(server, link)
    assert got.body == content
    assert got.headers["content-type"].startswith("image/")
    assert got.headers["x-content-type-options"] == "nosniff"
    name = link.rpartition("/")[2]
    record = Manifest.load(storage / name)
    assert (record.id, record.link) == (answer.json["id"], link)
    assert record.details["comment"] == "of the second series"
    assert record.details["input"]["identity"]["size"] == len(content)
    for done in (server.get(img=link, blob="true", ct=2), server.json({"img": link, "blob": True,
                 "ct": 2})):  # fmt: skip
        direct = server.post(content, blob="true", ct=2)
        assert done.status == 200, done.body
        assert done.body == direct.body


def test_results_chain(server):
    first = server.post(PNG, ct=1).json["link"]
    second = server.get(img=first, ct=5, blob="true")
    once = segment(PICTURE, ct=1).recolored.compute()
    assert np.array_equal(second.pixels, segment(once, ct=5).recolored.compute())


def test_what_is_stored_is_checked_as_segment_does(server, storage):
    before = sorted(storage.iterdir())
    refused(store(server, b"<svg/>"), 415, "not accepted")
    refused(store(server, PNG[:200]), 415, "cannot be decoded")
    refused(store(server, None), 400, "file is missing")
    refused(store(server, None, img="https://example.org/a.png"), 400, "upload")
    refused(store(server, PNG, comment="x" * 1001), 400, "1,000 characters")
    refused(server.request("GET", "/store"), 405, "GET, or POST")
    assert sorted(storage.iterdir()) == before


def test_store_asks_for_a_key(tmp_path):
    with serving(storage=str(tmp_path), keys=("k",)) as server:
        refused(store(server, PNG), 401, "key")
        refused(store(server, PNG, {"Authorization": "Bearer x"}), 401, "key")
        link = store(server, PNG, {"WWW-Authenticate": "k"}).json["link"]
        assert store(server, PNG, key="k").status == 200
        refused(server.get(img=link), 401, "key")
        assert server.get(img=link, key="k").status == 200


def test_only_links_of_results_are_read_here_and_nothing_else_of_this_machine(server, storage):
    link = store(server, PNG).json["link"]
    name = link.rpartition("/")[2]
    base = server.url
    for img in (
        f"{base}/results/{name}.json", f"{base}/results/../{name}", f"{base}/openapi.json",
        f"{base}/results/{name}?x=1", f"{base}/results/{name}#a", f"http://a:b@{base[7:]}/x",
        f"http://127.0.0.1:1/results/{name}", f"http://127.0.0.1/results/{name}",
        f"http://localhost:{server.port}/results/{name}", f"https{base[4:]}/results/{name}",
        f"{base}/other/results/{name}", f"{base}//results/{name}", f"file://{storage}/{name}",
        f"{storage}/{name}",
    ):  # fmt: skip
        refused(server.get(img=img), 400, "img")
    refused(server.get(img=f"{base}/results/{'0' * 32}.png"), 404, "no such result")
    # A made-up Host leads to this storage and to no other machine.
    odd = server.get({"Host": "127.0.0.1:9"}, img=f"http://127.0.0.1:9/results/{name}")
    assert odd.status == 200
    refused(server.get({"Host": "127.0.0.1:9"}, img="http://127.0.0.1:9/x.png"), 400, "public")


def test_links_under_the_public_address_are_read_here_too(tmp_path):
    with serving(storage=str(tmp_path), public_url="https://example.org/s/") as server:
        link = store(server, PNG).json["link"]
        assert link.startswith("https://example.org/s/results/")
        assert server.get(img=link).status == 200


def test_links_of_an_object_store_are_read_there(s3_endpoint):
    boto3 = pytest.importorskip("boto3")
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="stored")
    with serving(storage="s3://stored/deep", allowed=LOOPBACK) as server:
        link = store(server, PNG).json["link"]
        assert link.startswith("s3://stored/deep/")
        assert server.get(img=link, blob="true").body == server.post(PNG, blob="true").body
        refused(server.get(img=f"s3://stored/{link.rpartition('/')[2]}"), 400, "http://")


# Beyond the original -------------------------------------------------------------------


def test_absent_extensions_give_the_answer_of_the_original(server):
    usual = server.post(PNG, blob="true")
    defaults = {"semantics": "documented", "denoise": 0, "min_size": 0, "outputs": "recolored"}
    assert server.post(PNG, blob="true", **defaults).body == usual.body


@pytest.mark.parametrize(
    "values", [{"denoise": 2}, {"semantics": "imagemagick6", "ct": 3, "st": 2}, {"denoise": "1"}]
)
def test_extensions_mean_what_they_mean_in_the_library(server, values):
    known = {**values, **({"denoise": int(values["denoise"])} if "denoise" in values else {})}
    wanted = segment(PICTURE, **known).recolored.compute()
    assert np.array_equal(server.post(PNG, blob="true", **values).pixels, wanted)


@pytest.mark.parametrize("picture", [PICTURE, scene(3, channels=1), scene(5, (300, 200))])
def test_outputs_classes_are_the_numbers_of_the_classes(server, picture):
    answer = server.post(encoded(picture), blob="true", outputs="classes", ct=0.5)
    image = Image.open(io.BytesIO(answer.body))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), segment(picture, ct=0.5).classes.compute())
    link = server.post(encoded(picture), outputs="classes", ct=0.5).json["link"]
    assert at(server, link).body == answer.body


def test_more_than_255_numbers_take_16_bits(server, storage):
    picture = scene(8, (120, 130))
    answer = server.post(encoded(picture), outputs="regions", min_size=2, background="1")
    content = at(server, answer.json["link"]).body
    assert content[24] == 16  # Bits of the PNG's header.
    wanted = segment(picture, min_size=2, background=(1,)).regions.compute()
    assert wanted.max() > 255
    assert np.array_equal(pixels_of(content), wanted)
    record = json.loads((storage / f"{answer.json['id']}.png.json").read_text())
    assert record["details"]["outputs"] == ["regions"]
    assert record["details"]["parameters"]["min_size"] == 2
    largest = server.post(encoded(picture), outputs="regions", background="largest", blob="true")
    wanted = segment(picture, background="largest").regions.compute()
    assert np.array_equal(largest.pixels, wanted)


def test_more_regions_than_a_png_holds_are_refused(server):
    refused(server.post(encoded(scene(8, (600, 600))), outputs="regions"), 413, "raise min_size")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"semantics": "other"}, "semantics"), ({"denoise": 33}, "denoise"),
        ({"denoise": "1.5"}, "denoise"), ({"background": "0"}, "background"),
        ({"background": "1,,2"}, "background"), ({"background": "+1"}, "background"),
        ({"min_size": -1}, "min_size"), ({"outputs": "all"}, "outputs"),
        ({"outputs": "Classes"}, "outputs"), ({"semantics": "imagemagick6", "st": 256}, "st"),
    ],
)  # fmt: skip
def test_wrong_extensions_are_refused(server, values, words):
    refused(server.post(PNG, **values), 400, words)
    refused(server.json({"img": "http://127.0.0.1/", **values}), 400, words)


def test_values_of_other_types_are_refused(server):
    for values in ({"outputs": ["classes"]}, {"background": [1]}, {"semantics": 1},
                   {"outputs": None}):  # fmt: skip
        refused(server.json({"img": "http://127.0.0.1/", **values}), 400, next(iter(values)))
