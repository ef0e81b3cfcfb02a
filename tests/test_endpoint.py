"""GET and POST /segment on a real server: the documented contract, byte by byte."""

import io
import json
import re
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from endpoint_tools import LOOPBACK, encoded, picture_server, pixels_of, scene, sends, serving
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_pixseg import Manifest, segment
from napari_pixseg.endpoint.keys import check_keys, load_keys, offered_keys
from napari_pixseg.endpoint.request_parameters import understood
from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import ClassError, KeyRefused, ParameterError

PICTURE = scene(1)
PNG = encoded(PICTURE)
KEYS = ("Xy-17-secret", "another/KEY")


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("s") / "made" / "by the server"


@pytest.fixture(scope="module")
def server(storage):
    with serving(storage=str(storage), allowed=LOOPBACK, max_pixels=100_000,
                 max_bytes=300_000) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locked")
    with serving(storage=str(folder), keys=KEYS, allowed=LOOPBACK) as running:
        yield running


def refused(answer, status, words=""):
    """An error as documented: its code in two places, one sentence, nothing of the inside."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"status", "error"}
    assert answer.json["status"] == status
    sentence = answer.json["error"]
    assert re.fullmatch(r"[^\n]+\.", sentence), sentence
    assert not re.search(r"Traceback|/tmp|/home|\.py\b|0x[0-9a-f]{6}|file://", sentence)
    assert words in sentence
    return sentence


def expected(pixels, **parameters):
    return segment(pixels, **parameters).recolored.compute()


# What comes back -----------------------------------------------------------------


def test_an_answer_has_status_link_and_id_and_the_link_leads_to_the_picture(server, storage):
    answer = server.post(PNG)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"status", "link", "id"}
    assert answer.json["status"] == 200
    name = f"{answer.json['id']}.png"
    assert answer.json["link"] == f"{server.url}/results/{name}"
    picture = server.request("GET", f"/results/{name}")
    assert picture.headers["content-type"] == "image/png"
    assert np.array_equal(picture.pixels, expected(PICTURE))
    record = Manifest.load(storage / name)
    assert (record.status, record.id, record.link) == (200, answer.json["id"], answer.json["link"])
    assert record.details["input"]["uri"] is None


@given(
    seed=st.integers(0, 50),
    ct=st.floats(0, 3),
    cs=st.integers(1, 22),
    smoothing=st.floats(0.1, 60),
    way=st.sampled_from(["form", "json", "get"]),
)
def test_the_picture_is_that_of_the_library_to_the_last_bit(server, seed, ct, cs, smoothing, way):
    pixels = scene(seed)
    values = {"ct": ct, "cs": cs, "st": smoothing}
    if way == "form":
        answer = server.post(encoded(pixels), blob="true", **values)
    else:
        with picture_server(sends(encoded(pixels))) as url:
            img = f"{url}/a.png?n=1"
            answer = (
                server.json({"img": img, "blob": True, **values})
                if way == "json"
                else server.get(img=img, blob="true", **values)
            )
    try:
        wanted = expected(pixels, **values)
    except ClassError as error:
        refused(answer, error.status, str(error))
        return
    assert answer.status == 200
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(answer.pixels, wanted)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7}])
def test_tiffs_of_any_layout_are_segmented_as_the_library_does(
    server, tmp_path, compression, layout
):
    content = tiff(PICTURE, photometric="rgb", compression=compression, **layout)
    (tmp_path / "in.tif").write_bytes(content)
    wanted = segment(tmp_path / "in.tif").recolored.compute()
    assert np.array_equal(server.post(content, blob="true").pixels, wanted)
    # Its remedy is for the server's owner.
    answer = server.post(content[: len(content) // 2])
    refused(answer, 422, "cannot be decoded; repair the image, or save it again")


def test_gray_alpha_and_other_formats_are_segmented_as_the_library_does(server, tmp_path):
    deep = tiff(scene(3).astype(np.uint16) * 200, photometric="rgb", compression="zlib")
    alpha = np.dstack([scene(4), scene(5, channels=1)])
    for number, content in enumerate([
        encoded(scene(2, channels=1)), deep, encoded(alpha),
        encoded(PICTURE, "JPEG"), encoded(PICTURE, "BMP"), encoded(PICTURE, "WEBP", lossless=True),
    ]):  # fmt: skip
        path = tmp_path / f"{number}.tif" if number == 1 else tmp_path / f"{number}.png"
        path.write_bytes(content)
        wanted = segment(path).recolored.compute()
        got = server.post(content, blob="true").pixels
        assert np.array_equal(got if got.ndim == 2 else got[..., :3],
                              wanted[..., 0] if got.ndim == 2 else wanted)  # fmt: skip
        if got.shape[2:] == (4,):
            assert np.array_equal(got[..., 3], alpha[..., 3])


def test_a_blob_is_kept_nowhere(server, storage):
    before = sorted(storage.iterdir())
    assert server.post(PNG, blob="true").status == 200
    assert sorted(storage.iterdir()) == before


def test_absent_parameters_take_the_defaults(server):
    usual = server.post(PNG, blob="true", ct="1.0", cs="11", st="1.5")
    assert server.post(PNG, blob="true").body == usual.body
    assert server.post(PNG, blob="1").body == usual.body
    assert server.post(PNG, blob="true", unknown="ignored").body == usual.body


def test_parameters_of_a_post_may_be_in_its_query_too_but_not_twice(server):
    one = server.post(PNG, _path="/segment?cs=13&blob=true")
    assert np.array_equal(one.pixels, expected(PICTURE, cs=13))
    refused(server.post(PNG, _path="/segment?cs=13", cs="12"), 400, "cs is given more than once")


# Bad parameters ------------------------------------------------------------------

BAD = {
    "ct": ["nan", "inf", "-1", "100.1", "abc", "1_0", "１", "0x1", "true", "1e999", "1 0"],
    "cs": ["0", "23", "11.5", "abc", "nan", "-3", "1e30"],
    "st": ["0", "-0.1", "255.1", "NaN", "x", "1,5"],
    "blob": ["ja", "2", "None", "[]"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in BAD.items() for v in vs])
def test_a_parameter_out_of_range_is_400_and_named(server, name, value):
    refused(server.post(PNG, **{name: value}), 400, name)
    refused(server.get(img="http://127.0.0.1:9/", **{name: value}), 400, name)


@pytest.mark.parametrize(
    "values",
    [{"ct": "1"}, {"ct": None}, {"ct": True}, {"cs": "x"}, {"cs": 1.5}, {"cs": [11]}, {"st": {}},
     {"blob": 2}, {"blob": None}, {"img": 3}, {"img": ["a"]}, {"key": 4}, {"ct": 10**400}],
)  # fmt: skip
def test_json_of_the_wrong_kind_is_400(server, values):
    full = {"img": "http://127.0.0.1:9/", **values}
    if values != {"ct": "1"}:
        refused(server.json(full), 400, next(iter(values)))
    else:  # The number is understood; there is nothing at that address.
        refused(server.json(full), 404)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"3", b'{"img": "http://127.0.0.1:9/", "ct": NaN}',
     b'{"img": "http://127.0.0.1:9/", "cs": 3, "cs": 4}', b"\xff\xfe\x00", b"[" * 60000,
     b'{"ct": 1}', b'{"img": null}', b'{"ct": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_json_that_cannot_be_understood_is_400(server, body):
    refused(server.json(body), 400)


@given(st.dictionaries(st.sampled_from(["ct", "cs", "st", "blob"]),
                       st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
                                 st.lists(st.integers()))))  # fmt: skip
def test_whatever_values_are_given_they_are_understood_or_refused_in_one_sentence(values):
    try:
        wanted = understood(values)
    except ParameterError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert 0 <= wanted.parameters.ct <= 100
        assert 1 <= wanted.parameters.cs <= 22
        assert 0 < wanted.parameters.st <= 255
    assert "\n" not in sentence
    assert len(sentence) < 600


def test_img_must_be_there(server):
    refused(server.get(), 400, "img is missing")
    refused(server.post(None, ct="1"), 400, "img is missing")
    refused(server.post(PNG, img="http://127.0.0.1/a.png"), 400, "as text and as a file")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "image/png", "nonsense",
             "multipart/mixed; boundary=x", "application/jsonp"]
)  # fmt: skip
def test_any_other_content_type_is_415(server, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    refused(server.request("POST", "/segment", b"img=x", headers), 415, "Content-Type")


@pytest.mark.parametrize("body", [b"", b"garbage", b"--x\r\n\r\n", b"--x\r\nContent-Disp"])
def test_a_broken_form_is_400(server, body):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(server.request("POST", "/segment", body, headers), 400)
    refused(server.request("POST", "/segment", body, {"Content-Type": "multipart/form-data"}), 400)


def test_bytes_that_a_result_does_not_have_are_refused_in_the_same_form(server):
    path = f"/results/{server.post(PNG).json['id']}.png"
    whole = server.request("GET", path).body
    for asked, status in {"bytes=5-1": 400, "bytes=a-b": 400, f"bytes={10**15}-": 416}.items():
        answer = server.request("GET", path, headers={"Range": asked})
        refused(answer, status)
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
        assert f"bytes=0-{len(whole) - 1}" in answer.json["error"]
    part = server.request("GET", path, headers={"Range": "bytes=2-11"})
    assert (part.status, part.body) == (206, whole[2:12])
    other = server.request("GET", path, headers={"Range": "lines=1-2"})
    assert (other.status, other.body) == (200, whole)


def test_other_addresses_and_methods_are_refused_in_the_same_form(server):
    refused(server.request("GET", "/nowhere"), 404)
    refused(server.request("GET", "/results/"), 404)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = server.request(method, "/segment")
        refused(answer, 405)
        assert set(answer.headers["allow"].split(", ")) == {"GET", "POST"}
    assert server.request("HEAD", f"/segment?img={server.url}").status == 405


# Images that are none --------------------------------------------------------------


def bomb(width, height):
    """A PNG of few bytes and many pixels."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
