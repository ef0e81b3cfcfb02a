"""Reads pixel sizes of slides in TIFF files, which each vendor writes in another place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeAlias

from tifffile import TiffFile, TiffPageSeries
from tifffile.tifffile import svs_description_metadata

# Size of a pixel along an axis, nan if unknown, and its unit as the file spells it.
Size: TypeAlias = tuple[float, str]

# tifffile's name of the slide itself.
_SLIDE = "Baseline"

# The tag of XMP, in which Ventana's scanners describe the scan.
_XMP = 700
_SCAN_RESOLUTION = re.compile(rb"<iScan\b[^>]*\bScanRes\s*=\s*[\"']([0-9.]+)[\"']")

# In a millimeter, the unit of DICOM.
_MICROMETERS = 1000

# The first of these belongs to full resolution; rows come before columns.
_SPACING = re.compile(
    r'Name="DICOM_PIXEL_SPACING"[^>]*>\s*(?:"|&quot;)?([0-9.eE+-]+)(?:"|&quot;)?\s+'
    r'(?:"|&quot;)?([0-9.eE+-]+)'
)


def slide_sizes(tiff: TiffFile, series: TiffPageSeries) -> Mapping[str, Size] | None:
    """Return the pixel sizes that a scanner wrote; None for an unknown scanner.

    Labels and macros have none; thumbnails repeat the metadata of the slide.

    Parameters
    ----------
    tiff : TiffFile
    series : TiffPageSeries
    """
    readers = (
        (tiff.is_svs, _aperio_sizes),
        (tiff.is_bif, _ventana_sizes),
        (tiff.is_philips, _philips_sizes),
    )
    for is_of_vendor, read_sizes in readers:
        if is_of_vendor:
            return read_sizes(tiff) if series.name == _SLIDE else {}
    return None


def float_or_nan(value: object) -> float:
    """Convert to a number, or nan if that is impossible."""
    try:
        return float(value)  # type: ignore[arg-type]  # others raise what is caught
    except (TypeError, ValueError):
        return math.nan


def _aperio_sizes(tiff: TiffFile) -> Mapping[str, Size]:
    try:
        metadata = svs_description_metadata(tiff.pages.first.description)
    except ValueError:
        return {}
    return _square(float_or_nan(metadata.get("MPP")))


def _ventana_sizes(tiff: TiffFile) -> Mapping[str, Size]:
    for page in tiff.pages:
        tags = page.aspage().tags
        found = _SCAN_RESOLUTION.search(bytes(tags.valueof(_XMP) or b""))
        if found:
            return _square(float_or_nan(found[1]))
    return {}


def _philips_sizes(tiff: TiffFile) -> Mapping[str, Size]:
    found = _SPACING.search(tiff.philips_metadata or "")
    if found is None:
        return {}
    return {
        axis: (float_or_nan(text) * _MICROMETERS, "µm")
        for axis, text in zip("yx", found.groups(), strict=True)
    }


def _square(micrometers: float) -> Mapping[str, Size]:
    return dict.fromkeys("xy", (micrometers, "µm"))
