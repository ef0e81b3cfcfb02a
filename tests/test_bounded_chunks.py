"""Chunks and tiles that open to gigabytes take no memory, wherever and however they are stored.

The bombs are opened by one process of their own, which tells the most memory it had. Each of them
would take 128 MiB or more.
"""

import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from zarr.codecs import ShardingCodec

from napari_pixseg.sources.decoding.bounded_decoding import _FITTING, _PICTURES, decode_at_most
from napari_pixseg.sources.decoding.picture_headers import pixels_of_picture
from napari_pixseg.sources.decoding.zstd_frames import measure_zstd
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.zarr_chunks import ChunkFiles

GIB = 1 << 30
MOST = 48 << 20
PIXELS = np.random.default_rng(0).integers(0, 9, (32, 32, 3), np.uint8)
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}

CHILD = """
import functools, http.server, json, os, sys, threading
from napari_pixseg.errors import status_of
from napari_pixseg.sources.image import open_image

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass

    def end_headers(self):
        if self.path == "/encoded.zarr/c/1/1/0":
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()

def most_memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
threading.Thread(target=server.serve_forever, daemon=True).start()
os.chdir(sys.argv[1])
found = {}
for address in ["good.zarr", *sys.argv[2:]]:
    url = address.replace("http://", f"http://127.0.0.1:{server.server_port}/")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = most_memory()
    try:
        open_image(url).read((slice(0, 32), slice(0, 32)))
        status, said = 200, ""
    except Exception as error:
        status, said = status_of(error), str(error)
    found[address] = (status, said, most_memory() - before)
print(json.dumps(found))
"""


def zstd_bomb(size):
    """Blocks of one byte, repeated 128 KiB times, in a frame that does not tell its size."""
    block = 128 << 10
    count = size // block
    blocks = b"".join(
        (block << 3 | 2 | (i == count - 1)).to_bytes(3, "little") + b"\0" for i in range(count)
    )
    return b"\x28\xb5\x2f\xfd\x00\x58" + blocks


def repeated(codec, size):
    """Streams of 1 MiB, one after the other, which are read as one."""
    return bytes(codec.encode(bytes(1 << 20))) * (size >> 20)


def two_frames():
    """The first frame tells four bytes."""
    return bytes(numcodecs.Zstd().encode(b"abcd")) + zstd_bomb(2 * GIB)


def write_shard(path, bomb):
    """Replace the chunk (1, 1, 0) of the only shard."""
    zarr.create_array(path, data=PIXELS, chunks=(8, 8, 3), shards=(32, 32, 3), compressors=ZSTD)
    file = path / "c/0/0/0"
    content = file.read_bytes()
    index = np.frombuffer(content[-260:-4], "<u8").reshape(4, 4, 2).copy()
    index[1, 1] = len(content) - 260, len(bomb)
    index = index.tobytes()
    checksum = bytes(numcodecs.CRC32C().encode(index))[-4:]
    file.write_bytes(content[:-260] + bomb + index + checksum)


def write_chunk(path, bomb, version=3, **options):
    options = {"chunks": (8, 8, 3), **options}
    zarr.create_array(path, data=PIXELS, zarr_format=version, **options)
    name = "c/1/1/0" if version == 3 else "1.1.0"
    (path / (name if options["chunks"] == (8, 8, 3) else "c/0/0/0")).write_bytes(bomb)


