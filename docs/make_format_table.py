"""Write the tables of formats into the page *What opens*: each row is a file, made and opened.

Run it from the repository's root, after a reader has changed:

    python docs/make_format_table.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image as Pillow

from napari_pixseg.errors import PixsegError
from napari_pixseg.sources.image import open_image

PAGE = Path(__file__).parent / "formats.md"
BEGIN = "<!-- Made by docs/make_format_table.py, which writes and opens such files: -->"
END = "<!-- End of the table of formats. -->"

RGB = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
GRAY = RGB[..., 0].copy()
SVS = "Aperio Image Library v11.2.1 \r\n96x64 (16x16) JPEG|AppMag = 20|MPP = 0.5"


def _write_tiff(path: Path, pixels: Any = RGB, **options: Any) -> Path:
    options.setdefault("photometric", "rgb" if pixels.shape[-1] == 3 else "minisblack")
    tifffile.imwrite(path, pixels, **options)
    return path


def _write_stack(path: Path) -> Path:
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
    stack = np.stack([GRAY, GRAY])
    return _write_tiff(path, stack, imagej=True, resolution=(4, 4), metadata=metadata)


def _write_ome(path: Path) -> Path:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    return _write_tiff(path, ome=True, metadata=metadata)


def _write_pages(path: Path) -> Path:
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB[::5, ::5], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(RGB, photometric="rgb", metadata=None)
    return path


def _write_slide(path: Path) -> Path:
    options: dict[str, Any] = {"photometric": "rgb", "tile": (16, 16), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB, description=SVS, **options)
        writer.write(RGB[::3, ::3], photometric="rgb", metadata=None, subfiletype=1)
    return path


def _write_palette(path: Path) -> Path:
    colors = np.arange(768, dtype=np.uint16).reshape(3, 256) * 80
    return _write_tiff(path, GRAY, photometric="palette", colormap=colors)


def _write_picture(path: Path, mode: str = "RGB", **options: Any) -> Path:
    Pillow.fromarray(RGB).convert(mode).save(path, **options)
    return path


def _write_turned(path: Path) -> Path:
    exif = Pillow.Exif()
    exif[274] = 6
    return _write_picture(path, exif=exif)


def _write_animation(path: Path) -> Path:
    frames = [Pillow.fromarray(255 - RGB)]
    return _write_picture(path, save_all=True, append_images=frames)


def _write_array(path: Path) -> Path:
    zarr.save_array(str(path), RGB, zarr_format=3)
    return path


def _fill_image(group: zarr.Group, version: int) -> None:
    group.create_array("0", data=GRAY, chunks=(32, 32))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    values = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    group.attrs.update(values if version == 4 else {"ome": {"version": "0.5", **values}})


def _write_ome_zarr(path: Path, version: int = 5) -> Path:
    _fill_image(zarr.open_group(path, mode="w", zarr_format=3 if version == 5 else 2), version)
    return path


def _write_container(path: Path) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for name in ("0", "1"):
        _fill_image(root.create_group(name), 4)
    return path


def _write_plate(path: Path) -> Path:
    root = zarr.open_group(path, mode="w", zarr_format=2)
    wells = ("A/1", "B/1")
    root.attrs["plate"] = {"wells": [{"path": name} for name in wells]}
    for name in wells:
        well = root.create_group(name)
        well.attrs["well"] = {"images": [{"path": "0"}]}
        _fill_image(well.create_group("0"), 4)
    return path


def _write_cmyk(path: Path) -> Path:
    return _write_tiff(path, np.dstack([RGB, GRAY]), photometric="separated")


def _write_scan(path: Path, first: dict[str, Any], names: tuple[str, ...]) -> Path:
    """Write a slide with a level, and small pictures of these names, as pages."""
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB, tile=(16, 16), **{**options, **first})
        writer.write(RGB[::2, ::2], tile=(16, 16), **options)
        for name in names:
            writer.write(RGB[::3, ::3], description=name, **options)
    return path


def _write_philips(path: Path) -> Path:
    spacing = '<DataObject ObjectType="PixelDataRepresentation"><Attribute '
    spacing += 'Name="DICOM_PIXEL_SPACING">"{0}" "{0}"</Attribute></DataObject>'
    levels = spacing.format(0.0005) + spacing.format(0.001)
    xml = f'<DataObject ObjectType="DPUfsImport"><a>{levels}</a></DataObject>'
    return _write_scan(
        path, {"description": xml, "software": "Philips DP v1.0"}, ("Macro", "Label")
    )


def _write_ventana(path: Path) -> Path:
    xmp = b'<iScan Magnification="20" ScanRes="0.5"/>'
    extra = [(700, "B", len(xmp), xmp, True)]
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    label = {"description": "Label Image", "software": "ScanOutputManager 1.1", **options}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(RGB[::3, ::3], extratags=extra, **label)
        writer.write(RGB, tile=(16, 16), description="level=0 mag=20 quality=90", **options)
    return path


# What people call it, the name of its file, and what writes it.
ROWS: tuple[tuple[str, str, Callable[[Path], Path]], ...] = (
    ("TIFF, BigTIFF", "a.tif", _write_tiff),
    ("TIFF in which 0 is white", "w.tif", lambda p: _write_tiff(p, GRAY, photometric="miniswhite")),
    ("TIFF of 4 bits", "4.tif", lambda p: _write_tiff(p, GRAY >> 4, bitspersample=4)),
    ("TIFF with a palette", "p.tif", _write_palette),
    ("TIFF with pixels per centimeter (NDPI, SCN, QPTIFF)", "cm.tif",
     lambda p: _write_tiff(p, resolution=(20000, 20000), resolutionunit="CENTIMETER")),
    ("TIFF with a thumbnail first", "t.tif", _write_pages),
    ("TIFF of CMYK, CIELab, LogLuv", "cmyk.tif", _write_cmyk),
    ("OME-TIFF", "a.ome.tif", _write_ome),
    ("ImageJ stack", "ij.tif", _write_stack),
    ("Aperio SVS", "a.svs", _write_slide),
    ("Philips TIFF", "philips.tiff", _write_philips),
    ("Ventana BIF", "a.bif", _write_ventana),
    ("PNG, BMP, WebP, JPEG 2000, ...", "a.png", _write_picture),
    ("JPEG of CMYK", "cmyk.jpg", lambda p: _write_picture(p, "CMYK")),
    ("JPEG with an orientation", "turned.jpg", _write_turned),
    ("animated GIF, PNG, WebP", "a.gif", _write_animation),
    ("zarr array, formats 2 and 3", "a.zarr", _write_array),
    ("OME-Zarr 0.1 to 0.4", "4.zarr", lambda p: _write_ome_zarr(p, 4)),
    ("OME-Zarr 0.5, 0.6", "5.zarr", _write_ome_zarr),
    ("OME-Zarr of bioformats2raw", "b.zarr", _write_container),
    ("OME-Zarr plate or well", "plate.zarr", _write_plate),
)  # fmt: skip


def main() -> None:
    """Renew the table."""
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    """Return the page's text with the table as it should be."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    with tempfile.TemporaryDirectory() as folder:
        table = format_table(Path(folder))
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def format_table(folder: Path) -> str:
    """Write every file into a folder, and return a Markdown table of what opens."""
    lines = ["| input | axes | samples | size of a pixel | what is told |", "|---|---|---|---|---|"]
    for title, name, write in ROWS:
        path = write(folder / name)
        lines.append(f"| {title} | {' | '.join(_describe(path))} |")
    return "\n".join(lines)


def _describe(path: Path) -> tuple[str, str, str, str]:
    try:
        image = open_image(path)
    except PixsegError as error:
        return ("", "", "", f"refused: {str(error).replace(str(path), 'it').rstrip('.')}")
    source = image.source
    sizes = dict.fromkeys(f"{size:g} {source.units[axis]}" for axis, size in source.scale.items())
    return image.axes, str(image.dtype), ", ".join(sizes), " ".join(source.notes)


if __name__ == "__main__":
    main()
