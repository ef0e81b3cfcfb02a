"""Odd inputs, odd outputs and odd processes: one sentence, the right status, and never 500."""

import copy
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from resume_tools import ALL, cancelled_at, content, make_small, picture, products, segmented

from napari_pixseg import cli, segment
from napari_pixseg.errors import Cancelled, NotAnImage, OutputConflict, PixsegError
from napari_pixseg.export.output_location import RECORD_NAME
from napari_pixseg.sources import zarr_store
from napari_pixseg.sources.location import locate

DEEP = b'{"a":' * 200_000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


def answer_of(*arguments, limit=(), before="", cwd=None, prefix=()):
    """Run the command in a process of its own; return its status and its sentence."""
    program = (
        f"import resource, os, sys\n{before}\nfrom napari_pixseg.cli import main\nsys.exit(main())"
    )
    if limit:
        name, size = limit
        program = (
            f"import resource\nresource.setrlimit(resource.{name}, ({size}, {size}))\n{program}"
        )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True, text=True, timeout=120, cwd=cwd,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    answer = json.loads(done.stdout)
    return answer["status"], answer.get("error", "")


def refused(*arguments, **options):
    """The same for what must be refused in one sentence that is not about our own faults."""
    status, sentence = answer_of(*arguments, **options)
    assert 400 <= status < 600, status
    assert status != 500, sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Error" not in sentence
    return status, sentence


# Metadata that are spoiled -----------------------------------------------------


