"""Whole slides in TIFF files: the structure of each vendor is written here and read."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_pixseg import segment
from napari_pixseg.plugin.layers.image_layers import images_of_path, levels_of
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.read_options import ReadOptions
from napari_pixseg.sources.source import Source

RNG = np.random.default_rng(5)
LEVEL0 = np.kron(RNG.integers(0, 256, (40, 56, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
LEVEL1, LEVEL2 = LEVEL0[::2, ::2].copy(), LEVEL0[::4, ::4].copy()
LABEL = RNG.integers(0, 256, (48, 64, 3), np.uint8)
MACRO = RNG.integers(0, 256, (48, 112, 3), np.uint8)
TILED: dict[str, Any] = {"tile": (32, 32), "compression": "zlib"}


def pixels_of(source: Source) -> NDArray[Any]:
    return np.asarray(source.array[(slice(None),) * source.array.ndim])


def write_pages(path: Path, pages: list[tuple[NDArray[Any], dict[str, Any]]], **kind: Any) -> Path:
    with tifffile.TiffWriter(path, **kind) as writer:
        for pixels, options in pages:
            writer.write(pixels, photometric="rgb", metadata=None, **options)
    return path


def write_svs(path: Path) -> Path:
    text = (
        "Aperio Image Library v12.0.15 \r\n224x160 [0,0 224x160] (32x32) {} |AppMag = 20|MPP = 0.5"
    )
    pages = [
        (LEVEL0, {**TILED, "description": text.format("JPEG/RGB Q=70")}),
        (LEVEL0[::5, ::5].copy(), {"description": text.format("-> 45x32")}),
        (LEVEL1, {**TILED, "description": text.format("-> 112x80")}),
        (LEVEL2, {**TILED, "description": text.format("-> 56x40")}),
        (LABEL, {"subfiletype": 1, "description": "Aperio Image Library v12\r\nlabel 64x48"}),
        (MACRO, {"subfiletype": 9, "description": "Aperio Image Library v12\r\nmacro 112x48"}),
    ]
    return write_pages(path, pages)


def write_scn(path: Path) -> Path:
    """Leica's scanner: an overview of the slide first, then the scan, with its levels."""

    def image(name: str, levels: list[tuple[NDArray[Any], int]]) -> str:
        rows = (
            f'<dimension sizeX="{page.shape[1]}" sizeY="{page.shape[0]}" r="{r}" ifd="{ifd}"/>'
            for r, (page, ifd) in enumerate(levels)
        )
        return f'<image name="{name}"><pixels sizeX="9" sizeY="9">{"".join(rows)}</pixels></image>'

    scan = image("scan", [(LEVEL0, 1), (LEVEL1, 2), (LEVEL2, 3)])
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c">{image("macro", [(MACRO, 0)])}{scan}</collection></scn>'
    )
    size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    coarse = {"resolution": (600, 600), "resolutionunit": "CENTIMETER"}
    pages = [(MACRO, {**TILED, **coarse, "description": xml})]
    pages += [(page, {**TILED, **size}) for page in (LEVEL0, LEVEL1, LEVEL2)]
    return write_pages(path, pages, bigtiff=True)


def write_bif(path: Path) -> Path:
    """Ventana's scanner: the label first, and the size of a pixel in XMP."""
    xmp = b'<?xml version="1.0"?><Metadata><iScan Magnification="20" ScanRes="0.5"/></Metadata>'
    extra = {"extratags": [(700, "B", len(xmp), xmp, True)], "software": "ScanOutputManager 1.1"}
    pages: list[tuple[NDArray[Any], dict[str, Any]]] = [
        (LABEL, {**extra, "description": "Label Image"}),
        (MACRO, {"description": "Thumbnail"}),
    ]
    for number, page in enumerate((LEVEL0, LEVEL1, LEVEL2)):
        text = f"level={number} mag={20 / 2**number} quality=90"
        pages.append((page, {**TILED, "description": text}))
    return write_pages(path, pages, bigtiff=True)


