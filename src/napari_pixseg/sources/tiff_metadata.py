"""Reads the axes, pixel sizes and color map of a TIFF file, and checks the other files it needs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPageSeries

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.tiff_images import ImagePlace
from napari_pixseg.sources.tiff_slides import Size, float_or_nan, slide_sizes

# Value of the tag ResolutionUnit, and its length.
_CENTIMETER = 3
_MICROMETERS = 10_000

_AXIS_LETTERS = {"X": "x", "Y": "y", "Z": "z", "T": "t", "C": "c", "S": "c"}


_UNITS = {
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # micro sign
    "μm": "micrometer",  # Greek mu
    "micron": "micrometer",
    "microns": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "Å": "angstrom",
    "in": "inch",
    "inch": "inch",
    "ns": "nanosecond",
    "µs": "microsecond",
    "ms": "millisecond",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
}


def kept_dimensions(series: TiffPageSeries, location: Location) -> tuple[tuple[int, ...], str]:
    """Return the stored dimensions to keep, and a letter for each, or "?" if none is known."""
    axes = series.axes
    shape = series.shape
    kept = [
        i
        for i, (letter, length) in enumerate(zip(axes, shape, strict=True))
        if length > 1 or letter in "YXZTCS"
    ]
    channels = [i for i in kept if axes[i] in "CS"]
    long = [i for i in channels if shape[i] > 1]
    if len(long) > 1:
        raise NotAnImage(
            f"{location.shown} has two channel axes, of {shape[long[0]]} and {shape[long[1]]}: "
            "save it with one, or give one of its channels as an array."
        )
    spare = set(channels) - set(long or channels[:1])
    kept = [i for i in kept if i not in spare]
    return tuple(kept), "".join(_AXIS_LETTERS.get(axes[i], "?") for i in kept)


def axis_letters(series: TiffPageSeries) -> str:
    """Return a letter for each stored dimension, or "?" if it has no name."""
    return "".join(_AXIS_LETTERS.get(axis, "?") for axis in series.axes)


def name_axes(letters: str) -> str | None:
    """Return axis letters if each one is known and occurs once."""
    return None if "?" in letters or len(set(letters)) < len(letters) else letters


def describe_missing_planes(
    tiff: TiffFile, series: TiffPageSeries, location: Location
) -> tuple[str, ...]:
    """Refuse an OME-TIFF that needs other, unreadable files; describe other gaps.

    tifffile reads missing planes as 0 and says so only in its log.
    """
    if not tiff.is_ome:
        return ()
    missing = sum(page is None for page in series.pages)
    names = sorted(_file_names(tiff.ome_metadata or "")) if missing or series.is_multifile else []
    absent = [name for name in names if name != location.name and not _is_beside(location, name)]
    if len(names) > 1 and absent:
        raise NotAnImage(
            f"{location.shown} is one of {len(names)} files of an image, and {absent[0][:80]} "
            "cannot be read with it; put all of them into one folder of a disk, and open one there."
        )
    if not missing:
        return ()
    return (
        f"{missing} of {len(series.pages)} planes are not in the file, as of an acquisition that "
        "was stopped; they are read as 0.",
    )


def _is_beside(location: Location, name: str) -> bool:
    path = location.local_path
    return path is not None and os.path.exists(os.path.join(os.path.dirname(path), name))


def _file_names(xml: str) -> set[str]:
    names = [element.get("FileName") for element in _find_elements(xml, "UUID")]
    return {name for name in names if name}


def _find_elements(xml: str, path: str) -> list[ElementTree.Element]:
    """Return the elements at a path of OME's metadata; none if it cannot be parsed."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    return root.findall(".//" + "/".join(f"{{*}}{name}" for name in path.split("/")))


def read_calibration(
    tiff: TiffFile, place: ImagePlace, axes: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Return pixel sizes and their units for each axis letter, if the file gives them.

    Parameters
    ----------
    tiff : TiffFile
    place : ImagePlace
        Which image of it.
    axes : str
        The letters.
    """
    series = place.find_in(tiff)
    if tiff.is_ome:
        sizes = _ome_sizes(tiff, place, series)
    elif tiff.is_imagej:
        sizes = _imagej_sizes(tiff, series)
    elif (written := slide_sizes(tiff, series)) is not None:
        sizes = written
    else:
        sizes = _tag_sizes(series)
    known = {
        axis: (size, _UNITS.get(unit))
        for axis, (size, unit) in sizes.items()
        if axis in axes and math.isfinite(size) and size > 0
    }
    scale = {axis: size for axis, (size, _) in known.items()}
    return scale, {axis: unit for axis, (_, unit) in known.items() if unit}


def _ome_sizes(tiff: TiffFile, place: ImagePlace, series: TiffPageSeries) -> Mapping[str, Size]:
    pixels = _find_pixels(tiff, place, series)
    if pixels is None:
        return {}
    # Attribute, and the unit that the OME schema gives it by default.
    names = {axis: (f"PhysicalSize{axis.upper()}", "µm") for axis in "xyz"}
    names["t"] = ("TimeIncrement", "s")
    return {
        axis: (float_or_nan(pixels.get(name)), pixels.get(f"{name}Unit", default))
        for axis, (name, default) in names.items()
    }


def _find_pixels(
    tiff: TiffFile, place: ImagePlace, series: TiffPageSeries
) -> ElementTree.Element | None:
    """Return OME's metadata about the pixels of an image."""
    xml = tiff.ome_metadata or ""
    found = _find_elements(xml, "Image/Pixels")
    if place.page is None and len(found) == len(tiff.series):
        return found[place.series]
    # Images without a plane in this file are described, too.
    images = [image for image in _find_elements(xml, "Image") if image.get("Name") == series.name]
    return images[0].find("{*}Pixels") if len(images) == 1 else None


def _imagej_sizes(tiff: TiffFile, series: TiffPageSeries) -> Mapping[str, Size]:
    metadata = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ")
    interval = float_or_nan(metadata.get("finterval"))
    sizes = {"t": (interval, str(metadata.get("tunit", "s")))}
    # ImageJ writes a spacing and a resolution for images without calibration, too.
    if unit in _UNITS:
        sizes["z"] = (float_or_nan(metadata.get("spacing")), unit)
        for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
            resolution: Sequence[int] = series.keyframe.tags.valueof(tag, (0, 1))
            pixels, length = resolution
            sizes[axis] = (length / pixels if pixels else math.nan, unit)
    return sizes


def _tag_sizes(series: TiffPageSeries) -> Mapping[str, Size]:
    """Return pixel sizes from the resolution tags, which slide scanners give per centimeter.

    Pixels per inch are ignored, because they usually concern prints and screens.
    """
    tags = series.keyframe.tags
    if tags.valueof("ResolutionUnit") != _CENTIMETER:
        return {}
    found = {axis: tags.valueof(f"{axis.upper()}Resolution") for axis in "xy"}
    sizes = {}
    for axis, value in found.items():
        pixels, length = value if isinstance(value, tuple) and len(value) == 2 else (0, 1)
        sizes[axis] = (length * _MICROMETERS / pixels if pixels else math.nan, "µm")
    return sizes
