"""Quanta and gamma: samples of 16 bits, as ImageMagick 6.9.11-60 (Q16) computes with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[np.float64]


Planes: TypeAlias = tuple[Real, Real, Real]


Conversion: TypeAlias = Callable[[Real, Real, Real], Planes]


QUANTUM = 65535.0


SCALE = 1.0 / QUANTUM


EPSILON = 1e-12


_SRGB_SLOPE = float(np.float32(12.92))


def quantum(values: Real) -> Real:
    """Clamp to 0..65535, NaN to 0, and round half up."""
    clamped = np.fmax(values, 0.0)
    np.fmin(clamped, QUANTUM, out=clamped)
    clamped += 0.5
    return np.floor(clamped, out=clamped)


@cache
def _octave_series(power: float) -> Real:
    """Chebyshev coefficients of ``x ** power`` on [0.5, 1], cut at degree 8.

    The reference evaluates its powers so; the cut shows in the last quantum.
    """
    from numpy.polynomial import chebyshev

    nodes = chebyshev.chebpts1(41)
    exact = chebyshev.chebfit(nodes, ((nodes + 3.0) / 4.0) ** power, 40)
    return np.asarray(exact[:9], np.float64)


def _power(x: Real, power: float) -> Real:
    from numpy.polynomial import chebyshev

    mantissa, exponent = np.frexp(x)
    series = chebyshev.chebval(4.0 * mantissa - 3.0, _octave_series(power))
    return np.asarray(series * np.exp2(power * exponent), np.float64)


@cache
def _linear_table() -> Real:
    """Linear light of all 65536 sRGB samples, in quanta, not rounded."""
    v = np.arange(65536, dtype=np.float64)
    x = (SCALE * v + 0.055) / 1.055
    curved = QUANTUM * (x * _power(x, 1.4))
    return np.where(v <= 0.0404482362771076 * QUANTUM, v / _SRGB_SLOPE, curved)


def linear(samples: Real) -> Real:
    """Linear light, in quanta and not rounded, of whole sRGB samples."""
    return _linear_table()[samples.astype(np.uint16)]


def gamma_encoded(values: Real) -> Real:
    """SRGB samples (not rounded) of linear light in quanta, which may lie outside the range."""
    x = np.maximum(SCALE * values, 1e-9)
    curved = QUANTUM * (1.055 * _power(x, 5.0 / 12.0) - 0.055)
    linear = _SRGB_SLOPE * values
    return np.where(values <= 0.0031306684425005883 * QUANTUM, linear, curved)
