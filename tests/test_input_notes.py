"""What is odd about an input is told of or refused in one sentence, and never printed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import PngImagePlugin
from tiff_tools import RawTiff

from napari_pixseg import segment
from napari_pixseg.errors import InputNotFound, NotAnImage, PixsegError
from napari_pixseg.sources.open import open_source

RGB = np.random.default_rng(0).integers(0, 256, (48, 70, 3), np.uint8)
GRAY = RGB[..., 0].copy()


def opened(path: Path | str) -> NDArray[Any]:
    array = open_source(path).array
    return np.asarray(array[(slice(None),) * array.ndim])


# Masked slices


class Masked:
    """An array whose slices are masked, as those of netCDF files are."""

    def __init__(self, pixels: NDArray[Any], fill: float) -> None:
        self.pixels, self.fill = pixels, fill
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim

    def __getitem__(self, key: Any) -> Any:
        return np.ma.masked_equal(self.pixels[key], self.fill)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("denoise", [0, 1])
def test_what_is_masked_is_no_data(tmp_path: Path, dtype: str, denoise: int) -> None:
    pixels = np.random.default_rng(0).normal(60, 4, (64, 64)).astype(dtype)
    pixels[:20, :20] = 250
    done = segment(Masked(pixels, 250), cs="GRAY", ct=0, denoise=denoise)
    classes = done.classes.compute()
    assert (classes == 0).sum() == 400
    assert not classes[:20, :20].any()
    assert done.color_table.pixels == 64 * 64 - 400
    assert done.region_table["area"].sum() == 64 * 64 - 400
    assert done.region_table["mean_0"].max() < 100
    done.export(tmp_path / "o.ome.zarr", ("classes", "regions"))
    stored = zarr.open_group(tmp_path / "o.ome.zarr", mode="r")["labels/classes/0"]
    np.testing.assert_array_equal(np.asarray(stored[:]), classes)  # type: ignore[index]


# OME-Zarr metadata


def write_scaled(path: Path, transforms: list[Any], **multiscale: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=GRAY[np.newaxis], chunks=(1, 48, 70))
    axes = [{"name": "t", "type": "time", "unit": "second"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    level = {"path": "0", "coordinateTransformations": transforms}
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [level], **multiscale}]
    return path


def scaled(*scale: Any) -> dict[str, Any]:
    return {"type": "scale", "scale": list(scale)}


@pytest.mark.parametrize("bad", [0, -1, None, "a", True, [1]])
def test_a_scale_that_is_partly_unusable_is_used_where_it_is_good(
    tmp_path: Path, bad: object
) -> None:
    path = write_scaled(tmp_path / "a.zarr", [scaled(bad, 0.5, 0.5)])
    source = open_source(path)
    assert source.scale == {"y": 0.5, "x": 0.5}
    assert source.units == {"y": "micrometer", "x": "micrometer"}
    assert "is used only where it is a positive number" in source.notes[0]
    table = segment(path, cs="GRAY", ct=0).region_table
    np.testing.assert_array_equal(table["physical_area"], table["area"] * 0.25)


@pytest.mark.parametrize("scale", [[0.5, 0.5], [1, 1, 0.5, 0.5], "0.5", {}])
def test_a_scale_that_does_not_fit_the_axes_is_not_used(tmp_path: Path, scale: object) -> None:
    path = write_scaled(tmp_path / "a.zarr", [{"type": "scale", "scale": scale}])
    source = open_source(path)
    # Areas in pixels must not be called square micrometers.
    assert (source.scale, source.units) == ({}, {})
    assert "not one number for each of the 3 axes" in source.notes[0]


def test_a_translation_that_is_unusable_is_told_of(tmp_path: Path) -> None:
    shift = {"type": "translation", "translation": [0, None, -7.0]}
    source = open_source(write_scaled(tmp_path / "a.zarr", [scaled(1, 0.5, 2), shift]))
    assert source.scale == {"t": 1.0, "y": 0.5, "x": 2.0}
    assert source.translation == {"t": 0.0, "x": -7.0}
    assert "The translation [0, null, -7.0]" in source.notes[0]


def test_systems_of_coordinates_of_version_6_are_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=GRAY, chunks=(48, 70))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    steps = [scaled(0.5, 0.25), {"type": "translation", "translation": [3, 4]}]
    level = {
        "path": "0",
        "coordinateTransformations": [
            {"type": "sequence", "input": "0", "output": "intrinsic", "transformations": steps}
        ],
    }
    multiscale = {"coordinateSystems": [{"name": "intrinsic", "axes": axes}], "datasets": [level]}
    group.attrs["ome"] = {"version": "0.6", "multiscales": [multiscale]}
    source = open_source(tmp_path / "a.zarr")
    assert (source.axes, source.notes) == ("yx", ())
    assert source.scale == {"y": 0.5, "x": 0.25}
    assert source.translation == {"y": 3.0, "x": 4.0}
    np.testing.assert_array_equal(opened(tmp_path / "a.zarr"), GRAY)


# Archives


def test_a_store_within_a_folder_of_an_archive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data/one.zarr", "data/two.zarr"):
        zarr.save_array(str(tmp_path / name), GRAY, zarr_format=2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for one in sorted((tmp_path / "data").rglob("*")):
            file.write(one, one.relative_to(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("zip://::a.zip", f"zip://data::{tmp_path}/a.zip"):
        with pytest.raises(NotAnImage, match=r"give zip://data/one\.zarr::/.*two\.zarr::/.*a\.zip"):
            open_source(given)
    # A relative path behind the colons is one of this folder.
    np.testing.assert_array_equal(opened("zip://data/two.zarr::a.zip"), GRAY)
    with pytest.raises(InputNotFound, match=r"zip://::/.*none\.zip cannot be opened"):
        open_source("zip://::none.zip")


# Pictures with metadata


def png_with(path: Path, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG with chunks of metadata before its pixels."""
    Pillow.fromarray(RGB).save(path)
    content = path.read_bytes()
    extra = b""
    for name, body in chunks:
        check = struct.pack(">I", zlib.crc32(name + body))
        extra += struct.pack(">I", len(body)) + name + body + check
    # Behind the signature and the header.
    path.write_bytes(content[:33] + extra + content[33:])
    return path


