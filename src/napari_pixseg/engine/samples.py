"""From samples of any type to packed byte colors: window, alpha, denoising.

After this step every pixel is one integer: 24 bits of color, or ``NO_DATA``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.grid import Region
from napari_pixseg.engine.image import Image
from napari_pixseg.engine.sources import is_masked
from napari_pixseg.model.colorspaces import forward, to_byte
from napari_pixseg.model.colortable import NO_DATA, pack_colors, unpack_colors
from napari_pixseg.parameters import ColorSpace, Interval

Packed: TypeAlias = NDArray[np.uint32]
_HUGE = 1e300


Part: TypeAlias = tuple[Region, NDArray[Any]]


@dataclass(frozen=True)
class ByteColors:
    """Bytes that are colors as they are; counted and looked up without packing them.

    Attributes
    ----------
    shape : tuple of int
        Of the colors.
    parts : sequence of (region, (..., c) ndarray of uint8)
        Where each part is, and its one to three channels; contiguous, not to be written.
    """

    shape: tuple[int, ...]
    parts: Sequence[Part]

    @classmethod
    def of(cls, shape: tuple[int, ...], parts: Sequence[Part]) -> ByteColors:
        """Take parts as they were read."""
        return cls(shape, [(there, read_only(part)) for there, part in parts])

    def __sizeof__(self) -> int:
        """Bytes of the parts, by which Dask's workers know when to spill."""
        return object.__sizeof__(self) + sum(part.nbytes for _, part in self.parts)

    def packed(self) -> Packed:
        """Return the colors packed."""
        if len(self.parts) == 1:
            return pack_colors(self.parts[0][1])
        result = np.empty(self.shape, np.uint32)
        for there, part in self.parts:
            result[there] = pack_colors(part)
        return result


def read_only(samples: NDArray[Any]) -> NDArray[Any]:
    """Return contiguous samples that cannot be written, of which kernels have one compiled form.

    Of the types that kernels know: native ones, and floats of 32 or 64 bits.
    """
    dtype = samples.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    samples = np.ascontiguousarray(samples, dtype).view()
    samples.flags.writeable = False
    return samples


@dataclass(frozen=True)
class Encoded:
    """Colors, and the samples that they were made of, which are needed again.

    Attributes
    ----------
    colors : (...) ndarray of uint32
        Packed.
    samples : (..., c) ndarray
    """

    colors: Packed
    samples: NDArray[Any]

    def __sizeof__(self) -> int:
        """Bytes of both, as of :class:`ByteColors`."""
        return object.__sizeof__(self) + self.colors.nbytes + self.samples.nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the colors."""
        return self.colors.shape

    @property
    def parts(self) -> Sequence[Part]:
        """The samples, as :class:`ByteColors` has them."""
        return [(_all_of(self.shape), read_only(self.samples))]

    def packed(self) -> Packed:
        """Return the colors packed."""
        return self.colors


Colors: TypeAlias = Packed | ByteColors | Encoded


@dataclass(frozen=True)
class Seen:
    """The classes of a tile and the samples they were looked up from.

    Attributes
    ----------
    classes : (...) ndarray of uint8 or uint16
    samples : sequence of (region, (..., c) ndarray)
        Where each part is, and its samples.
    """

    classes: NDArray[Any]
    samples: Sequence[Part]

    def __sizeof__(self) -> int:
        """Bytes of both, as of :class:`ByteColors`."""
        samples = sum(part.nbytes for _, part in self.samples)
        return object.__sizeof__(self) + self.classes.nbytes + samples

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the classes."""
        return self.classes.shape


def packed_colors(colors: Colors) -> Packed:
    """Return colors packed."""
    return colors if isinstance(colors, np.ndarray) else colors.packed()


def samples_of(colors: Colors) -> Sequence[Part] | None:
    """Return the samples that colors were made of, where they are at hand, and where each is."""
    return None if isinstance(colors, np.ndarray) else colors.parts


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

    def colors(self, image: Image, region: Region) -> Colors:
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
        return self._taken(shape, [(_all_of(shape), block)])

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


def _all_of(shape: tuple[int, ...]) -> Region:
    return tuple(slice(0, length) for length in shape)


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


def median(packed: Packed, radius: int) -> Packed:
    """Median-filter every (y, x) plane of packed colors, each channel by itself.

    Parameters
    ----------
    packed : (..., y, x) ndarray of uint32
    radius : int
        The window has (2 radius + 1) ** 2 pixels; pixels without data take no part.

    Returns
    -------
    (..., y, x) ndarray of uint32
        The ``radius`` outermost pixels are not valid: callers bring a margin.
    """
    planes = packed.reshape(-1, *packed.shape[-2:])
    result = np.stack([_median_of_plane(plane, radius) for plane in planes])
    return result.reshape(packed.shape)


def _median_of_plane(plane: Packed, radius: int) -> Packed:
    from skimage.filters import rank

    missing = plane == NO_DATA
    mask = None if not missing.any() else (~missing).astype(np.uint8)
    footprint = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    colors = unpack_colors(plane)
    gray = bool((colors == colors[..., :1]).all())
    for channel in range(1 if gray else 3):
        colors[..., channel] = rank.median(
            np.ascontiguousarray(colors[..., channel]), footprint, mask=mask
        )
    packed = pack_colors(colors[..., :1] if gray else colors)
    packed[missing] = NO_DATA
    return packed


def reflect_margin(packed: Packed, margins: tuple[tuple[int, int], ...]) -> Packed:
    """Continue an image beyond its edges by reflection, edge pixels included twice."""
    if not any(before or after for before, after in margins):
        return packed
    return np.pad(packed, margins, mode="symmetric")


def with_halo(
    region: Region, shape: tuple[int, ...], radius: int
) -> tuple[Region, tuple[tuple[int, int], ...], Region]:
    """Plan to filter a region: what to read, what to reflect beyond the image, what to keep.

    Parameters
    ----------
    region : tuple of slice
        Over axes of which the last two are y and x.
    shape : tuple of int
        Of the image.
    radius : int
        How far the filter reaches.

    Returns
    -------
    region
        To read: the region and what there is of its halo.
    tuple of (before, after)
        Pixels to add by reflection along each axis.
    region
        Where the asked region lies in the result.
    """
    halo, margins, inner = list(region), [(0, 0)] * len(region), []
    for axis, (part, n) in enumerate(zip(region, shape, strict=True)):
        reach = radius if axis >= len(region) - 2 else 0
        inner.append(slice(reach, reach + part.stop - part.start))
        start, stop = part.start - reach, part.stop + reach
        halo[axis] = slice(max(start, 0), min(stop, n))
        margins[axis] = (max(-start, 0), max(stop - n, 0))
    return tuple(halo), tuple(margins), tuple(inner)


def alpha_bytes(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    """Reduce alpha samples to bytes: full range for integers, 0..1 for floats."""
    if alpha.dtype == np.uint8:
        return alpha
    high = 1.0 if alpha.dtype.kind in "fb" else float(np.iinfo(alpha.dtype).max)
    return to_window(alpha, 0.0, high)
