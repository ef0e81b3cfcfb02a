"""Converts the stored samples of a TIFF to the pixels that other programs show.

It does not matter whether samples are uncompressed, decoded block by block, or read from a server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffPage

from napari_pixseg.slices import Samples, SampleType, split_key
from napari_pixseg.sources.lazy_file import Key

# Values of the tag PhotometricInterpretation.
_WHITE_IS_ZERO = 0
_RGB = 2
_PALETTE = 3
YCBCR = 6
_CFA = 32803

# Values of the tag ExtraSamples.
_UNSPECIFIED = 0
_ASSOCIATED = 1
_ALPHA = (_ASSOCIATED, 2)


@dataclass(frozen=True)
class SampleConversion:
    """How stored samples are converted.

    Attributes
    ----------
    bits : int
        Bits of integer samples; those of fewer than 8 become bytes. 0 for floats.
    is_inverted : bool
        Whether 0 is white.
    sample_axis : int or None
        The stored dimension of the samples of a pixel, among those that are kept.
    colors : int
        How many samples are colors; the others are not inverted.
    alpha : int or None
        Index of the alpha sample by which colors must be divided, or that a palette should keep.
    has_palette : bool
        Whether the first sample is an index of the color map; colors then come last.
    """

    bits: int
    is_inverted: bool = False
    sample_axis: int | None = None
    colors: int = 1
    alpha: int | None = None
    has_palette: bool = False

    def read_pixels(
        self,
        fetch: Callable[[Key], Samples],
        key: Key,
        shape: tuple[int, ...],
        palette: NDArray[np.uint8] | None,
    ) -> Samples:
        """Return pixels of an image.

        Parameters
        ----------
        fetch : callable
            Returns the stored samples of a key.
        key : tuple
            One integer or slice for each dimension of the pixels.
        shape : tuple of int
            Shape of the pixels.
        palette : (n, 3) ndarray of uint8, optional
            The color map, if it is applied.
        """
        if not (self.has_palette or self._mixes_samples):
            return self._show(fetch(key))
        # One sample depends on the others of its pixel, so all of them are read.
        box, rest = split_key(key, shape)
        axis = self.sample_axis
        channels = len(shape) - 1 if self.has_palette or axis is None else axis
        pixels_of_box = box[:channels] + box[channels + 1 :]
        if axis is None:
            stored = fetch(pixels_of_box)[..., np.newaxis]
        else:
            every = (*pixels_of_box[:axis], slice(None), *pixels_of_box[axis:])
            stored = np.moveaxis(fetch(every), axis, -1)
        shown = self._combine(stored, palette)[..., box[channels]]
        pixels: Samples = np.moveaxis(shown, -1, channels)[rest]
        return pixels

    @property
    def _mixes_samples(self) -> bool:
        """Whether a pixel's samples are not all treated alike."""
        return self.sample_axis is not None and (self.is_inverted or self.alpha is not None)

    def _combine(self, stored: Samples, palette: NDArray[np.uint8] | None) -> Samples:
        """Return pixels of (..., s) samples."""
        if palette is not None:
            colors = palette[stored[..., 0].astype(np.intp)]
            if self.alpha is None:
                return colors
            alpha = self._scale(stored[..., self.alpha])
            return np.concatenate([colors, _to_bytes(alpha)[..., np.newaxis]], axis=-1)
        pixels = self._scale(stored)
        if self.is_inverted:
            pixels[..., : self.colors] = self._invert(pixels[..., : self.colors])
        if self.alpha is not None:
            alpha = pixels[..., self.alpha, np.newaxis]
            divided = _divide(pixels[..., : self.colors], alpha, self._highest(pixels))
            pixels[..., : self.colors] = divided
        return pixels

    def _show(self, stored: Samples) -> Samples:
        pixels = self._scale(stored)
        return self._invert(pixels) if self.is_inverted else pixels

    def _scale(self, stored: Samples) -> Samples:
        if not 0 < self.bits < 8:
            return stored
        high = 2**self.bits - 1
        table = ((np.arange(high + 1) * 255 * 2 + high) // (2 * high)).astype(np.uint8)
        scaled: Samples = table[np.minimum(stored.astype(np.uint8), high)]
        return scaled

    def _highest(self, pixels: Samples) -> int:
        """Return the largest value of integer pixels."""
        if pixels.dtype.kind == "u":
            return int(2 ** max(self.bits, 8) - 1)
        return int(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "i" else 1

    def _invert(self, pixels: Samples) -> Samples:
        if pixels.dtype.kind == "i":
            return np.invert(pixels)
        high = pixels.dtype.type(self._highest(pixels))
        if pixels.dtype.kind == "u":
            pixels = np.minimum(pixels, high)
        inverted: Samples = high - pixels
        return inverted


def _to_bytes(alpha: Samples) -> NDArray[np.uint8]:
    return (alpha >> 8 * (alpha.dtype.itemsize - 1)).astype(np.uint8)


def _divide(colors: Samples, alpha: Samples, high: int) -> Samples:
    """Divide colors by the alpha that they were multiplied with; they become 0 where alpha is 0.

    Integers are rounded down and clipped, as Pillow does.
    """
    is_float = colors.dtype.kind == "f"
    wide = colors.dtype if is_float else np.dtype("u8" if colors.dtype.itemsize < 4 else "f8")
    divisor = np.where(alpha > 0, alpha, 1).astype(wide)
    divided = colors.astype(wide) / divisor if is_float else colors.astype(wide) * high // divisor
    if not is_float:
        divided = np.minimum(divided, high)
    result: Samples = np.where(alpha > 0, divided, 0).astype(colors.dtype)
    return result


@dataclass(frozen=True)
class ShownPixels:
    """Describes the pixels that stored samples become.

    Attributes
    ----------
    conversion : SampleConversion or None
        None if samples need no conversion.
    shape, axes, dtype
        Of the pixels, with one letter for each dimension.
    colors : tuple of int or None
        Channels that the file says are colors; None if that is all of them, or unknown.
    alpha_last : bool
        Whether the last channel is alpha.
    used_bits : int or None
        Bits of unsigned samples that are wider than they need to be.
    notes : tuple of str
    """

    conversion: SampleConversion | None
    shape: tuple[int, ...]
    axes: str
    dtype: SampleType
    colors: tuple[int, ...] | None
    alpha_last: bool
    used_bits: int | None
    notes: tuple[str, ...]

    def chunks(self, blocks: tuple[int, ...]) -> tuple[int, ...]:
        """Return the chunks of the pixels, given those of the stored samples."""
        if self.conversion is None or not self.conversion.has_palette:
            return blocks
        axis = self.conversion.sample_axis
        kept = blocks if axis is None else blocks[:axis] + blocks[axis + 1 :]
        return (*kept, self.shape[-1])


def describe_pixels(
    page: TiffPage, stored: str, letters: str, shape: tuple[int, ...], *, has_palette: bool
) -> ShownPixels:
    """Describe the pixels of an image.

    Parameters
    ----------
    page : TiffPage
        One of its pages.
    stored, letters : str
        Dimensions that are kept, as tifffile names them and as this package does.
    shape : tuple of int
        Their lengths.
    has_palette : bool
        Whether to apply its color map.
    """
    conversion = _choose_conversion(page, stored, has_palette)
    dtype = np.dtype(page.dtype)
    if conversion is not None and (has_palette or 0 < conversion.bits < 8):
        dtype = np.dtype(np.uint8)
    if has_palette and conversion is not None:
        at = conversion.sample_axis
        if at is not None:
            shape = shape[:at] + shape[at + 1 :]
            letters = letters[:at] + letters[at + 1 :]
        has_alpha = conversion.alpha is not None
        channels = 4 if has_alpha else 3
        return ShownPixels(
            conversion, (*shape, channels), letters + "c", dtype, None, has_alpha, None, ()
        )
    notes = (_CFA_NOTE,) if page.photometric == _CFA else ()
    colors = _described_colors(page, stored, shape)
    is_alpha = "S" in stored and page.extrasamples[-1:] in ((1,), (2,))
    is_alpha = is_alpha and page.samplesperpixel in (2, 4)
    return ShownPixels(
        conversion, shape, letters, dtype, colors, is_alpha, _used_bits(page, dtype), notes
    )


_CFA_NOTE = (
    "The image has the raw samples of a color filter array (CFA), which are taken for gray; "
    "develop it to RGB first for its colors."
)


def _choose_conversion(page: TiffPage, stored: str, has_palette: bool) -> SampleConversion | None:
    sample_axis = stored.index("S") if "S" in stored else None
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
    if np.dtype(page.dtype).kind == "f":
        bits = 0
    colors = page.samplesperpixel - len(page.extrasamples)
    if has_palette:
        alpha = _find_extra(page, _ALPHA) if sample_axis is not None else None
        return SampleConversion(bits, False, sample_axis, 1, alpha, has_palette=True)
    is_shown_raw = page.photometric == _PALETTE
    is_inverted = page.photometric == _WHITE_IS_ZERO
    alpha = _find_extra(page, (_ASSOCIATED,)) if sample_axis is not None else None
    if is_shown_raw or not (is_inverted or alpha is not None or 0 < bits < 8):
        return None
    return SampleConversion(bits, is_inverted, sample_axis, colors, alpha)


def _find_extra(page: TiffPage, kinds: tuple[int, ...]) -> int | None:
    """Return the index of the first extra sample of some kinds."""
    colors = page.samplesperpixel - len(page.extrasamples)
    found = [i for i, kind in enumerate(page.extrasamples) if kind in kinds]
    return colors + found[0] if found else None


def _described_colors(
    page: TiffPage, stored: str, shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the channels that are colors, if the file says that others are not."""
    three = (0, 1, 2)
    if "S" not in stored:
        # Channels that are pages of their own have no alpha among them.
        return three if "C" in stored and shape[stored.index("C")] == 4 else None
    extra = page.extrasamples
    count = page.samplesperpixel
    if page.photometric in (_RGB, YCBCR) and len(extra) == count - 3 > 0:
        return None if count == 4 and extra[0] != _UNSPECIFIED else three
    if extra[-1:] != (_UNSPECIFIED,):
        return None
    # Three of many fluorescence channels make a color, but gray and one more sample make gray.
    return {2: (0,), 4: three}.get(count)


def _used_bits(page: TiffPage, dtype: SampleType) -> int | None:
    bits = page.bitspersample
    if dtype.kind != "u" or not isinstance(bits, int) or bits in (8, 16, 32, 64):
        return None
    return bits if bits > 8 else None


def read_palette(page: TiffPage) -> NDArray[np.uint8]:
    """Return the color map of a page, (n, 3)."""
    colors = np.asarray(page.colormap)
    # The format requires 16 bits, but some writers store bytes.
    return (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8).T


def uses_palette(page: TiffPage, is_for_display: bool) -> bool:
    """Whether a color map must be applied; those of ImageJ and OME are for display."""
    return bool(page.photometric == _PALETTE) and not is_for_display
