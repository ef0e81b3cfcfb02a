"""Every kind of input is opened from its metadata and gives the pixels that were stored."""

from __future__ import annotations

import builtins
import gc
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from napari_pixseg.errors import InputNotFound, NotAnImage
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.location import locate
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.source import Source
from napari_pixseg.sources.urls import public_uri

RGB = np.random.default_rng(0).integers(0, 256, (48, 70, 3), np.uint8)
GRAY = np.random.default_rng(1).integers(0, 65536, (48, 70), np.uint16)
STACK = np.random.default_rng(2).integers(0, 65536, (5, 40, 30), np.uint16)


def pixels(source: Source) -> NDArray[Any]:
    """All pixels, after checking that what was declared is what comes."""
    array = source.array
    whole = np.asarray(array[(slice(None),) * array.ndim])
    assert whole.shape == tuple(array.shape)
    assert whole.dtype == array.dtype
    part = tuple(slice(length // 3, length // 3 + 4) for length in array.shape)
    np.testing.assert_array_equal(np.asarray(array[part]), whole[part])
    assert source.axes is None or len(source.axes) == array.ndim
    assert source.chunks is None or len(source.chunks) == array.ndim
    json.dumps(source.identity)
    return whole


def travelled(source: Source) -> Source:
    copy: Source = pickle.loads(pickle.dumps(source))
    return copy


# Arrays


def test_arrays_in_memory_open_as_they_are() -> None:
    source = open_source(RGB)
    assert source.array is RGB
    assert (source.kind, source.axes, source.uri, source.identity) == ("numpy", None, None, {})


def test_dask_arrays_say_their_largest_chunks() -> None:
    source = open_source(da.from_array(RGB, chunks=(20, 70, 3)))
    assert (source.kind, source.chunks) == ("dask", (20, 70, 3))
    np.testing.assert_array_equal(pixels(source), RGB)


class _Foreign:
    """An array of another library: no subclass, no protocol."""

    shape, dtype, ndim, chunks = RGB.shape, "uint8", 3, (16, 16, 3)

    def __getitem__(self, key: Any) -> list[Any]:
        return RGB[key].tolist()  # type: ignore[no-any-return]


def test_array_likes_of_other_libraries_give_numpy_slices() -> None:
    source = open_source(_Foreign())
    assert (source.kind, source.chunks) == ("array", (16, 16, 3))
    np.testing.assert_array_equal(pixels(source), RGB)


def test_memory_maps_stay_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB)
    source = open_source(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert isinstance(source.array, np.memmap)


@pytest.mark.parametrize(
    "given",
    [
        None,
        42,
        1.5,
        True,
        {},
        [[1, 2], [3, 4]],
        b"image.png",
        object(),
        np.ndarray,
        np.array([["a", "b"]]),
        np.array([[None, None]]),
        np.zeros((3, 3), np.complex64),
        np.zeros((3, 3), "datetime64[s]"),
        np.zeros((3, 3), [("r", "u1")]),
        np.zeros(5),
        np.zeros((0, 5)),
        np.uint8(3),
        np.ma.masked_equal(RGB, 0),
        da.from_array(RGB)[da.from_array(RGB > 5)],
        zarr.create_array({}, shape=(3, 3), dtype="c8"),
    ],
    ids=lambda given: type(given).__name__ + str(getattr(given, "dtype", "")),
)
def test_what_is_no_image_is_refused_in_one_sentence(given: Any) -> None:
    with pytest.raises(NotAnImage) as caught:
        open_source(given)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 300


# zarr


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_array_opens_by_path_by_its_group_and_as_object(
    tmp_path: Path, zarr_format: Any
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    array = group.create_array("only", shape=RGB.shape, chunks=(16, 32, 3), dtype="u1")
    array[:] = RGB
    sources = [
        open_source(x) for x in (tmp_path / "a.zarr/only", tmp_path / "a.zarr", array, group)
    ]
    for source in sources:
        assert (source.kind, source.axes, source.chunks) == ("zarr", None, (16, 32, 3))
        np.testing.assert_array_equal(pixels(travelled(source)), RGB)
    assert [s.name for s in sources] == ["only", "a.zarr", "only", "a.zarr"]
    assert sources[0].uri == sources[2].uri == (tmp_path / "a.zarr/only").as_uri()
    assert sources[0].identity == sources[2].identity != sources[1].identity


def test_a_sharded_array_reports_its_shards(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(64, 64),
        chunks=(8, 8),
        shards=(32, 32),
        dtype="u2",
        dimension_names=("y", "x"),
    )
    array[:] = 7
    source = open_source(tmp_path / "a.zarr")
    assert (source.axes, source.chunks) == ("yx", (32, 32))
    assert (pixels(source) == 7).all()


def test_a_group_of_several_arrays_is_refused_by_their_names(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name in ("left", "right"):
        group.create_array(name, shape=(4, 4), dtype="u1")
    with pytest.raises(NotAnImage, match="arrays left, right"):
        open_source(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "b.zarr", mode="w")
    group.create_group("A")
    with pytest.raises(NotAnImage, match=r"no array .it has the groups A"):
        open_source(group)


def test_zarr_identity_follows_the_metadata(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), dtype="u1")
    before = open_source(tmp_path / "a.zarr").identity
    assert open_source(tmp_path / "a.zarr").identity == before
    array.attrs["made"] = "again"
    assert open_source(tmp_path / "a.zarr").identity != before


@pytest.mark.parametrize("kind", ["zarr", "tiff", "png"])
def test_the_state_of_files_follows_every_one_of_them(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.{kind}"
    if kind == "zarr":
        pixels = np.ones((6, 6), np.uint8)
        zarr.create_array(path, data=pixels, chunks=(2, 2))
        chunks = sorted((path / "c").rglob("[0-9]"))
        chunk = next(chunk for chunk in chunks if chunk.is_file())
    else:
        Image.new("L", (6, 6), 1).save(path)
        chunk = path
    fingerprint = pickle.loads(pickle.dumps(open_source(path).fingerprint))
    assert fingerprint is not None
    before = fingerprint()
    assert open_source(path).fingerprint() == fingerprint() == before
    os.utime(chunk, ns=(0, chunk.stat().st_mtime_ns + 1))
    later = fingerprint()
    assert later != before
    content, status = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(content + b"0")
    os.utime(chunk, ns=(0, status.st_mtime_ns))
    assert fingerprint() not in (before, later)
    chunk.write_bytes(content)
    os.utime(chunk, ns=(0, status.st_mtime_ns))
    assert fingerprint() == later
    path.is_dir() and (path / ".DS_Store").write_bytes(b"of a desktop")
    assert fingerprint() == later
    chunk.rename(chunk.with_name("9"))
    # A file is the only one of its own, whatever its name.
    assert fingerprint() != later


def test_what_has_no_local_files_has_no_state(memory: str) -> None:
    assert open_source(np.zeros((2, 2))).fingerprint is None
    array = zarr.create_array({}, data=np.zeros((2, 2)))
    assert open_source(array).fingerprint is None
    zarr.create_array(f"{memory}/in.zarr", data=np.zeros((2, 2), np.uint8))
    assert open_source(f"{memory}/in.zarr").fingerprint is None


def test_opening_zarr_reads_no_chunk(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="u1")
    array[:] = 1
    for chunk in (tmp_path / "a.zarr/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    assert open_source(tmp_path / "a.zarr").array.shape == (8, 8)


def _write_ome(path: Path, version: str, image: NDArray[Any], axes: str) -> None:
    from ome_zarr.format import FormatV04, FormatV05
    from ome_zarr.writer import write_image

    fmt = FormatV04() if version == "0.4" else FormatV05()
    group = zarr.open_group(path, mode="w", zarr_format=fmt.zarr_format)
    write_image(
        image,
        group,
        axes=list(axes),
        fmt=fmt,
        scale_factors=[2],
        scale={axis: 0.25 if axis in "yx" else 1.0 for axis in axes},
        axes_units={"y": "micrometer", "x": "micrometer"},
        storage_options={"chunks": (1, 16, 16)},
    )


@pytest.mark.filterwarnings("default")  # what ome-zarr-py warns of while writing is its own
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_gives_level_0_with_axes_scale_and_units(tmp_path: Path, version: str) -> None:
    path = tmp_path / "image.zarr"
    _write_ome(path, version, np.moveaxis(RGB, -1, 0), "cyx")
    for source in (open_source(path), open_source(zarr.open_group(path, mode="r"))):
        assert (source.kind, source.axes) == ("ome-zarr", "cyx")
        assert source.scale == {"y": 0.25, "x": 0.25}
        assert source.units == {"y": "micrometer", "x": "micrometer"}
        assert (source.uri, source.name) == (path.as_uri(), "image.zarr")
        np.testing.assert_array_equal(pixels(travelled(source)), np.moveaxis(RGB, -1, 0))
    level = json.loads(json.dumps(zarr.open_group(path).attrs.asdict()))
    datasets = level.get("ome", level)["multiscales"][0]["datasets"]
    source = open_source(path / datasets[1]["path"])
    assert (source.axes, source.scale) == ("cyx", {"y": 0.5, "x": 0.5})


def _multiscale(group: zarr.Group, transforms: list[Any], outer: list[Any], axes: Any) -> None:
    group.create_array("s0", shape=STACK.shape, chunks=(1, 20, 20), dtype="u2")[:] = STACK
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": axes,
                "datasets": [{"path": "s0", "coordinateTransformations": transforms}],
                "coordinateTransformations": outer,
            }
        ],
    }


def test_transforms_of_dataset_and_image_combine(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    axes = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space"},
    ]
    _multiscale(
        group,
        [
            {"type": "scale", "scale": [1, 2.0, 3.0]},
            {"type": "translation", "translation": [0, 10.0, 20.0]},
        ],
        [{"type": "scale", "scale": [0.5, 10.0, 10.0]}],
        axes,
    )
    source = open_source(tmp_path / "a.zarr")
    assert source.axes == "tyx"
    assert source.scale == {"t": 0.5, "y": 20.0, "x": 30.0}
    assert source.translation == {"t": 0.0, "y": 100.0, "x": 200.0}
    assert source.units == {"t": "second", "y": "nanometer"}


def test_a_bioformats2raw_container_gives_its_first_image(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    root.create_group("1")
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    _multiscale(root.create_group("0"), [], [], axes)
    source = open_source(tmp_path / "a.zarr")
    assert (source.kind, source.axes, source.scale) == ("ome-zarr", "zyx", {})
    np.testing.assert_array_equal(pixels(source), STACK)


def test_a_multiscale_without_its_level_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    _multiscale(group, [], [], [])
    del group["s0"]
    with pytest.raises(NotAnImage, match="level 0 is missing"):
        open_source(tmp_path / "a.zarr")


def test_damaged_zarr_metadata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{ not json")
    with pytest.raises(NotAnImage, match="metadata that cannot be read"):
        open_source(tmp_path)


# TIFF


def test_a_tiled_compressed_ome_tiff_is_read_with_its_calibration(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "ZYXS",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeZUnit": "nm",
    }
    image = np.stack([RGB, 255 - RGB])
    tifffile.imwrite(
        path, image, photometric="rgb", tile=(16, 32), compression="lzw", metadata=metadata
    )
    source = open_source(path)
    assert (source.kind, source.axes, source.chunks) == ("tiff", "zyxc", (1, 16, 32, 3))
    assert source.scale == {"x": 0.5, "y": 0.25, "z": 2.0}
    assert source.units == {"x": "micrometer", "y": "micrometer", "z": "nanometer"}
    assert source.identity == {
        "size": path.stat().st_size,
        "mtime_ns": path.stat().st_mtime_ns,
    }
    np.testing.assert_array_equal(pixels(travelled(source)), image)


def test_an_imagej_stack_is_read_with_its_calibration(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        STACK,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 1.5},
    )
    source = open_source(tmp_path / "a.tif")
    assert source.axes == "zyx"
    assert source.scale == {"x": 0.25, "y": 0.5, "z": 1.5}
    assert set(source.units.values()) == {"micrometer"}
    np.testing.assert_array_equal(pixels(travelled(source)), STACK)


LAYOUTS: dict[str, dict[str, Any]] = {
    "uncompressed": {},
    "big": {"bigtiff": True, "compression": "zlib"},
    "one strip": {"compression": "zstd", "rowsperstrip": 48},
    "one row strips": {"compression": "deflate", "rowsperstrip": 1, "predictor": True},
    "big-endian": {"byteorder": ">"},
    "big-endian tiles": {"byteorder": ">", "tile": (16, 16)},
    "planes": {"planarconfig": "separate", "tile": (16, 16), "compression": "lzw"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_tiff_pixels_do_not_depend_on_how_they_are_stored(
    tmp_path: Path, layout: str, dtype: str
) -> None:
    keywords = LAYOUTS[layout]
    image = RGB.astype(dtype) * (255 if dtype == "u2" else 1)
    planes = "planarconfig" in keywords
    stored = np.moveaxis(image, -1, 0) if planes else image
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **keywords)
    source = open_source(tmp_path / "a.tif")
    assert source.axes == ("cyx" if planes else "yxc")
    np.testing.assert_array_equal(pixels(travelled(source)), stored)


def test_pages_without_names_have_unknown_axes_and_lengths_of_one_are_dropped(
    tmp_path: Path,
) -> None:
    tifffile.imwrite(tmp_path / "many.tif", STACK, metadata=None, photometric="minisblack")
    tifffile.imwrite(tmp_path / "one.tif", STACK[:1], photometric="minisblack")
    many, one = open_source(tmp_path / "many.tif"), open_source(tmp_path / "one.tif")
    assert many.axes is None
    assert one.axes == "yx"
    np.testing.assert_array_equal(pixels(many), STACK)
    np.testing.assert_array_equal(pixels(one), STACK[0])


def test_two_channel_axes_are_refused(tmp_path: Path) -> None:
    image = np.stack([RGB, RGB])
    tifffile.imwrite(tmp_path / "a.ome.tif", image, photometric="rgb", metadata={"axes": "CYXS"})
    with pytest.raises(NotAnImage, match="two channel axes, of 2 and 3"):
        open_source(tmp_path / "a.ome.tif")


def test_a_pyramid_gives_its_full_level(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        keywords: dict[str, Any] = {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}
        writer.write(RGB, subifds=1, **keywords)
        writer.write(RGB[::2, ::2], subfiletype=1, **keywords)
    source = open_source(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(source), RGB)


def test_color_maps_of_tiffs_are_applied_and_those_of_imagej_are_not(tmp_path: Path) -> None:
    index = RGB[..., 0]
    colors = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", index, photometric="palette", colormap=colors.T.astype("u2") * 257
    )
    source = open_source(tmp_path / "a.tif")
    assert source.axes == "yxc"
    np.testing.assert_array_equal(pixels(travelled(source)), colors[index])
    tifffile.imwrite(tmp_path / "b.tif", index, imagej=True, colormap=colors.T.astype("u2") * 257)
    np.testing.assert_array_equal(pixels(open_source(tmp_path / "b.tif")), index)


def test_alpha_of_a_tiff_is_known_and_cmyk_is_no_rgba(tmp_path: Path) -> None:
    to_tzyx = np.dstack([RGB, RGB[..., 0]])
    tifffile.imwrite(tmp_path / "a.tif", to_tzyx, photometric="rgb", extrasamples=["unassalpha"])
    assert open_source(tmp_path / "a.tif").alpha_last
    tifffile.imwrite(tmp_path / "b.tif", to_tzyx, photometric="separated")
    with pytest.raises(NotAnImage, match="CMYK"):
        open_source(tmp_path / "b.tif")


def test_opening_a_tiff_decodes_no_block_and_each_block_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression="zlib", tile=(16, 16))
    decoded: list[int] = []
    real = tifffile.TiffPage.decode.func  # type: ignore[attr-defined]

    def counting(page: Any) -> Any:
        decode = real(page)

        def color_count(data: Any, index: int, **keywords: Any) -> Any:
            if data is not None:
                decoded.append(index)
            return decode(data, index, **keywords)

        return color_count

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(counting))
    source = open_source(tmp_path / "a.tif")
    assert decoded == []
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda y: source.array[y : y + 1, :, :], range(48)))
    np.testing.assert_array_equal(np.concatenate(rows), RGB)
    assert sorted(decoded) == list(range(3 * 5))


