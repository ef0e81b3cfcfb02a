"""Files that other libraries read (extra "formats"), written here and compared with that."""

from __future__ import annotations

import pickle
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_pixseg import segment
from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.sources.formats import opening
from napari_pixseg.sources.formats.kinds import recognize_kind
from napari_pixseg.sources.location import Location, locate
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.read_options import ReadOptions
from napari_pixseg.sources.source import Source

RGB = np.random.default_rng(0).integers(0, 256, (150, 192, 3), np.uint8)
STACK = np.random.default_rng(1).integers(0, 4000, (2, 3, 64, 80), np.uint16)


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [name for name in libraries if find_spec(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"without {missing}: pip install 'napari-pixseg[formats]'"
    )


def opened(path: Path, series: int | str | None = None) -> Source:
    return open_source(path, ReadOptions(series=series))


def pixels_of(source: Source) -> NDArray[Any]:
    return np.asarray(source.array[(slice(None),) * source.array.ndim])


# CZI


def write_czi(path: Path, planes: dict[int, NDArray[Any]], **metadata: Any) -> Path:
    """Scenes (c, z, y, x) or (y, x, blue-green-red), one below the other."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as document:
        for scene, pixels in planes.items():
            below = (0, 1000 * scene)
            stack = pixels if pixels.ndim == 4 else pixels[np.newaxis, np.newaxis]
            for c, z in np.ndindex(*stack.shape[:2]):
                plane = np.atleast_3d(stack[c, z])
                document.write(plane, plane={"C": c, "Z": z}, scene=scene, location=below)
        document.write_metadata("document", **metadata)
    return path


@needs("pylibCZIrw")
def test_a_czi_of_colors_is_read_in_parts(tmp_path: Path) -> None:
    path = write_czi(tmp_path / "a.dat", {0: RGB[..., ::-1].copy()}, scale_x=5e-7, scale_y=2.5e-7)
    source = opened(path)
    assert (source.axes, source.scale) == ("yxc", {"x": 0.5, "y": 0.25})
    assert source.units == {"x": "micrometer", "y": "micrometer"}
    np.testing.assert_array_equal(pixels_of(source), RGB)
    np.testing.assert_array_equal(source.array[10:30, 5:50:3, 1], RGB[10:30, 5:50:3, 1])
    np.testing.assert_array_equal(pixels_of(pickle.loads(pickle.dumps(source))), RGB)
    classes = np.asarray(segment(path, ct=0, st=9).classes)
    np.testing.assert_array_equal(classes, np.asarray(segment(RGB, ct=0, st=9).classes))


@needs("pylibCZIrw")
def test_scenes_and_channels_of_a_czi_are_told_of_and_chosen(tmp_path: Path) -> None:
    small = STACK[..., :32, :40].copy()
    path = write_czi(
        tmp_path / "a.czi", {0: small, 1: STACK}, channel_names={0: "DAPI", 1: "GFP"}, scale_z=2e-6
    )
    source = opened(path)
    assert (source.axes, source.scale, source.series) == ("czyx", {"z": 2.0}, 1)
    assert "the largest is taken: 1 (2 x 3 x 64 x 80)" in source.notes[0]
    assert source.notes[1] == "Its channels are 0 (DAPI), 1 (GFP)."
    np.testing.assert_array_equal(pixels_of(source), STACK)
    np.testing.assert_array_equal(pixels_of(opened(path, 0)), small)
    with pytest.raises(ParameterError, match="give a number from 0 to 1"):
        opened(path, 2)
    assert source.list_images is not None
    assert [image.shape for image in source.list_images()] == [small.shape, STACK.shape]


@needs("pylibCZIrw")
def test_coarser_levels_of_a_czi_show_what_the_finest_does(tmp_path: Path) -> None:
    from pylibCZIrw import czi

    large = np.kron(RGB, np.ones((8, 8, 1), np.uint8))
    path = write_czi(tmp_path / "a.czi", {0: large[..., ::-1].copy()})
    source = opened(path)
    assert source.open_coarser is not None
    (level,) = source.open_coarser()
    assert level.array.shape == (600, 768, 3)
    with czi.open_czi(str(path)) as document:
        wanted = document.read(zoom=0.5)[..., ::-1]
    np.testing.assert_array_equal(pixels_of(level), wanted)
    np.testing.assert_array_equal(level.array[100:110, 70:90], wanted[100:110, 70:90])


@needs("pylibCZIrw")
def test_a_worker_without_the_library_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(write_czi(tmp_path / "a.czi", {0: STACK}))
    monkeypatch.setattr("napari_pixseg.sources.formats.zeiss.czi", None)
    with pytest.raises(NotAnImage, match=r"on .*, where pylibCZIrw is not installed: pip install"):
        source.array[0, 0]


@needs("pylibCZIrw")
def test_a_czi_that_ends_early_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = write_czi(tmp_path / "a.czi", {0: STACK})
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(
        NotAnImage, match=r"a Zeiss CZI file that pylibCZIrw cannot read: [^\n]*\.$"
    ):
        opened(path)


# Slides


def write_ngr(path: Path, pixels: NDArray[Any], column: int) -> None:
    """Write pixels in columns of samples of 12 bits, as Hamamatsu's scanners do."""
    height, width, _ = pixels.shape
    header = struct.pack("<2s2xiii8xi", b"GN", width, height, column, 28)
    columns = (pixels[:, x : x + column].astype("<u2") << 4 for x in range(0, width, column))
    path.write_bytes(header + b"".join(part.tobytes() for part in columns))


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    write_ngr(tmp_path / "image.ngr", RGB, 64)
    write_ngr(tmp_path / "map.ngr", RGB[::4, ::4], 48)
    Pillow.fromarray(RGB[:40, :30]).save(tmp_path / "macro.jpg", quality=95)
    facts = {
        "NoLayers": 1,
        "ImageFile": "image.ngr",
        "MapFile": "map.ngr",
        "MacroImage": "macro.jpg",
        "BitsPerPixel": 36,
        "PixelOrder": "RGB",
        # Nanometers.
        "PhysicalWidth": 192 * 500,
        "PhysicalHeight": 150 * 250,
    }
    lines = ["[Uncompressed Virtual Microscope Specimen]", *(f"{k}={v}" for k, v in facts.items())]
    (tmp_path / "slide.vmu").write_text("\n".join(lines) + "\n")
    return tmp_path / "slide.vmu"


@needs("openslide")
def test_a_slide_that_only_openslide_reads(slide: Path) -> None:
    source = opened(slide)
    assert (source.axes, source.series, source.kind) == ("yxc", 0, "slide")
    assert source.scale == {"y": 0.25, "x": 0.5}
    assert "1 ('macro', 40 x 30 x 3)" in source.notes[0]
    assert source.chunks == (64, 64, 3)
    np.testing.assert_array_equal(pixels_of(source), RGB)
    np.testing.assert_array_equal(source.array[60:130, 3:190:2, 2], RGB[60:130, 3:190:2, 2])
    np.testing.assert_array_equal(pixels_of(pickle.loads(pickle.dumps(source))), RGB)
    classes = np.asarray(segment(slide, ct=0, st=9).classes)
    np.testing.assert_array_equal(classes, np.asarray(segment(RGB, ct=0, st=9).classes))


@needs("openslide")
def test_pictures_and_levels_of_a_slide(slide: Path) -> None:
    macro = opened(slide, "macro")
    with Pillow.open(slide.with_name("macro.jpg")) as picture:
        np.testing.assert_array_equal(pixels_of(macro), np.asarray(picture))
    assert macro.scale == {}
    assert (macro.series, macro.notes, macro.open_coarser) == (1, (), None)
    whole = opened(slide)
    assert whole.open_coarser is not None
    (level,) = whole.open_coarser()
    np.testing.assert_array_equal(pixels_of(level), RGB[::4, ::4])


@needs("openslide")
def test_a_slide_whose_files_are_gone_is_refused_in_one_sentence(slide: Path) -> None:
    slide.with_name("image.ngr").unlink()
    with pytest.raises(NotAnImage, match=r"Hamamatsu VMS or VMU file that OpenSlide cannot read"):
        opened(slide)


@needs("openslide")
def test_a_slide_whose_tiff_is_refused_here_is_left_to_openslide(tmp_path: Path) -> None:
    from openslide import OpenSlide

    plain = np.kron(RGB[:8, :8], np.ones((16, 16, 1), np.uint8))
    stored = np.asarray(Pillow.fromarray(plain).convert("YCbCr"))
    options: dict[str, Any] = {"photometric": "ycbcr", "subsampling": (1, 1), "metadata": None}
    options |= {"tile": (32, 32), "compression": "zlib"}
    text = "Aperio Image Library v11.2.1 \r\n128x128 (32x32) YCbCr|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(tmp_path / "a.svs", stored, description=text, **options)
    source = opened(tmp_path / "a.svs")
    assert (source.kind, source.scale) == ("slide", {"y": 0.5, "x": 0.5})
    with OpenSlide(tmp_path / "a.svs") as slide:
        wanted = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    np.testing.assert_array_equal(pixels_of(source), wanted)
    np.testing.assert_allclose(pixels_of(source).astype(int), plain, atol=3)
    # The same without a vendor's mark is no slide, and stays refused.
    tifffile.imwrite(tmp_path / "b.tif", stored, **options)
    with pytest.raises(NotAnImage, match="stores YCbCr colors: convert it to RGB first"):
        opened(tmp_path / "b.tif")


# LIF, through bioio


def lif_block(text: str, content: bytes = b"", is_memory: bool = False) -> bytes:
    """A block of a LIF file: the XML, or a name and pixels."""
    encoded = text.encode("utf-16-le")
    size = struct.pack("<BQ", 0x2A, len(content)) if is_memory else b""
    body = size + struct.pack("<BI", 0x2A, len(text)) + encoded
    return struct.pack("<II", 0x70, len(body)) + body + content


def write_lif(path: Path, images: dict[str, NDArray[np.uint8]]) -> Path:
    """Images (c, z, y, x) with pixels of 0.5 x 0.25 x 2 micrometers."""
    elements = []
    blocks = b""
    for number, (name, pixels) in enumerate(images.items()):
        c, z, y, x = pixels.shape
        channels = "".join(
            '<ChannelDescription DataType="0" ChannelTag="0" NameOfMeasuredQuantity="" '
            'Resolution="8" Min="0" Max="255" Unit="" IsLUTInverted="0" BitInc="0" '
            f'LUTName="{color}" BytesInc="{i * x * y}"/>'
            for i, color in zip(range(c), ("Red", "Green"), strict=False)
        )
        rows = ((1, x, 0.5e-6, 1), (2, y, 0.25e-6, x), (3, z, 2e-6, x * y * c))
        dimensions = "".join(
            f'<DimensionDescription DimID="{i}" NumberOfElements="{n}" Origin="0" '
            f'Length="{size * (n - 1):.9e}" Unit="m" BitInc="0" BytesInc="{step}"/>'
            for i, n, size, step in rows
        )
        memory = f'<Memory Size="{pixels.size}" MemoryBlockID="MemBlock_{number}"/>'
        elements.append(
            f'<Element Name="{name}" Visibility="1"><Data><Image><ImageDescription><Channels>'
            f"{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image>"
            f"</Data>{memory}<Children/></Element>"
        )
        stored = np.ascontiguousarray(np.moveaxis(pixels, 1, 0))
        blocks += lif_block(f"MemBlock_{number}", stored.tobytes(), is_memory=True)
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="a" Visibility="1"><Data/>'
        f'<Memory Size="0" MemoryBlockID="MemBlock_x"/><Children>{"".join(elements)}</Children>'
        "</Element></LMSDataContainerHeader>"
    )
    path.write_bytes(lif_block(xml) + blocks + lif_block("MemBlock_x", b"", is_memory=True))
    return path


