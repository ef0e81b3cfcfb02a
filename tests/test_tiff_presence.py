"""Tiles and strips of a TIFF that do not exist are refused or told, and never silently black."""

import shutil
import subprocess

import numpy as np
import pytest
import tifffile
from skimage.data import coffee

from napari_pixseg import segment
from napari_pixseg.errors import InputNotFound
from napari_pixseg.sources.open import open_source

PICTURE = coffee()[:64, :64].copy()
LAYOUTS = {"strips": {"rowsperstrip": 16}, "tiles": {"tile": (32, 32)}}
OFFSETS, COUNTS = (273, 324), (279, 325)


def without_blocks(path, layout, number, also_offsets):
    """Write a TIFF of four blocks, and strike the first of them from its tags."""
    tifffile.imwrite(path, PICTURE, photometric="rgb", compression="zlib", **LAYOUTS[layout])
    struck = COUNTS + (OFFSETS if also_offsets else ())
    with tifffile.TiffFile(path) as tiff:
        tags = [tag for tag in tiff.pages.first.tags if tag.code in struck]
        places = [(tag.valueoffset, tag.valuebytecount // tag.count, tag.count) for tag in tags]
    content = bytearray(path.read_bytes())
    for offset, size, count in places:
        assert count == 4
        content[offset : offset + number * size] = bytes(number * size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("also_offsets", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_without_any_block_is_refused_unless_that_is_meant(layout, also_offsets, tmp_path):
    path = without_blocks(tmp_path / "a.tif", layout, 4, also_offsets)
    with pytest.raises(InputNotFound, match=r"No tile or strip .* allow_missing=True"):
        segment(path)
    assert not segment(path, allow_missing=True, ct=0).recolored.compute().any()


@pytest.mark.parametrize("also_offsets", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_that_do_not_exist_are_counted_in_a_warning(layout, also_offsets, tmp_path):
    path = without_blocks(tmp_path / "a.tif", layout, 1, also_offsets)
    result = segment(path, ct=0, st=0.5)
    assert [note for note in result.warnings if note.startswith("1 of its 4 tiles or strips")]
    read = np.asarray(open_source(path).array[:, :, :])
    gone = (slice(16), slice(None)) if layout == "strips" else (slice(32), slice(32))
    expected = PICTURE.copy()
    expected[gone] = 0
    np.testing.assert_array_equal(read, expected)


def test_a_whole_image_says_nothing(tmp_path):
    path = without_blocks(tmp_path / "a.tif", "tiles", 0, True)
    assert not [note for note in open_source(path).notes if "tiles or strips" in note]


def test_what_imagemagick_leaves_when_its_codec_fails_is_refused(tmp_path):
    convert = shutil.which("convert")
    if convert is None:
        pytest.skip("NOT TESTED: ImageMagick (convert) is not installed.")
    path = tmp_path / "a.tif"
    command = [convert, "rose:", "-type", "Palette", "-compress", "WebP", str(path)]
    subprocess.run(command, capture_output=True, check=False)
    if not path.exists():
        pytest.skip("NOT TESTED: this ImageMagick writes no such file.")
    with tifffile.TiffFile(path) as tiff:
        if any(tiff.pages.first.databytecounts):
            pytest.skip("NOT TESTED: this ImageMagick can write WebP with a palette.")
    with pytest.raises(InputNotFound, match="No tile or strip"):
        segment(path)
