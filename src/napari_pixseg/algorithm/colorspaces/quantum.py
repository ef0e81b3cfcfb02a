"""Quanta and gamma: how ImageMagick 6.9.11-60 (Q16) computes with 16-bit samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[np.float64]
Planes: TypeAlias = tuple[Real, Real, Real]
Conversion: TypeAlias = Callable[[Real, Real, Real], Planes]

# The largest quantum.
QUANTUM = 65535.0
SCALE = 1.0 / QUANTUM
# Below this the reference takes a number for 0.
EPSILON = 1e-12

# A single-precision literal in the reference.
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

    The reference evaluates its powers like this, and the cut shows in the last quantum.
    """
    chebyshev = np.polynomial.chebyshev
    nodes = chebyshev.chebpts1(41)
    exact = chebyshev.chebfit(nodes, ((nodes + 3.0) / 4.0) ** power, 40)
    return np.asarray(exact[:9], np.float64)


def _raise_power(x: Real, power: float) -> Real:
    # The reference splits off the binary exponent, because the series holds for [0.5, 1] only.
    mantissa, exponent = np.frexp(x)
    series = np.polynomial.chebyshev.chebval(4.0 * mantissa - 3.0, _octave_series(power))
    return np.asarray(series * np.exp2(power * exponent), np.float64)


@cache
def _linear_table() -> Real:
    """Return the linear light of all 65536 sRGB samples, in quanta that are not rounded."""
    v = np.arange(65536, dtype=np.float64)
    x = (SCALE * v + 0.055) / 1.055
    curved = QUANTUM * (x * _raise_power(x, 1.4))
    return np.where(v <= 0.0404482362771076 * QUANTUM, v / _SRGB_SLOPE, curved)


def linear(samples: Real) -> Real:
    """Return the linear light of whole sRGB samples, in quanta that are not rounded."""
    return _linear_table()[samples.astype(np.uint16)]


def gamma_encoded(values: Real) -> Real:
    """Return sRGB samples, not rounded, of linear light in quanta, which may be out of range."""
    x = np.maximum(SCALE * values, 1e-9)
    curved = QUANTUM * (1.055 * _raise_power(x, 5.0 / 12.0) - 0.055)
    linear = _SRGB_SLOPE * values
    return np.where(values <= 0.0031306684425005883 * QUANTUM, linear, curved)
