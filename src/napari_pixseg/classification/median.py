"""The median filter: each channel of every plane, with a halo around tiles."""

from __future__ import annotations

import numpy as np

from napari_pixseg.algorithm.color_table import NO_DATA, pack_colors, unpack_colors
from napari_pixseg.classification.tile_colors import Packed
from napari_pixseg.slices import PixelSlices


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
    region: PixelSlices, shape: tuple[int, ...], radius: int
) -> tuple[PixelSlices, tuple[tuple[int, int], ...], PixelSlices]:
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
