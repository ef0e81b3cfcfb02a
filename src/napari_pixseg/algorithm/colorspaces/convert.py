"""The 22 color spaces, forward and inverse, on 16-bit samples.

All of it follows ImageMagick 6.9.11-60 (Q16): a *quantum* is an integer
0..65535, real arithmetic is double precision, results are rounded half up.
Constants and formulas: ALGORITHM specification, section 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.colorspaces.cie import from_lab, from_xyz, to_lab, to_xyz
from napari_pixseg.algorithm.colorspaces.film import from_log, from_ycc, to_log, to_ycc
from napari_pixseg.algorithm.colorspaces.hue import (
    from_hsb,
    from_hsl,
    from_hwb,
    to_hsb,
    to_hsl,
    to_hwb,
)
from napari_pixseg.algorithm.colorspaces.matrix import (
    complement,
    from_complement,
    from_linear,
    from_ohta,
    from_rec601_luma,
    from_rec601_ycbcr,
    from_rec709_ycbcr,
    from_ycbcr,
    from_yiq,
    from_yuv,
    identity,
    to_gray,
    to_linear,
    to_ohta,
    to_rec601_luma,
    to_rec601_ycbcr,
    to_rec709_ycbcr,
    to_ycbcr,
    to_yiq,
    to_yuv,
)
from napari_pixseg.algorithm.colorspaces.quantum import (
    EPSILON,
    QUANTUM,
    SCALE,
    Conversion,
    Planes,
    Real,
    quantum,
)
from napari_pixseg.algorithm.kernels.threads import parallel_slices, shares
from napari_pixseg.parameters import ColorSpace

# Spaces whose samples are those of sRGB.
UNCHANGED = (ColorSpace.sRGB, ColorSpace.Transparent)


# Blocks stay in the processor's cache; those of threads, which wait for each other between two
# steps, only just, and fewer colors are not worth that.
_BLOCK, _SHARED_BLOCK = 1 << 15, 1 << 17


_SHARED_FROM = 1 << 19


def to_byte(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Reduce quanta to bytes, ``round(q / 257)``; there are no ties.

    Parameters
    ----------
    samples : ndarray of uint16

    Returns
    -------
    ndarray of uint8, same shape
    """
    shifted = samples.astype(np.uint32) + 128
    return ((shifted - (shifted >> 8)) >> 8).astype(np.uint8)


