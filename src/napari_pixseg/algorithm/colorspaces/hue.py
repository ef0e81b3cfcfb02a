"""HSB, HSL and HWB: planes in quanta to planes that are not rounded."""

from __future__ import annotations

import numpy as np

from napari_pixseg.algorithm.colorspaces.quantum import EPSILON, QUANTUM, SCALE, Planes, Real


def _find_hue(r: Real, g: Real, b: Real, top: Real, chroma: Real) -> Real:
    """Return the hue in sextants, -1 to 5; 0 for grays."""
    divisor = np.where(chroma > 0.0, chroma, 1.0)
    return np.where(
        r == top,
        (g - b) / divisor,
        np.where(g == top, 2.0 + (b - r) / divisor, 4.0 + (r - g) / divisor),
    )


def _find_extremes(r: Real, g: Real, b: Real) -> tuple[Real, Real]:
    return np.maximum(r, np.maximum(g, b)), np.minimum(r, np.minimum(g, b))


def to_hsb(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to HSB."""
    top, bottom = _find_extremes(r, g, b)
    saturation = (top - bottom) / np.where(top > 0.0, top, 1.0)
    hue = _find_hue(r, g, b, top, top - bottom) / 6.0
    hue = np.where(hue < 0.0, hue + 1.0, hue)
    return QUANTUM * hue, QUANTUM * saturation, QUANTUM * (SCALE * top)


def to_hsl(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to HSL."""
    top, bottom = _find_extremes(SCALE * r, SCALE * g, SCALE * b)
    chroma = top - bottom
    lightness = (top + bottom) / 2.0
    divisor = np.where(lightness <= 0.5, 2.0 * lightness, 2.0 - 2.0 * lightness)
    saturation = np.where(chroma > 0.0, chroma / np.where(chroma > 0.0, divisor, 1.0), 0.0)
    sextant = _find_hue(SCALE * r, SCALE * g, SCALE * b, top, chroma)
    # HSB divides by six instead, and the two differ where a byte is rounded.
    hue = np.where(sextant < 0.0, sextant + 6.0, sextant) * (60.0 / 360.0)
    return QUANTUM * hue, QUANTUM * saturation, QUANTUM * lightness


def to_hwb(r: Real, g: Real, b: Real) -> Planes:
    """Convert sRGB to HWB."""
    top, bottom = _find_extremes(r, g, b)
    chroma = np.where(top > bottom, top - bottom, 1.0)
    hue = np.where(
        r == bottom,
        3.0 - (g - b) / chroma,
        np.where(g == bottom, 5.0 - (b - r) / chroma, 1.0 - (r - g) / chroma),
    )
    # The -1 of grays becomes 0 when the caller clamps it.
    hue = np.where(top > bottom, hue / 6.0, -1.0)
    return QUANTUM * hue, QUANTUM * (SCALE * bottom), QUANTUM * (1.0 - SCALE * top)


def _arrange_levels(index: Real, top: Real, rising: Real, falling: Real, bottom: Real) -> Planes:
    """Arrange the four levels of a hue hexagon by its sextant 0..5."""
    which = [index == i for i in range(5)]
    r = np.select(which, [top, falling, bottom, bottom, rising], top)
    g = np.select(which, [rising, top, top, falling, bottom], bottom)
    b = np.select(which, [bottom, bottom, rising, top, top], falling)
    return QUANTUM * r, QUANTUM * g, QUANTUM * b


def from_hsb(hue: Real, saturation: Real, brightness: Real) -> Planes:
    """Convert HSB to sRGB."""
    hue = SCALE * hue
    saturation = SCALE * saturation
    brightness = SCALE * brightness
    # A hue of 1 is the same as one of 0.
    turn = 6.0 * (hue - np.floor(hue))
    index = np.floor(turn)
    part = turn - index
    bottom = brightness * (1.0 - saturation)
    falling = brightness * (1.0 - saturation * part)
    rising = brightness * (1.0 - saturation * (1.0 - part))
    planes = _arrange_levels(index, brightness, rising, falling, bottom)
    gray = saturation < EPSILON
    return tuple(np.where(gray, QUANTUM * brightness, v) for v in planes)  # type: ignore[return-value]


def from_hsl(hue: Real, saturation: Real, lightness: Real) -> Planes:
    """Convert HSL to sRGB."""
    hue = SCALE * hue
    saturation = SCALE * saturation
    lightness = SCALE * lightness
    chroma = (1.0 - np.abs(2.0 * lightness - 1.0)) * saturation
    bottom = lightness - 0.5 * chroma
    turn = 6.0 * (hue - np.floor(hue))
    middle = bottom + chroma * (1.0 - np.abs(turn - 2.0 * np.floor(turn / 2.0) - 1.0))
    return _arrange_levels(np.floor(turn), bottom + chroma, middle, middle, bottom)


def from_hwb(hue: Real, whiteness: Real, blackness: Real) -> Planes:
    """Convert HWB to sRGB."""
    turn = 6.0 * (SCALE * hue)
    whiteness = SCALE * whiteness
    value = 1.0 - SCALE * blackness
    index = np.floor(turn)
    part = turn - index
    part = np.where(index % 2 == 1, 1.0 - part, part)
    middle = whiteness + part * (value - whiteness)
    return _arrange_levels(np.where(index >= 6, 0.0, index), value, middle, middle, whiteness)
