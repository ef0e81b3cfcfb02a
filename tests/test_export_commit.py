"""The commit protocol: the manifest comes last, and nothing that exists is lost."""

import errno
import json
import os
import threading

import fsspec
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from resume_tools import remount, small_device

from napari_pixseg import Manifest, segment
from napari_pixseg.classification import counting
from napari_pixseg.classification import intensity_window as ranges
from napari_pixseg.errors import (
    Cancelled,
    ClassError,
    InputNotFound,
    NoSpace,
    OutputConflict,
    ParameterError,
    PixsegError,
    TooLarge,
    status_of,
)
from napari_pixseg.execution import tiling
from napari_pixseg.export import ome_zarr as store
from napari_pixseg.export import pyramid as ngff
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME, OutputLocation
from napari_pixseg.export.tile_writer import TileWriter

SHAPE = (40, 36, 3)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Several tiles and several pyramid levels for an image of 40 x 36 pixels."""
    monkeypatch.setattr(tiling, "_SMALLEST_UNIT", 4)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_SIDE", 16)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 256)
    monkeypatch.setattr(ngff, "COARSEST_SIDE", 12)


def picture(shape=SHAPE, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def segmented(dtype=np.uint8, **options):
    return segment(picture(dtype=dtype), **{"ct": 0, "st": 0.1, **options})


def content(folder):
    """Every file of a folder, byte for byte."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pixels(folder):
    """The same, without files and fields that differ from run to run."""
    own = (MANIFEST_NAME, RECORD_NAME)
    return {name: data for name, data in content(folder).items() if name not in own}


def record(folder):
    return json.loads((folder / RECORD_NAME).read_text())


def written_zarr(path):
    array = zarr.create_array(path, shape=SHAPE, chunks=(16, 16, 3), dtype=np.uint8)
    array[...] = picture()
    return path


class Crash(Exception):
    """The error that the tests raise."""


def crash(*_, **__):
    raise Crash("the lights went out")


def at_call(number, function):
    """Return the function, changed so that its n-th call crashes."""
    calls = []

    def called(*arguments, **options):
        calls.append(1)
        return crash() if len(calls) == number else function(*arguments, **options)

    return called


def full_manifest(self, data):
    return crash() if self.name == MANIFEST_NAME else WRITE(self, data)


WRITE = OutputLocation.write_bytes
STAGES = {
    "range": (ranges, "run_tiles", crash),
    "counting": (counting, "run_tiles", crash),
    "groups": (ngff, "create_group", at_call(2, ngff.create_group)),
    "arrays": (ngff.Pyramid, "create", at_call(2, ngff.Pyramid.create)),
    "all tiles": (store, "run_tiles", crash),
    "third tile": (TileWriter, "__call__", at_call(3, TileWriter.__call__)),
    "picture pyramid": (ngff.Pyramid, "build", at_call(1, ngff.Pyramid.build)),
    "label pyramid": (ngff.Pyramid, "build", at_call(2, ngff.Pyramid.build)),
    "manifest": (OutputLocation, "write_bytes", full_manifest),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_crash_leaves_no_manifest_and_a_record_that_says_why(stage, tmp_path, monkeypatch):
    output = tmp_path / "out.ome.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage])
        with pytest.raises(Crash):
            segmented(np.uint16).export(output)
    with pytest.raises(InputNotFound, match="unfinished"):
        Manifest.load(output)
    said = record(output)
    assert (said["state"], said["status"]) == ("failed", 500)
    assert "the lights went out" in said["error"]
    assert said["ended"] >= said["started"]
    # The unfinished output is replaced by a complete one.
    segmented(np.uint16).export(output, overwrite=True)
    segmented(np.uint16).export(tmp_path / "clean.ome.zarr")
    again = pixels(output)
    again["zarr.json"] = again["zarr.json"].replace(b"out.ome.zarr", b"clean.ome.zarr")
    assert again == pixels(tmp_path / "clean.ome.zarr")


def test_the_record_of_a_finished_run_tells_what_ran_on_what(tmp_path):
    manifest = segmented().export(tmp_path / "out.ome.zarr")
    said = record(tmp_path / "out.ome.zarr")
    assert said["state"] == "finished"
    assert said["id"] == manifest.id
    for name in ("parameters", "input", "color_table", "started"):
        assert said[name] == manifest.details[name]


# What exists is safe ----------------------------------------------------------


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png", "out.tif"])
def test_an_existing_output_is_refused_and_stays_as_it_is(name, tmp_path):
    segmented().export(tmp_path / name)
    before = content(tmp_path)
    with pytest.raises(OutputConflict, match=rf"/{name} exists already.*overwrite") as caught:
        segmented(st=3).export(tmp_path / name)
    assert status_of(caught.value) == 409
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png"])
def test_an_old_output_stays_complete_when_the_new_run_fails_before_writing(name, tmp_path):
    segmented().export(tmp_path / name)
    before = content(tmp_path)
    with pytest.raises(ClassError, match="largest box"):
        segmented(ct=100).export(tmp_path / name, overwrite=True)
    assert content(tmp_path) == before


def test_overwriting_replaces_everything(tmp_path):
    output = tmp_path / "out.ome.zarr"
    first = segmented().export(output)
    second = segmented(st=30).export(output, outputs=["classes"], overwrite=True)
    assert second.id == Manifest.load(output).id != first.id
    assert not (output / "0").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["holiday", "holiday.png"])
