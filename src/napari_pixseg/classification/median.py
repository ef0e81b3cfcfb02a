"""The median filter: each channel of every plane, with a halo around tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors, unpack_colors
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.slices import PixelSlices


def median(packed: Packed, radius: int) -> Packed:
    """Median-filter every (y, x) plane of packed colors, each channel by itself.

    Parameters
    ----------
    packed : (..., y, x) ndarray of uint32
    radius : int
        The footprint has (2 radius + 1) ** 2 pixels. Pixels without data take no part.

    Returns
    -------
    (..., y, x) ndarray of uint32
        The ``radius`` outermost pixels are not valid: callers add a margin, see :class:`Halo`.
    """
    planes = packed.reshape(-1, *packed.shape[-2:])
    result = np.stack([_filter_plane(plane, radius) for plane in planes])
    return result.reshape(packed.shape)


def _filter_plane(plane: Packed, radius: int) -> Packed:
    # Few images are denoised, and scikit-image takes long to import.
    from skimage.filters import rank

    missing = plane == NO_DATA
    mask = None if not missing.any() else (~missing).astype(np.uint8)
    footprint = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    colors = unpack_colors(plane)
    # Gray images are packed as three equal channels, so one of them is filtered.
    gray = bool((colors == colors[..., :1]).all())
    for channel in range(1 if gray else 3):
        colors[..., channel] = rank.median(
            np.ascontiguousarray(colors[..., channel]), footprint, mask=mask
        )
    packed = pack_colors(colors[..., :1] if gray else colors)
    packed[missing] = NO_DATA
    return packed


@dataclass(frozen=True)
class Halo:
    """The surroundings of a box that a filter needs.

    Attributes
    ----------
    radius : int
        How far the filter reaches along y and x.
    outer : tuple of slice
        The box to read: the box itself and the part of its halo inside the image.
    margins : tuple of (before, after)
        Pixels to add along each axis because the halo extends beyond the image.
    inner : tuple of slice
        Where the box lies in the filtered pixels.
    """

    radius: int
    outer: PixelSlices
    margins: tuple[tuple[int, int], ...]
    inner: PixelSlices

    @classmethod
    def around(cls, slices: PixelSlices, shape: tuple[int, ...], radius: int) -> Halo:
        """Plan to filter a box of an image of some shape; y and x are the last two axes."""
        outer, margins, inner = [], [], []
        for axis, (part, length) in enumerate(zip(slices, shape, strict=True)):
            # Planes are filtered one by one, so t and z need no halo.
            reach = radius if axis >= len(slices) - 2 else 0
            start = part.start - reach
            stop = part.stop + reach
            outer.append(slice(max(start, 0), min(stop, length)))
            margins.append((max(-start, 0), max(stop - length, 0)))
            inner.append(slice(reach, reach + part.stop - part.start))
        return cls(radius, tuple(outer), tuple(margins), tuple(inner))

    def denoise(self, packed: Packed) -> Packed:
        """Filter the packed colors of ``outer``; return those of the box."""
        return median(_reflect_margins(packed, self.margins), self.radius)[self.inner]


def _reflect_margins(packed: Packed, margins: tuple[tuple[int, int], ...]) -> Packed:
    """Continue an image beyond its edges by reflection, edge pixels included twice."""
    if not any(before or after for before, after in margins):
        return packed
    # scipy.ndimage treats edges the same way by default.
    return np.pad(packed, margins, mode="symmetric")