def from_byte(samples: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Widen bytes to quanta, ``257 v``."""
    return samples.astype(np.uint16) * np.uint16(257)


def forward(space: ColorSpace, srgb: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Convert sRGB samples to a color space.

    Parameters
    ----------
    space : ColorSpace
    srgb : (n, 3) ndarray of uint16

    Returns
    -------
    (n, 3) ndarray of uint16
        The three channels that the segmentation looks at (C, M, Y of CMYK).
    """
    return _blockwise(_FORWARD[space], srgb)


def forward_bytes(space: ColorSpace, srgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert byte colors to the bytes that the segmentation sees.

    Parameters
    ----------
    space : ColorSpace
    srgb : (n, 3) ndarray of uint8

    Returns
    -------
    (n, 3) ndarray of uint8
    """
    if space in UNCHANGED:
        return srgb.copy()
    convert, result = _FORWARD[space], np.empty_like(srgb)
    block = _BLOCK if len(shares(len(srgb), _SHARED_FROM)) == 1 else _SHARED_BLOCK

    def convert_part(part: slice) -> None:
        planes = np.empty((3, min(block, part.stop - part.start)))
        for start in range(part.start, part.stop, block):
            rows = slice(start, min(start + block, part.stop))
            samples = planes[:, : rows.stop - start]
            samples[...] = srgb[rows].T
            samples *= 257.0
            for channel, values in enumerate(convert(samples[0], samples[1], samples[2])):
                result[rows, channel] = _to_bytes(values)

    parallel_slices(convert_part, len(srgb), _SHARED_FROM)
    return result


def _to_bytes(values: Real) -> Real:
    """Return ``to_byte(quantum(values))``, in fewer passes, with fractions to be cut off."""
    quanta = quantum(values)
    # The rounded quotient by 257 is never near a half.
    quanta *= 1.0 / 257.0
    quanta += 0.5
    return quanta


def inverse(
    space: ColorSpace, samples: NDArray[np.uint16], black: NDArray[np.int64] | None = None
) -> NDArray[np.uint16]:
    """Convert samples of a color space back to sRGB.

    Parameters
    ----------
    space : ColorSpace
    samples : (n, 3) ndarray of uint16
    black : (n,) ndarray of int64, optional
        K of CMYK in quanta, 0 if not given; other spaces ignore it.

    Returns
    -------
    (n, 3) ndarray of uint16
        For the GRAY and luma spaces three equal channels.
    """
    if space is ColorSpace.CMYK:
        return _inverse_cmyk(samples, np.zeros(len(samples), np.int64) if black is None else black)
    return _blockwise(_INVERSE[space], samples)


def _blockwise(convert: Conversion, samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    result = np.empty((len(samples), 3), np.uint16)
    for start in range(0, len(samples), _BLOCK):
        rows = slice(start, start + _BLOCK)
        planes = samples[rows].T.astype(np.float64)
        for channel, values in enumerate(convert(planes[0], planes[1], planes[2])):
            result[rows, channel] = quantum(values)
    return result


def _to_cmyk(r: Real, g: Real, b: Real) -> Planes:
    c, m, y = 1.0 - SCALE * r, 1.0 - SCALE * g, 1.0 - SCALE * b
    black = np.minimum(c, np.minimum(m, y))
    dark = (SCALE * r < EPSILON) & (SCALE * g < EPSILON) & (SCALE * b < EPSILON)
    # A product with the reciprocal, as in the reference: exact halves are frequent here,
    # and a division rounds one color in a thousand the other way.
    rest = 1.0 / np.where(dark, 1.0, 1.0 - black)
    return tuple(  # type: ignore[return-value]
        QUANTUM * np.where(dark, 0.0, (v - black) * rest) for v in (c, m, y)
    )


def _inverse_cmyk(samples: NDArray[np.uint16], black: NDArray[np.int64]) -> NDArray[np.uint16]:
    k = black.astype(np.float64)[:, np.newaxis]
    ink = samples.astype(np.float64)
    return quantum(QUANTUM - (SCALE * ink * (QUANTUM - k) + k)).astype(np.uint16)


_S = ColorSpace


_FORWARD: dict[ColorSpace, Conversion] = {
    _S.RGB: to_linear, _S.GRAY: to_gray, _S.Transparent: identity, _S.OHTA: to_ohta,
    _S.Lab: to_lab, _S.XYZ: to_xyz, _S.YCbCr: to_ycbcr, _S.YCC: to_ycc, _S.YIQ: to_yiq,
    _S.YPbPr: to_ycbcr, _S.YUV: to_yuv, _S.CMYK: _to_cmyk, _S.sRGB: identity,
    _S.HSB: to_hsb, _S.HSL: to_hsl, _S.HWB: to_hwb, _S.Rec601Luma: to_rec601_luma,
    _S.Rec601YCbCr: to_rec601_ycbcr, _S.Rec709Luma: to_gray,
    _S.Rec709YCbCr: to_rec709_ycbcr, _S.Log: to_log, _S.CMY: complement,
}  # fmt: skip


_INVERSE: dict[ColorSpace, Conversion] = {
    _S.RGB: from_linear, _S.GRAY: to_gray, _S.Transparent: identity, _S.OHTA: from_ohta,
    _S.Lab: from_lab, _S.XYZ: from_xyz, _S.YCbCr: from_ycbcr, _S.YCC: from_ycc,
    _S.YIQ: from_yiq, _S.YPbPr: from_ycbcr, _S.YUV: from_yuv, _S.sRGB: identity,
    _S.HSB: from_hsb, _S.HSL: from_hsl, _S.HWB: from_hwb,
    _S.Rec601Luma: from_rec601_luma, _S.Rec601YCbCr: from_rec601_ycbcr,
    _S.Rec709Luma: to_gray, _S.Rec709YCbCr: from_rec709_ycbcr, _S.Log: from_log,
    _S.CMY: from_complement,
}  # fmt: skip