LONG = bytes(range(32, 127)) * 30000


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "tEXt"])
def test_a_png_with_much_text_or_a_large_profile_is_read(tmp_path: Path, kind: str) -> None:
    packed = zlib.compress(LONG)
    body = {
        "tEXt": b"note\0" + LONG,
        "zTXt": b"note\0\0" + packed,
        "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + packed,
        "iCCP": b"profile\0\0" + packed,
    }[kind]
    path = png_with(tmp_path / "a.png", (kind.encode(), body))
    before = PngImagePlugin.MAX_TEXT_CHUNK
    np.testing.assert_array_equal(opened(path), RGB)
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


def test_text_that_opens_to_too_much_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(100 << 20))
    with pytest.raises(NotAnImage, match="no image that can be read"):
        open_source(png_with(tmp_path / "a.png", (b"zTXt", b"note\0\0" + bomb)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_orientation_is_told_of_and_not_applied(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        RawTiff(RGB, 8, 2, tags={274: ("H", (orientation,))}).save(path)
    else:
        exif = Pillow.Exif()
        exif[274] = orientation
        Pillow.fromarray(RGB).save(path, exif=exif, quality=95)
    with Pillow.open(path) as image:
        stored = np.asarray(image)
    if suffix != "tif":
        np.testing.assert_array_equal(opened(path), stored)
    else:
        np.testing.assert_array_equal(opened(path), RGB)
    notes = [note for note in segment(path, ct=0).warnings if "rotated or mirrored" in note]
    assert len(notes) == (orientation != 1)
    assert all(f"orientation {orientation}" in note for note in notes)


def test_cmyk_jpegs_are_what_pillow_shows(tmp_path: Path) -> None:
    for name, mode in (("a.jpg", "CMYK"), ("b.jpg", "YCbCr")):
        Pillow.fromarray(RGB).convert(mode).save(tmp_path / name)
        with Pillow.open(tmp_path / name) as image:
            np.testing.assert_array_equal(opened(tmp_path / name), np.asarray(image.convert("RGB")))


def test_samples_that_are_no_number_are_no_data(tmp_path: Path) -> None:
    pixels = GRAY.astype("f4") / 255
    pixels[:10, :10] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", compression="zlib")
    done = segment(tmp_path / "a.tif", cs="GRAY", ct=0)
    assert done.color_table.pixels == GRAY.size - 100
    assert not done.classes.compute()[:10, :10].any()


# What libraries say


def odd_tiff(path: Path) -> Path:
    """A TIFF of which tifffile says that the number of its strips is wrong."""
    good = RawTiff(GRAY, 8, 1, rows=16)
    good.save(path)
    offset = int.from_bytes(path.read_bytes()[4:8], "little")
    assert offset
    good.tags = {273: ("L", (8, 8 + 1120, 8 + 2240, 8)), 279: ("L", (1120, 1120, 1120, 9))}
    return good.save(path)


def test_what_tifffile_logs_is_a_note_and_not_printed(tmp_path: Path) -> None:
    path = odd_tiff(tmp_path / "a.tif")
    notes = [note for note in open_source(path).notes if note.startswith("tifffile finds")]
    assert len(notes) == 1
    assert "incorrect StripOffsets count" in notes[0]
    assert "<tifffile" not in notes[0]
    code = (
        "import sys; from napari_pixseg import segment\n"
        "done = segment(sys.argv[1], cs='GRAY', ct=0)\n"
        "done.classes.compute(); print(len(done.warnings))"
    )
    ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("1\n", "")


def test_what_pillow_warns_of_is_a_note_and_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    # An APNG that promises no frame.
    png_with(path, (b"acTL", struct.pack(">II", 0, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(path)
        np.testing.assert_array_equal(source.array[:], RGB)
    assert [note for note in source.notes if note.startswith("Pillow finds the file odd")]


def test_others_still_hear_what_tifffile_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = odd_tiff(tmp_path / "a.tif")
    open_source(path)
    assert not caplog.records
    with tifffile.TiffFile(path):
        pass
    assert caplog.records


# What is no image


def broken_inputs(folder: Path) -> list[Path | str]:
    """Inputs that cannot be read, of all kinds."""
    Pillow.fromarray(RGB).save(folder / "whole.png")
    Pillow.fromarray(RGB).save(folder / "whole.jpg")
    tifffile.imwrite(folder / "whole.tif", RGB, photometric="rgb", compression="zlib")
    names: list[Path | str] = []
    for name in ("whole.png", "whole.jpg", "whole.tif"):
        content = (folder / name).read_bytes()
        for part in (0, 3, 20, len(content) // 2):
            names.append(folder / f"{part}-{name}")
            (folder / f"{part}-{name}").write_bytes(content[:part])
    texts = {"text.png": b"no picture", "zip.tif": b"PK\3\4" + bytes(40), "html.jpg": b"<html>"}
    for name, content in texts.items():
        (folder / name).write_bytes(content)
        names.append(folder / name)
    (folder / "folder").mkdir()
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    header = (b"BM", 54, 0, 0, 54, 40, 3000000, 2000000, 1, 24, 0, 0, 0, 0, 0, 0)
    (folder / "bomb.bmp").write_bytes(struct.pack("<2sIHHIIiiHHIIiiII", *header) + bytes(64))
    # An icon of 256 x 256 pixels by its name, and of 10^10 by the picture in it.
    inner = Pillow.new("RGB", (256, 256))
    inner.save(folder / "inner.png")
    content = (folder / "inner.png").read_bytes()
    content = content[:16] + struct.pack(">II", 100000, 100000) + content[24:29]
    content += struct.pack(">I", zlib.crc32(content[12:29])) + bytes(400)
    icon = b"ic08" + struct.pack(">I", 8 + len(content)) + content
    (folder / "bomb.icns").write_bytes(b"icns" + struct.pack(">I", 8 + len(icon)) + icon)
    names.append(folder / "bomb.icns")
    bomb = RawTiff(GRAY, 8, 1, tags={256: ("L", (1 << 20,)), 257: ("L", (1 << 24,))})
    names.append(bomb.save(folder / "bomb.tif"))
    others = ("folder", "nowhere.png", "loop.png", "bomb.bmp", "gone.png")
    return [*names, *(folder / name for name in others)]


def test_whatever_is_no_image_is_refused_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in broken_inputs(tmp_path):
        with pytest.raises(PixsegError) as caught:
            segment(path, ct=0).classes.compute()
        sentence = str(caught.value)
        assert 400 <= caught.value.status < 500, path
        assert "\n" not in sentence
        assert sentence.endswith("."), sentence
        assert os.path.basename(path) in sentence, sentence
    assert capfd.readouterr() == ("", "")


def test_notes_end_in_the_manifest(tmp_path: Path) -> None:
    RawTiff(RGB, 8, 2, tags={274: ("H", (6,))}).save(tmp_path / "a.tif")
    segment(tmp_path / "a.tif", ct=0).export(tmp_path / "o.png")
    manifest = json.loads((tmp_path / "o.png.json").read_text())
    assert any("orientation 6" in warning for warning in manifest["details"]["warnings"])
