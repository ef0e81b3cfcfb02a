"""How samples of any type become byte colors: window, color space, alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors
from napari_pixseg.algorithm.colorspaces.convert import forward, to_byte
from napari_pixseg.classification.tile_colors import ByteColors, Colors, Encoded, Packed, Part
from napari_pixseg.parameters import ColorSpace, Interval
from napari_pixseg.slices import PixelSlices, whole_box
from napari_pixseg.sources.image import Image
from napari_pixseg.sources.source import is_masked

_HUGE = 1e300


@dataclass(frozen=True)
class Encoding:
    """How the samples of an image become bytes.

    Attributes
    ----------
    window : tuple of (low, high) or None
        Per channel, what is mapped to 0..255; None takes bytes as they are.
    space : ColorSpace or None
        16-bit samples are converted to this space before they become bytes.
    """

    window: tuple[Interval, ...] | None = None
    space: ColorSpace | None = None

    def colors(self, image: Image, region: PixelSlices) -> Colors:
        """Read a region and :meth:`encode` it, but for bytes that are colors already."""
        if self.space is not None or self.window is not None:
            return self._encoded(image.read(region))
        return self._taken(
            tuple(part.stop - part.start for part in region), image.read_parts(region)
        )

    def of_block(self, block: NDArray[Any]) -> Colors:
        """:meth:`encode` (..., c) samples, but for bytes that are colors already."""
        if self.space is not None or self.window is not None:
            return self._encoded(block)
        shape = block.shape[:-1]
        return self._taken(shape, [(whole_box(shape), block)])

    def _encoded(self, samples: NDArray[Any]) -> Colors:
        packed = self.encode(samples)
        # What is masked has values that must not be averaged.
        return packed if is_masked(samples) else Encoded(packed, samples)

    def _taken(self, shape: tuple[int, ...], parts: Sequence[Part]) -> Colors:
        samples = parts[0][1]
        return self.encode(samples) if is_masked(samples) else ByteColors.of(shape, parts)

    def encode(self, pixels: NDArray[Any]) -> Packed:
        """Turn (..., c) samples into (...) packed colors; masked ones have no data."""
        if is_masked(pixels):
            packed = self.encode(pixels.data)
            packed[np.ma.getmaskarray(pixels).any(axis=-1)] = NO_DATA
            return packed
        if self.space is not None:
            return pack_colors(_in_space(pixels, self.space))
        if self.window is None:
            return pack_colors(pixels)
        packed = pack_colors(_windowed(pixels, self.window))
        if pixels.dtype.kind == "f":
            packed[np.isnan(pixels).any(axis=-1)] = NO_DATA
        return packed


def _in_space(pixels: NDArray[np.uint16], space: ColorSpace) -> NDArray[np.uint8]:
    rgb = np.zeros((*pixels.shape[:-1], 3), np.uint16)
    rgb[..., : pixels.shape[-1]] = pixels
    if pixels.shape[-1] == 1:
        rgb[...] = pixels
    return to_byte(forward(space, rgb.reshape(-1, 3))).reshape(rgb.shape)


def _windowed(pixels: NDArray[Any], window: tuple[Interval, ...]) -> NDArray[np.uint8]:
    result = np.empty(pixels.shape, np.uint8)
    for channel in range(pixels.shape[-1]):
        low, high = window[channel if len(window) > 1 else 0]
        samples = pixels[..., channel]
        if samples.dtype.kind in "bu" and samples.dtype.itemsize <= 2:
            # Fewer possible samples than pixels: map each once.
            levels = np.arange(2 ** (8 * samples.dtype.itemsize))
            result[..., channel] = to_window(levels, low, high)[samples.astype(np.intp)]
        else:
            result[..., channel] = to_window(samples, low, high)
    return result


def to_window(samples: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map low..high to 0..255, rounded half up; what lies outside is clipped, NaN becomes 0."""
    if high == low:
        return np.zeros(samples.shape, np.uint8)
    clipped = np.clip(samples.astype(np.float64), low, high)
    if max(abs(low), abs(high)) > _HUGE:
        # Products below would overflow; a power of two changes no digit.
        clipped, low, high = clipped * 2.0**-20, low * 2.0**-20, high * 2.0**-20
    mapped = np.floor(255.0 * (clipped - low) / (high - low) + 0.5)
    return np.nan_to_num(mapped, copy=False, nan=0.0).astype(np.uint8)


def alpha_bytes(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    """Reduce alpha samples to bytes: full range for integers, 0..1 for floats."""
    if alpha.dtype == np.uint8:
        return alpha
    high = 1.0 if alpha.dtype.kind in "fb" else float(np.iinfo(alpha.dtype).max)
    return to_window(alpha, 0.0, high)