@needs("bioio", "bioio_lif")
def test_a_lif_is_read_through_bioio(tmp_path: Path) -> None:
    first = (STACK >> 4).astype(np.uint8)
    second = first[:, :, :32, :40].copy()
    path = write_lif(tmp_path / "a.lif", {"one": first, "two": second})
    source = opened(path)
    assert (source.axes, source.series, source.kind) == ("czyx", 0, "bioio")
    assert source.scale == pytest.approx({"z": 2.0, "y": 0.25, "x": 0.5})
    assert source.units["x"] == "micrometer"
    assert "of which the first, one, is taken. The others are two" in source.notes[0]
    assert source.notes[1].startswith("Its channels are 0 (")
    np.testing.assert_array_equal(pixels_of(source), first)
    np.testing.assert_array_equal(source.array[1, 2, 5:60:7, 3], first[1, 2, 5:60:7, 3])
    np.testing.assert_array_equal(pixels_of(pickle.loads(pickle.dumps(source))), first)
    for series in (1, "two"):
        np.testing.assert_array_equal(pixels_of(opened(path, series)), second)
    assert source.list_images is not None
    assert [image.shape for image in source.list_images()] == [first.shape, second.shape]


# What is not installed


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("a.czi", b"ZISRAWFILE" + bytes(600), "napari-pixseg[formats]"),
        ("a.nd2", b"\xda\xce\xbe\x0a" + bytes(600), "napari-pixseg[formats]"),
        ("a.lif", b"\x70\0\0\0" + bytes(600), "napari-pixseg[formats]"),
        ("a.vms", b"[Virtual Microscope Specimen]\n", "napari-pixseg[formats]"),
        ("a.dcm", bytes(128) + b"DICM" + bytes(600), "napari-pixseg[formats]"),
        ("a.oir", b"OLYMPUSRAWFORMAT" + bytes(600), "pip install bioio bioio-bioformats"),
        ("a.dv", bytes(600), "pip install bioio bioio-dv"),
    ],
)
def test_an_error_names_what_would_open_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, remedy: str
) -> None:
    monkeypatch.setattr(opening, "_has_libraries", lambda *_: False)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAnImage) as caught:
        open_source(tmp_path / name)
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / name} is a ")
    assert "which needs a package that is not installed: pip install" in sentence
    assert remedy in sentence
    assert sentence.endswith(".")


