"""Of a file or store with several images the right one is taken, and the others are told of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Pillow
from tiff_tools import RawTiff

from napari_pixseg import cli, segment
from napari_pixseg.errors import NotAnImage, OutputConflict, ParameterError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.read_options import ReadOptions

LARGE = np.random.default_rng(1).integers(0, 256, (128, 160, 3), np.uint8)
SMALL = LARGE[::8, ::8].copy()


def opened(path: Path, series: int | str | None = None) -> NDArray[Any]:
    array = open_source(path, ReadOptions(series=series)).array
    return np.asarray(array[(slice(None),) * array.ndim])


# TIFF


def write_pages(path: Path, *pages: tuple[NDArray[Any], dict[str, Any]], **keywords: Any) -> Path:
    with tifffile.TiffWriter(path, **keywords) as writer:
        for page, options in pages:
            writer.write(page, photometric="rgb", metadata=None, **options)
    return path


THUMBNAILS: dict[str, Any] = {
    "a thumbnail first": [(SMALL, {"subfiletype": 1}), (LARGE, {})],
    "a thumbnail without a word": [(SMALL, {}), (LARGE, {})],
    "a pyramid stored small-first": [(LARGE[::4, ::4], {}), (LARGE[::2, ::2], {}), (LARGE, {})],
    "a macro behind": [(LARGE, {}), (SMALL[:, :5].copy(), {})],
    "tiles behind strips": [(SMALL, {}), (LARGE, {"tile": (32, 32), "compression": "zlib"})],
    "raw data in a subifd": [(SMALL, {"subifds": 1}), (LARGE, {})],
}


@pytest.mark.parametrize("kind", THUMBNAILS)
def test_the_largest_image_of_a_tiff_is_taken_and_the_others_are_named(
    tmp_path: Path, kind: str
) -> None:
    path = write_pages(tmp_path / "a.tif", *THUMBNAILS[kind])
    np.testing.assert_array_equal(opened(path), LARGE)
    done = segment(path, cs="RGB", ct=0)
    notes = [note for note in done.warnings if "the largest is taken" in note]
    assert len(notes) == 1
    others = [page for page, _ in THUMBNAILS[kind] if page is not LARGE]
    for other in others:
        assert f"{other.shape[0]} x {other.shape[1]} x 3" in notes[0]


def test_a_pyramid_and_a_single_image_are_taken_without_a_word(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (LARGE, {}), (LARGE[::2, ::2], {"subfiletype": 1}))
    assert open_source(path).notes == ()
    np.testing.assert_array_equal(opened(path), LARGE)
    assert open_source(write_pages(tmp_path / "b.tif", (LARGE, {}))).notes == ()


def test_a_mask_is_not_taken_for_the_image(tmp_path: Path) -> None:
    mask = np.ones((200, 200), bool)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(mask, photometric="mask", subfiletype=4, metadata=None)
        writer.write(LARGE, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(opened(tmp_path / "a.tif"), LARGE)


def test_many_pages_of_which_one_differs_are_read(tmp_path: Path) -> None:
    # tifffile looks at the pages 0, 1, 7 and the last only.
    pages = [(LARGE[i : i + 20, :30].copy(), {}) for i in range(9)]
    pages[3] = (LARGE, {})
    path = write_pages(tmp_path / "a.tif", *pages)
    np.testing.assert_array_equal(opened(path), LARGE)


def test_any_image_or_page_of_a_tiff_can_be_chosen(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", (SMALL, {}), (LARGE, {}), (LARGE[:90, :33].copy(), {}))
    np.testing.assert_array_equal(opened(path, 0), SMALL)
    np.testing.assert_array_equal(opened(path, "2"), LARGE[:90, :33])
    np.testing.assert_array_equal(opened(path, "page 1"), LARGE)
    assert segment(path, series=0).image.notes == ()
    for wrong in (3, -1, "label", "1.5", ""):
        with pytest.raises(ParameterError, match=r"series = .* give a number from 0 to 2"):
            segment(path, series=wrong)
    with pytest.raises(ParameterError, match="give page 0 to page 2"):
        segment(path, series="page 3")
    with pytest.raises(ParameterError, match="neither number nor name"):
        segment(path, series=1.5)  # type: ignore[arg-type]


def test_a_page_of_a_stack_can_be_chosen(tmp_path: Path) -> None:
    stack = np.stack([LARGE[..., 0], LARGE[..., 1]])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert source.array.shape == stack.shape
    assert "2 pages of one size" in source.notes[0]
    np.testing.assert_array_equal(opened(tmp_path / "a.tif", "page 1"), stack[1])


@pytest.fixture
def two_images(tmp_path: Path) -> Path:
    """An OME-TIFF of two images, the larger one last."""
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, page, size in (("Macro", SMALL, 8.0), ("Slide", LARGE, 1.0)):
            metadata = {"axes": "YXS", "Name": name, "PhysicalSizeX": size, "PhysicalSizeY": size}
            writer.write(page, photometric="rgb", metadata=metadata)
    return path


def test_images_of_an_ome_tiff_have_names_and_their_own_pixel_size(two_images: Path) -> None:
    source = open_source(two_images)
    np.testing.assert_array_equal(opened(two_images), LARGE)
    assert (source.scale, source.series) == ({"x": 1.0, "y": 1.0}, 1)
    assert "'Macro', 16 x 20 x 3" in source.notes[0]
    macro = open_source(two_images, ReadOptions(series="Macro"))
    assert (macro.scale, macro.series, macro.notes) == ({"x": 8.0, "y": 8.0}, 0, ())
    np.testing.assert_array_equal(opened(two_images, "Macro"), SMALL)
    with pytest.raises(ParameterError, match="or a name: Macro, Slide"):
        open_source(two_images, ReadOptions(series="Label"))


def test_the_choice_is_recorded_and_compared_on_resume(two_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    manifest = segment(two_images, cs="RGB", ct=0, series="Macro").export(out)
    assert manifest.details["input"]["series"] == 0
    assert manifest.details["input"]["shape"] == [16, 20, 3]
    (out / "manifest.json").unlink()
    (out / "run.json").unlink(missing_ok=True)
    record = {**manifest.details, "id": "a", "state": "failed"}
    from napari_pixseg.export.output_location import RECORD_NAME

    (out / RECORD_NAME).write_text(json.dumps(record))
    with pytest.raises(OutputConflict, match="the input's series was 0 and is now 1"):
        segment(two_images, cs="RGB", ct=0).export(out, resume=True)
    segment(two_images, cs="RGB", ct=0, series=0).export(out, resume=True)
    assert Manifest.load(out).details["input"]["series"] == 0


def test_other_processes_open_the_same_image(two_images: Path) -> None:
    code = (
        "import sys, pickle, hashlib;"
        "a = pickle.load(sys.stdin.buffer).array;"
        "print(hashlib.sha256(a[:].tobytes()).hexdigest())"
    )
    import hashlib
    import pickle

    for series, pixels in (("Macro", SMALL), (None, LARGE)):
        sent = pickle.dumps(open_source(two_images, ReadOptions(series=series)))
        done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True)
        assert done.stdout.decode().strip() == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_the_command_chooses_and_lists_images(
    two_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(two_images)]) == 0
    text = capsys.readouterr().out
    assert "0: Macro, yxc, 16 x 20 x 3, x 8 micrometer, y 8 micrometer" in text
    assert "1: Slide, yxc, 128 x 160 x 3, x 1 micrometer, y 1 micrometer (taken)" in text
    assert cli.main(["info", str(two_images), "--series", "Macro"]) == 0
    assert "Macro, yxc, 16 x 20 x 3, x 8 micrometer, y 8 micrometer (taken)" in (
        capsys.readouterr().out
    )
    arguments = ["segment", str(two_images), str(tmp_path / "o.png"), "--series", "0", "--ct=0"]
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["details"]["input"]["shape"] == [16, 20, 3]


# OME-Zarr


def write_image(group: zarr.Group, pixels: NDArray[Any], name: str = "") -> None:
    group.create_array("0", data=pixels, chunks=(16, 16))
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    group.attrs["multiscales"] = [{"name": name, "axes": axes, "datasets": [{"path": "0"}]}]


GRAY = [LARGE[:32, 32 * i : 32 * i + 32, 0].copy() for i in range(4)]


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """Three images as bioformats2raw writes them."""
    root = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for i in range(3):
        write_image(root.create_group(str(i)), GRAY[i], f"image {i}")
    return tmp_path / "c.zarr"


def test_a_container_gives_its_first_image_and_the_paths_of_the_others(container: Path) -> None:
    np.testing.assert_array_equal(opened(container), GRAY[0])
    source = open_source(container)
    assert source.series == "0"
    assert "the first, 0, is taken. The others are 1, 2; choose one with series" in source.notes[0]
    for series in (2, "2", "/2/"):
        np.testing.assert_array_equal(opened(container, series), GRAY[2])
    with pytest.raises(ParameterError, match="give a number, or a path: 0, 1, 2"):
        opened(container, 3)
    with pytest.raises(ParameterError, match="series = 1 was given, but the input is a zarr array"):
        opened(container / "0" / "0", 1)


def test_the_series_that_a_container_lists_are_taken_in_their_order(container: Path) -> None:
    root = zarr.open_group(container, mode="a", zarr_format=2)
    write_image(root.create_group("b"), GRAY[3])
    root.create_group("OME").attrs["series"] = ["b", "1"]
    np.testing.assert_array_equal(opened(container), GRAY[3])
    np.testing.assert_array_equal(opened(container, 1), GRAY[1])
    np.testing.assert_array_equal(opened(container, "2"), GRAY[2])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_gives_its_first_image_and_names_its_wells(tmp_path: Path, version: str) -> None:
    zarr_format: Any = 2 if version == "0.4" else 3
    root = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=zarr_format)

    def describe(group: zarr.Group, values: dict[str, Any]) -> None:
        group.attrs.update({"ome": values} if version == "0.5" else values)

    # Fields of a well need not be called 0.
    wells = {"A/1": ["first", "second"], "A/2": ["only"]}
    describe(root, {"plate": {"wells": [{"path": well} for well in wells]}})
    number = 0
    for well, names in wells.items():
        group = root.create_group(well)
        describe(group, {"well": {"images": [{"path": name} for name in names]}})
        for name in names:
            image = group.create_group(name)
            write_image(image, GRAY[number])
            if version == "0.5":
                image.attrs["ome"] = {"multiscales": image.attrs["multiscales"]}
                del image.attrs["multiscales"]
            number += 1
    path = tmp_path / "p.zarr"
    source = open_source(path)
    assert source.series == "A/1/first"
    assert "a plate of 2 wells, of which the first image, A/1/first, is taken" in source.notes[0]
    np.testing.assert_array_equal(opened(path), GRAY[0])
    np.testing.assert_array_equal(opened(path, 1), GRAY[1])
    np.testing.assert_array_equal(opened(path, "A/1/second"), GRAY[1])
    np.testing.assert_array_equal(opened(path, "A/2"), GRAY[2])
    # A well on its own.
    np.testing.assert_array_equal(opened(path / "A" / "1"), GRAY[0])
    np.testing.assert_array_equal(opened(path / "A" / "1", "second"), GRAY[1])
    assert "The others are second" in open_source(path / "A" / "1").notes[0]


def test_one_of_several_multiscales_of_a_group_can_be_chosen(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "m.zarr", mode="w", zarr_format=2)
    write_image(root, GRAY[0], "raw")
    root.create_array("d", data=GRAY[1], chunks=(16, 16))
    first = root.attrs["multiscales"]
    assert isinstance(first, list)
    root.attrs["multiscales"] = [*first, {"name": "denoised", "datasets": [{"path": "d"}]}]
    assert "The others are 1 (denoised)" in open_source(tmp_path / "m.zarr").notes[0]
    np.testing.assert_array_equal(opened(tmp_path / "m.zarr"), GRAY[0])
    np.testing.assert_array_equal(opened(tmp_path / "m.zarr", 1), GRAY[1])
    np.testing.assert_array_equal(opened(tmp_path / "m.zarr", "denoised"), GRAY[1])


def test_info_lists_the_images_of_a_store(
    container: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", str(container), "--series", "1"]) == 0
    text = capsys.readouterr().out
    assert "0: 0, yx, 32 x 32\n" in text
    assert "1: 1, yx, 32 x 32 (taken)\n" in text


# Pictures


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_frame_of_an_animation_can_be_chosen(tmp_path: Path, suffix: str) -> None:
    frames = [Pillow.fromarray(LARGE[i : i + 32, :48]) for i in (0, 40, 80)]
    path = tmp_path / f"a.{suffix}"
    keywords = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **keywords)
    whole = open_source(path)
    assert whole.array.shape[0] == 3
    assert "an animation of 3 frames" in whole.notes[0]
    for number in range(3):
        np.testing.assert_array_equal(opened(path, number), np.asarray(whole.array[number]))
    with pytest.raises(ParameterError, match="give a number from 0 to 2"):
        opened(path, 3)


def write_several(folder: Path, kind: str) -> tuple[Path, list[Pillow.Image]]:
    """A file with several pictures, and what Pillow takes for each of them."""
    path = folder / f"a.{kind}"
    pictures = [Pillow.fromarray(LARGE[:n, :n]) for n in (64, 32, 16)]
    if kind in ("ico", "icns"):
        sizes = [(picture.width, picture.height) for picture in pictures]
        pictures[0].save(path, sizes=sizes, append_images=pictures[1:])
    elif kind == "mpo":
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
    else:
        parts = []
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{number}.pcx")
            parts.append((folder / f"{number}.pcx").read_bytes())
        starts = [1024 * 4 + sum(map(len, parts[:number])) for number in range(len(parts))]
        head = np.array([0x3ADE68B1, *starts, 0], "<u4").tobytes()
        path.write_bytes(head.ljust(1024 * 4, b"\0") + b"".join(parts))
    shown = []
    for number in range(3):
        with Pillow.open(path) as image:
            if kind == "icns":
                by_size = {w * scale: (w, h, scale) for w, h, scale in image.info["sizes"]}
                image.best_size = by_size[sorted(by_size)[::-1][number]]  # type: ignore[attr-defined]
                image.size = tuple(side * image.best_size[2] for side in image.best_size[:2])  # type: ignore
            elif kind == "ico":
                image.size = pictures[number].size  # type: ignore[misc]
            else:
                image.seek(number)
            shown.append(image.convert("RGBA" if kind == "icns" else "RGB"))
    return path, shown


@pytest.mark.parametrize("kind", ["ico", "icns", "mpo", "dcx"])
def test_one_of_several_pictures_is_taken_and_another_can_be(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, shown = write_several(tmp_path, kind)
    source = open_source(path)
    assert source.series == 0
    expected = "of which the largest" if kind.startswith("ic") else "3 pictures in it, of which"
    assert expected in source.notes[0]
    np.testing.assert_array_equal(opened(path)[..., :3], np.asarray(shown[0])[..., :3])
    for number, picture in enumerate(shown):
        pixels = opened(path, number)
        np.testing.assert_array_equal(pixels[..., :3], np.asarray(picture)[..., :3])
        assert open_source(path, ReadOptions(series=number)).notes == ()
    if kind.startswith("ic"):
        size = f"{shown[1].width} x {shown[1].height}"
        assert f"The others are {size}" in source.notes[0]
        np.testing.assert_array_equal(opened(path, size)[..., :3], np.asarray(shown[1])[..., :3])
    with pytest.raises(ParameterError, match="give a number from 0 to "):
        opened(path, 99)
    assert cli.main(["info", str(path), "--series", "1"]) == 0
    size = f"{shown[1].height} x {shown[1].width}"
    assert f"  1: yx, {size} (taken)\n" in capsys.readouterr().out


def test_what_is_one_image_has_no_other(tmp_path: Path) -> None:
    Pillow.fromarray(LARGE).save(tmp_path / "a.png")
    with pytest.raises(ParameterError, match=r"series = 1 was given.* leave series out"):
        opened(tmp_path / "a.png", 1)
    np.testing.assert_array_equal(opened(tmp_path / "a.png", 0), LARGE)
    with pytest.raises(ParameterError, match="series = 1 was given, but the input is an array"):
        segment(LARGE, series=1)


def test_a_tiff_without_an_image_is_refused(tmp_path: Path) -> None:
    RawTiff(LARGE[..., 0], 8, 1, without=(256, 257)).save(tmp_path / "a.tif")
    with pytest.raises(NotAnImage):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_info_draws_what_it_opened(
    tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.kron(LARGE, np.ones((10, 10, 1), np.uint8)).astype(dtype)
    path = write_pages(tmp_path / "a.tif", (SMALL, {}), (pixels, {"tile": (256, 256)}))
    out = tmp_path / "small.png"
    assert cli.main(["info", str(path), "--thumbnail", str(out)]) == 0
    with Pillow.open(out) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), pixels[::4, ::4].astype("u1"))
    capsys.readouterr()
    for wrong, status in ((out, 409), (tmp_path / "a.gif", 400), (tmp_path / "no" / "b.png", 507)):
        assert cli.main(["info", str(path), "--thumbnail", str(wrong)]) == 1
        assert json.loads(capsys.readouterr().out)["status"] == status