def write_philips(path: Path) -> Path:
    spacings = "".join(
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" '
        f'PMSVR="IDoubleArray">&quot;{size}&quot; &quot;{size}&quot;</Attribute></DataObject>'
        for size in (0.0005, 0.001, 0.002)
    )
    xml = (
        '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Attribute '
        'Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage"><Attribute '
        f'Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{spacings}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    first = {**TILED, "description": xml, "software": "Philips DP v1.0"}
    pages = [(LEVEL0, first), (LEVEL1, TILED), (LEVEL2, TILED)]
    pages += [(MACRO, {"description": "Macro"}), (LABEL, {"description": "Label"})]
    return write_pages(path, pages)


def write_qptiff(path: Path) -> Path:
    xml = '<?xml version="1.0"?><PerkinElmer-QPI-ImageDescription><ImageType>{}</ImageType>'
    xml += "<Name>x</Name></PerkinElmer-QPI-ImageDescription>"
    size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    software = {"software": "PerkinElmer-QPI"}
    pages = [
        (LEVEL0, {**TILED, **size, **software, "description": xml.format("FullResolution")}),
        (LABEL, {"description": xml.format("Thumbnail"), **software}),
        (LEVEL1, {**TILED, "description": xml.format("ReducedResolution"), **software}),
        (LEVEL2, {**TILED, "description": xml.format("ReducedResolution"), **software}),
        (MACRO, {"description": xml.format("Overview"), **software}),
    ]
    return write_pages(path, pages)


SLIDES: dict[str, tuple[Callable[[Path], Path], str, set[str]]] = {
    "Aperio": (write_svs, "a.svs", {"Thumbnail", "Label", "Macro"}),
    "Leica": (write_scn, "a.scn", {"macro"}),
    "Ventana": (write_bif, "a.bif", {"Label", "Thumbnail"}),
    "Philips": (write_philips, "a.tiff", {"Label", "Macro"}),
    "QPTIFF": (write_qptiff, "a.qptiff", {"Thumbnail", "Macro"}),
}


@pytest.fixture(params=SLIDES)
def slide(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, set[str]]:
    write, name, others = SLIDES[request.param]
    return write(tmp_path / name), others


def test_a_slide_is_taken_at_full_resolution_and_its_pictures_are_told_of(
    slide: tuple[Path, set[str]],
) -> None:
    path, others = slide
    source = open_source(path)
    np.testing.assert_array_equal(pixels_of(source), LEVEL0)
    assert (source.axes, source.chunks) == ("yxc", (32, 32, 3))
    assert source.scale == pytest.approx({"x": 0.5, "y": 0.5})
    assert source.units == {"x": "micrometer", "y": "micrometer"}
    assert source.list_images is not None
    names = {image.name for image in source.list_images()}
    assert names - others <= {"Baseline", "scan"}
    for name in others:
        assert f"({name!r}, " in source.notes[0]
        picture = open_source(path, ReadOptions(series=name))
        assert picture.array.shape in (LABEL.shape, MACRO.shape, LEVEL0[::5, ::5].shape)
        assert picture.scale.get("x") != 0.5


def test_the_levels_of_a_slide_are_for_its_preview(slide: tuple[Path, set[str]]) -> None:
    path, _ = slide
    levels = levels_of(images_of_path(str(path)))
    assert [level.shape for level in levels] == [(160, 224), (80, 112), (40, 56)]
    assert [level.reduction for level in levels] == [1, 2, 4]
    for level, wanted in zip(levels, (LEVEL0, LEVEL1, LEVEL2), strict=True):
        region = tuple(slice(0, n) for n in level.shape)
        np.testing.assert_array_equal(level.read(region), wanted)


def test_tiles_of_a_slide_are_decoded_one_by_one(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        spoiled = page.dataoffsets[page.chunked[1] * 2 + 3]
    content = bytearray(path.read_bytes())
    content[spoiled : spoiled + 8] = bytes(8)
    path.write_bytes(content)
    array = open_source(path).array
    np.testing.assert_array_equal(array[:64], LEVEL0[:64])
    np.testing.assert_array_equal(array[64:96, :96], LEVEL0[64:96, :96])
    with pytest.raises(Exception, match=r"decode|zlib|[Dd]amaged"):
        array[64:96, 96:128]


def test_results_come_from_full_resolution(slide: tuple[Path, set[str]]) -> None:
    done = segment(slide[0], ct=0, st=9)
    np.testing.assert_array_equal(
        np.asarray(done.classes), np.asarray(segment(LEVEL0, ct=0, st=9).classes)
    )


@pytest.mark.parametrize("subifds", [True, False], ids=["SubIFDs", "pages"])
def test_levels_of_a_plain_pyramid(tmp_path: Path, subifds: bool) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        options: dict[str, Any] = {"photometric": "rgb", "metadata": None, **TILED}
        writer.write(LEVEL0, subifds=2 if subifds else None, **options)
        writer.write(LEVEL1, subfiletype=1, **options)
        writer.write(LEVEL2, subfiletype=1, **options)
    levels = levels_of(images_of_path(str(path)))
    assert [level.shape for level in levels] == [(160, 224), (80, 112), (40, 56)]


def test_what_is_no_coarser_level_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(LEVEL0, photometric="rgb", subifds=2, metadata={"axes": "YXS"}, **TILED)
        writer.write(LEVEL1[..., 0].copy(), photometric="minisblack", subfiletype=1, **TILED)
        writer.write(LEVEL2, photometric="rgb", subfiletype=1, **TILED)
    levels = levels_of(images_of_path(str(path)))
    assert levels[0].shape == (160, 224)
    assert all(level.image.color_channels == 3 for level in levels)


# NDPI, which no library writes: a large JPEG with marks, between which are its tiles.


def jpeg_with_marks(pixels: NDArray[Any]) -> tuple[bytes, list[int]]:
    """A JPEG with a mark after each 4 blocks of 8 x 8, and where what follows them begins."""
    file = io.BytesIO()
    image = Pillow.fromarray(pixels)
    image.save(file, "jpeg", quality=95, subsampling=0, restart_marker_blocks=4)
    content = file.getvalue()
    scan = content.index(b"\xff\xda")
    start = scan + 2 + struct.unpack(">H", content[scan + 2 : scan + 4])[0]
    marks = [
        at + 2
        for at in range(start, len(content) - 1)
        if content[at] == 0xFF and 0xD0 <= content[at + 1] <= 0xD7
    ]
    return content, [start, *marks]


def ndpi_page(at: int, pixels: NDArray[Any], magnification: float) -> tuple[bytes, int]:
    """A page that begins at an offset of the file; and where its list of tags begins."""
    jpeg, starts = jpeg_with_marks(pixels)
    body = bytearray(jpeg + bytes(len(jpeg) % 2))

    def stored(values: bytes) -> int:
        offset = at + len(body)
        body.extend(values + bytes(len(values) % 2))
        return offset

    height, width, _ = pixels.shape
    one = {
        256: (4, width), 257: (4, height), 259: (3, 7), 262: (3, 6), 273: (4, at), 277: (3, 3),
        278: (4, height), 279: (4, len(jpeg)), 296: (3, 3), 65420: (4, 1),
    }  # fmt: skip
    one[65421] = (11, struct.unpack("<I", struct.pack("<f", magnification))[0])
    many = {
        258: (3, 3, stored(struct.pack("<3H", 8, 8, 8))),
        271: (2, 10, stored(b"Hamamatsu\0")),
        282: (5, 1, stored(struct.pack("<2I", 20000, 1))),
        283: (5, 1, stored(struct.pack("<2I", 20000, 1))),
        65426: (4, len(starts), stored(struct.pack(f"<{len(starts)}I", *starts))),
    }
    tags = {tag: (kind, 1, value) for tag, (kind, value) in one.items()} | many
    entries = [struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags)]
    place = at + len(body)
    # The next page is patched in; then the upper halves of all values.
    body += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(8 + 4 * len(entries))
    return bytes(body), place


def write_ndpi(path: Path, pages: list[tuple[NDArray[Any], float]]) -> Path:
    content = bytearray(b"II*\0" + bytes(8))
    pointer = 4
    for pixels, magnification in pages:
        body, place = ndpi_page(len(content), pixels, magnification)
        struct.pack_into("<Q", content, pointer, place)
        content += body
        count = struct.unpack_from("<H", content, place)[0]
        pointer = place + 2 + 12 * count
    path.write_bytes(content)
    return path


def shown_by_pillow(pixels: NDArray[Any]) -> NDArray[Any]:
    with Pillow.open(io.BytesIO(jpeg_with_marks(pixels)[0])) as image:
        return np.asarray(image)


def test_an_ndpi_is_read_tile_by_tile(tmp_path: Path) -> None:
    pages = [(LEVEL0, 20.0), (LEVEL1[:, :96].copy(), 10.0), (MACRO[:, :96].copy(), -1.0)]
    path = write_ndpi(tmp_path / "a.ndpi", pages)
    source = open_source(path)
    assert (source.axes, source.chunks) == ("yxc", (8, 32, 3))
    assert source.scale == pytest.approx({"x": 0.5, "y": 0.5})
    np.testing.assert_array_equal(pixels_of(source), shown_by_pillow(LEVEL0))
    np.testing.assert_array_equal(
        source.array[17:40, 60:100], shown_by_pillow(LEVEL0)[17:40, 60:100]
    )
    macro = open_source(path, ReadOptions(series="Macro"))
    np.testing.assert_array_equal(pixels_of(macro), shown_by_pillow(pages[2][0]))
