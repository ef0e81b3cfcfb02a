"""The 22 color spaces, forward and inverse, on 16-bit samples.

All of it follows ImageMagick 6.9.11-60 (Q16): a *quantum* is an integer
0..65535, real arithmetic is double precision, results are rounded half up.
Constants and formulas: ALGORITHM specification, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from napari_pixseg.parameters import ColorSpace

Real: TypeAlias = NDArray[np.float64]
Planes: TypeAlias = tuple[Real, Real, Real]
Conversion: TypeAlias = Callable[[Real, Real, Real], Planes]

QUANTUM = 65535.0
_SCALE = 1.0 / QUANTUM
_EPSILON = 1e-12
_SRGB_SLOPE = float(np.float32(12.92))
_CIE_EPSILON = 216.0 / 24389.0
_CIE_KAPPA = 24389.0 / 27.0
_WHITE = (0.950456, 1.0, 1.088754)
# Temporaries of this many colors stay in the second-level cache.
_BLOCK = 1 << 14


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
    if space in (ColorSpace.sRGB, ColorSpace.Transparent):
        return srgb.copy()
    result = np.empty_like(srgb)
    for start in range(0, len(srgb), _BLOCK):
        rows = slice(start, start + _BLOCK)
        result[rows] = to_byte(forward(space, from_byte(srgb[rows])))
    return result


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
            result[rows, channel] = _quantum(values)
    return result


def _quantum(values: Real) -> Real:
    """Clamp to 0..65535, NaN to 0, and round half up."""
    clamped = np.where(values > 0.0, np.minimum(values, QUANTUM), 0.0)
    return np.floor(clamped + 0.5)


# Gamma -----------------------------------------------------------------------


@cache
def _octave_series(power: float) -> Real:
    """Chebyshev coefficients of ``x ** power`` on [0.5, 1], cut at degree 8.

    The reference evaluates its powers so; the cut shows in the last quantum.
    """
    nodes = chebyshev.chebpts1(41)
    exact = chebyshev.chebfit(nodes, ((nodes + 3.0) / 4.0) ** power, 40)
    return np.asarray(exact[:9], np.float64)


def _power(x: Real, power: float) -> Real:
    mantissa, exponent = np.frexp(x)
    series = chebyshev.chebval(4.0 * mantissa - 3.0, _octave_series(power))
    return np.asarray(series * np.exp2(power * exponent), np.float64)


@cache
def _linear_table() -> Real:
    """Linear light of all 65536 sRGB samples, in quanta, not rounded."""
    v = np.arange(65536, dtype=np.float64)
    x = (_SCALE * v + 0.055) / 1.055
    curved = QUANTUM * (x * _power(x, 1.4))
    return np.where(v <= 0.0404482362771076 * QUANTUM, v / _SRGB_SLOPE, curved)


def _linear(samples: Real) -> Real:
    return _linear_table()[samples.astype(np.uint16)]


def _gamma_encoded(values: Real) -> Real:
    """SRGB samples (not rounded) of linear light in quanta, which may lie outside the range."""
    x = np.maximum(_SCALE * values, 1e-9)
    curved = QUANTUM * (1.055 * _power(x, 5.0 / 12.0) - 0.055)
    linear = _SRGB_SLOPE * values
    return np.where(values <= 0.0031306684425005883 * QUANTUM, linear, curved)


# Matrix spaces ---------------------------------------------------------------


def _identity(r: Real, g: Real, b: Real) -> Planes:
    return r, g, b


def _luma709(r: Real, g: Real, b: Real) -> Real:
    return 0.212656 * r + 0.715158 * g + 0.072186 * b


def _luma601(r: Real, g: Real, b: Real) -> Real:
    return 0.298839 * r + 0.586811 * g + 0.114350 * b


def _to_gray(r: Real, g: Real, b: Real) -> Planes:
    y = _luma709(r, g, b)
    return y, y, y


def _to_rec601_luma(r: Real, g: Real, b: Real) -> Planes:
    y = _luma601(r, g, b)
    return y, y, y


def _from_rec601_luma(r: Real, g: Real, b: Real) -> Planes:
    # Not the inverse of the forward: the reference takes the luma for linear light.
    y = _gamma_encoded(_luma709(r, g, b))
    return y, y, y


def _to_linear(r: Real, g: Real, b: Real) -> Planes:
    return _linear(r), _linear(g), _linear(b)


def _from_linear(r: Real, g: Real, b: Real) -> Planes:
    return _gamma_encoded(r), _gamma_encoded(g), _gamma_encoded(b)


def _complement(r: Real, g: Real, b: Real) -> Planes:
    return tuple(QUANTUM * (_SCALE * (QUANTUM - v)) for v in (r, g, b))  # type: ignore[return-value]


def _from_complement(c: Real, m: Real, y: Real) -> Planes:
    return tuple(QUANTUM * (1.0 - _SCALE * v) for v in (c, m, y))  # type: ignore[return-value]


def _to_ycbcr(r: Real, g: Real, b: Real) -> Planes:
    pb = _SCALE * (-0.1687367 * r - 0.331264 * g + 0.5 * b) + 0.5
    pr = _SCALE * (0.5 * r - 0.418688 * g - 0.081312 * b) + 0.5
    return QUANTUM * (_SCALE * _luma601(r, g, b)), QUANTUM * pb, QUANTUM * pr


def _ycbcr_to_rgb(y: Real, pb: Real, pr: Real) -> Planes:
    r = 0.99999999999914679361 * y - 1.2188941887145875e-6 * pb + 1.4019995886561440468 * pr
    g = 0.99999975910502514331 * y - 0.34413567816504303521 * pb - 0.71413649331646789076 * pr
    b = 1.00000124040004623180 * y + 1.772000066072304092 * pb + 2.1453384174593273e-6 * pr
    return r, g, b


def _from_ycbcr(y: Real, pb: Real, pr: Real) -> Planes:
    r, g, b = _ycbcr_to_rgb(_SCALE * y, _SCALE * pb - 0.5, _SCALE * pr - 0.5)
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def _to_rec601_ycbcr(r: Real, g: Real, b: Real) -> Planes:
    cb = -0.1687367 * r - 0.331264 * g + 0.5 * b + 32768.0
    cr = 0.5 * r - 0.418688 * g - 0.081312 * b + 32768.0
    return _luma601(r, g, b), cb, cr


def _from_rec601_ycbcr(y: Real, cb: Real, cr: Real) -> Planes:
    return _ycbcr_to_rgb(y, 0.5 * (2.0 * cb - QUANTUM), 0.5 * (2.0 * cr - QUANTUM))


def _to_rec709_ycbcr(r: Real, g: Real, b: Real) -> Planes:
    cb = -0.114572 * r - 0.385428 * g + 0.5 * b + 32768.0
    cr = 0.5 * r - 0.454153 * g - 0.045847 * b + 32768.0
    return _luma709(r, g, b), cb, cr


def _from_rec709_ycbcr(y: Real, cb: Real, cr: Real) -> Planes:
    cb, cr = 0.5 * (2.0 * cb - QUANTUM), 0.5 * (2.0 * cr - QUANTUM)
    return y + 1.5748 * cr, y - 0.187324 * cb - 0.468124 * cr, y + 1.8556 * cb


def _to_yuv(r: Real, g: Real, b: Real) -> Planes:
    u = _SCALE * (-0.147 * r - 0.289 * g + 0.436 * b) + 0.5
    v = _SCALE * (0.615 * r - 0.515 * g - 0.1 * b) + 0.5
    return QUANTUM * (_SCALE * _luma601(r, g, b)), QUANTUM * u, QUANTUM * v


def _from_yuv(y: Real, u: Real, v: Real) -> Planes:
    y, u, v = _SCALE * y, _SCALE * u - 0.5, _SCALE * v - 0.5
    r = y - 3.945707070708279e-5 * u + 1.1398279671717170825 * v
    g = y - 0.3946101641414141437 * u - 0.5805003156565656797 * v
    b = y + 2.0319996843434342537 * u - 4.813762626262513e-4 * v
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def _to_yiq(r: Real, g: Real, b: Real) -> Planes:
    i = _SCALE * (0.595716 * r - 0.274453 * g - 0.321263 * b) + 0.5
    q = _SCALE * (0.211456 * r - 0.522591 * g + 0.311135 * b) + 0.5
    return QUANTUM * (_SCALE * _luma601(r, g, b)), QUANTUM * i, QUANTUM * q


def _from_yiq(y: Real, i: Real, q: Real) -> Planes:
    y, i, q = _SCALE * y, _SCALE * i - 0.5, _SCALE * q - 0.5
    r = y + 0.9562957197589482261 * i + 0.6210244164652610754 * q
    g = y - 0.2721220993185104464 * i - 0.6473805968256950427 * q
    b = y - 1.1069890167364901945 * i + 1.7046149983646481374 * q
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def _to_ohta(r: Real, g: Real, b: Real) -> Planes:
    i1 = 0.33333 * r + 0.33334 * g + 0.33333 * b
    return i1, 0.5 * r - 0.5 * b + 32768.0, -0.25 * r + 0.5 * g - 0.25 * b + 32768.0


def _from_ohta(i1: Real, i2: Real, i3: Real) -> Planes:
    i2, i3 = 0.5 * (2.0 * i2 - QUANTUM), 0.5 * (2.0 * i3 - QUANTUM)
    return i1 + i2 - 0.66668 * i3, i1 + 1.33333 * i3, i1 - i2 - 0.66668 * i3


# Photo YCC and Log -----------------------------------------------------------

_YCC_TOE = (
    (0.005382, 0.010566, 0.002052),
    (-0.003296, -0.006471, 0.009768),
    (0.009410, -0.007880, -0.001530),
)
_YCC_BODY = (
    (0.298839, 0.586811, 0.114350),
    (-0.298839, -0.586811, 0.886),
    (0.701, -0.586811, -0.114350),
)
_YCC_OFFSET = (0.0, 156.0 * 257.0, 137.0 * 257.0)


def _to_ycc(r: Real, g: Real, b: Real) -> Planes:
    planes = []
    for toe, body, offset in zip(_YCC_TOE, _YCC_BODY, _YCC_OFFSET, strict=True):
        total = np.full_like(r, offset)
        for v, low, high in zip((r, g, b), toe, body, strict=True):
            total += np.where(v <= 1179.0, low * v, high * (1.099 * v - 0.099))
        planes.append(total)
    return planes[0], planes[1], planes[2]


def _from_ycc(y: Real, c1: Real, c2: Real) -> Planes:
    y, c1, c2 = 1.3584 * y, c1 - _YCC_OFFSET[1], c2 - _YCC_OFFSET[2]
    r, g, b = y + 1.8215 * c2, y - 0.4302726 * c1 - 0.9271435 * c2, y + 2.2179 * c1
    return _ycc_table(r), _ycc_table(g), _ycc_table(b)


def _ycc_table(values: Real) -> Real:
    # The reference keeps a table of six decimals in single precision.
    index = np.floor(np.clip(1024.0 * values / QUANTUM, 0.0, 1388.0) + 0.5)
    entry = np.round(index / 1388.0, 6).astype(np.float32)
    return (entry * np.float32(QUANTUM)).astype(np.float64)


_LOG_DENSITY = 0.002 / 0.6
_LOG_BLACK = 10.0 ** ((95.0 - 685.0) * _LOG_DENSITY)


@cache
def _log_table() -> Real:
    light = _LOG_BLACK + np.arange(65536) / QUANTUM * (1.0 - _LOG_BLACK)
    return _quantum(QUANTUM * (685.0 + np.log10(light) / _LOG_DENSITY) / 1024.0)


@cache
def _unlog_table() -> Real:
    i = np.arange(65536, dtype=np.float64)
    light = 10.0 ** ((1024.0 * i / QUANTUM - 685.0) * _LOG_DENSITY) - _LOG_BLACK
    table = _quantum(QUANTUM / (1.0 - _LOG_BLACK) * light)
    table[: int(95.0 * QUANTUM / 1024.0) + 1] = 0.0
    table[int(685.0 * QUANTUM / 1024.0) :] = QUANTUM
    return table


def _to_log(r: Real, g: Real, b: Real) -> Planes:
    return tuple(  # type: ignore[return-value]
        _log_table()[_quantum(_linear(v)).astype(np.uint16)] for v in (r, g, b)
    )


def _from_log(r: Real, g: Real, b: Real) -> Planes:
    return tuple(  # type: ignore[return-value]
        _gamma_encoded(_unlog_table()[v.astype(np.uint16)]) for v in (r, g, b)
    )


# CIE spaces ------------------------------------------------------------------


def _to_xyz_unit(r: Real, g: Real, b: Real) -> Planes:
    r, g, b = _linear(r), _linear(g), _linear(b)
    x = _SCALE * (0.4124564 * r + 0.3575761 * g + 0.1804375 * b)
    y = _SCALE * (0.2126729 * r + 0.7151522 * g + 0.0721750 * b)
    z = _SCALE * (0.0193339 * r + 0.1191920 * g + 0.9503041 * b)
    return x, y, z


def _from_xyz_unit(x: Real, y: Real, z: Real) -> Planes:
    r = 3.2404542 * x - 1.5371385 * y - 0.4985314 * z
    g = -0.9692660 * x + 1.8760108 * y + 0.0415560 * z
    b = 0.0556434 * x - 0.2040259 * y + 1.0572252 * z
    return _from_linear(QUANTUM * r, QUANTUM * g, QUANTUM * b)


def _to_xyz(r: Real, g: Real, b: Real) -> Planes:
    x, y, z = _to_xyz_unit(r, g, b)
    return QUANTUM * x, QUANTUM * y, QUANTUM * z


def _from_xyz(x: Real, y: Real, z: Real) -> Planes:
    return _from_xyz_unit(_SCALE * x, _SCALE * y, _SCALE * z)


def _lab_curve(t: Real) -> Real:
    return np.where(t > _CIE_EPSILON, np.cbrt(t), (_CIE_KAPPA * t + 16.0) / 116.0)


def _to_lab(r: Real, g: Real, b: Real) -> Planes:
    xyz = _to_xyz_unit(r, g, b)
    fx, fy, fz = (_lab_curve(v / white) for v, white in zip(xyz, _WHITE, strict=True))
    lightness = (116.0 * fy - 16.0) / 100.0
    a = 500.0 * (fx - fy) / 255.0 + 0.5
    return QUANTUM * lightness, QUANTUM * a, QUANTUM * (200.0 * (fy - fz) / 255.0 + 0.5)


def _lab_uncurve(f: Real) -> Real:
    cube = f * f * f
    return np.where(cube > _CIE_EPSILON, cube, (116.0 * f - 16.0) / _CIE_KAPPA)


def _from_lab(lightness: Real, a: Real, b: Real) -> Planes:
    level = 100.0 * (_SCALE * lightness)
    fy = (level + 16.0) / 116.0
    x = _lab_uncurve(fy + 255.0 * (_SCALE * a - 0.5) / 500.0)
    y = np.where(level > _CIE_KAPPA * _CIE_EPSILON, fy * fy * fy, level / _CIE_KAPPA)
    z = _lab_uncurve(fy - 255.0 * (_SCALE * b - 0.5) / 200.0)
    return _from_xyz_unit(_WHITE[0] * x, _WHITE[1] * y, _WHITE[2] * z)


# Hue spaces ------------------------------------------------------------------


def _sextant(r: Real, g: Real, b: Real, top: Real, chroma: Real) -> Real:
    """Hue in sextants, -1 to 5; 0 for grays."""
    divisor = np.where(chroma > 0.0, chroma, 1.0)
    return np.where(
        r == top,
        (g - b) / divisor,
        np.where(g == top, 2.0 + (b - r) / divisor, 4.0 + (r - g) / divisor),
    )


def _extremes(r: Real, g: Real, b: Real) -> tuple[Real, Real]:
    return np.maximum(r, np.maximum(g, b)), np.minimum(r, np.minimum(g, b))


def _to_hsb(r: Real, g: Real, b: Real) -> Planes:
    top, bottom = _extremes(r, g, b)
    saturation = (top - bottom) / np.where(top > 0.0, top, 1.0)
    hue = _sextant(r, g, b, top, top - bottom) / 6.0
    hue = np.where(hue < 0.0, hue + 1.0, hue)
    return QUANTUM * hue, QUANTUM * saturation, QUANTUM * (_SCALE * top)


def _to_hsl(r: Real, g: Real, b: Real) -> Planes:
    top, bottom = _extremes(_SCALE * r, _SCALE * g, _SCALE * b)
    chroma, lightness = top - bottom, (top + bottom) / 2.0
    divisor = np.where(lightness <= 0.5, 2.0 * lightness, 2.0 - 2.0 * lightness)
    saturation = np.where(chroma > 0.0, chroma / np.where(chroma > 0.0, divisor, 1.0), 0.0)
    sextant = _sextant(_SCALE * r, _SCALE * g, _SCALE * b, top, chroma)
    # Not a division by six as in HSB: the two differ where a byte is rounded.
    hue = np.where(sextant < 0.0, sextant + 6.0, sextant) * (60.0 / 360.0)
    return QUANTUM * hue, QUANTUM * saturation, QUANTUM * lightness


def _to_hwb(r: Real, g: Real, b: Real) -> Planes:
    top, bottom = _extremes(r, g, b)
    chroma = np.where(top > bottom, top - bottom, 1.0)
    hue = np.where(
        r == bottom,
        3.0 - (g - b) / chroma,
        np.where(g == bottom, 5.0 - (b - r) / chroma, 1.0 - (r - g) / chroma),
    )
    hue = np.where(top > bottom, hue / 6.0, -1.0)
    return QUANTUM * hue, QUANTUM * (_SCALE * bottom), QUANTUM * (1.0 - _SCALE * top)


def _sextants(index: Real, top: Real, rising: Real, falling: Real, bottom: Real) -> Planes:
    """Arrange the four levels of a hue hexagon by its sextant 0..5."""
    which = [index == i for i in range(5)]
    r = np.select(which, [top, falling, bottom, bottom, rising], top)
    g = np.select(which, [rising, top, top, falling, bottom], bottom)
    b = np.select(which, [bottom, bottom, rising, top, top], falling)
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def _from_hsb(hue: Real, saturation: Real, brightness: Real) -> Planes:
    hue, saturation, brightness = _SCALE * hue, _SCALE * saturation, _SCALE * brightness
    turn = 6.0 * (hue - np.floor(hue))
    index = np.floor(turn)
    part = turn - index
    bottom = brightness * (1.0 - saturation)
    falling = brightness * (1.0 - saturation * part)
    rising = brightness * (1.0 - saturation * (1.0 - part))
    planes = _sextants(index, brightness, rising, falling, bottom)
    gray = saturation < _EPSILON
    return tuple(np.where(gray, QUANTUM * brightness, v) for v in planes)  # type: ignore[return-value]


def _from_hsl(hue: Real, saturation: Real, lightness: Real) -> Planes:
    hue, saturation, lightness = _SCALE * hue, _SCALE * saturation, _SCALE * lightness
    chroma = (1.0 - np.abs(2.0 * lightness - 1.0)) * saturation
    bottom = lightness - 0.5 * chroma
    turn = 6.0 * (hue - np.floor(hue))
    middle = bottom + chroma * (1.0 - np.abs(turn - 2.0 * np.floor(turn / 2.0) - 1.0))
    return _sextants(np.floor(turn), bottom + chroma, middle, middle, bottom)


def _from_hwb(hue: Real, whiteness: Real, blackness: Real) -> Planes:
    turn = 6.0 * (_SCALE * hue)
    whiteness, value = _SCALE * whiteness, 1.0 - _SCALE * blackness
    index = np.floor(turn)
    part = turn - index
    part = np.where(index % 2 == 1, 1.0 - part, part)
    middle = whiteness + part * (value - whiteness)
    return _sextants(np.where(index >= 6, 0.0, index), value, middle, middle, whiteness)


# CMYK ------------------------------------------------------------------------


def _to_cmyk(r: Real, g: Real, b: Real) -> Planes:
    c, m, y = 1.0 - _SCALE * r, 1.0 - _SCALE * g, 1.0 - _SCALE * b
    black = np.minimum(c, np.minimum(m, y))
    dark = (_SCALE * r < _EPSILON) & (_SCALE * g < _EPSILON) & (_SCALE * b < _EPSILON)
    # A product with the reciprocal, as in the reference: exact halves are frequent here,
    # and a division rounds one color in a thousand the other way.
    rest = 1.0 / np.where(dark, 1.0, 1.0 - black)
    return tuple(  # type: ignore[return-value]
        QUANTUM * np.where(dark, 0.0, (v - black) * rest) for v in (c, m, y)
    )


def _inverse_cmyk(samples: NDArray[np.uint16], black: NDArray[np.int64]) -> NDArray[np.uint16]:
    k = black.astype(np.float64)[:, np.newaxis]
    ink = samples.astype(np.float64)
    return _quantum(QUANTUM - (_SCALE * ink * (QUANTUM - k) + k)).astype(np.uint16)


_S = ColorSpace
_FORWARD: dict[ColorSpace, Conversion] = {
    _S.RGB: _to_linear, _S.GRAY: _to_gray, _S.Transparent: _identity, _S.OHTA: _to_ohta,
    _S.Lab: _to_lab, _S.XYZ: _to_xyz, _S.YCbCr: _to_ycbcr, _S.YCC: _to_ycc, _S.YIQ: _to_yiq,
    _S.YPbPr: _to_ycbcr, _S.YUV: _to_yuv, _S.CMYK: _to_cmyk, _S.sRGB: _identity,
    _S.HSB: _to_hsb, _S.HSL: _to_hsl, _S.HWB: _to_hwb, _S.Rec601Luma: _to_rec601_luma,
    _S.Rec601YCbCr: _to_rec601_ycbcr, _S.Rec709Luma: _to_gray,
    _S.Rec709YCbCr: _to_rec709_ycbcr, _S.Log: _to_log, _S.CMY: _complement,
}  # fmt: skip
_INVERSE: dict[ColorSpace, Conversion] = {
    _S.RGB: _from_linear, _S.GRAY: _to_gray, _S.Transparent: _identity, _S.OHTA: _from_ohta,
    _S.Lab: _from_lab, _S.XYZ: _from_xyz, _S.YCbCr: _from_ycbcr, _S.YCC: _from_ycc,
    _S.YIQ: _from_yiq, _S.YPbPr: _from_ycbcr, _S.YUV: _from_yuv, _S.sRGB: _identity,
    _S.HSB: _from_hsb, _S.HSL: _from_hsl, _S.HWB: _from_hwb,
    _S.Rec601Luma: _from_rec601_luma, _S.Rec601YCbCr: _from_rec601_ycbcr,
    _S.Rec709Luma: _to_gray, _S.Rec709YCbCr: _from_rec709_ycbcr, _S.Log: _from_log,
    _S.CMY: _from_complement,
}  # fmt: skip
