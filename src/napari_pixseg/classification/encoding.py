"""Converts samples of any type to byte colors: window, color space, alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors
from napari_pixseg.algorithm.colorspaces.convert import forward, to_byte
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.classification.tile import Part, Tile
from napari_pixseg.parameters import ColorSpace, Interval
from napari_pixseg.slices import PixelSlices, shape_of, whole_box
from napari_pixseg.sources.image import Image
from napari_pixseg.sources.source import is_masked

# Products of larger limits and 255 could overflow.
_HUGE = 1e300
_SCALE = 2.0**-20

_HIGHEST = 65535


@dataclass(frozen=True)
class Encoding:
    """How the samples of an image become bytes.

    Attributes
    ----------
    window : tuple of (low, high) or None
        Range of samples mapped to 0..255, for each channel; None takes bytes as they are.
    space : ColorSpace or None
        16-bit samples are converted to this space before they become bytes.
    highest : int
        Largest value of such samples; fewer bits are stretched to 16 first.
    """

    window: tuple[Interval, ...] | None = None
    space: ColorSpace | None = None
    highest: int = _HIGHEST

    @property
    def takes_bytes(self) -> bool:
        """Whether samples are bytes that need no conversion."""
        return self.space is None and self.window is None

    def read_tile(self, image: Image, slices: PixelSlices) -> Tile:
        """Read a box of an image, and :meth:`encode` it if necessary."""
        if not self.takes_bytes:
            return self._encode_tile(image.read(slices))
        return self._take_bytes(shape_of(slices), image.read_parts(slices))

    def tile_of(self, block: NDArray[Any]) -> Tile:
        """:meth:`encode` (..., c) samples, if necessary."""
        if not self.takes_bytes:
            return self._encode_tile(block)
        shape = block.shape[:-1]
        return self._take_bytes(shape, [(whole_box(shape), block)])

    def _encode_tile(self, samples: NDArray[Any]) -> Tile:
        packed = self.encode(samples)
        # Masked samples have arbitrary values that must not be averaged, so they are not passed on.
        return (
            Tile.from_packed(packed) if is_masked(samples) else Tile.from_samples(packed, samples)
        )

    def _take_bytes(self, shape: tuple[int, ...], parts: Sequence[Part]) -> Tile:
        samples = parts[0][1]
        if is_masked(samples):
            return Tile.from_packed(self.encode(samples))
        return Tile.from_bytes(shape, parts)

    def encode(self, pixels: NDArray[Any]) -> Packed:
        """Turn (..., c) samples into (...) packed colors. Masked samples become no data."""
        if is_masked(pixels):
            packed = self.encode(pixels.data)
            packed[np.ma.getmaskarray(pixels).any(axis=-1)] = NO_DATA
            return packed
        if self.space is not None:
            stretched = _stretch_samples(pixels, self.highest)
            return pack_colors(_convert_to_space(stretched, self.space))
        if self.window is None:
            return pack_colors(pixels)
        packed = pack_colors(_map_window(pixels, self.window))
        # One missing channel is enough to make a pixel no data.
        if pixels.dtype.kind == "f":
            packed[np.isnan(pixels).any(axis=-1)] = NO_DATA
        return packed


def _stretch_samples(pixels: NDArray[np.uint16], highest: int) -> NDArray[np.uint16]:
    """Stretch 0..highest to 16 bits, rounded half up, as ImageMagick does when reading."""
    if highest == _HIGHEST:
        return pixels
    levels = np.arange(highest + 1)
    table = ((levels * _HIGHEST * 2 + highest) // (2 * highest)).astype(np.uint16)
    stretched: NDArray[np.uint16] = table[np.minimum(pixels, highest)]
    return stretched


def _convert_to_space(pixels: NDArray[np.uint16], space: ColorSpace) -> NDArray[np.uint8]:
    rgb = np.zeros((*pixels.shape[:-1], 3), np.uint16)
    rgb[..., : pixels.shape[-1]] = pixels
    if pixels.shape[-1] == 1:
        rgb[...] = pixels
    return to_byte(forward(space, rgb.reshape(-1, 3))).reshape(rgb.shape)


def _map_window(pixels: NDArray[Any], window: tuple[Interval, ...]) -> NDArray[np.uint8]:
    result = np.empty(pixels.shape, np.uint8)
    for channel in range(pixels.shape[-1]):
        low, high = window[channel if len(window) > 1 else 0]
        samples = pixels[..., channel]
        if samples.dtype.kind in "bu" and samples.dtype.itemsize <= 2:
            # There are fewer possible values than pixels, so each value is mapped once.
            levels = np.arange(2 ** (8 * samples.dtype.itemsize))
            result[..., channel] = to_window(levels, low, high)[samples.astype(np.intp)]
        else:
            result[..., channel] = to_window(samples, low, high)
    return result


def to_window(samples: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map low..high to 0..255, rounded half up. Samples outside are clipped, NaN becomes 0."""
    # A flat channel carries no information, and scaling it would divide by 0.
    if high == low:
        return np.zeros(samples.shape, np.uint8)
    clipped = np.clip(samples.astype(np.float64), low, high)
    if max(abs(low), abs(high)) > _HUGE:
        # Multiplying by a power of two changes no digit.
        clipped = clipped * _SCALE
        low *= _SCALE
        high *= _SCALE
    mapped = np.floor(255.0 * (clipped - low) / (high - low) + 0.5)
    return np.nan_to_num(mapped, copy=False, nan=0.0).astype(np.uint8)


def alpha_bytes(alpha: NDArray[Any], highest: int | None) -> NDArray[np.uint8]:
    """Reduce alpha samples to bytes: 0..highest for integers, 0..1 for floats."""
    if alpha.dtype == np.uint8:
        return alpha
    return to_window(alpha, 0.0, 1.0 if highest is None else float(highest))
