"""The command: one JSON manifest on standard output, one sentence on standard error."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_pixseg import Manifest, cli, demo, segment
from napari_pixseg.parameters import Parameters


@pytest.fixture
def picture(tmp_path):
    """A small picture on disk."""
    path = tmp_path / "in.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(capsys, caplog):
    """Run the command line here: exit code, standard output, what people are told."""

    def call(*arguments):
        caplog.clear()
        caplog.set_level(logging.INFO)
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        said = [r.getMessage() for r in caplog.records if r.name == "napari_pixseg"]
        return code, captured.out, said

    return call


STARTED = """
import signal, sys
# A shell may have them ignored, and nohup does.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGTERM", "SIGHUP"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
from napari_pixseg.cli import main
sys.exit(main())
"""


def command(*arguments, how=("-m", "napari_pixseg")):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *how, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process):
    """Exit code and both streams; a process that hangs is ended."""
    with process:
        try:
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()
    return process.returncode, out, err


def refused(result):
    """The one error that was said, after checking how it was said."""
    code, out, said = result
    answer = json.loads(out)
    assert code == 1
    assert set(answer) == {"status", "id", "error", "details"}
    assert said == [answer["error"]]
    assert "\n" not in answer["error"]
    assert answer["error"].endswith((".", "?", "'."))
    return answer["status"], answer["error"]


# Success ----------------------------------------------------------------------


def test_standard_output_is_the_manifest_and_nothing_else(run, picture, tmp_path):
    output = tmp_path / "out.ome.zarr"
    code, out, _ = run("segment", picture, output, "--ct", "0", "--st", "0.1")
    assert code == 0
    manifest = Manifest.from_json(out)
    assert manifest == Manifest.load(output)
    assert (manifest.status, manifest.link) == (200, output.as_uri())
    expected = segment(picture, ct=0, st=0.1)
    written = zarr.open_array(output / "labels/classes/0", mode="r")
    np.testing.assert_array_equal(written, expected.classes)


def test_a_process_speaks_to_programs_on_one_stream_and_to_people_on_the_other(picture, tmp_path):
    good = command("segment", picture, tmp_path / "out.ome.zarr", "--ct=0", "--st=0.1")
    bad = command("segment", tmp_path / "no.png", tmp_path / "other.ome.zarr")
    code, out, err = finished(good)
    assert (code, err) == (0, "")
    assert Manifest.from_json(out).status == 200
    code, out, err = finished(bad)
    answer = json.loads(out)
    assert (code, answer["status"], err) == (1, 404, answer["error"] + "\n")
    assert not (tmp_path / "other.ome.zarr").exists()


def test_every_parameter_has_an_option_that_reaches_it(run, tmp_path):
    stack = np.random.default_rng(1).integers(0, 4000, (5, 3, 20, 20), np.uint16)
    array = zarr.create_array(tmp_path / "in.zarr", shape=stack.shape, dtype=stack.dtype)
    array[...] = stack
    chosen = {
        "ct": 0.25, "cs": 5, "st": 0.5, "semantics": "documented", "denoise": 2,
        "window": ((0.0, 4000.0), (1.0, 3000.0)), "axes": "czyx", "channels": (4, 1),
        "connectivity": 3, "background": (2, 1), "min_size": 7,
    }  # fmt: skip
    assert set(chosen) == set(Parameters().to_dict())
    texts = {**chosen, "cs": "lab", "window": "0:4000,1:3000", "channels": "4,1"}
    texts |= {"background": "2,1"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in texts.items()]
    code, out, _ = run("segment", tmp_path / "in.zarr", tmp_path / "out.ome.zarr", *options)
    assert code == 0, out
    assert Manifest.from_json(out).parameters == Parameters(**chosen)


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [("--window=minmax", "window", "minmax"), ("--window=dtype", "window", "dtype"),
     ("--window=3:9", "window", ((3.0, 9.0),)), ("--background=largest", "background", "largest"),
     ("--semantics=imagemagick6", "semantics", "imagemagick6"), ("--cs=14", "cs", 14)],
)  # fmt: skip
def test_options_take_words_and_numbers(run, picture, tmp_path, option, name, value):
    _, out, _ = run("segment", picture, tmp_path / "out.ome.zarr", "--st=0.1", "--ct=0", option)
    assert getattr(Manifest.from_json(out).parameters, name) == value


def test_outputs_are_chosen_and_overwriting_must_be_asked_for(run, picture, tmp_path):
    output = tmp_path / "out.ome.zarr"
    arguments = ["segment", picture, output, "--st=0.1", "--ct=0"]
    assert run(*arguments, "--outputs", "classes")[0] == 0
    assert not (output / "0").exists()
    status, error = refused(run(*arguments))
    assert status == 409
    assert "overwrite" in error
    assert run(*arguments, "--overwrite")[0] == 0
    assert (output / "0").exists()


def test_the_parameters_of_a_manifest_are_a_start(run, picture, tmp_path):
    first = tmp_path / "one.ome.zarr"
    run("segment", picture, first, "--ct=0.3", "--cs=Lab", "--st=0.2", "--denoise=1")
    code, out, _ = run("segment", picture, tmp_path / "two.png", "--parameters", first)
    assert code == 0
    again = Manifest.from_json(out)
    assert again.parameters == Manifest.load(first).parameters
    assert again.details["classes"] == Manifest.load(first).details["classes"]
    _, out, _ = run("segment", picture, tmp_path / "3.png", "--parameters", first, "--st=0.4")
    changed = Manifest.load(first).parameters.replace(st=0.4)
    assert Manifest.from_json(out).parameters == changed


def test_people_are_told_what_was_guessed_and_what_to_doubt(run, tmp_path):
    array = zarr.create_array(tmp_path / "in.zarr", shape=(8, 9), dtype=np.uint8)
    array[...] = 7
    code, out, said = run("segment", tmp_path / "in.zarr", tmp_path / "out.ome.zarr")
    assert code == 0
    assert any("guessed" in line and "'yx'" in line for line in said)
    assert any("only one class" in line for line in said)
    assert Manifest.from_json(out).details["warnings"]


# Failure ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ct=101"], "ct = 101"),
        (["--ct=nan"], "ct = nan"),
        (["--ct=many"], "ct = 'many' is not a finite number; it must be 0 to 100"),
        (["--st=1,5"], "st = '1,5' is not a finite number; it must be above 0, to 255"),
        (["--cs=0"], "cs = '0'"),
        (["--st=0"], "st = 0"),
        (["--denoise=33"], "denoise = 33"),
        (["--denoise=1.5"], "denoise = '1.5' must be a whole number, 0 to 32"),
        (["--window=9:3"], "low above high"),
        (["--window=wide"], "window"),
        (["--window=5"], "'5' must be dtype, minmax, LOW:HIGH"),
        (["--window=5:6:7"], "'5:6:7' must be dtype, minmax, LOW:HIGH"),
        (["--axes=yxq"], "axes = 'yxq'"),
        (["--axes=zyxc"], "3"),
        (["--channels=0,x"], "channels = '0,x' must be one to three indices from 0"),
        (["--channels=3"], "channels 0 to 2"),
        (["--connectivity=3"], "1 to 2"),
        (["--connectivity=all"], "connectivity = 'all' must be a whole number, 1 to 3"),
        (["--background=0"], "background = 0"),
        (["--background=large"], "background = 'large' must be 'largest', or class numbers"),
        (["--min-size=-1"], "min_size = -1"),
        (["--min-size=1e3"], "min_size = '1e3' must be a whole number, 0 or more"),
        (["--key-file=secret"], "give --endpoint, too"),
        (["--semantics=gimp"], "--semantics"),
        (["--outputs=pony"], "'pony'"),
        (["--outputs="], "nothing"),
        (["--pony"], "--pony"),
    ],
)
def test_a_bad_value_is_a_manifest_with_400(run, picture, tmp_path, options, words):
    status, error = refused(run("segment", picture, tmp_path / "out.ome.zarr", *options))
    assert status == 400
    assert words in error
    assert not any(name in error for name in (" _window", " _indices", " _background"))
    assert not (tmp_path / "out.ome.zarr").exists()


@pytest.mark.parametrize("arguments", [[], ["pony"], ["segment"], ["segment", "a"], ["info"]])
def test_an_incomplete_command_is_a_manifest_with_400(run, arguments):
    status, error = refused(run(*arguments))
    assert status == 400
    assert "--help" in error


def test_failures_have_the_codes_of_the_table(run, picture, tmp_path):
    (tmp_path / "notes.txt").write_text("This is no image.\n")
    (tmp_path / "empty").mkdir()
    stack = zarr.create_array(tmp_path / "stack.zarr", shape=(2, 8, 8), dtype=np.uint8)
    stack[...] = np.arange(128).reshape(2, 8, 8)
    output = tmp_path / "out.ome.zarr"
    assert refused(run("segment", tmp_path / "no.png", output))[0] == 404
    assert refused(run("segment", tmp_path / "notes.txt", output))[0] == 415
    assert refused(run("segment", tmp_path / "empty", output))[0] == 415
    assert refused(run("segment", picture, picture, "--overwrite"))[0] == 409
    (tmp_path / "notes").write_text("This is no output.\n")
    assert refused(run("segment", picture, tmp_path / "notes", "--overwrite"))[0] == 409
    assert (
        refused(run("segment", tmp_path / "stack.zarr", tmp_path / "out.png", "--axes=zyx"))[0]
        == 413
    )
    assert refused(run("segment", picture, output, "--parameters", tmp_path / "no"))[0] == 404
    notes = tmp_path / "notes.txt.json"
    notes.write_text("[]")
    assert refused(run("segment", picture, output, "--parameters", notes))[0] == 400
    assert not output.exists()
    status, error = refused(run("segment", picture, output, "--ct=100", "--st=0.1"))
    assert status == 422
    assert "largest box" in error


def test_a_fault_of_ours_is_a_manifest_with_500(run, picture, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("1 / 0")

    monkeypatch.setattr(cli, "_given_parameters", fail)
    status, error = refused(run("segment", picture, tmp_path / "out.ome.zarr"))
    assert status == 500
    assert "ZeroDivisionError" in error


@pytest.mark.skipif(os.name != "posix", reason="Interrupts are sent as signals.")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_end_ends_a_run_with_499_and_an_unfinished_output(name, tmp_path):
    source, output = tmp_path / "in.zarr", tmp_path / "out.ome.zarr"
    demo.write_mosaic(source, (8, 8))
    arguments = ["segment", source, output, "--axes=yxc", "--denoise=30"]
    process, record = command(*arguments, how=("-c", STARTED)), output / "pixseg-run.json"
    for _ in range(600):
        if record.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    code, out, err = finished(process)
    assert (code, json.loads(out)["status"]) == (1, 499)
    assert "cancelled" in err
    assert json.loads(record.read_text())["state"] == "cancelled"
    assert not (output / "manifest.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's.")
@pytest.mark.parametrize("how", [">/dev/full", "| true", ">&-", "2>&-"])
def test_an_answer_that_nobody_takes_is_no_fault(how, picture, tmp_path):
    line = f"{sys.executable} -m napari_pixseg segment {picture} {tmp_path}/out.png --ct=0 {how}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment)
    assert (tmp_path / "out.png.json").exists()
    assert "Traceback" not in done.stderr
    if how == ">/dev/full":
        assert done.returncode == 1
        assert "could not be written to standard output" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's.")
def test_help_that_nobody_takes_is_an_error():
    line = f"{sys.executable} -m napari_pixseg segment --help >/dev/full"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "could not be written to standard output" in done.stderr


def test_standard_output_is_no_place_for_an_output(run, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, error = refused(run("segment", picture, "-"))
    assert status == 400
    assert "./-" in error
    assert os.listdir() == [picture.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file.")
@pytest.mark.parametrize("policy", [(), ("--overwrite",), ("--resume",)])
def test_a_device_is_no_place_for_an_output(run, picture, policy):
    status, error = refused(run("segment", picture, "/dev/null", *policy))
    assert status == 409
    assert error.startswith("file:///dev/null exists and is no")


@pytest.mark.parametrize("name", ["out.foo", "out.png.gz", "out.h5", "out.zip"])
def test_an_ending_of_another_format_is_refused(run, picture, tmp_path, name):
    status, error = refused(run("segment", picture, tmp_path / name))
    assert status == 400
    assert name in error
    assert ".ome.zarr" in error
    assert not (tmp_path / name).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's.")
@pytest.mark.parametrize("folder", ["/proc", "/proc/nope", "/usr/../proc/nope"])
@pytest.mark.parametrize("name", ["a.png", "a.ome.zarr"])
def test_a_folder_that_cannot_be_written_or_made_is_named(run, picture, folder, name):
    status, error = refused(run("segment", picture, f"{folder}/{name}"))
    assert status == 507
    assert f"{folder}/{name} cannot be written" in error
    assert "choose another path" in error


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("napari-pixseg 0.")


# info and demo ----------------------------------------------------------------


def test_info_says_what_it_sees_and_what_a_run_would_cost(run, tmp_path):
    array = zarr.create_array(
        tmp_path / "in.zarr", shape=(3, 50, 60), chunks=(1, 25, 30), dtype=np.uint16,
        dimension_names=["z", "y", "x"],
    )  # fmt: skip
    array[0, 0, 0] = 1
    code, out, said = run("info", tmp_path / "in.zarr")
    assert code == 0
    assert said == []
    lines = dict(line.split(":", 1) for line in out.splitlines())
    seen = {name: text.strip() for name, text in lines.items()}
    assert seen["axes"] == "zyx"
    assert seen["shape"] == "3 x 50 x 60"
    assert seen["dtype"] == "uint16"
    assert seen["chunks"] == "1 x 25 x 30"
    assert seen["size"].startswith("0.0 megapixels")
    assert {"time", "memory"} <= set(seen)


def test_info_reports_a_guess_and_refuses_like_segment(run, picture, tmp_path):
    code, out, _ = run("info", picture, "--axes", "yxc", "--channels", "0,2")
    assert code == 0
    assert "(0, 2)" in out
    assert refused(run("info", tmp_path / "no.png"))[0] == 404
    assert refused(run("info", picture, "--axes=yx"))[0] == 400


def test_the_demo_leaves_an_image_its_manifest_and_a_picture(run, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_COPIES", (2, 3))
    for _ in range(2):  # the second replaces the first
        code, out, said = run("demo", tmp_path / "demo")
        assert code == 0
        manifest = Manifest.from_json(out)
    assert manifest == Manifest.load(tmp_path / "demo/ihc-segmented.ome.zarr")
    assert len(manifest.details["classes"]) > 1
    with Image.open(tmp_path / "demo/ihc-before-after.png") as picture:
        assert picture.size == (1024, 512)
    assert sum(str(tmp_path) in line for line in said) == 3
    classes = zarr.open_array(tmp_path / "demo/ihc-segmented.ome.zarr/labels/classes/0", mode="r")
    assert classes.shape == (1024, 1536)