def write_jpeg_tile(path):
    tifffile.imwrite(path, PIXELS, compression="jpeg", tile=(16, 16), photometric="rgb")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\xff\xc0\x00\x11\x08")
    content[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(content)


def write_webp_tile(path):
    """The second tile is a picture of 134 million pixels."""
    tifffile.imwrite(path, PIXELS, compression="webp", compressionargs={"level": -1},
                     tile=(16, 16), photometric="rgb")  # fmt: skip
    content = bytearray(path.read_bytes())
    at = content.rindex(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", content, at)
    content[at : at + 4] = struct.pack("<I", bits & ~0xFFFFFFF | 0x3FFF << 14 | 0x1FFF)
    path.write_bytes(content)


def write_zip(path, bomb):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        good = path.parent / "good.zarr"
        for file in filter(os.path.isfile, good.rglob("*")):
            name = file.relative_to(good).as_posix()
            archive.writestr(name, bomb if name == "c/1/1/0" else file.read_bytes())


def sparse_chunk(path):
    write_chunk(path, b"", compressors=None)
    os.truncate(path / "c/1/1/0", 2 * GIB)


def with_checksum(content):
    return bytes(numcodecs.CRC32C().encode(content))


LZ4 = struct.pack("<I", GIB) + bytes(numcodecs.LZ4().encode(bytes(100)))[4:]
BLOSC = bytearray(numcodecs.Blosc().encode(bytes(4096)))
BLOSC[4:8] = struct.pack("<I", GIB)
PNG = bytearray(imagecodecs.png_encode(PIXELS))
PNG[16:24] = struct.pack(">II", 30_000, 30_000)
PNG[29:33] = struct.pack(">I", zlib.crc32(PNG[12:29]))

BOMBS = {
    "shard.zarr": lambda path: write_shard(path, zstd_bomb(2 * GIB)),
    "http://remote.zarr": lambda path: write_chunk(path, zstd_bomb(2 * GIB), compressors=ZSTD),
    "http://gzip.zarr": lambda path: write_chunk(
        path, repeated(numcodecs.GZip(9), GIB), compressors=GZIP),
    # Served compressed (Content-Encoding), so that 130 KB arrive as 128 MiB.
    "http://encoded.zarr": lambda path: write_chunk(
        path, numcodecs.GZip(9).encode(bytes(128 << 20)), compressors=None),
    "http://long.zarr": sparse_chunk,
    "zip://::a.zip": lambda path: write_zip(path, bytes(64 << 20)),
    "sparse.zarr": sparse_chunk,
    "two frames.zarr": lambda path: write_chunk(path, two_frames(), compressors=ZSTD),
    "checksum.zarr": lambda path: write_chunk(
        path, with_checksum(zstd_bomb(2 * GIB)), compressors=[ZSTD, {"name": "crc32c"}]),
    "outer.zarr": lambda path: write_chunk(
        path, zstd_bomb(2 * GIB), chunks=(32, 32, 3), compressors=ZSTD,
        serializer=ShardingCodec(chunk_shape=(8, 8, 3))),
    "lz4.zarr": lambda path: write_chunk(
        path, LZ4, compressors={"name": "numcodecs.lz4", "configuration": {}}),
    "bz2.zarr": lambda path: write_chunk(
        path, repeated(numcodecs.BZ2(1), GIB),
        compressors={"name": "numcodecs.bz2", "configuration": {}}),
    "lzma.zarr": lambda path: write_chunk(
        path, repeated(numcodecs.LZMA(preset=0), GIB),
        compressors={"name": "numcodecs.lzma", "configuration": {}}),
    "filter.zarr": lambda path: write_chunk(
        path, zstd_bomb(2 * GIB), 2, compressors=numcodecs.Zstd(), filters=[numcodecs.Delta("u1")]),
    "filter of a filter.zarr": lambda path: write_chunk(
        path, bytes(BLOSC), 2, compressors=None, filters=[numcodecs.Blosc()]),
    "tile.tif": write_jpeg_tile,
    "webp.tif": write_webp_tile,
}  # fmt: skip


def _claiming_index(content):
    """An index that says that a chunk has 2^40 bytes."""
    index = np.frombuffer(content[-260:-4], "<u8").reshape(4, 4, 2).copy()
    index[0, 0] = 0, 1 << 40
    return content[:-260] + with_checksum(index.tobytes())


# zarr says that a codec around shards is slow, and others are not in its specification.
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


def test_an_index_that_claims_more_than_a_chunk_can_need_is_not_followed(tmp_path):
    write_shard(tmp_path / "a.zarr", b"")
    file = tmp_path / "a.zarr/c/0/0/0"
    file.write_bytes(_claiming_index(file.read_bytes()))
    with pytest.raises(Exception, match=r"stored in 1\.0 TiB") as caught:
        open_image(tmp_path / "a.zarr").read((slice(0, 8), slice(0, 8)))
    assert caught.value.status == 413


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What a process found that opened all bombs in turn."""
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("NOT TESTED: this system does not tell the most memory that a process had.")
    folder = tmp_path_factory.mktemp("bombs")
    zarr.create_array(folder / "good.zarr", data=PIXELS, chunks=(8, 8, 3), compressors=None)
    for address, write in BOMBS.items():
        with warnings.catch_warnings(action="ignore"):
            write(folder / address.rpartition(":")[2].lstrip("/"))
    # Without a bound, the first of them would end the process.
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
    done = subprocess.run(
        [sys.executable, "-c", limited + CHILD, folder, *BOMBS], capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_413_and_takes_no_memory(bomb, opened):
    status, said, more = opened[bomb]
    assert status == 413, said
    assert "is damaged" in said
    assert any(unit in said for unit in ("MiB", "GiB", "TiB", "pixels, but", "more than")), said
    assert more < MOST
    assert opened["good.zarr"][0] == 200


def test_pixels_that_look_like_a_picture_are_pixels(tmp_path):
    # White and nearly black is how a JPEG XL begins, and FF D8 FF C0 how a JPEG does.
    image = np.resize(np.frombuffer(b"\xff\x0a\xff\xff\xff\xd8\xff\xc0", np.uint8), (32, 32))
    tifffile.imwrite(tmp_path / "a.tif", image, compression="packbits", tile=(16, 16))
    assert np.array_equal(open_image(tmp_path / "a.tif").read((slice(0, 32), slice(0, 32)))[..., 0],
                          image)  # fmt: skip


@pytest.mark.parametrize("codec", ["jpeg8", "png", "webp", "jpeg2k", "jpegxl", "jpegxr", "jpegls",
                                   "avif", "lerc", "qoi", "bmp", "htj2k"])  # fmt: skip
@pytest.mark.parametrize("shape", [(37, 53), (64, 64)])
def test_pictures_tell_their_pixels(codec, shape):
    encode = getattr(imagecodecs, f"{codec}_encode")
    try:
        content = bytes(encode(np.zeros((*shape, 3), np.uint8)))
    except (ImportError, AttributeError, imagecodecs.DelayedImportError) as error:
        pytest.skip(f"NOT TESTED: {error}")
    assert pixels_of_picture(content) == shape[0] * shape[1]
    for length in range(40):
        # What was cut off may not tell, but does no harm.
        pixels_of_picture(content[:length])


def test_frames_of_zstd_tell_what_they_open_to():
    encode = numcodecs.Zstd(3, checksum=True).encode
    told = bytes(encode(b"a" * 300)) + bytes(encode(PIXELS))
    assert measure_zstd(told) == (300 + PIXELS.size, True)
    skipped = b"\x51\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"
    assert measure_zstd(skipped + told) == (300 + PIXELS.size, True)
    assert measure_zstd(zstd_bomb(GIB)) == (GIB, False)
    assert measure_zstd(told[:-1]) == measure_zstd(told + b"x") == (None, False)
    assert bytes(decode_at_most(numcodecs.Zstd(), memoryview(told), 300 + PIXELS.size)) == (
        b"a" * 300 + PIXELS.tobytes()
    )


SLOW = {"imagecodecs_brotli", "imagecodecs_zopfli"}
V3 = ["zstd", "gzip", "blosc", "zlib", "bz2", "lzma", "lz4"]


@pytest.mark.parametrize("codec", V3)
def test_what_is_not_too_large_is_read_as_zarr_reads_it(codec, tmp_path):
    codecs = {
        "zstd": ZSTD,
        "gzip": GZIP,
        "blosc": {
            "name": "blosc",
            "configuration": {
                "typesize": 1,
                "cname": "lz4",
                "clevel": 1,
                "shuffle": "noshuffle",
                "blocksize": 0,
            },
        },
    }
    described = codecs.get(codec) or {"name": f"numcodecs.{codec}", "configuration": {}}
    compressor = numcodecs.get_codec({"id": codec})
    both = [described, {"name": "crc32c"}, described]
    made = {
        "a": zarr.create_array(tmp_path / "a", data=PIXELS, chunks=(8, 8, 3), compressors=both),
        "b": zarr.create_array(tmp_path / "b", data=PIXELS, chunks=(8, 8, 3), shards=(16, 16, 3),
                               compressors=described),
        "c": zarr.create_array(tmp_path / "c", data=PIXELS, chunks=(7, 9, 2), zarr_format=2,
                               compressors=compressor,
                               filters=[numcodecs.AsType("f8", "u1"), numcodecs.Shuffle(8)]),
        "d": zarr.create_array(tmp_path / "d", data=PIXELS, chunks=(16, 16, 1),
                               serializer=ShardingCodec(chunk_shape=(4, 4, 1)),
                               compressors=described),
    }  # fmt: skip
    for name, array in made.items():
        # As an array that somebody opened, and by its path with a step, which zarr reads.
        assert np.array_equal(open_image(array).source.array[:, :, :], PIXELS)
        assert np.array_equal(open_image(tmp_path / name).source.array[::2], PIXELS[::2])
        assert array.metadata == zarr.open_array(tmp_path / name).metadata


def test_bounds_travel_to_other_processes(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")
    write_shard(tmp_path / "a.zarr", zstd_bomb(GIB))
    image = open_image(tmp_path / "a.zarr")
    sent = cloudpickle.loads(cloudpickle.dumps(image.source.array))
    with pytest.raises(Exception, match=r"more than 192 bytes where its metadata say"):
        sent[8:16, 8:16]
    assert np.array_equal(sent[:8], PIXELS[:8])


def test_a_plain_array_with_a_step_is_bounded_too(tmp_path):
    write_chunk(tmp_path / "a.zarr", zstd_bomb(GIB), compressors=ZSTD)
    array = open_image(tmp_path / "a.zarr").source.array
    assert isinstance(array, ChunkFiles)
    with pytest.raises(Exception, match=r"more than 192 bytes where its metadata say"):
        array[::2]


def test_a_filter_that_makes_large_samples_is_refused_when_an_array_is_opened(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", data=PIXELS, zarr_format=2,
                              filters=[numcodecs.AsType("u1", "u1")])  # fmt: skip
    document = tmp_path / "a.zarr/.zarray"
    metadata = json.loads(document.read_text())
    metadata["filters"][0]["decode_dtype"] = "|S1000000"
    document.write_text(json.dumps(metadata))
    with pytest.raises(Exception, match=r"S1000000.* at most 16 bytes") as caught:
        open_image(tmp_path / "a.zarr")
    assert caught.value.status == 413
    assert array.metadata.filters[0].codec_id == "astype"


def test_codecs_of_imagecodecs_are_bounded():
    icodecs = pytest.importorskip("imagecodecs.numcodecs")
    icodecs.register_codecs(verbose=False)
    small, large = PIXELS.tobytes(), bytes(1 << 16)
    tried = []
    for name in sorted(_FITTING - SLOW | {"imagecodecs_png"}):
        codec = numcodecs.get_codec({"id": name})
        is_picture = name in _PICTURES
        try:
            encoded = codec.encode(PIXELS if is_picture else small)
            bomb = bytes(PNG) if is_picture else codec.encode(large)
        except (NotImplementedError, ImportError):
            # Not in this build.
            continue
        decoded = decode_at_most(codec, memoryview(encoded), len(small))
        assert bytes(decoded) == small, name
        with pytest.raises(Exception, match=r"."):
            decode_at_most(codec, memoryview(bomb), len(small))
        tried.append(name)
    assert len(tried) > 10