def old_ome_zarr(path):
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", data=picture()[..., 0], chunks=(8, 8))
    axes = [{"name": "y", "type": "space", "unit": "micrometer"}, {"name": "x", "type": "space"}]
    scale = [{"type": "scale", "scale": [1.0, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": levels}]
    return path


def new_ome_zarr(path):
    segmented(picture()).export(path, ["recolored"])
    return path


def sharded(path):
    zarr.create_array(path, data=picture(), chunks=(4, 4, 3), shards=(8, 8, 3))
    return path


STORES = {
    "old": (old_ome_zarr, [".zattrs", ".zgroup", "0/.zarray"]),
    "new": (new_ome_zarr, ["zarr.json", "0/zarr.json", "1/zarr.json"]),
    "sharded": (sharded, ["zarr.json"]),
}
# What is in place of a document; None for half of it.
SPOILED = {"empty": b"", "half": None, "no text": b"\xff\xfe\0\1" * 50, "deep": DEEP,
           "a list": b"[]", "null": b"null", "many digits": b'{"shape":' + b"9" * 10_000 + b"}",
           "infinite": b'{"shape": [Infinity, 1e999]}'}  # fmt: skip


@pytest.mark.parametrize("spoiled", SPOILED)
@pytest.mark.parametrize("kind", STORES)
def test_spoiled_metadata_of_an_input_are_refused(kind, spoiled, tmp_path):
    make, documents = STORES[kind]
    path = make(tmp_path / "in.zarr")
    for name in documents:
        document = path / name
        before = document.read_bytes()
        document.write_bytes(SPOILED[spoiled] or before[: len(before) // 2])
        refuse_in_one_sentence(path)
        document.write_bytes(before)


def refuse_in_one_sentence(path):
    """Open what can be opened; what cannot is refused. Some documents can be done without."""
    errors = []
    try:
        segment(path, ct=0.1)
        zarr_store.coarser_levels(locate(path))
    except PixsegError as error:
        errors.append(error)
    assert {error.status for error in errors} <= {400, 404, 413, 415}
    assert not any("\n" in str(error) for error in errors)


VALUES = [None, True, 0, -1, 1, 2.5, float("nan"), float("inf"), 10**30, "", "x", "ä" * 9, "..",
          [], {}, [[]], [1], ["a"], [None], {"a": 1}, {"name": "bytes"}, [{"name": "zstd"}],
          [0, 0], [0, 0, 0], [-1, -1, -1], [2**63, 2**63]]  # fmt: skip


def paths_in(document, path=()):
    yield path
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield from paths_in(document[key], (*path, key))


def mutated(chance, document):
    """A document of which one value, somewhere, is another or is gone."""
    document, value = copy.deepcopy(document), chance.choice(VALUES)
    *way, last = chance.choice([path for path in paths_in(document) if path])
    place = document
    for key in way:
        place = place[key]
    if chance.random() < 0.2 and isinstance(place, dict):
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", STORES)
def test_any_wrong_value_in_the_metadata_of_an_input_is_one_sentence(kind, seed, tmp_path):
    make, documents = STORES[kind]
    path = make(tmp_path / "in.zarr")
    chance = random.Random(seed)
    for _ in range(40):
        document = path / chance.choice(documents)
        before = document.read_bytes()
        document.write_text(json.dumps(mutated(chance, json.loads(before))))
        refuse_in_one_sentence(path)
        document.write_bytes(before)


def test_the_sentence_does_not_speak_of_types_of_python(tmp_path):
    path = old_ome_zarr(tmp_path / "in.zarr")
    (path / ".zattrs").write_text('{"multiscales": [{"axes": 5, "datasets": [{"path": "0"}]}]}')
    with pytest.raises(NotAnImage, match="do not have the form that zarr and OME-Zarr describe"):
        segment(path)
    (path / ".zattrs").write_bytes(DEEP)
    with pytest.raises(NotAnImage, match="nest too deeply"):
        segment(path)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """An unfinished output, the finished one, and their input."""
    folder = tmp_path_factory.mktemp("outputs")
    zarr.create_array(folder / "in.zarr", data=picture(), chunks=(8, 8, 3))
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch.setattr)
        with pytest.raises(Cancelled):
            segmented(folder / "in.zarr").export(
                folder / "begun" / "out.ome.zarr", ALL, **cancelled_at(14)
            )
        segmented(folder / "in.zarr").export(folder / "whole" / "out.ome.zarr", ALL)
    return folder


@pytest.mark.parametrize("policy", [{"resume": True}, {"overwrite": True}, {}])
@pytest.mark.parametrize("spoiled", SPOILED)
@pytest.mark.parametrize(
    "name", [RECORD_NAME, "zarr.json", "labels/zarr.json", "labels/classes/0/zarr.json"]
)
def test_spoiled_documents_of_an_output_are_replaced_or_refused(
    name, spoiled, policy, outputs, tmp_path
):
    output = tmp_path / "out.ome.zarr"
    shutil.copytree(outputs / "begun" / "out.ome.zarr", output)
    before = (output / name).read_bytes()
    (output / name).write_bytes(SPOILED[spoiled] or before[: len(before) // 2])
    there = content(output)
    refused_by = None
    try:
        segmented(outputs / "in.zarr").export(output, ALL, **policy)
    except OutputConflict as error:
        refused_by = str(error)
    if refused_by is None:
        assert policy
        assert products(output) == products(outputs / "whole" / "out.ome.zarr")
    else:
        assert "\n" not in refused_by
        assert content(output) == there or policy.get("resume")


# Inputs and outputs that are no files ------------------------------------------


def make_input(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.mark.parametrize(
    "place",
    ["/", "/dev/null", "/dev/full", "/proc/out.ome.zarr", "/dev/full/out.ome.zarr", "/sys/out.png"],
)
def test_the_systems_own_places_are_no_outputs(place, tmp_path):
    make_input(tmp_path)
    for policy in ([], ["--overwrite"], ["--resume"]):
        status, _ = refused("segment", tmp_path / "in.png", place, "--ct=0.1", *policy)
        assert status in (400, 409, 507)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/urandom", "/dev/null", "/", "/proc",
                                   "/proc/self/mem", "pipe", "loop", "loop/in.png"])  # fmt: skip
def test_pipes_devices_and_loops_are_no_inputs(place, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    given = place if place.startswith("/") else tmp_path / place
    for command in (["info", given], ["segment", given, tmp_path / "out.ome.zarr"]):
        status, _ = refused(*command)
        assert status in (404, 415)
    assert not (tmp_path / "out.ome.zarr").exists()


@pytest.mark.parametrize("thing", ["pipe", "/dev/zero", "loop"])
@pytest.mark.parametrize("part", ["c/1/2/0", "c/0", "zarr.json"])
def test_pipes_devices_and_loops_are_no_parts_of_a_zarr(part, thing, tmp_path):
    zarr.create_array(tmp_path / "in.zarr", data=picture(), chunks=(8, 8, 3))
    there = tmp_path / "in.zarr" / part
    shutil.rmtree(there) if there.is_dir() else there.unlink()
    if thing == "pipe":
        os.mkfifo(there)
    else:
        there.symlink_to(there if thing == "loop" else thing)
    given = ["segment", tmp_path / "in.zarr", tmp_path / "out.ome.zarr", "--axes=yxc", "--ct=0.1"]
    status, sentence = answer_of(*given)
    # A folder of chunks that is something else holds no chunk; a warning says how many are missing.
    assert status in ((200, 422) if part == "c/0" else (404, 415, 422)), sentence
    assert status != 500


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.png"])
def test_a_current_folder_that_was_removed_is_named(output, tmp_path):
    given = make_input(tmp_path)
    (tmp_path / "gone").mkdir()
    before = "os.rmdir(os.getcwd())"
    status, sentence = refused("segment", given, output, before=before, cwd=tmp_path / "gone")
    assert status == 400
    assert "current folder was removed" in sentence
    (tmp_path / "gone").mkdir()
    status, sentence = refused("info", "in.png", before=before, cwd=tmp_path / "gone")
    assert status == 404
    assert "current folder was removed" in sentence


# Limits of the process ---------------------------------------------------------


@pytest.mark.parametrize("output", ["out.ome.zarr", "out.png", "out.tif"])
def test_a_limit_of_the_size_of_files_is_named(output, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", np.random.default_rng(0).integers(
        0, 256, (600, 600, 3)).astype(np.uint8), photometric="rgb")  # fmt: skip
    given = ["segment", tmp_path / "in.tif", tmp_path / output, "--ct=0", "--st=0.1"]
    status, sentence = refused(*given, "--outputs=recolored", limit=("RLIMIT_FSIZE", 20_000))
    assert status == 507
    assert "ulimit -f" in sentence
    assert not (tmp_path / output / "manifest.json").exists()


@pytest.mark.parametrize("spare", [1, 2])
@pytest.mark.parametrize("output", ["out.ome.zarr", "out.png"])
def test_too_few_open_files_are_named(output, spare, tmp_path):
    zarr.create_array(tmp_path / "in.zarr", data=picture(), chunks=(8, 8, 3))
    given = ["segment", tmp_path / "in.zarr", tmp_path / output, "--axes=yxc", "--ct=0.1"]
    # What is loaded before needs files of its own, and so does the loop of zarr.
    before = (
        "import napari_pixseg.segmentation, zarr, PIL.PngImagePlugin, numcodecs.zstd\n"
        "import zarr.core.sync\n"
        "zarr.core.sync._get_loop(), zarr.core.sync._get_executor()\n"
        f"free = os.dup(0) + {spare}; os.close(free - {spare})\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))"
    )
    status, sentence = refused(*given, before=before)
    assert status == 503
    assert "ulimit -n" in sentence


@pytest.mark.skipif(not shutil.which("setpriv"), reason="NOT TESTED: there is no setpriv.")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    given = make_input(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    # Root writes everywhere, unless it gives this up.
    prefix = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"]
    prefix = prefix if os.getuid() == 0 else []
    for name in ("out.ome.zarr", "out.png"):
        status, sentence = refused("segment", given, closed / name, prefix=prefix)
        assert status == 507
        assert "closed" in sentence
    assert os.listdir(closed) == []


def test_the_command_line_itself_survives_what_is_odd(capsys):
    assert cli.main(["info", "a\0b"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == 404
