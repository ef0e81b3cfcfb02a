"""What is written does not depend on the settings of the process that writes it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from resume_tools import ALL, cancelled_at, make_small, picture, segmented

from napari_pixseg import segment
from napari_pixseg.errors import Cancelled, OutputConflict

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
# In C's locale Python takes names of files for ASCII, unless it is told otherwise.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
ZARR = """
import zarr
zarr.config.set({
    "default_zarr_format": 2, "array.write_empty_chunks": False, "array.order": "F",
    "async.concurrency": 1, "threading.max_workers": 1, "codec_pipeline.batch_size": 3,
})
"""
DASK = """
import dask
dask.config.set({
    "scheduler": "threads", "num_workers": 7, "array.chunk-size": "100B",
    "array.slicing.split-large-chunks": True, "array.rechunk.method": "tasks",
    "optimization.fuse.active": True, "optimization.annotations.fuse": False,
})
"""
PILLOW = """
import numpy
from PIL import ImageFile
numpy.seterr(all="raise")
ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK = True, 1 << 20
"""
# Variables of the environment, and what the program does before it loads the package. Settings that
# do not meddle with each other share a process.
SETTINGS = {
    "zarr's variables, one thread, a loose mask": (
        {"ZARR_DEFAULT_ZARR_FORMAT": "2", "ZARR_ARRAY__ORDER": "F", "ZARR_ASYNC__CONCURRENCY": "1",
         "ZARR_ARRAY__WRITE_EMPTY_CHUNKS": "False", "OMP_NUM_THREADS": "1",
         "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "BLOSC_NTHREADS": "1",
         "TZ": "America/St_Johns", "PYTHONHASHSEED": "0"},
        "import os; os.umask(0o000)"),
    "configurations of zarr and Dask, a strict program, two threads": (
        {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
         "OPENBLAS_CORETYPE": "Nehalem",
         "PYTHONWARNINGS": "error::RuntimeWarning,error::FutureWarning"},
        ZARR + DASK + PILLOW),
    "Dask on one thread, C's locale, a strict mask, another time": (
        {**ASCII, "DASK_SCHEDULER": "synchronous", "DASK_ARRAY__CHUNK_SIZE": "1KiB",
         "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"},
        "import os, dask; os.umask(0o077); dask.config.set(scheduler='synchronous')"),
}  # fmt: skip


def write_inputs(folder):
    folder.mkdir()
    zarr.create_array(folder / "a.zarr", data=picture(), chunks=(8, 8, 3))
    zarr.create_array(folder / "f.zarr", data=picture(np.float32), chunks=(4, 4, 3),
                      shards=(8, 8, 3))  # fmt: skip
    tifffile.imwrite(folder / "w.tif", picture(np.uint16), photometric="rgb", tile=(16, 16))
    Image.fromarray(picture()).save(folder / "größe.png")


def export_all(inputs, output):
    """Write one output of each kind, as the settings of this process are."""
    make_small()
    output.mkdir()
    segmented(inputs / "a.zarr").export(output / "a.ome.zarr", ALL)
    segmented(inputs / "f.zarr", cs="Lab").export(output / "f.ome.zarr", ALL)
    segment(inputs / "w.tif", st=0.5, denoise=3).export(output / "w.ome.zarr", ALL)
    with pytest.raises(Cancelled):
        segmented(inputs / "a.zarr").export(output / "r.ome.zarr", ALL, **cancelled_at(14))
    segmented(inputs / "a.zarr").export(output / "r.ome.zarr", ALL, resume=True)
    for name in ("o.png", "o.jpg", "o.tif"):
        segment(inputs / "w.tif", ct=0.5).export(output / name, ["recolored"])
    # As the operating system gives a name of UTF-8, whatever this process takes it for.
    name = os.fsdecode("größe".encode())
    segment(inputs / f"{name}.png", ct=0.1).export(output / f"{name}.ome.zarr")


def content(folder):
    """Every file, byte for byte but for ids and times."""
    own = re.compile(rb'"(id|started|finished|ended|since|host)": "[^"]*"|"pid": \d+')
    files = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            name = os.fsencode(path.relative_to(folder))
            files[name] = own.sub(b"-", data) if path.suffix == ".json" else data
    return files


def written(folder, variables, program):
    """Run a process of its own and return what it wrote; always at the same path."""
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    paths = [*sys.path, str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, __file__, folder / "in", output, program],
        env={**PLAIN, "PYTHONPATH": os.pathsep.join(paths), **variables},
        capture_output=True, text=True, errors="replace", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return content(output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    write_inputs(folder / "in")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return written(folder, {}, "")


def refuse_differences(found, expected):
    assert len(expected) > 200
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_byte_is_the_same_whatever_is_set(setting, folder, expected):
    refuse_differences(written(folder, *SETTINGS[setting]), expected)


@pytest.fixture(scope="module", params=["de_DE.UTF-8", "tr_TR.UTF-8"])
def locale(request, tmp_path_factory):
    """Variables for a locale, which is made where it is not installed."""
    installed = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout
    if request.param.replace("UTF-8", "utf8") in installed:
        return {"LC_ALL": request.param}
    folder = tmp_path_factory.mktemp("locale")
    command = ["localedef", "-i", request.param[:5], "-f", "UTF-8", str(folder / request.param)]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode > 1:
        pytest.skip(f"NOT TESTED: there is no locale {request.param}, and none can be made.")
    return {"LC_ALL": request.param, "LOCPATH": str(folder)}


def test_every_byte_is_the_same_in_other_languages(locale, folder, expected):
    program = "import locale; locale.setlocale(locale.LC_ALL, '')"
    refuse_differences(written(folder, locale, program), expected)


# Several processes ------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.png", "gray.jpg", "out.ome.zarr"])
def test_outputs_of_several_processes_are_those_of_one(name, tmp_path, monkeypatch, two_processes):
    import dask

    make_small(monkeypatch.setattr)
    options = {"cs": "GRAY"} if name == "gray.jpg" else {}
    outputs = ["classes", "recolored"] if name == "out.ome.zarr" else ["recolored"]
    result = segmented(picture(), **options)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    result.export(tmp_path / "here" / name, outputs)
    with dask.config.set(two_processes):
        segmented(picture(), **options).export(tmp_path / "there" / name, outputs)
    # Pictures are what is seen; compressed files of TIFF and zarr are compared above.
    here, there = (content(tmp_path / folder) for folder in ("here", "there"))
    for found in (here, there):
        for own in [key for key in found if key.endswith(b".json") and b"zarr.json" not in key]:
            del found[own]
    assert here == there


def test_a_picture_is_painted_in_batches_by_other_processes(tmp_path, monkeypatch, two_processes):
    import dask

    from napari_pixseg.export import picture_writer

    make_small(monkeypatch.setattr)
    monkeypatch.setattr(picture_writer, "_PIXELS_AT_ONCE", 5 * 256)
    seen = []
    segmented(picture()).export(tmp_path / "here.png", ["recolored"])
    with dask.config.set(two_processes):
        segmented(picture()).export(tmp_path / "there.png", ["recolored"], on_event=seen.append)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
    told = [step.done for step in seen if step.stage == picture_writer.STAGE]
    assert told == sorted(told)
    assert {step.total for step in seen if step.stage == picture_writer.STAGE} == {told[-1]}


# Names that are not ASCII -----------------------------------------------------


@pytest.mark.parametrize("name", ["größe.ome.zarr", "größe.png"])
def test_a_name_is_utf_8_even_where_python_takes_names_for_ascii(name, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "größe.png.png")
    done = subprocess.run(
        [sys.executable, "-m", "napari_pixseg", "segment", "größe.png.png", name, "--ct=0.1"],
        env={**PLAIN, "PYTHONPATH": os.pathsep.join(sys.path), **ASCII},
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["status"] == 200, done.stderr
    assert answer["link"] == (tmp_path / name).as_uri()
    if name.endswith(".zarr"):
        attributes = json.loads((tmp_path / name / "zarr.json").read_text())["attributes"]
        assert attributes["ome"]["multiscales"][0]["name"] == name


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
def test_an_input_whose_name_is_no_text_is_not_overwritten(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    Image.fromarray(picture()).save(path)
    with pytest.raises(OutputConflict, match="overlap"):
        segment(path, ct=0, st=0.1).export(path, ["recolored"], overwrite=True)


if __name__ == "__main__":
    exec(sys.argv[3])
    export_all(Path(sys.argv[1]), Path(sys.argv[2]))