def test_a_folder_that_is_not_ours_is_never_touched(name, overwrite, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "diary.txt").write_text("precious")
    with pytest.raises(OutputConflict, match=r"not an output of this kind[^(]*remove it yourself"):
        segmented().export(folder, overwrite=overwrite)
    assert content(tmp_path) == {f"{name}/diary.txt": b"precious"}


def test_a_folder_with_the_manifest_of_another_program_is_not_ours(tmp_path):
    folder = tmp_path / "extension"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "A browser extension"}')
    with pytest.raises(OutputConflict, match="not an output of this kind"):
        segmented().export(folder, overwrite=True)
    assert list(content(folder)) == ["manifest.json"]


@pytest.mark.parametrize("policy", [{}, {"overwrite": True}])
@pytest.mark.parametrize(("name", "output"), [("notes", "notes"), ("out.png.json", "out.png")])
def test_a_file_of_others_in_the_way_is_never_removed(name, output, policy, tmp_path):
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputConflict, match=rf"/{name} exists and is not an output[^(]*yourself"):
        segmented().export(tmp_path / output, **policy)
    assert content(tmp_path) == {name: b"precious"}


def test_a_manifest_whose_picture_is_gone_is_named(tmp_path):
    segmented().export(tmp_path / "out.png")
    (tmp_path / "out.png").unlink()
    with pytest.raises(OutputConflict, match=r"/out.png.json exists already.*overwrite"):
        segmented().export(tmp_path / "out.png")
    segmented().export(tmp_path / "out.png", overwrite=True)
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "output",
    ["in.zarr", "in.zarr/", "in.zarr/result.ome.zarr", ".", "sub/../in.zarr", "link.zarr",
     "link.zarr/result.ome.zarr"],
)  # fmt: skip
@pytest.mark.parametrize("given", ["in.zarr", "./sub/../in.zarr", "link.zarr"])
def test_an_output_at_inside_or_around_the_input_is_refused(given, output, tmp_path, monkeypatch):
    written_zarr(tmp_path / "in.zarr")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "in.zarr")
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputConflict):
        segment(given, axes="yxc", ct=0, st=0.1).export(output, overwrite=True)
    assert content(tmp_path) == before


def test_a_picture_is_not_written_over_itself(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "in.png")
    before = content(tmp_path)
    with pytest.raises(OutputConflict, match="overlap"):
        segment(tmp_path / "in.png", ct=0, st=0.1).export(tmp_path / "in.png", overwrite=True)
    assert content(tmp_path) == before


def test_a_failed_run_without_data_may_simply_be_run_again(tmp_path):
    with pytest.raises(ClassError):
        segmented(ct=100).export(tmp_path / "out.ome.zarr")
    assert os.listdir(tmp_path / "out.ome.zarr") == [RECORD_NAME]
    assert segmented().export(tmp_path / "out.ome.zarr").status == 200


