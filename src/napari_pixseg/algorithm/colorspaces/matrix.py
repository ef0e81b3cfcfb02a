"""Spaces that a matrix and an offset lead to, and linear light: planes in quanta to planes.

Results are neither clamped nor rounded; the caller does both.
"""

from __future__ import annotations

from napari_pixseg.algorithm.colorspaces.quantum import (
    QUANTUM,
    SCALE,
    Planes,
    Real,
    gamma_encoded,
    linear,
)


def identity(r: Real, g: Real, b: Real) -> Planes:
    """Return the samples as they are."""
    return r, g, b


# All weights are the reference's. Those of the ways back are not quite the inverse matrices.
def _luma709(r: Real, g: Real, b: Real) -> Real:
    return 0.212656 * r + 0.715158 * g + 0.072186 * b


def _luma601(r: Real, g: Real, b: Real) -> Real:
    return 0.298839 * r + 0.586811 * g + 0.114350 * b


def to_gray(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to GRAY and Rec709Luma, which is its own inverse."""
    y = _luma709(r, g, b)
    return y, y, y


def to_rec601_luma(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to Rec601Luma."""
    y = _luma601(r, g, b)
    return y, y, y


def from_rec601_luma(r: Real, g: Real, b: Real) -> Planes:
    """Convert Rec601Luma to sRGB."""
    # Not the inverse, because the reference takes the luma for linear light.
    y = gamma_encoded(_luma709(r, g, b))
    return y, y, y


def to_linear(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to linear light."""
    return linear(r), linear(g), linear(b)


def from_linear(r: Real, g: Real, b: Real) -> Planes:
    """Convert linear light to sRGB."""
    return gamma_encoded(r), gamma_encoded(g), gamma_encoded(b)


def to_complement(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to CMY."""
    return tuple(QUANTUM * (SCALE * (QUANTUM - v)) for v in (r, g, b))  # type: ignore[return-value]


def from_complement(c: Real, m: Real, y: Real) -> Planes:
    """Convert CMY to sRGB."""
    return tuple(QUANTUM * (1.0 - SCALE * v) for v in (c, m, y))  # type: ignore[return-value]


def to_ycbcr(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to YCbCr."""
    pb = SCALE * (-0.1687367 * r - 0.331264 * g + 0.5 * b) + 0.5
    pr = SCALE * (0.5 * r - 0.418688 * g - 0.081312 * b) + 0.5
    return QUANTUM * (SCALE * _luma601(r, g, b)), QUANTUM * pb, QUANTUM * pr


def _ycbcr_to_rgb(y: Real, pb: Real, pr: Real) -> Planes:
    r = 0.99999999999914679361 * y - 1.2188941887145875e-6 * pb + 1.4019995886561440468 * pr
    g = 0.99999975910502514331 * y - 0.34413567816504303521 * pb - 0.71413649331646789076 * pr
    b = 1.00000124040004623180 * y + 1.772000066072304092 * pb + 2.1453384174593273e-6 * pr
    return r, g, b


def from_ycbcr(y: Real, pb: Real, pr: Real) -> Planes:
    """Convert YCbCr to sRGB."""
    r, g, b = _ycbcr_to_rgb(SCALE * y, SCALE * pb - 0.5, SCALE * pr - 0.5)
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def to_rec601_ycbcr(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to Rec601YCbCr."""
    cb = -0.1687367 * r - 0.331264 * g + 0.5 * b + 32768.0
    cr = 0.5 * r - 0.418688 * g - 0.081312 * b + 32768.0
    return _luma601(r, g, b), cb, cr


def from_rec601_ycbcr(y: Real, cb: Real, cr: Real) -> Planes:
    """Convert Rec601YCbCr to sRGB."""
    return _ycbcr_to_rgb(y, 0.5 * (2.0 * cb - QUANTUM), 0.5 * (2.0 * cr - QUANTUM))


def to_rec709_ycbcr(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to Rec709YCbCr."""
    cb = -0.114572 * r - 0.385428 * g + 0.5 * b + 32768.0
    cr = 0.5 * r - 0.454153 * g - 0.045847 * b + 32768.0
    return _luma709(r, g, b), cb, cr


def from_rec709_ycbcr(y: Real, cb: Real, cr: Real) -> Planes:
    """Convert Rec709YCbCr to sRGB."""
    cb = 0.5 * (2.0 * cb - QUANTUM)
    cr = 0.5 * (2.0 * cr - QUANTUM)
    return y + 1.5748 * cr, y - 0.187324 * cb - 0.468124 * cr, y + 1.8556 * cb


def to_yuv(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to YUV."""
    u = SCALE * (-0.147 * r - 0.289 * g + 0.436 * b) + 0.5
    v = SCALE * (0.615 * r - 0.515 * g - 0.1 * b) + 0.5
    return QUANTUM * (SCALE * _luma601(r, g, b)), QUANTUM * u, QUANTUM * v


def from_yuv(y: Real, u: Real, v: Real) -> Planes:
    """Convert YUV to sRGB."""
    y = SCALE * y
    u = SCALE * u - 0.5
    v = SCALE * v - 0.5
    r = y - 3.945707070708279e-5 * u + 1.1398279671717170825 * v
    g = y - 0.3946101641414141437 * u - 0.5805003156565656797 * v
    b = y + 2.0319996843434342537 * u - 4.813762626262513e-4 * v
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def to_yiq(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to YIQ."""
    i = SCALE * (0.595716 * r - 0.274453 * g - 0.321263 * b) + 0.5
    q = SCALE * (0.211456 * r - 0.522591 * g + 0.311135 * b) + 0.5
    return QUANTUM * (SCALE * _luma601(r, g, b)), QUANTUM * i, QUANTUM * q


def from_yiq(y: Real, i: Real, q: Real) -> Planes:
    """Convert YIQ to sRGB."""
    y = SCALE * y
    i = SCALE * i - 0.5
    q = SCALE * q - 0.5
    r = y + 0.9562957197589482261 * i + 0.6210244164652610754 * q
    g = y - 0.2721220993185104464 * i - 0.6473805968256950427 * q
    b = y - 1.1069890167364901945 * i + 1.7046149983646481374 * q
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def to_ohta(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to OHTA."""
    i1 = 0.33333 * r + 0.33334 * g + 0.33333 * b
    return i1, 0.5 * r - 0.5 * b + 32768.0, -0.25 * r + 0.5 * g - 0.25 * b + 32768.0


def from_ohta(i1: Real, i2: Real, i3: Real) -> Planes:
    """Convert OHTA to sRGB."""
    i2 = 0.5 * (2.0 * i2 - QUANTUM)
    i3 = 0.5 * (2.0 * i3 - QUANTUM)
    return i1 + i2 - 0.66668 * i3, i1 + 1.33333 * i3, i1 - i2 - 0.66668 * i3
