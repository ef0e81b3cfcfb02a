"""Resuming what is finished: the same line may be given again, and nothing is written."""

import json
import os
import subprocess
import sys
from functools import partial

import dask.array as da
import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from resume_tools import (
    ALL,
    cancelled_at,
    content,
    make_small,
    picture,
    products,
    segmented,
    source,
)

from napari_pixseg import Manifest, cli
from napari_pixseg.errors import Cancelled, OutputConflict
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME, TABLE_NAME


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


NAMES = ["out.ome.zarr", "out.png", "out.tif", "out.jpg"]
OPTIONS = ["--axes", "yxc", "--ct", "0", "--st", "0.1", "--cs", "sRGB"]


def states(folder):
    """Everything below a folder, with the time of its last change."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def tiff(folder, pixels=None):
    path = folder / "in.tif"
    tifffile.imwrite(path, picture() if pixels is None else pixels, photometric="rgb")
    return path


def png(folder):
    PillowImage.fromarray(picture()).save(folder / "in.png")
    return folder / "in.png"


INPUTS = {
    "zarr": source,
    "tiff": tiff,
    "png": png,
    "array": lambda _folder: picture(),
    "dask": lambda _folder: da.from_array(picture(), chunks=(16, 16, 3)),
}


@pytest.fixture
def place(tmp_path):
    """A folder with nothing but the output."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_finished_is_returned_and_nothing_is_written(kind, name, tmp_path, place):
    what = INPUTS[kind](tmp_path)
    outputs = ALL if name.endswith("zarr") else ("classes", "recolored")
    made = segmented(what).export(place / name, outputs)
    before = states(tmp_path)
    again = segmented(what).export(place / name, outputs, resume=True)
    assert again == made == Manifest.load(place / name)
    assert states(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_output_that_may_not_be_written_is_fine(name, tmp_path, place):
    path = source(tmp_path)
    made = segmented(path).export(place / name)
    command = ["segment", str(path), str(place / name), *OPTIONS, "--resume"]
    may = ["unshare", "-rm", "sh", "-c", f"mount --bind {place} {place}"]
    if sys.platform != "linux" or subprocess.run(may, capture_output=True).returncode:
        pytest.skip("NOT TESTED: mounting in a namespace of its own is not allowed here.")
    program = (
        f"from resume_tools import *; from napari_pixseg import cli; make_small(); "
        f"raise SystemExit(cli.main({command!r}))"
    )
    paths = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    script = f'mount --bind {place} {place} && mount -o remount,ro,bind {place} && exec $0 -c "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, program],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == made.id


@pytest.mark.parametrize("name", NAMES)
def test_the_command_gives_the_same_answer_again(name, tmp_path, place, capsys):
    command = ["segment", str(source(tmp_path)), str(place / name), *OPTIONS, "--resume"]
    answers, before = [], None
    for _ in range(3):
        assert cli.main(command) == 0
        answers.append(capsys.readouterr().out)
        assert before in (None, states(place))
        before = states(place)
    assert len(set(answers)) == 1


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png", "out.tif"])
def test_what_is_finished_in_an_object_store_is_returned(name, tmp_path):
    files = fsspec.filesystem("memory")
    files.store.clear()
    path, url = source(tmp_path), f"memory://finished/{name}"
    made = segmented(path).export(url)
    before = {name: file.modified for name, file in files.store.items()}
    assert segmented(path).export(url, resume=True) == made
    assert {name: file.modified for name, file in files.store.items()} == before
    with pytest.raises(OutputConflict, match=r"st was 0\.1 and is now 3"):
        segmented(path, st=3).export(url, resume=True)
    files.store.clear()


def refused(place, match, call):
    before = states(place)
    with pytest.raises(OutputConflict, match=match) as caught:
        call()
    assert caught.value.manifest.status == 409
    assert "\n" not in str(caught.value)
    assert states(place) == before


@pytest.mark.parametrize("name", NAMES)
def test_other_parameters_and_inputs_are_refused_and_named(name, tmp_path, place):
    path = source(tmp_path)
    segmented(path).export(place / name)
    again = partial(segmented(path, st=3).export, place / name, resume=True)
    refused(place, r"cannot be resumed, because st was 0\.1 and is now 3", again)
    (tmp_path / "other").mkdir()
    other = source(tmp_path / "other")
    again = partial(segmented(other).export, place / name, resume=True)
    refused(place, r"the input's uri was .* and is now", again)
    chunk = path / "c/0/0/0"
    os.utime(chunk, ns=(1, 1))
    again = partial(segmented(path).export, place / name, resume=True)
    refused(place, "files of the input were written since", again)


def test_other_outputs_are_refused(tmp_path, place):
    path = source(tmp_path)
    segmented(path).export(place / "out.ome.zarr")
    again = partial(segmented(path).export, place / "out.ome.zarr", ALL, resume=True)
    refused(place, "outputs was .* and is now", again)


@pytest.mark.parametrize("name", NAMES)
def test_other_pixels_in_memory_are_refused(name, place):
    segmented(picture()).export(place / name)
    again = partial(segmented(255 - picture()).export, place / name, resume=True)
    refused(place, "the hash of its colors was", again)


@pytest.mark.parametrize(
    "lost",
    ["labels/classes/0/c/1/1", "1/c/0/0/0", "0/zarr.json", "zarr.json", TABLE_NAME, "empty", "cut"],
)
def test_a_finished_store_that_lacks_something_is_made_whole(lost, tmp_path, place, caplog):
    path, output = source(tmp_path), place / "out.ome.zarr"
    segmented(path).export(output, ALL)
    whole = products(output)
    if lost in ("empty", "cut"):
        chunk = output / "2/c/0/0/0"
        os.truncate(chunk, chunk.stat().st_size - 1 if lost == "cut" else 0)
    else:
        (output / lost).unlink()
    assert segmented(path).export(output, ALL, resume=True).status == 200
    assert products(output) == whole
    assert "was finished, but" in caplog.text


@pytest.mark.parametrize("text", ["", "\0" * 300, "{", None])
def test_a_store_whose_manifest_is_torn_is_not_finished(text, tmp_path, place):
    path, output = source(tmp_path), place / "out.ome.zarr"
    segmented(path).export(output, ALL)
    whole = products(output)
    (output / MANIFEST_NAME).unlink()
    if text is not None:
        (output / MANIFEST_NAME).write_text(text)
    assert segmented(path).export(output, ALL, resume=True).status == 200
    assert products(output) == whole
    assert Manifest.load(output).status == 200


def test_a_finished_store_without_its_record_is_finished(tmp_path, place):
    path, output = source(tmp_path), place / "out.ome.zarr"
    made = segmented(path).export(output)
    (output / RECORD_NAME).unlink()
    assert segmented(path).export(output, resume=True) == made
    (output / "zarr.json").unlink()
    with pytest.raises(OutputConflict, match=r"pixseg-run\.json cannot be read"):
        segmented(path).export(output, resume=True)


@pytest.mark.parametrize("name", ["out.png", "out.tif"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "edited"])
def test_a_finished_picture_that_is_another_file_is_not_reported_as_fine(
    name, damage, tmp_path, place
):
    path, output = source(tmp_path), place / name
    segmented(path).export(output)
    whole = output.read_bytes()
    other = {"cut": whole[:-9], "zeros": bytes(len(whole)), "edited": whole + b"!"}[damage]
    output.write_bytes(other)
    match = "the file is not the one that its manifest describes"
    refused(place, match, partial(segmented(path).export, output, resume=True))
    segmented(path).export(output, overwrite=True)
    assert output.read_bytes() == whole


@pytest.mark.parametrize("name", ["out.png", "out.tif"])
def test_a_picture_of_a_run_killed_before_its_manifest_is_made_anew(name, tmp_path, place):
    path, output = source(tmp_path), place / name
    program = (
        "import os, sys\nfrom resume_tools import *\n"
        "from napari_pixseg.export.output_location import OutputLocation\nmake_small()\n"
        "OutputLocation.write_bytes = lambda *_: os.kill(os.getpid(), 9)\n"
        "segmented(sys.argv[1]).export(sys.argv[2], resume=True)"
    )
    paths = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    command = [sys.executable, "-c", program, str(path), str(output)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": paths})
    assert output.exists()
    assert not output.with_name(f"{name}.json").exists()
    with pytest.raises(OutputConflict, match="exists already"):
        segmented(path).export(output)
    made = segmented(path).export(output, resume=True)
    assert Manifest.load(output) == made
    assert sorted(os.listdir(place)) == [name, f"{name}.json"]
    # A picture of somebody else has no lock beside it.
    output.with_name(f"{name}.json").unlink()
    with pytest.raises(OutputConflict, match="not an unfinished output of this program"):
        segmented(path).export(output, resume=True)


def test_a_finished_run_that_skipped_damage_is_returned_without_reading(tmp_path, place):
    path, output = source(tmp_path), place / "out.ome.zarr"
    os.truncate(path / "c/1/1/0", 20)
    made = segmented(path).export(output, on_error="skip")
    assert made.details["skipped"]["chunks"]
    before = states(tmp_path)
    steps = []
    again = segmented(path).export(output, on_error="skip", resume=True, on_event=steps.append)
    assert (again, steps) == (made, [])
    assert states(tmp_path) == before
    refused(place, "left out as damaged and now is not",
            partial(segmented(path).export, output, resume=True))  # fmt: skip


def test_an_unfinished_output_is_still_finished(tmp_path, place):
    path, output = source(tmp_path), place / "out.ome.zarr"
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(15))
    made = segmented(path).export(output, ALL, resume=True)
    before = content(output)
    assert segmented(path).export(output, ALL, resume=True) == made
    assert content(output) == before
    assert np.array_equal(made.details["input"]["shape"], picture().shape)