def test_a_small_picture_before_a_folder_of_pixels_is_not_taken_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_has_libraries", lambda *_: False)
    Pillow.fromarray(RGB).save(tmp_path / "a.mrxs", "jpeg")
    # On its own it is a picture like any other.
    assert open_source(tmp_path / "a.mrxs").kind == "picture"
    (tmp_path / "a").mkdir()
    with pytest.raises(NotAnImage, match="a MIRAX file, which needs a package"):
        open_source(tmp_path / "a.mrxs")


def test_a_reader_of_bioio_is_asked_where_it_may_be_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Modules:
        @staticmethod
        def is_slide(_: object) -> bool:
            return False

        @staticmethod
        def find_reader(location: Location) -> None:
            asked.append(location.name)

    monkeypatch.setattr(opening, "_has_libraries", lambda *_: True)
    monkeypatch.setattr(opening, "_load_module", lambda _: Modules)
    contents = {"a.vsj": b"\1\2\3\xff" * 99, "b.imzml": b"<?xml version='1.0'?>"}
    others = {
        "a.txt": b"text",
        "a.png": b"\x89PNG\r\n\x1a\n\0",
        "a.tif": b"II*\0",
        "a.zip": b"PK\3\4",
    }
    for name, content in (contents | others | {"no": b"\1\2\xff"}).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotAnImage):
            open_source(tmp_path / name)
    assert asked == list(contents)


def test_pictures_and_their_errors_load_no_other_library(tmp_path: Path) -> None:
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    location = locate(tmp_path / "a.png")
    assert recognize_kind(location, location.head() or b"") is None
    open_source(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(NotAnImage, match="is a text file"):
        open_source(tmp_path / "a.txt")
    assert "pylibCZIrw" not in sys.modules or find_spec("pylibCZIrw")