def test_a_missing_codec_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression="lzw")

    def missing(self: Any, key: int) -> Any:
        raise KeyError(f"{key!r} requires the 'imagecodecs' package")

    monkeypatch.setattr(type(tifffile.TIFF.DECOMPRESSORS), "__getitem__", missing)
    with pytest.raises(NotAnImage, match=r"LZW.*install the package imagecodecs"):
        open_source(tmp_path / "a.tif")


def test_damaged_tiffs_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression="zlib", tile=(16, 16))
    good = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "head.tif").write_bytes(good[:8])
    with pytest.raises(NotAnImage, match="TIFF"):
        open_source(tmp_path / "head.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        offset = tiff.pages[0].dataoffsets[3]  # type: ignore[union-attr]
    (tmp_path / "body.tif").write_bytes(good[:offset] + b"\xff" * 64 + good[offset + 64 :])
    source = open_source(tmp_path / "body.tif")
    with pytest.raises(NotAnImage, match="cannot be decoded"):
        source.array[:, :, :]


# Pictures

FORMATS = ["png", "bmp", "gif", "webp", "ppm", "tga", "pcx", "jp2", "sgi"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_pictures_open_by_their_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    source = open_source(str(path))
    assert (source.kind, source.axes, source.alpha_last) == ("picture", "yxc", False)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(travelled(source)), expected)


def _noise(mode: str) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (48, 70, channels) if channels > 1 else (48, 70)
    data = np.random.default_rng(4).integers(0, 256, shape, np.uint8)
    return Image.frombytes(mode, (70, 48), data.tobytes())


@pytest.mark.parametrize(
    ("mode", "suffix", "axes", "shape", "alpha"),
    [
        ("L", "png", "yx", (48, 70), False),
        ("LA", "png", "yxc", (48, 70, 2), True),
        ("RGB", "png", "yxc", (48, 70, 3), False),
        ("RGBA", "png", "yxc", (48, 70, 4), True),
        ("CMYK", "jpg", "yxc", (48, 70, 3), False),
        ("YCbCr", "jpg", "yxc", (48, 70, 3), False),
    ],
)
def test_modes_of_pictures_become_channels(
    tmp_path: Path, mode: str, suffix: str, axes: str, shape: tuple[int, ...], alpha: bool
) -> None:
    image = _noise(mode)
    image.save(tmp_path / f"a.{suffix}")
    source = open_source(tmp_path / f"a.{suffix}")
    assert (source.axes, source.array.shape, source.alpha_last) == (axes, shape, alpha)
    whole = pixels(source)
    if suffix == "png":
        np.testing.assert_array_equal(whole, np.asarray(image))


def test_bits_become_bytes_and_palettes_colors(tmp_path: Path) -> None:
    bits = RGB[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(pixels(open_source(tmp_path / "bits.png")), bits * np.uint8(255))
    palette = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "clear.png", transparency=b"\0\x80\xff")
    opaque, clear = open_source(tmp_path / "palette.png"), open_source(tmp_path / "clear.png")
    np.testing.assert_array_equal(pixels(opaque), expected)
    np.testing.assert_array_equal(pixels(clear)[..., :3], expected)
    assert (opaque.alpha_last, clear.alpha_last) == (False, True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_pngs_keep_their_bits(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 65536, (48, 70, channels), np.uint16).squeeze()
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    source = open_source(tmp_path / "a.png")
    assert source.alpha_last == (channels in (2, 4))
    np.testing.assert_array_equal(pixels(travelled(source)), image)


def _png(header: bytes, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_16_bit_png_with_a_transparent_color_has_alpha(tmp_path: Path) -> None:
    image = RGB.astype(np.uint16) * 250
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    clear = (b"tRNS", image[0, 0].astype(">u2").tobytes())
    header = struct.pack(">IIBBBBB", 70, 48, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(_png(header, rows, clear))
    source = open_source(tmp_path / "a.png")
    assert source.alpha_last
    whole = pixels(source)
    np.testing.assert_array_equal(whole[..., :3], image)
    assert (whole[0, 0, 3], whole[..., 3].max()) == (0, 65535)


def test_other_pictures_of_16_bits_keep_them_or_are_refused(tmp_path: Path) -> None:
    image = RGB.astype(np.uint16) * 250
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(image, reversible=True))
    head = b"P6\n# a comment\n70 48\n65535\n"
    (tmp_path / "a.ppm").write_bytes(head + image.astype(">u2").tobytes())
    (tmp_path / "a.pgm").write_bytes(b"P5 70 48 65535\n" + image[..., 0].astype(">u2").tobytes())
    for name, expected in (("a.jp2", image), ("a.ppm", image), ("a.pgm", image[..., 0])):
        np.testing.assert_array_equal(pixels(open_source(tmp_path / name)), expected)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(image >> 4, bitspersample=12))
    assert pixels(open_source(tmp_path / "a.avif")).max() > 1023
    text = b"P3\n1 1\n65535\n1 2 3\n"
    (tmp_path / "b.ppm").write_bytes(text)
    with pytest.raises(NotAnImage, match="more than 8 bits"):
        open_source(tmp_path / "b.ppm")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_have_a_time_axis(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.roll(RGB, shift, 0)) for shift in range(3)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    source = open_source(path)
    assert (source.axes, source.array.shape) == ("tyxc", (3, 48, 70, 3))
    whole = pixels(source)
    if suffix != "gif":
        np.testing.assert_array_equal(whole, np.stack([np.asarray(frame) for frame in frames]))


def test_a_huge_picture_opens_without_decoding_and_the_limit_of_pillow_stays(
    tmp_path: Path,
) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    # Larger than Pillow allows, and small enough that the file might hold it.
    assert limit is not None
    assert 2 * limit < 20_000 * 9_500
    header = struct.pack(">IIBBBBB", 20_000, 9_500, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(_png(header, b"no pixels"))
    source = open_source(tmp_path / "a.png")
    assert source.array.shape == (9_500, 20_000)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_picture_is_decoded_once_by_all_threads_and_not_before_it_is_sliced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_pixseg.sources import picture_reader

    Image.fromarray(RGB).save(tmp_path / "a.png")
    calls: list[int] = []
    real = picture_reader._decode_picture
    monkeypatch.setattr(
        picture_reader, "_decode_picture", lambda *given: (calls.append(1), real(*given))[1]
    )
    source = open_source(tmp_path / "a.png")
    assert calls == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda y: source.array[y : y + 1], range(48)))
    assert calls == [1]
    assert len(pickle.dumps(source)) < 2000


def test_a_truncated_picture_says_so_when_sliced(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    source = open_source(tmp_path / "a.png")
    with pytest.raises(NotAnImage, match=r"a\.png cannot be decoded"):
        source.array[:4]


def test_a_pillow_image_is_read_like_its_file(tmp_path: Path) -> None:
    image = _noise("CMYK")
    np.testing.assert_array_equal(pixels(open_source(image)), np.asarray(image.convert("RGB")))


# What is not there, or no image

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"hello", "a text file"),
        ("a.png", b"", "is empty"),
        ("a.svg", SVG.encode(), "a text file"),
        ("a.eps", POSTSCRIPT.encode(), "no picture made of pixels"),
        ("a.bin", bytes(range(256)) * 4, "no image that can be read"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "no image that can be read"),
    ],
)
def test_files_that_are_no_image_are_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAnImage, match=said) as caught:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_directories_without_zarr_metadata_and_special_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnImage, match="without zarr metadata"):
        open_source(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAnImage, match="neither a file nor a directory"):
        open_source(tmp_path / "pipe")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(
        builtins, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    with pytest.raises(InputNotFound, match=r"a\.png may not be read by this user; check its"):
        open_source(tmp_path / "a.png")


def test_a_file_that_cannot_be_looked_at_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder that others may not enter."""
    missing = str(tmp_path / "a.zarr")
    usual = os.stat

    def stat(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(missing):
            raise PermissionError(13, "Permission denied")
        return usual(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(InputNotFound, match=r"a\.zarr may not be read by this user; check its"):
        open_source(missing)


@pytest.mark.parametrize("given", ["nothing.png", "a.zarr/0", "", "nope://x/y.png"])
def test_what_is_not_there_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFound) as caught:
        open_source(given)
    assert caught.value.status == 404
    assert given in str(caught.value)
    assert ("knows no protocol" in str(caught.value)) == given.startswith("nope://")


def test_paths_may_be_relative_or_file_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(RGB).save(tmp_path / "an image.png")
    monkeypatch.chdir(tmp_path)
    url = (tmp_path / "an image.png").as_uri()
    for given in ("an image.png", url):
        source = open_source(given)
        assert (source.uri, source.name) == (url, "an image.png")
        np.testing.assert_array_equal(pixels(source), RGB)


# URLs


def _write_all(folder: Path) -> None:
    Image.fromarray(RGB).save(folder / "a.png")
    tifffile.imwrite(folder / "a.tif", RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    # What tifffile would also write to, if the file could be.
    tifffile.imwrite(folder / "b.tif", RGB, photometric="rgb", rowsperstrip=7)
    tifffile.imwrite(folder / "c.tif", RGB, photometric="rgb", tile=(16, 16))
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
    group.create_array("s0", shape=RGB.shape, chunks=(16, 16, 3), dtype="u1")[:] = RGB
    names = [{"name": name} for name in ("y", "x", "c")]
    group.attrs["multiscales"] = [{"axes": names, "datasets": [{"path": "s0"}]}]
    whole = zarr.create_array(folder / "b.zarr", shape=RGB.shape, chunks=(16, 16, 3), dtype="u1")
    whole[:] = RGB


NAMES = {
    "a.png": "picture", "a.tif": "tiff", "b.tif": "tiff", "c.tif": "tiff", "a.zarr": "ome-zarr",
    "b.zarr": "zarr",
}  # fmt: skip


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    _write_all(tmp_path)
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(tmp_path), "/pixseg", recursive=True)
    yield "memory://pixseg"
    filesystem.rm("/pixseg", recursive=True)


@pytest.mark.parametrize("name", NAMES)
def test_memory_urls_open_like_files(memory: str, name: str) -> None:
    source = open_source(f"{memory}/{name}")
    assert (source.kind, source.name, source.uri) == (NAMES[name], name, f"{memory}/{name}")
    assert source.identity
    np.testing.assert_array_equal(pixels(travelled(source)), RGB)
    with pytest.raises(InputNotFound, match=r"nothing at memory://pixseg/none\.png"):
        open_source(f"{memory}/none.png")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Ranges(_Quiet):
    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first or 0), min(int(last or len(data)), len(data) - 1) + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None


@pytest.fixture(params=[_Quiet, _Ranges], ids=["whole files", "ranges"])
def http(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    _write_all(tmp_path)
    handler = partial(request.param, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_urls_open_like_files(http: str) -> None:
    for name, kind in NAMES.items():
        source = open_source(f"{http}/{name}")
        assert (source.kind, source.name, source.uri) == (kind, name, f"{http}/{name}")
        assert source.identity
        np.testing.assert_array_equal(pixels(travelled(source)), RGB)
    with pytest.raises(InputNotFound, match="nothing at"):
        open_source(f"{http}/none.png")
    with pytest.raises(NotAnImage, match="text file"):
        open_source(f"{http}/")


def test_secrets_of_urls_stay_out_of_what_is_shown(http: str) -> None:
    signed = f"{http}/a.png?X-Amz-Signature=hidden"
    source = open_source(signed)
    np.testing.assert_array_equal(pixels(source), RGB)
    assert source.uri == f"{http}/a.png"
    assert "hidden" not in repr(source)
    with pytest.raises(InputNotFound) as caught:
        open_source(f"{http}/none.png?token=hidden")
    assert "hidden" not in str(caught.value)


def test_a_server_that_cannot_be_reached_is_not_found() -> None:
    with pytest.raises(InputNotFound, match=r"127\.0\.0\.1:9"):
        open_source("http://127.0.0.1:9/a.png")


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("https://user:word@host:8/a.tif?b=1", "https://host:8/a.tif?b=1"),
        ("https://host/a.tif?sv=1&sig=abc", "https://host/a.tif"),
        ("https://host/a.tif?api_key=abc#part", "https://host/a.tif"),
        ("s3://key:secret@bucket/a.zarr", "s3://bucket/a.zarr"),
        ("abfs://container@account.net/a.zarr", "abfs://container@account.net/a.zarr"),
        (
            "zip://b.png::simplecache::https://user:secret@host/a.zip?token=secret",
            "zip://b.png::simplecache::https://host/a.zip",
        ),
        # Colons that make no chain.
        ("https://user:se::cret@host/a.tif", "https://host/a.tif"),
        ("https://host/a.tif?sig=abc::secret", "https://host/a.tif"),
        ("https://host/a.tif?token=ab::cret&y=2", "https://host/a.tif"),
        ("http://[::1]:80/a.png?x=1", "http://[::1]:80/a.png?x=1"),
    ],
)
def test_public_uris_hold_no_secret(given: str, public: str) -> None:
    assert public_uri(given) == public


def test_s3_urls_open_like_files(tmp_path: Path, s3_endpoint: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="pixseg")
    _write_all(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "pixseg", path.relative_to(tmp_path).as_posix())
    for name, kind in NAMES.items():
        source = open_source(f"s3://pixseg/{name}")
        assert (source.kind, source.uri) == (kind, f"s3://pixseg/{name}")
        np.testing.assert_array_equal(pixels(travelled(source)), RGB)
    with pytest.raises(InputNotFound):
        open_source("s3://pixseg/none.png")


# The process


def test_dask_processes_read_the_same_pixels(tmp_path: Path, two_processes: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    array = open_source(tmp_path / "a.tif").array
    lazy = da.from_array(array, chunks=(16, 32, 3))
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), RGB)
    np.testing.assert_array_equal(lazy.compute(**two_processes), RGB)
    assert (
        da.from_array(open_source(tmp_path / "a.tif").array, chunks=(16, 32, 3)).name == lazy.name
    )


def test_importing_the_sources_imports_no_reader() -> None:
    code = (
        "import sys, napari_pixseg.sources.source\n"
        "print({'zarr','tifffile','imageio','dask','fsspec','PIL'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def test_a_source_opens_as_itself() -> None:
    source = open_source(RGB)
    assert open_source(source) is source


# Chains, archives, and files that are parts --------------------------------------------


def archive(path: Path, compression: int) -> Path:
    _write_all(path.parent)
    with zipfile.ZipFile(path, "w", compression) as file:
        for one in sorted(path.parent.rglob("*")):
            if one.is_file() and one != path:
                file.write(one, one.relative_to(path.parent))
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_in_an_archive_opens_like_files(
    tmp_path: Path, name: str, compression: int
) -> None:
    path = archive(tmp_path / "all.zip", compression)
    for inside in (path, path.as_uri()):
        source = open_source(f"zip://{name}::{inside}")
        assert (source.kind, source.name) == (NAMES[name], name)
        gc.collect()
        np.testing.assert_array_equal(pixels(source), RGB)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zipped_store_opens_by_its_url(tmp_path: Path, zarr_format: Any) -> None:
    path = tmp_path / "in.zarr.zip"
    store = zarr.storage.ZipStore(path, mode="w")
    zarr.create_array(store, data=RGB, chunks=(16, 16, 3), zarr_format=zarr_format)
    store.close()
    np.testing.assert_array_equal(pixels(open_source(f"zip://::{path}")), RGB)
    with pytest.raises(NotAnImage, match=r"give a zarr store as zip://::/.*in\.zarr\.zip, and"):
        open_source(path)


def test_an_archive_that_is_none_is_refused() -> None:
    with pytest.raises(InputNotFound, match="zip:// cannot be opened"):
        open_source("zip://")


def test_chains_of_fsspec_are_urls(tmp_path: Path) -> None:
    _write_all(tmp_path)
    url = f"simplecache::{(tmp_path / 'a.png').as_uri()}"
    source = open_source(url)
    assert (source.name, source.uri) == ("a.png", url)
    np.testing.assert_array_equal(pixels(source), RGB)


@pytest.mark.parametrize(
    ("url", "name", "parent"),
    [
        ("zip://a/b.png::/d/c.zip", "b.png", "zip://a::/d/c.zip"),
        ("zip://b.png::/d/c.zip", "b.png", "zip://::/d/c.zip"),
        ("zip://::/d/c.zip", "c.zip", "zip://::/d/c.zip"),
        ("simplecache::https://host/d/a.tif", "a.tif", "simplecache::https://host/d"),
        ("simplecache::https://host/d/a.tif?sig=1", "a.tif", "simplecache::https://host/d"),
        ("memory:///a.tif", "a.tif", "memory://"),
    ],
)
def test_links_have_names_and_parents(url: str, name: str, parent: str) -> None:
    location = locate(url)
    assert (location.name, location.parent.uri) == (name, parent)
    assert location.parent.is_url


@pytest.mark.parametrize("scheme", ["FILE://", "File:", "file:"])
def test_file_urls_are_written_in_any_way(tmp_path: Path, scheme: str) -> None:
    _write_all(tmp_path)
    np.testing.assert_array_equal(pixels(open_source(f"{scheme}{tmp_path}/a.png")), RGB)


def test_schemes_are_written_in_any_case(memory: str) -> None:
    source = open_source(f"{memory}/a.png".replace("memory", "MEMORY"))
    assert source.uri == f"{memory}/a.png"


def part_of_many(
    folder: Path, name: str, names: Sequence[str], planes: int, times: int = 1
) -> Path:
    """An OME-TIFF of one plane, of an image of several that are said to be in other files."""
    identities = [f"urn:uuid:00000000-0000-0000-0000-{i:012}" for i in range(len(names))]
    where = "".join(
        f'<TiffData FirstZ="{z}" FirstT="0" FirstC="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{one}">{identity}</UUID></TiffData>'
        for z, (one, identity) in enumerate(zip(names, identities, strict=True))
    )
    own = identities[names.index(name)]
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{own}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="uint8" SizeX="30" SizeY="20" SizeZ="{planes}" SizeC="1" SizeT="{times}">{where}'
        "</Pixels></Image></OME>"
    )
    plane = np.full((20, 30), 50 * (names.index(name) + 1), np.uint8)
    tifffile.imwrite(folder / name, plane, description=xml, metadata=None)
    return folder / name


def test_an_image_of_several_files_is_whole_or_refused(tmp_path: Path) -> None:
    names = ["a.ome.tif", "b.ome.tif"]
    first, second = (part_of_many(tmp_path, name, names, 2) for name in names)
    found = pixels(open_source(first))
    assert found[0].max() == 50
    assert found[1].max() == 100
    filesystem = fsspec.filesystem("memory")
    for path in (first, second):
        filesystem.pipe(f"/many/{path.name}", path.read_bytes())
    with pytest.raises(NotAnImage, match=r"is one of 2 files of an image, and b\.ome\.tif cannot"):
        open_source("memory://many/a.ome.tif")
    second.unlink()
    with pytest.raises(NotAnImage, match=r"is one of 2 files of an image, and b\.ome\.tif cannot"):
        open_source(first)
    filesystem.rm("/many", recursive=True)


def test_several_files_may_lack_planes_too(tmp_path: Path) -> None:
    names = ["a.ome.tif", "b.ome.tif"]
    for name in names:
        part_of_many(tmp_path, name, names, 2, times=3)
    opened = open_image(tmp_path / "a.ome.tif")
    assert "4 of 6 planes are not in the file" in opened.notes[0]
    assert np.unique(pixels(opened.source)).tolist() == [0, 50, 100]


def test_planes_that_were_never_written_are_told_of(tmp_path: Path) -> None:
    path = part_of_many(tmp_path, "a.ome.tif", ["a.ome.tif"], 3)
    opened = open_image(path)
    assert opened.shape == (3, 20, 30)
    assert "2 of 3 planes are not in the file" in opened.notes[0]
    # Another name is no other file.
    renamed = path.rename(tmp_path / "b.ome.tif")
    assert open_image(renamed).notes == opened.notes


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archives_address_without_the_archive_is_refused_with_the_right_one(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    with pytest.raises(InputNotFound) as caught:
        open_source(f"{kind}://{path}")
    assert f"{kind}://::{path}" in str(caught.value)
    assert f"{kind}://NAME::{path}" in str(caught.value)
