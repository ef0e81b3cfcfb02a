"""The 22 color spaces, forward and inverse, on 16-bit samples.

Everything follows ImageMagick 6.9.11-60 (Q16). A *quantum* is an integer from 0 to 65535, real
arithmetic is in double precision, and results are rounded half up.
Constants and formulas: docs/algorithm.md, section 5.
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
    to_complement,
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
from napari_pixseg.algorithm.kernels.threads import parallel_slices, thread_slices
from napari_pixseg.parameters import ColorSpace

# Spaces whose samples are those of sRGB.
UNCHANGED = (ColorSpace.sRGB, ColorSpace.Transparent)


# Blocks stay in the processor's cache. Those of threads only just do, because threads wait for
# each other between two steps.
_BLOCK = 1 << 15
_SHARED_BLOCK = 1 << 17

# Fewer colors are not worth sharing among threads.
_SHARED_FROM = 1 << 19


def to_byte(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Reduce quanta to bytes, ``round(q / 257)``, which never has ties.

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
    return _convert_blocks(_FORWARD[space], srgb)


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
    convert = _FORWARD[space]
    result = np.empty_like(srgb)
    block = _BLOCK if len(thread_slices(len(srgb), _SHARED_FROM)) == 1 else _SHARED_BLOCK

    def convert_part(part: slice) -> None:
        planes = np.empty((3, min(block, part.stop - part.start)))
        for start in range(part.start, part.stop, block):
            rows = slice(start, min(start + block, part.stop))
            samples = planes[:, : rows.stop - start]
            samples[...] = srgb[rows].T
            samples *= 257.0
            for channel, values in enumerate(convert(samples[0], samples[1], samples[2])):
                result[rows, channel] = _prepare_bytes(values)

    parallel_slices(convert_part, len(srgb), _SHARED_FROM)
    return result


def _prepare_bytes(values: Real) -> Real:
    """Return ``to_byte(quantum(values))`` in fewer passes; the caller cuts fractions off."""
    quanta = quantum(values)
    # A quotient by 257 is never near a half, so a product with the reciprocal will do.
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
        K of CMYK in quanta, by default 0. Other spaces ignore it.

    Returns
    -------
    (n, 3) ndarray of uint16
        Three equal channels for GRAY and the luma spaces.
    """
    if space is ColorSpace.CMYK:
        return _inverse_cmyk(samples, np.zeros(len(samples), np.int64) if black is None else black)
    return _convert_blocks(_INVERSE[space], samples)


# Without threads: this is for 16-bit samples, which are converted tile by tile in threads already.
def _convert_blocks(convert: Conversion, samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    result = np.empty((len(samples), 3), np.uint16)
    for start in range(0, len(samples), _BLOCK):
        rows = slice(start, start + _BLOCK)
        planes = samples[rows].T.astype(np.float64)
        for channel, values in enumerate(convert(planes[0], planes[1], planes[2])):
            result[rows, channel] = quantum(values)
    return result


def _to_cmyk(r: Real, g: Real, b: Real) -> Planes:
    c = 1.0 - SCALE * r
    m = 1.0 - SCALE * g
    y = 1.0 - SCALE * b
    black = np.minimum(c, np.minimum(m, y))
    dark = (SCALE * r < EPSILON) & (SCALE * g < EPSILON) & (SCALE * b < EPSILON)
    # A product with the reciprocal, as in the reference. Exact halves are frequent here, and a
    # division would round one color in a thousand the other way.
    rest = 1.0 / np.where(dark, 1.0, 1.0 - black)
    return tuple(  # type: ignore[return-value]
        QUANTUM * np.where(dark, 0.0, (v - black) * rest) for v in (c, m, y)
    )


def _inverse_cmyk(samples: NDArray[np.uint16], black: NDArray[np.int64]) -> NDArray[np.uint16]:
    k = black.astype(np.float64)[:, np.newaxis]
    ink = samples.astype(np.float64)
    return quantum(QUANTUM - (SCALE * ink * (QUANTUM - k) + k)).astype(np.uint16)


_FORWARD: dict[ColorSpace, Conversion] = {
    ColorSpace.RGB: to_linear,
    ColorSpace.GRAY: to_gray,
    ColorSpace.Transparent: identity,
    ColorSpace.OHTA: to_ohta,
    ColorSpace.Lab: to_lab,
    ColorSpace.XYZ: to_xyz,
    ColorSpace.YCbCr: to_ycbcr,
    ColorSpace.YCC: to_ycc,
    ColorSpace.YIQ: to_yiq,
    ColorSpace.YPbPr: to_ycbcr,
    ColorSpace.YUV: to_yuv,
    ColorSpace.CMYK: _to_cmyk,
    ColorSpace.sRGB: identity,
    ColorSpace.HSB: to_hsb,
    ColorSpace.HSL: to_hsl,
    ColorSpace.HWB: to_hwb,
    ColorSpace.Rec601Luma: to_rec601_luma,
    ColorSpace.Rec601YCbCr: to_rec601_ycbcr,
    ColorSpace.Rec709Luma: to_gray,
    ColorSpace.Rec709YCbCr: to_rec709_ycbcr,
    ColorSpace.Log: to_log,
    ColorSpace.CMY: to_complement,
}

_INVERSE: dict[ColorSpace, Conversion] = {
    ColorSpace.RGB: from_linear,
    ColorSpace.GRAY: to_gray,
    ColorSpace.Transparent: identity,
    ColorSpace.OHTA: from_ohta,
    ColorSpace.Lab: from_lab,
    ColorSpace.XYZ: from_xyz,
    ColorSpace.YCbCr: from_ycbcr,
    ColorSpace.YCC: from_ycc,
    ColorSpace.YIQ: from_yiq,
    ColorSpace.YPbPr: from_ycbcr,
    ColorSpace.YUV: from_yuv,
    ColorSpace.sRGB: identity,
    ColorSpace.HSB: from_hsb,
    ColorSpace.HSL: from_hsl,
    ColorSpace.HWB: from_hwb,
    ColorSpace.Rec601Luma: from_rec601_luma,
    ColorSpace.Rec601YCbCr: from_rec601_ycbcr,
    ColorSpace.Rec709Luma: to_gray,
    ColorSpace.Rec709YCbCr: from_rec709_ycbcr,
    ColorSpace.Log: from_log,
    ColorSpace.CMY: from_complement,
}
