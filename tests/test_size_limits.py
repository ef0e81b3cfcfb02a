"""What promises more than can be is refused before memory is taken, by every way in."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from resume_tools import make_small, picture, segmented

from napari_pixseg import cli, segment
from napari_pixseg.errors import CorruptInput, TooLarge
from napari_pixseg.execution import memory_estimate
from napari_pixseg.sources import size_limits
from napari_pixseg.sources.image import open_image

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


def bmp(path, width, height):
    path.write_bytes(struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1,
                                 24, 0, 0, 0, 0, 0, 0) + bytes(64))  # fmt: skip


def png(path, width, height):
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "PNG")
    content = bytearray(small.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    checksum = __import__("zlib").crc32(content[12:29])
    content[29:33] = struct.pack(">I", checksum)
    path.write_bytes(content)


def gif_with_a_frame_outside(path):
    frames = [Image.new("P", (10, 10)), Image.new("P", (10, 10), 1)]
    frames[0].putpalette([0, 0, 0, 255, 0, 0])
    frames[1].putpalette([0, 0, 0, 255, 0, 0])
    frames[0].save(path, save_all=True, append_images=frames[1:], disposal=2)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\x2c\0\0\0\0\x0a\0\x0a\0")
    content[at + 1 : at + 5] = struct.pack("<HH", 65535, 65535)
    path.write_bytes(content)


def tiff_of_one_tile(path, side):
    """A tile whose size the tags claim, and whose content is a few bytes."""
    data = imagecodecs.zlib_encode(bytes(1000))
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
            (322, 4, side), (323, 4, side), (324, 4, 8), (325, 4, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data
                     + struct.pack("<H", len(tags)) + entries + bytes(4))  # fmt: skip


def zarr_claiming(path, shape, chunks):
    zarr.create_array(path, data=picture()[..., 0], chunks=(8, 8))
    document = path / "zarr.json"
    metadata = json.loads(document.read_text())
    metadata["shape"] = shape
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    document.write_text(json.dumps(metadata))


CLAIMS = {
    "a BMP of 6,000,000 megapixels": ("a.bmp", lambda path: bmp(path, 3_000_000, 2_000_000)),
    "a PNG of 2^31 - 1 a side": ("a.png", lambda path: png(path, 2**31 - 1, 2**31 - 1)),
    "a GIF with a frame outside": ("a.gif", gif_with_a_frame_outside),
    "a TIFF tile of 60,000 a side": ("a.tif", lambda path: tiff_of_one_tile(path, 60_000)),
    "a zarr of 10^12 a side": (
        "a.zarr", lambda path: zarr_claiming(path, [10**12, 10**12], [512, 512])),
    "a zarr chunk of 2^31 - 1 a side": (
        "b.zarr", lambda path: zarr_claiming(path, [2**31 - 1] * 2, [2**31 - 1] * 2)),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_promises_more_than_can_be_is_413_at_once(claim, tmp_path, capsys):
    name, write = CLAIMS[claim]
    write(tmp_path / name)
    with pytest.raises(TooLarge, match=r"\d.*(but|check)"):
        open_image(tmp_path / name, axes="tyxc" if name == "a.gif" else None)
    for command in (["info"], ["segment"]):
        rest = [str(tmp_path / "out.ome.zarr")] if command == ["segment"] else []
        assert cli.main([*command, str(tmp_path / name), *rest]) == 1
        assert json.loads(capsys.readouterr().out)["status"] == 413


def test_petabytes_in_chunks_are_fine(tmp_path):
    zarr_claiming(tmp_path / "a.zarr", [1 << 25, 1 << 25], [1024, 1024])
    (tmp_path / "a.zarr/c/0/0").write_bytes(b"")
    assert open_image(tmp_path / "a.zarr").shape == (1 << 25, 1 << 25)
    assert cli.main(["info", str(tmp_path / "a.zarr")]) == 0


def test_the_limit_is_the_memory_of_the_machine(tmp_path, monkeypatch):
    zarr_claiming(tmp_path / "a.zarr", [20_000, 20_000], [15_000, 15_000])
    open_image(tmp_path / "a.zarr")
    monkeypatch.setattr(size_limits, "memory_of_machine", lambda: 200 * MIB)
    with pytest.raises(TooLarge, match=r"chunk of \(15000, 15000\) .* 215 MiB .* 200 MiB"):
        open_image(tmp_path / "a.zarr")


def bombs():
    zeros = bytes(64 * MIB)
    unknown = imagecodecs.zstd_encode(zeros)
    return {
        "zstd": ({"name": "zstd", "configuration": {"level": 0, "checksum": False}},
                 numcodecs.Zstd(1).encode(zeros)),
        "zstd of imagecodecs": ({"name": "zstd", "configuration": {"level": 0, "checksum": False}},
                                unknown),
        "gzip": ({"name": "gzip", "configuration": {"level": 1}}, numcodecs.GZip(1).encode(zeros)),
        "blosc": ({"name": "blosc", "configuration": {
            "typesize": 1, "cname": "lz4", "clevel": 1, "shuffle": "noshuffle", "blocksize": 0}},
            numcodecs.Blosc("lz4", 1, 0).encode(zeros)),
    }  # fmt: skip


@pytest.mark.parametrize("codec", list(bombs()))
def test_a_chunk_that_opens_to_more_is_not_opened(codec, tmp_path):
    described, content = bombs()[codec]
    path = tmp_path / "in.zarr"
    zarr.create_array(path, data=picture(), chunks=(8, 8, 3), compressors=described)
    (path / "c/1/2/0").write_bytes(content)
    image = open_image(path)
    tracemalloc.start()
    with pytest.raises(CorruptInput, match=r"c/1/2/0.*(MiB|more than)") as caught:
        image.read((slice(0, 40), slice(0, 36)))
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()
    assert caught.value.status == 413
    with pytest.raises(CorruptInput):
        segmented(path).export(tmp_path / "out.ome.zarr")
    manifest = segmented(path).export(tmp_path / "b.ome.zarr", on_error="skip")
    assert manifest.details["skipped"]["pixels"] == 64


@pytest.mark.parametrize("codec", ["zstd", "gzip", "blosc"])
@pytest.mark.parametrize("size", [1, 255, 256, 65535 + 256, 65536 + 256])
def test_chunks_of_the_right_size_are_decoded_as_ever(codec, size):
    from napari_pixseg.sources.decoding.bounded_decoding import decode_at_most

    content = np.random.default_rng(size).integers(0, 9, size, np.uint8)
    codecs = {"zstd": numcodecs.Zstd(3), "gzip": numcodecs.GZip(1), "blosc": numcodecs.Blosc()}
    encoded = bytes(codecs[codec].encode(content))
    found = decode_at_most(codecs[codec], encoded, size)
    assert bytes(found) == content.tobytes()
    with pytest.raises(CorruptInput, match="metadata say"):
        decode_at_most(codecs[codec], encoded, size - 1)


def test_a_zstd_frame_that_does_not_tell_its_size_is_decoded_into_what_it_needs():
    from napari_pixseg.sources.decoding.bounded_decoding import decode_at_most

    # A frame of one block of four raw bytes: window descriptor, no content size.
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + ((4 << 3) | 1).to_bytes(3, "little") + b"abcd"
    assert bytes(decode_at_most(numcodecs.Zstd(), frame, 4)) == b"abcd"
    with pytest.raises(Exception, match=r"."):
        decode_at_most(numcodecs.Zstd(), frame, 3)


def test_a_zip_of_gigabytes_of_metadata_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(size_limits, "_LARGEST_METADATA", 1 * MIB)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", b" " * (4 * MIB))
    with pytest.raises(TooLarge, match=r"4\.0 MiB of metadata"):
        segment(f"zip://::{path}")


def test_local_metadata_of_gigabytes_are_not_read(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with open(tmp_path / "a.zarr/zarr.json", "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(TooLarge, match=r"3\.0 GiB of metadata"):
        segment(tmp_path / "a.zarr")


def test_the_estimate_of_memory_covers_channels_that_take_no_part(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(512, 512, 64), chunks=(512, 512, 64), dtype="u2"
    )
    array[0, 0, 0] = 1
    image = open_image(tmp_path / "a.zarr", "yxc", (0,))
    more = memory_estimate.peak_memory(image, 512**2, 1)
    assert more > 512 * 512 * 64 * 2 + memory_estimate._BASE


def test_a_bomb_is_refused_before_its_memory_is_taken(tmp_path):
    pytest.importorskip("resource", reason="NOT TESTED: the system limits no memory.")
    tiff_of_one_tile(tmp_path / "a.tif", 60_000)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from napari_pixseg.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "info", tmp_path / "a.tif"],
        capture_output=True, text=True, timeout=120, env=_environment(),
    )  # fmt: skip
    assert json.loads(done.stdout)["status"] == 413, done.stderr


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_compressed_tiles_and_pictures_of_usual_size_are_fine(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4096, 4096), "u1"), compression="zlib",
                     rowsperstrip=4096)  # fmt: skip
    assert open_image(tmp_path / "a.tif").shape == (4096, 4096)
