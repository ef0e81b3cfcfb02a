"""Photo YCC and Log: planes in quanta to planes that are not rounded."""

from __future__ import annotations

from functools import cache

import numpy as np

from napari_pixseg.algorithm.colorspaces.quantum import (
    QUANTUM,
    Planes,
    Real,
    gamma_encoded,
    linear,
    quantum,
)

# The samples in them are quanta although the constants are for 0 to 1, as in the reference.
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


def to_ycc(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to Photo YCC."""
    planes = []
    for toe, body, offset in zip(_YCC_TOE, _YCC_BODY, _YCC_OFFSET, strict=True):
        total = np.full_like(r, offset)
        for v, low, high in zip((r, g, b), toe, body, strict=True):
            total += np.where(v <= 1179.0, low * v, high * (1.099 * v - 0.099))
        planes.append(total)
    return planes[0], planes[1], planes[2]


def from_ycc(y: Real, c1: Real, c2: Real) -> Planes:
    """Convert Photo YCC to sRGB."""
    y = 1.3584 * y
    c1 = c1 - _YCC_OFFSET[1]
    c2 = c2 - _YCC_OFFSET[2]
    r = y + 1.8215 * c2
    g = y - 0.4302726 * c1 - 0.9271435 * c2
    b = y + 2.2179 * c1
    return _look_up_ycc(r), _look_up_ycc(g), _look_up_ycc(b)


def _look_up_ycc(values: Real) -> Real:
    # The reference has a table with six decimals in single precision.
    index = np.floor(np.clip(1024.0 * values / QUANTUM, 0.0, 1388.0) + 0.5)
    entry = np.round(index / 1388.0, 6).astype(np.float32)
    return (entry * np.float32(QUANTUM)).astype(np.float64)


# Density of one code value (0.002) at the gamma of film (0.6), as for Cineon files.
_LOG_DENSITY = 0.002 / 0.6


# Codes 95 and 685 are the black and white of film.
_LOG_BLACK = 10.0 ** ((95.0 - 685.0) * _LOG_DENSITY)


@cache
def _log_table() -> Real:
    light = _LOG_BLACK + np.arange(65536) / QUANTUM * (1.0 - _LOG_BLACK)
    return quantum(QUANTUM * (685.0 + np.log10(light) / _LOG_DENSITY) / 1024.0)


@cache
def _unlog_table() -> Real:
    i = np.arange(65536, dtype=np.float64)
    light = 10.0 ** ((1024.0 * i / QUANTUM - 685.0) * _LOG_DENSITY) - _LOG_BLACK
    table = quantum(QUANTUM / (1.0 - _LOG_BLACK) * light)
    table[: int(95.0 * QUANTUM / 1024.0) + 1] = 0.0
    table[int(685.0 * QUANTUM / 1024.0) :] = QUANTUM
    return table


def to_log(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to Log."""
    return tuple(  # type: ignore[return-value]
        _log_table()[quantum(linear(v)).astype(np.uint16)] for v in (r, g, b)
    )


def from_log(r: Real, g: Real, b: Real) -> Planes:
    """Convert Log to sRGB."""
    return tuple(  # type: ignore[return-value]
        gamma_encoded(_unlog_table()[v.astype(np.uint16)]) for v in (r, g, b)
    )
