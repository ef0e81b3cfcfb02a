"""Refuses TIFF files that are not supported, before their pixels are read."""

from __future__ import annotations

import numpy as np
from tifffile import TiffPage, TiffPageSeries

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.tiff_samples import YCBCR

# Values of the tag PhotometricInterpretation.
_REFUSED_COLORS = {
    5: "CMYK",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32844: "LogL",
    32845: "LogLuv",
}

# Many files with this compression lack what a decoder needs, and others decode to wrong colors.
_OLD_JPEG = 6

# Compressions whose decoder turns YCbCr into RGB.
_JPEG_COMPRESSIONS = (_OLD_JPEG, 7, 33007, 34892)

_AMBIGUOUS_BITS = 24

# Compressions of fax machines, whose decoder knows one sample a pixel.
_FAX = (2, 3, 4, 32771)


def refuse_unreadable(series: TiffPageSeries, location: Location, *, has_palette: bool) -> None:
    """Refuse an image whose colors, samples or compression are not supported.

    Parameters
    ----------
    series : TiffPageSeries
    location : Location
    has_palette : bool
        Whether its color map is to be applied.

    Raises
    ------
    NotAnImage
    """
    page = series.keyframe
    _refuse_colors(page, location)
    # Libraries disagree on the byte order of 24-bit integers.
    if page.dtype is None or (page.dtype.kind == "u" and page.bitspersample == _AMBIGUOUS_BITS):
        raise NotAnImage(
            f"{location.shown} has samples of {page.bitspersample} bits in a format that is not "
            "read here: save it with samples of 8, 16 or 32 bits."
        )
    entries = 0 if page.colormap is None else np.size(page.colormap)
    if has_palette and entries != 3 * 2**page.bitspersample:
        raise NotAnImage(
            f"{location.shown} has the numbers of colors, but not its color map: convert it to RGB."
        )
    if any(other is not None and not len(other.dataoffsets) for other in series.pages):
        raise NotAnImage(
            f"{location.shown} does not say where its pixels are (it has neither StripOffsets nor "
            "TileOffsets): save it anew."
        )
    _refuse_compression(page, location)


def _refuse_colors(page: TiffPage, location: Location) -> None:
    colors = _REFUSED_COLORS.get(int(page.photometric))
    if page.photometric == YCBCR and page.compression not in _JPEG_COMPRESSIONS:
        colors = "YCbCr"
    if colors:
        raise NotAnImage(f"{location.shown} stores {colors} colors: convert it to RGB first.")


def _refuse_compression(page: TiffPage, location: Location) -> None:
    codec = getattr(page.compression, "name", page.compression)
    if page.compression in _FAX and page.samplesperpixel > 1 and page.planarconfig == 1:
        raise NotAnImage(
            f"{location.shown} is stored in a way that cannot be decoded here ({codec} with "
            f"{page.samplesperpixel} samples a pixel): save it with another compression."
        )
    if page.predictor != 1 and page.bitspersample == 1:
        raise NotAnImage(
            f"{location.shown} is stored in a way that cannot be decoded here (a predictor for "
            "samples of 1 bit): save it without a predictor."
        )
    try:
        # Decoding nothing fails early if a codec is missing.
        page.decode(None, 0)
        if page.compression == _OLD_JPEG:
            raise ValueError("JPEG in the old way")
    except Exception as error:
        remedy = (
            "install the package imagecodecs"
            if "imagecodecs" in str(error)
            else "save it with another compression"
        )
        raise NotAnImage(
            f"{location.shown} is stored in a way that cannot be decoded here ({codec}): {remedy}."
        ) from error