NONE = {
    "svg": SVG,
    "svg with a declaration": b'<?xml version="1.0"?>' + SVG,
    "html": b"<!DOCTYPE html><html></html>",
    "pdf": b"%PDF-1.4 ...",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "text": b"hello",
    "nothing": b"",
    "damaged png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "cut png": PNG[:200],
    "cut jpeg": encoded(PICTURE, "JPEG")[:300],
    "damaged tiff": b"II*\0\xff\xff\xff\xff" + bytes(30),
    "tiff of no pages": b"II*\0\0\0\0\0",
    "jpeg 2000": bytes(imagecodecs.jpeg2k_encode(PICTURE)),
    "jpeg in tiff": tiff(PICTURE, compression="jpeg", photometric="rgb"),
    "complex tiff": tiff(np.ones((20, 30), np.complex64), photometric="minisblack"),
    "pcx": encoded(PICTURE, "PCX"),
}


@pytest.mark.parametrize("content", NONE.values(), ids=NONE)
def test_what_is_no_accepted_picture_is_415(server, content):
    refused(server.post(content), 415, "image")


BOMBS = {
    "png": bomb(30_000, 30_000),
    "larger png": bomb(2**31 - 1, 2**31 - 1),
    "just too large": bomb(1000, 101),
    "tiff": tiff(np.zeros((4000, 4000), np.uint8), compression="zlib"),
    "gif of many frames": encoded(
        PICTURE, "GIF", save_all=True, append_images=[Image.fromarray(scene(n)) for n in range(9)]
    ),
    "tiff of planes": tiff(np.zeros((5, 30, 30), np.uint8), photometric="minisblack"),
    "tiff of many pages": tiff(np.zeros((80, 4, 4), np.uint8), photometric="minisblack"),
    "many bytes": encoded(np.random.default_rng(0).integers(0, 256, (330, 330, 3), np.uint8)),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_too_many_pixels_planes_or_bytes_are_413_and_never_decoded(server, content):
    refused(server.post(content), 413, "image")


def test_a_tiff_cannot_name_files_of_the_server(server, tmp_path):
    # An OME-TIFF may say that its pixels are in another file.
    secret = tmp_path / "secret.ome.tif"
    tifffile.imwrite(secret, scene(9, channels=1))
    xml = f"""<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
    <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="50"
    SizeY="40" SizeZ="1" SizeC="1" SizeT="1"><TiffData FirstZ="0" FirstT="0" FirstC="0" IFD="0"
    PlaneCount="1"><UUID FileName="{secret}">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>"""
    here = np.zeros((40, 50), np.uint8)
    content = tiff(here, description=xml, metadata=None)
    (tmp_path / "local.ome.tif").write_bytes(content)
    with tifffile.TiffFile(tmp_path / "local.ome.tif") as opened:
        assert opened.asarray().any()  # Bytes of the other file.
    answer = server.post(content, blob="true", ct="0")
    assert answer.status >= 400 or len(np.unique(answer.pixels)) == 1


def test_no_path_reaches_the_file_system(server, storage):
    (storage / "x.txt").write_text("secret")
    picture = storage / ("0" * 32 + ".png")
    picture.write_bytes(PNG)  # Unfinished: it has no record.
    done = server.post(PNG).json["id"]
    names = ["x.txt", "../x.txt", "..%2fx.txt", "%2e%2e/x.txt", f"{done}.png.json", picture.name]
    odd = [f"{done}.PNG", f"{done}.png%00", f"./{done}.png/", f"{done}.png%0a", "/etc/passwd"]
    for name in names + odd:
        assert server.request("GET", f"/results/{name}").status == 404, name
    for img in (str(picture), picture.as_uri(), "x.txt", "s3://bucket/a.png", "data:image/png,x"):
        refused(server.get(img=img), 400, "http://")


# Keys ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_taken_from_all_four_places(locked, key):
    bearer = {"Authorization": f"Bearer {key}"}
    original = {"WWW-Authenticate": key}
    assert locked.post(PNG, bearer).status == 200
    assert locked.post(PNG, original).status == 200
    assert locked.post(PNG, key=key).status == 200
    assert locked.post(PNG, _path=f"/segment?key={key}").status == 200
    assert locked.post(PNG, bearer, _path=f"/segment?key={key}", key="").status == 200
    with picture_server(sends(PNG)) as url:
        assert locked.get(img=url, key=key).status == 200
        assert locked.get(original, img=url).status == 200
        assert locked.json({"img": url, "key": key}).status == 200
        assert locked.json({"img": url}, bearer).status == 200


@pytest.mark.parametrize("key", [None, "", KEYS[0][:-1], KEYS[0] + "x", KEYS[0].upper(), "é", "*"])
def test_a_missing_or_wrong_key_is_401(locked, key):
    given = {} if key is None else {"key": key}
    latin = {} if key is None else {"Authorization": f"Bearer {key}".encode("latin-1")}
    for answer in (locked.post(PNG, **given), locked.get(img="http://127.0.0.1:9/", **given),
                   locked.json({"img": "http://127.0.0.1:9/", **given}),
                   locked.post(PNG, latin)):  # fmt: skip
        refused(answer, 401, "ey ")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_results_and_the_description_need_no_key(locked):
    answer = locked.post(PNG, key=KEYS[0])
    link = answer.json["link"].removeprefix(locked.url)
    assert locked.request("GET", link).status == 200
    assert locked.request("GET", "/openapi.json").status == 200
    refused(locked.request("GET", "/results/" + "0" * 32 + ".png"), 404)


def test_keys_are_in_no_record_and_no_log(locked, caplog, tmp_path):
    caplog.set_level("DEBUG")
    with picture_server(sends(PNG)) as url, serving(
        storage=str(tmp_path), keys=KEYS, allowed=LOOPBACK
    ) as server:  # fmt: skip
        assert server.get(img=f"{url}/a.png?token=hush-hush", key=KEYS[0]).status == 200
    said = caplog.text + "".join(p.read_text() for p in tmp_path.glob("*.json"))
    assert KEYS[0] not in said
    assert "hush-hush" not in said


def test_a_keys_file_has_a_key_a_line(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\n\n  abc  \r\nd#e\n")
    assert load_keys(path) == ("abc", "d#e")
    for content in ("", "# only\n", "two words\n", "schlüssel\n", "a\x07b\n"):
        path.write_text(content)
        with pytest.raises(ParameterError, match="keys file"):
            load_keys(path)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(ParameterError, match="cannot be read"):
            load_keys(wrong)


@given(st.text(), st.lists(st.text(), min_size=1))
def test_a_key_is_known_if_and_only_if_it_is_one_of_them(key, keys):
    if key in keys:
        check_keys([key], keys)
    else:
        with pytest.raises(KeyRefused):
            check_keys([key], keys)


def test_headers_that_carry_no_key_offer_none():
    assert offered_keys({"authorization": "Basic abc"}) == []
    assert offered_keys({"authorization": "bearer  abc "}) == ["abc"]
    assert offered_keys({"www-authenticate": "Bearer abc"}) == ["abc"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", ""])
def test_a_server_for_others_needs_keys(host):
    with pytest.raises(ParameterError, match="needs keys"):
        Settings(host=host)
    assert Settings(host=host, keys=("k",)).keys == ("k",)
    for own in ("127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9"):
        assert Settings(host=own).keys == ()


def test_a_server_without_keys_answers_no_page_of_elsewhere(server, locked):
    # A page in this machine's browser could post to loopback; a name could point there.
    for headers in ({"Origin": "https://example.org"}, {"Host": "example.org"}, {"Origin": "null"}):
        refused(server.post(PNG, headers), 401, "has no keys")
        assert locked.post(PNG, headers, key=KEYS[0]).status == 200
    assert server.post(PNG, {"Origin": server.url}).status == 200


def test_ids_cannot_be_guessed(server):
    ids = {server.post(PNG).json["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_links_can_begin_with_a_public_address(tmp_path):
    with serving(storage=str(tmp_path), public_url="https://example.org/s/") as server:
        answer = server.post(PNG).json
    assert answer["link"] == f"https://example.org/s/results/{answer['id']}.png"


def test_a_full_disk_is_507_and_a_fault_is_500_without_telling_where(server, monkeypatch):
    from napari_pixseg.endpoint.worker_pool import WorkerPool
    from napari_pixseg.errors import NoSpace

    for error, status in (
        (NoSpace("No space is left at file:///tmp/here."), 507),
        (RuntimeError("/tmp/secret.py broke"), 500),
        (MemoryError(), 500),
    ):

        def fail(*_arguments, error=error):
            raise error

        monkeypatch.setattr(WorkerPool, "run_job", fail)
        refused(server.post(PNG), status)


def test_results_can_go_to_an_object_store(s3_endpoint):
    boto3 = pytest.importorskip("boto3")
    store = boto3.client("s3", endpoint_url=s3_endpoint)
    store.create_bucket(Bucket="segmented")
    with serving(storage="s3://segmented/deep") as server:
        answer = server.post(PNG).json
    name = f"deep/{answer['id']}.png"
    assert answer["link"] == f"s3://segmented/{name}"
    content = store.get_object(Bucket="segmented", Key=name)["Body"].read()
    assert np.array_equal(pixels_of(content), expected(PICTURE))
    record = store.get_object(Bucket="segmented", Key=f"{name}.json")["Body"].read()
    assert json.loads(record)["id"] == answer["id"]
