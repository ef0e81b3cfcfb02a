"""CIE XYZ and Lab: planes in quanta to planes that are not rounded."""

from __future__ import annotations

import numpy as np

from napari_pixseg.algorithm.colorspaces.matrix import from_linear, to_linear
from napari_pixseg.algorithm.colorspaces.quantum import QUANTUM, SCALE, Planes, Real

# Where the cube root meets its linear part, and the slope there.
_CIE_EPSILON = 216.0 / 24389.0
_CIE_KAPPA = 24389.0 / 27.0
# D65 as the reference has it; its matrices are for a slightly different white.
_WHITE = (0.950456, 1.0, 1.088754)


def _to_xyz_unit(r: Real, g: Real, b: Real) -> Planes:
    r, g, b = to_linear(r, g, b)
    x = SCALE * (0.4124564 * r + 0.3575761 * g + 0.1804375 * b)
    y = SCALE * (0.2126729 * r + 0.7151522 * g + 0.0721750 * b)
    z = SCALE * (0.0193339 * r + 0.1191920 * g + 0.9503041 * b)
    return x, y, z


def _from_xyz_unit(x: Real, y: Real, z: Real) -> Planes:
    r = 3.2404542 * x - 1.5371385 * y - 0.4985314 * z
    g = -0.9692660 * x + 1.8760108 * y + 0.0415560 * z
    b = 0.0556434 * x - 0.2040259 * y + 1.0572252 * z
    return from_linear(QUANTUM * r, QUANTUM * g, QUANTUM * b)


def to_xyz(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to XYZ."""
    x, y, z = _to_xyz_unit(r, g, b)
    return QUANTUM * x, QUANTUM * y, QUANTUM * z


def from_xyz(x: Real, y: Real, z: Real) -> Planes:
    """Convert XYZ to sRGB."""
    return _from_xyz_unit(SCALE * x, SCALE * y, SCALE * z)


def _lab_curve(t: Real) -> Real:
    return np.where(t > _CIE_EPSILON, np.cbrt(t), (_CIE_KAPPA * t + 16.0) / 116.0)


def to_lab(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to Lab."""
    xyz = _to_xyz_unit(r, g, b)
    fx, fy, fz = (_lab_curve(v / white) for v, white in zip(xyz, _WHITE, strict=True))
    lightness = (116.0 * fy - 16.0) / 100.0
    # Shifted by half, because a and b may be negative and quanta may not.
    a = 500.0 * (fx - fy) / 255.0 + 0.5
    return QUANTUM * lightness, QUANTUM * a, QUANTUM * (200.0 * (fy - fz) / 255.0 + 0.5)


def _lab_uncurve(f: Real) -> Real:
    cube = f * f * f
    return np.where(cube > _CIE_EPSILON, cube, (116.0 * f - 16.0) / _CIE_KAPPA)


def from_lab(lightness: Real, a: Real, b: Real) -> Planes:
    """Convert Lab to sRGB."""
    level = 100.0 * (SCALE * lightness)
    fy = (level + 16.0) / 116.0
    x = _lab_uncurve(fy + 255.0 * (SCALE * a - 0.5) / 500.0)
    y = np.where(level > _CIE_KAPPA * _CIE_EPSILON, fy * fy * fy, level / _CIE_KAPPA)
    z = _lab_uncurve(fy - 255.0 * (SCALE * b - 0.5) / 200.0)
    return _from_xyz_unit(_WHITE[0] * x, _WHITE[1] * y, _WHITE[2] * z)
