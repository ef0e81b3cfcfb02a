"""What is refused at a local path is refused on an object store, in the same words."""

import json
import os

import boto3
import pytest
from resume_tools import cancelled_at, make_small, picture, segmented

from napari_pixseg.errors import Cancelled, PixsegError
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME, OutputLocation

STACK = ((2, 40, 36, 3), "zyxc")


@pytest.fixture(scope="module")
def bucket(s3_endpoint):
    """The address of a bucket on an S3 server."""
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="refusals")
    return "s3://refusals"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


def place(base, name, content):
    """Write a file of somebody."""
    location = OutputLocation(f"{base}/{name}")
    if location.is_local:
        location.local_path.parent.mkdir(parents=True, exist_ok=True)
    location.write_bytes(content)


def finish(base, name):
    segmented(picture()).export(f"{base}/{name}")


def begin(base, name):
    with pytest.raises(Cancelled):
        segmented(picture()).export(f"{base}/{name}", **cancelled_at(15))


def rewrite_record(base, **changes):
    file = OutputLocation(f"{base}/a.ome.zarr/{RECORD_NAME}")
    file.write_bytes(json.dumps(json.loads(file.read_bytes()) | changes).encode())


def of_others(base):
    place(base, "a.ome.zarr/data.txt", b"of somebody")


def a_file(base):
    place(base, "a.ome.zarr", b"of somebody")


def foreign_manifest(base):
    place(base, f"a.ome.zarr/{MANIFEST_NAME}", b"{}")


def finished(base):
    finish(base, "a.ome.zarr")


def half(base):
    begin(base, "a.ome.zarr")


def broken_record(base):
    half(base)
    place(base, f"a.ome.zarr/{RECORD_NAME}", b"{")


def other_record(base):
    half(base)
    rewrite_record(base, parameters={})


def a_picture(base):
    place(base, "a.png", b"of somebody")


def finished_picture(base):
    finish(base, "a.png")


def foreign_sidecar(base):
    place(base, "a.png.json", b"{}")


def a_folder_as_picture(base):
    place(base, "a.png/data.txt", b"of somebody")


# Name, what is there before, options, and a part of the sentence.
CASES = [
    ("a.ome.zarr", None, {"overwrite": True, "resume": True}, "not both"),
    ("a.ome.zarr", None, {"outputs": ["classes", "x"]}, "outputs names 'x'"),
    ("a.ome.zarr", None, {"outputs": []}, "outputs names nothing"),
    ("a.ome.zarr", None, {"on_error": "ignore"}, "on_error = 'ignore'"),
    ("a.docx", None, {}, "would be a .docx file"),
    ("a.png", None, {"outputs": ["classes"]}, "can hold only the output 'recolored'"),
    ("a.ome.zarr", None, {"blob": True}, "blob gives the picture alone"),
    ("a.ome.zarr", a_file, {}, "is not an output of this kind"),
    ("a.ome.zarr", a_file, {"overwrite": True}, "is not an output of this kind"),
    ("a.ome.zarr", a_file, {"resume": True}, "cannot be resumed"),
    ("a.ome.zarr", of_others, {}, "is not an output of this kind"),
    ("a.ome.zarr", of_others, {"overwrite": True}, "is not an output of this kind"),
    ("a.ome.zarr", of_others, {"resume": True}, "cannot be resumed"),
    ("a.ome.zarr", foreign_manifest, {"overwrite": True}, "is not an output of this kind"),
    ("a.ome.zarr", finished, {}, "exists already; choose another path"),
    ("a.ome.zarr", half, {}, "exists already, unfinished"),
    ("a.ome.zarr", broken_record, {"resume": True}, "pixseg-run.json cannot be read"),
    ("a.ome.zarr", other_record, {"resume": True}, "resumed"),
    ("a.png", a_picture, {}, "exists already; choose another path"),
    ("a.png", a_picture, {"resume": True}, "cannot be resumed"),
    ("a.png", finished_picture, {}, "exists already; choose another path"),
    ("a.png", foreign_sidecar, {"overwrite": True}, "is not an output of this kind"),
    ("a.png", a_folder_as_picture, {"overwrite": True}, "is not an output of this kind"),
]


@pytest.mark.parametrize(
    ("name", "before", "options", "part"), CASES,
    ids=[f"{name}-{getattr(before, '__name__', 'nothing')}-{'-'.join(options) or 'plain'}"
         for name, before, options, _ in CASES],
)  # fmt: skip
def test_refusals_are_the_same_everywhere(name, before, options, part, tmp_path, bucket):
    said = []
    for base in (tmp_path / "here", f"{bucket}/{os.urandom(4).hex()}"):
        if before is not None:
            before(base)
        with pytest.raises(PixsegError) as caught:
            segmented(picture()).export(f"{base}/{name}", **options)
        uri = OutputLocation(str(base)).uri
        said.append((caught.type, f"{caught.value}".replace(uri, "PLACE")))
    assert said[0] == said[1]
    assert part in said[0][1]


def test_what_others_did_since_the_last_look_is_seen(bucket, s3_endpoint):
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    name = f"{os.urandom(4).hex()}/a.png"
    location = OutputLocation(f"{bucket}/{name}")
    location.write_bytes(b"of somebody")
    # A listing is kept by the file system.
    assert location._filesystem_and_path[0].ls(f"{bucket}/{name.split('/')[0]}")
    assert location.exists()
    client.delete_object(Bucket="refusals", Key=name)
    assert not location.exists()
    assert not location.is_file()
    client.put_object(Bucket="refusals", Key=f"{name}/b", Body=b"of somebody")
    assert location.is_folder()