@pytest.mark.parametrize(
    "output",
    ["file/out.ome.zarr", "file/out.png", "folder.png", "dangling.ome.zarr", "garbage.ome.zarr",
     "gibberish://out.ome.zarr"],
)  # fmt: skip
def test_an_output_that_cannot_be_made_is_no_fault_of_ours(output, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.ome.zarr").symlink_to(tmp_path / "nowhere")
    (tmp_path / "garbage.ome.zarr").mkdir()
    (tmp_path / "garbage.ome.zarr" / RECORD_NAME).write_text("[")
    before = content(tmp_path)
    monkeypatch.setattr(counting, "run_tiles", crash)
    with pytest.raises(PixsegError) as caught:
        segmented().export(output if "://" in output else tmp_path / output)
    assert 400 <= status_of(caught.value) < 500 or status_of(caught.value) == 507
    assert content(tmp_path) == before


# Cancelled, full, read-only ---------------------------------------------------


@pytest.mark.parametrize("stage", ["colors", "classes"])
def test_a_cancelled_run_stops_and_its_record_says_so(stage, tmp_path):
    cancel, seen = threading.Event(), []

    def listen(progress):
        seen.append(progress)
        if progress.stage == stage and progress.done == 1:
            cancel.set()

    with pytest.raises(Cancelled) as caught:
        segmented().export(tmp_path / "out.ome.zarr", on_event=listen, cancel=cancel)
    assert status_of(caught.value) == 499
    assert seen[-1].stage == stage
    said = record(tmp_path / "out.ome.zarr")
    assert (said["state"], said["status"]) == ("cancelled", 499)
    assert not (tmp_path / "out.ome.zarr" / MANIFEST_NAME).exists()


def test_an_interrupt_from_the_keyboard_is_a_cancel(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "run_tiles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        segmented().export(tmp_path / "out.ome.zarr")
    assert record(tmp_path / "out.ome.zarr")["status"] == 499


def test_every_tile_of_every_stage_is_told(tmp_path):
    seen = []
    segmented().export(tmp_path / "out.ome.zarr", on_event=seen.append)
    stages = list(dict.fromkeys(p.stage for p in seen))
    # Coarser levels are written together with the finest one.
    assert stages == ["colors", "classes"]
    for stage in stages:
        steps = [(p.done, p.total) for p in seen if p.stage == stage]
        assert steps == [(n, steps[-1][1]) for n in range(steps[-1][1] + 1)]


@pytest.fixture
def device(tmp_path):
    """A file system of 200 KiB, if the test is allowed to mount one."""
    with small_device(tmp_path / "device", "200k") as folder:
        yield folder


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png", "out.tif"])
def test_a_full_disk_is_one_sentence_and_leaves_no_manifest(name, device):
    large = np.random.default_rng(1).integers(0, 256, (600, 600, 3), np.uint8)
    with pytest.raises(NoSpace, match="No space is left at file:") as caught:
        segment(large, ct=0, st=0.001, cs="sRGB").export(device / name)
    assert status_of(caught.value) == 507
    left = [path.name for path in device.rglob("*") if path.is_file()]
    assert not any("manifest" in name or "partial" in name for name in left)
    if name.endswith(("png", "tif")):
        assert left == []


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.png"])
def test_a_read_only_device_is_refused_in_one_sentence(name, device):
    remount(device, "ro")
    with pytest.raises(NoSpace, match=r"cannot be written: Read-only"):
        segmented().export(device / name)


def test_a_forbidden_folder_is_refused_before_anything_is_counted(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(OutputLocation, "write_bytes", refuse)
    monkeypatch.setattr(counting, "run_tiles", crash)
    with pytest.raises(NoSpace, match="cannot be written: Permission denied"):
        segmented().export(tmp_path / "out.ome.zarr")


# Object stores ----------------------------------------------------------------


@pytest.fixture
def bucket(s3_endpoint):
    store = fsspec.filesystem("s3")
    if not store.exists("results"):
        store.mkdir("results")
    return "s3://results"


@pytest.fixture
def url(request):
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://results"
    return request.getfixturevalue("bucket")


both = pytest.mark.parametrize("url", ["memory", "s3"], indirect=True)


@both
def test_an_object_store_gets_the_same_output_by_the_same_protocol(url, tmp_path):
    output = f"{url}/same/out.ome.zarr"
    manifest = segmented().export(output)
    assert manifest.link.startswith(url.split(":")[0] + ":")
    segmented().export(tmp_path / "out.ome.zarr")
    filesystem, path = fsspec.core.url_to_fs(output)
    names = [str(name) for name in filesystem.find(path)]
    remote = {name.split("out.ome.zarr/", 1)[1]: filesystem.cat_file(name) for name in names}
    own = (MANIFEST_NAME, RECORD_NAME)
    assert {n: d for n, d in remote.items() if n not in own} == pixels(tmp_path / "out.ome.zarr")
    assert Manifest.load(output).id == manifest.id
    with pytest.raises(OutputConflict):
        segmented().export(output)
    assert segmented(st=9).export(output, ["classes"], overwrite=True).id != manifest.id
    filesystem.invalidate_cache()
    assert not filesystem.exists(f"{path}/0")


def test_from_an_object_store_to_another_and_credentials_are_nowhere(bucket, tmp_path):
    source, output = f"{bucket}/secret/in.zarr", f"{bucket}/secret/out.ome.zarr"
    written_zarr(source)
    store, said = fsspec.filesystem("s3"), []
    options = {"axes": "yxc", "ct": 0, "st": 0.1}
    cancel = threading.Event()
    with pytest.raises(Cancelled) as caught:
        segment(source, **options).export(
            output, cancel=cancel, on_event=lambda step: step.stage == "classes" and cancel.set()
        )
    said += [str(caught.value), store.cat_file(f"{output}/{RECORD_NAME}").decode()]
    for failing in (
        lambda: segment(source, **options).export(output),
        lambda: segment(f"{bucket}/secret/none.zarr"),
        lambda: segment(source, **options).export("s3://no-such-bucket/out.ome.zarr"),
        lambda: segment(source, **{**options, "ct": 100}).export(output, overwrite=True),
    ):
        with pytest.raises(PixsegError) as caught:
            failing()
        answer = getattr(caught.value, "manifest", OutputLocation)
        said += [str(caught.value), json.dumps(answer.__dict__, default=str)]
    manifest = segment(source, **options).export(output, resume=True)
    assert manifest.link == output
    assert manifest.details["input"]["uri"] == source
    local = written_zarr(tmp_path / "in.zarr")
    segment(local, **options).export(tmp_path / "out.ome.zarr")
    names = store.find(output)
    for name in names:
        there, data = name.split("out.ome.zarr/", 1)[1], store.cat_file(name)
        if there in (MANIFEST_NAME, RECORD_NAME):
            said.append(data.decode())
        else:
            assert data == (tmp_path / "out.ome.zarr" / there).read_bytes()
    assert len(names) == len(content(tmp_path / "out.ome.zarr"))
    for text in said:
        for secret in (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]):
            assert secret not in text


@both
def test_a_crash_in_an_object_store_leaves_no_manifest(url, monkeypatch):
    output = f"{url}/crash/out.ome.zarr"
    monkeypatch.setattr(store, "run_tiles", crash)
    with pytest.raises(Crash):
        segmented().export(output)
    with pytest.raises(InputNotFound):
        Manifest.load(output)
    said = json.loads(fsspec.open(f"{output}/{RECORD_NAME}").open().read())
    assert (said["state"], said["status"]) == ("failed", 500)


@both
def test_an_object_store_gets_whole_pictures(url, monkeypatch):
    manifest = segmented().export(f"{url}/pictures/out.png")
    result = segmented()
    with fsspec.open(f"{url}/pictures/out.png") as file:
        np.testing.assert_array_equal(np.asarray(Image.open(file).convert("RGB")), result.recolored)
    assert Manifest.load(f"{url}/pictures/out.png").id == manifest.id


@both
def test_an_input_in_an_object_store_is_not_overwritten(url):
    written_zarr(f"{url}/input/in.zarr")
    result = segment(f"{url}/input/in.zarr", axes="yxc", ct=0, st=0.1)
    with pytest.raises(OutputConflict, match="overlap"):
        result.export(f"{url}/input/in.zarr", overwrite=True)


# Pictures ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".jpg"])
def test_a_picture_is_the_palette_of_the_classes(suffix, tmp_path):
    result = segmented(cs="sRGB", st=60)
    manifest = result.export(tmp_path / f"out{suffix}")
    assert manifest.link == (tmp_path / f"out{suffix}").as_uri()
    assert sorted(os.listdir(tmp_path)) == [f"out{suffix}", f"out{suffix}.json"]
    assert Manifest.load(tmp_path / f"out{suffix}").details["outputs"] == ["recolored"]
    expected = result.palette[result.classes.compute()]
    if suffix.startswith(".tif"):
        written = tifffile.imread(tmp_path / f"out{suffix}")
    else:
        with Image.open(tmp_path / f"out{suffix}") as opened:
            # The file holds a byte for each pixel, and the colors only once.
            assert opened.mode == ("RGB" if suffix == ".jpg" else "P")
            written = np.asarray(opened.convert("RGB"))
    if suffix == ".jpg":
        assert written.shape == expected.shape
        assert np.abs(written.astype(int) - expected).mean() < 8
    else:
        np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_gray_image_gives_a_gray_picture(suffix, tmp_path):
    result = segment(picture(SHAPE[:2]), ct=0, st=0.1)
    result.export(tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert written.mode == "L"
        if suffix != ".jpg":
            np.testing.assert_array_equal(np.asarray(written), result.recolored[..., 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("semantics", ["documented", "imagemagick6"])
def test_alpha_is_kept_unless_imagemagick_would_lose_it(semantics, suffix, tmp_path):
    array = picture((40, 36, 4))
    result = segment(array, ct=0, st=0.1, semantics=semantics)
    result.export(tmp_path / f"out{suffix}")
    read = tifffile.imread if suffix == ".tif" else imageio.imread
    written = read(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(written[..., :3], result.recolored)
    assert written.shape[-1] == (4 if semantics == "documented" else 3)
    if semantics == "documented":
        np.testing.assert_array_equal(written[..., 3], array[..., 3])


def test_a_tiff_holds_a_stack_and_names_its_axes(tmp_path):
    result = segment(picture((3, 40, 36, 3)), axes="zyxc", ct=0, st=0.1)
    result.export(tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.series[0].axes == "ZYXS"
        np.testing.assert_array_equal(file.series[0].asarray(), result.recolored)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_stack_is_refused_where_one_plane_fits_and_the_remedy_is_named(suffix, tmp_path):
    result = segment(picture((3, 8, 8)), axes="zyx", ct=0, st=0.1)
    with pytest.raises(TooLarge, match=r"3; write \.tif or \.ome\.zarr instead"):
        result.export(tmp_path / f"out{suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("how", ["crash", "cancel"])
def test_a_picture_that_fails_leaves_the_folder_as_it_was(suffix, how, tmp_path, monkeypatch):
    cancel = threading.Event()
    listen = {"crash": crash, "cancel": lambda _: cancel.set()}[how]
    result = segmented()
    assert len(result.table)
    with pytest.raises((Crash, Cancelled)):
        result.export(tmp_path / f"out{suffix}", on_event=listen, cancel=cancel)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("outputs", [[], ["classes", "pony"], ["classes"]])
def test_outputs_that_a_target_cannot_hold_are_refused(outputs, tmp_path):
    with pytest.raises(ParameterError, match=r"outputs names|holds? only"):
        segmented().export(tmp_path / "out.png", outputs)
    assert os.listdir(tmp_path) == []


def test_a_file_beside_a_picture_that_is_not_its_manifest_is_not_lost(tmp_path):
    (tmp_path / "out.png.json").write_text('{"annotations": "precious"}')
    with pytest.raises(OutputConflict):
        segmented().export(tmp_path / "out.png")
    assert content(tmp_path) == {"out.png.json": b'{"annotations": "precious"}'}
