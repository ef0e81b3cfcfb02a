"""Runs that cannot be resumed are refused in one sentence that says why."""

import json
import os

import pytest
import tifffile
from resume_tools import cancelled_at, content, make_small, picture, segmented, source

from napari_pixseg import Manifest, cli
from napari_pixseg.errors import Cancelled, ClassError, OutputConflict, ParameterError
from napari_pixseg.export.output_location import RECORD_NAME


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


@pytest.fixture
def half(tmp_path, output):
    """An input, and an output of it that was cancelled halfway."""
    path = source(tmp_path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, **cancelled_at(15))
    return path


def refused(output, match, call):
    """Check that a call is refused in one sentence with code 409 and changes nothing."""
    before = content(output)
    with pytest.raises(OutputConflict, match=match) as caught:
        call()
    assert caught.value.manifest.status == 409
    assert "\n" not in str(caught.value)
    assert content(output) == before


PARAMETERS = {
    "st": ({"st": 3}, r"st was 0\.1 and is now 3"),
    "cs": ({"cs": "YUV"}, "cs was 13 and is now 11"),
    "background": ({"background": (1,)}, r"background was null and is now \[1\]"),
    "two": ({"ct": 2, "denoise": 1}, r"ct was 0(\.0)? and is now 2(\.0)?, and denoise was 0 and"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_other_parameters_are_refused_and_named_with_both_values(name, half, output):
    options, match = PARAMETERS[name]
    refused(output, match, lambda: segmented(half, **options).export(output, resume=True))


def test_other_outputs_are_refused(half, output):
    match = r'outputs was \["classes", "recolored"\] and is now \["classes"\]'
    refused(output, match, lambda: segmented(half).export(output, ["classes"], resume=True))
    assert segmented(half).export(output, ["recolored", "classes"], resume=True).status == 200


def test_another_version_of_this_package_is_refused(half, output):
    values = json.loads((output / RECORD_NAME).read_text())
    values["software"]["napari-pixseg"] = "0.0.1"
    (output / RECORD_NAME).write_text(json.dumps(values))
    match = r"napari-pixseg was 0\.0\.1 and is now"
    refused(output, match, lambda: segmented(half).export(output, resume=True))


def test_another_input_is_refused(half, tmp_path, output):
    other = tmp_path / "other"
    other.mkdir()
    path = source(other)
    match = r"the input's uri was file:.*in\.zarr and is now file:.*other"
    refused(output, match, lambda: segmented(path).export(output, resume=True))


def test_a_file_that_was_written_again_is_refused(tmp_path, output):
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, picture(), photometric="rgb")
    with pytest.raises(Cancelled):
        segmented(path).export(output, **cancelled_at(4))
    os.utime(path, ns=(1, 1))
    match = r"cannot be resumed, because the input has been written since; use what"
    refused(output, match, lambda: segmented(path).export(output, resume=True))


def test_what_is_not_ours_is_not_resumed(output):
    output.mkdir()
    (output / "diary.txt").write_text("precious")
    match = "not an unfinished output of this program"
    refused(output, match, lambda: segmented(picture()).export(output, resume=True))


def test_a_record_that_cannot_be_read_is_refused(half, output):
    for text in ("[", "{}", '{"parameters": 3, "input": 4}'):
        (output / RECORD_NAME).write_text(text)
        match = "pixseg-run.json cannot be read"
        refused(output, match, lambda: segmented(half).export(output, resume=True))


def test_an_array_with_other_codecs_is_refused(half, output):
    metadata = output / "labels/classes/0/zarr.json"
    values = json.loads(metadata.read_text())
    values["codecs"] = values["codecs"][:1]
    metadata.write_text(json.dumps(values))
    with pytest.raises(OutputConflict, match="metadata of labels/classes/0 are not"):
        segmented(half).export(output, resume=True)


def test_resume_and_overwrite_exclude_each_other(output):
    with pytest.raises(ParameterError, match="not both"):
        segmented(picture()).export(output, overwrite=True, resume=True)
    assert not output.exists()


def test_without_resume_the_sentence_says_that_one_may(half, output):
    match = (
        r"unfinished; ask to resume it \(.*--resume\), choose another path, or ask to overwrite it"
    )
    refused(output, match, lambda: segmented(half).export(output))


def test_a_resumed_run_without_classes_says_so_and_keeps_no_colors(tmp_path, output):
    path = source(tmp_path)
    for resume in (False, True):
        with pytest.raises(ClassError):
            segmented(path, ct=100).export(output, resume=resume)
        assert os.listdir(output) == [RECORD_NAME]


def test_the_command_resumes(half, output, capsys):
    options = ["--axes", "yxc", "--ct", "0", "--st", "0.1", "--cs", "sRGB"]
    command = ["segment", str(half), str(output), *options]
    assert cli.main(command) == 1
    assert "unfinished; ask to resume it" in json.loads(capsys.readouterr().out)["error"]
    assert cli.main([*command, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == Manifest.load(output).id


def test_a_folder_of_others_is_not_said_to_be_replaceable(half, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not to be lost")
    refused(
        tmp_path / "mine",
        "is not an output of this kind, so it is not overwritten; choose another path",
        lambda: segmented(half).export(tmp_path / "mine"),
    )
    assert (tmp_path / "mine" / "notes.txt").exists()
