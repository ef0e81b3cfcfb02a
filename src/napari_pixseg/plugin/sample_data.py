"""Sample data: pictures that come with scikit-image, and computed ones; nothing is downloaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# scikit-image loads the parts of these when they are first used, so this is quick.
from skimage import data, filters

from napari_pixseg.plugin.layer_types import LayerData, LayerOptions
from napari_pixseg.slices import Samples

SLIDE_SIDE = 200_000

_CHUNK = 2048

# Enough that the coarsest level fits on a screen.
_SLIDE_LEVELS = 10

_MICROMETERS_PER_PIXEL = 0.5

# Colors, each with an axis for rows and one for columns behind its channels.
_GLASS = np.array([241, 240, 243], np.float32).reshape(3, 1, 1)
_STROMA = np.array([221, 200, 198], np.float32).reshape(3, 1, 1)
_GLAND = np.array([152, 104, 62], np.float32).reshape(3, 1, 1)
_NUCLEUS = np.array([108, 112, 168], np.float32).reshape(3, 1, 1)

# Nuclei and grain repeat after this many pixels, which nobody notices.
_TEXTURE = 1024

# Noise shapes the tissue, and the glands in it: length in pixels and height of its waves.
_TISSUE = ((40_000, 1.0), (12_000, 0.6), (3_000, 0.2), (700, 0.06))

_GLANDS = ((16_000, 0.5), (1_500, 0.6), (400, 0.8), (120, 0.1))

# Rows computed at a time. They fit the processor's cache, which makes them three times as fast.
_BAND = 64


def histology() -> list[LayerData]:
    """Tissue stained with hematoxylin and DAB, (512, 512, 3) uint8."""
    return [_make_picture_layer(data.immunohistochemistry(), "tissue section")]


def photograph() -> list[LayerData]:
    """A cup of coffee, (400, 600, 3) uint8."""
    return [_make_picture_layer(data.coffee(), "coffee")]


def _make_picture_layer(picture: NDArray[np.uint8], name: str) -> LayerData:
    # The size of these pixels is unknown.
    space = {"scale": (1.0, 1.0), "units": ("pixel", "pixel"), "axis_labels": ("y", "x")}
    return picture, {"name": name, "rgb": True, **space}, "image"


# A stack -----------------------------------------------------------------------


def nuclei() -> list[LayerData]:
    """Synthetic nuclei under a fluorescence microscope, (24, 512, 512) uint16, z y x."""
    stack = make_nuclei((24, 512, 512), 160)
    options: LayerOptions = {
        "name": "nuclei",
        "scale": (1.5, 0.325, 0.325),
        "units": ("micrometer",) * 3,
        "axis_labels": ("z", "y", "x"),
        "contrast_limits": (0.0, 8000.0),
    }
    return [(stack, options, "image")]


def make_nuclei(shape: tuple[int, int, int], count: int, seed: int = 0) -> NDArray[np.uint16]:
    """Draw bright and dim ellipsoids in haze, with the noise of photons and of a camera.

    Parameters
    ----------
    shape : (planes, rows, columns)
    count : int
        Number of nuclei; they may overlap.
    seed : int
        Equal seeds give equal stacks.

    Returns
    -------
    (planes, rows, columns) ndarray of uint16
    """
    rng = np.random.default_rng(seed)
    signal = np.full(shape, 400, np.float32)
    for _ in range(count):
        center = rng.uniform(0, shape)
        radii = np.array([rng.uniform(2, 4), *rng.uniform(9, 18, 2)])
        _draw_nucleus(signal, center, radii, rng.choice([2200, 5200]) * rng.uniform(0.9, 1.1))
    # Photons arrive by chance: the variance grows with the signal.
    noise = rng.standard_normal(shape, np.float32) * np.sqrt(signal * 4 + 900)
    stack: NDArray[np.uint16] = np.clip(signal + noise, 0, 65535).astype(np.uint16)
    return stack


def _draw_nucleus(
    signal: NDArray[np.float32], center: Samples, radii: Samples, brightness: float
) -> None:
    low = np.maximum(np.floor(center - 1.3 * radii), 0).astype(int)
    high = np.minimum(np.ceil(center + 1.3 * radii) + 1, signal.shape).astype(int)
    region = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = np.ogrid[region]
    square = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, center, radii, strict=True))
    # Full brightness inside, none outside, and a blurred edge in between.
    profile = np.clip((1.3 - np.sqrt(square)) / 0.4, 0, 1)
    part = signal[region]
    np.maximum(part, (400 + brightness * profile).astype(np.float32), out=part)


# A slide -----------------------------------------------------------------------


def slide() -> list[LayerData]:
    """Computed tissue on glass, (200000, 200000, 3) uint8: 120 GB in ten levels, none stored."""
    # Only this sample needs Dask, and napari loads this module for every sample.
    import dask.array as da

    levels = [
        da.from_array(
            SlideLevel(level),
            chunks=(_CHUNK, _CHUNK, 3),
            name=f"pixseg-slide-{level}",
            asarray=False,
        )
        for level in range(_SLIDE_LEVELS)
    ]
    options: LayerOptions = {
        "name": "endless slide",
        "rgb": True,
        "multiscale": True,
        "scale": (_MICROMETERS_PER_PIXEL,) * 2,
        "units": ("micrometer",) * 2,
        "axis_labels": ("y", "x"),
    }
    return [(levels, options, "image")]


@dataclass(frozen=True)
class SlideLevel:
    """One level of the slide: an array that is computed where it is sliced.

    A pixel depends on its position only, so the chunks make no difference.

    Attributes
    ----------
    level : int
        A pixel stands for ``2**level`` x ``2**level`` pixels of level 0.
    """

    level: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, channels."""
        side = math.ceil(SLIDE_SIDE / 2**self.level)
        return side, side, 3

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Type of the samples."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return 3

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.uint8]:
        rows, columns, channels = (
            np.arange(n)[part] for part, n in zip(key, self.shape, strict=True)
        )
        picture = np.empty((len(rows), len(columns), 3), np.uint8)
        for start in range(0, len(rows), _BAND):
            band = slice(start, start + _BAND)
            picture[band] = np.moveaxis(_paint_tissue(self.level, rows[band], columns), 0, -1)
        return picture[..., channels]


def _paint_tissue(level: int, rows: Samples, columns: Samples) -> NDArray[np.float32]:
    """Return the colors of some rows and columns of a level, channels first."""
    nuclei, grain = _make_textures(level)
    here = np.ix_(rows % len(grain), columns % len(grain))
    tissue = _raise_waves(_TISSUE, -0.05, 500, level, rows, columns)
    colors: NDArray[np.float32] = _GLASS + grain[here]
    if not tissue.any():
        return colors
    inks = _STROMA + 4 * grain[here]
    _blend_over(inks, _GLAND, _raise_waves(_GLANDS, -0.12, 40, level, rows, columns))
    _blend_over(inks, _NUCLEUS, nuclei[here])
    _blend_over(colors, inks, tissue)
    return colors


def _blend_over(below: Samples, above: Samples, share: Samples) -> None:
    """Blend a share of a color over another, in place."""
    difference = above - below
    difference *= share
    below += difference


@lru_cache(_SLIDE_LEVELS)
def _make_textures(level: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the share of nuclei and the grain, (n, n) each; they repeat without a seam."""
    if level:
        nuclei, grain = _make_textures(level - 1)
        return _halve_texture(nuclei), _halve_texture(grain)
    rng = np.random.default_rng(0)
    shape = _TEXTURE, _TEXTURE
    blobs = filters.gaussian(rng.standard_normal(shape), 4, mode="wrap")
    # The highest tenth become spots with soft edges.
    share = np.clip((blobs / blobs.std() - 1.3) * 4, 0, 1)
    return share.astype(np.float32), rng.normal(0, 1.5, shape).astype(np.float32)


def _halve_texture(texture: NDArray[np.float32]) -> NDArray[np.float32]:
    side = len(texture) // 2
    mean: NDArray[np.float32] = texture.reshape(side, 2, side, 2).mean(axis=(1, 3))
    return mean


def _raise_waves(
    waves: tuple[tuple[int, float], ...],
    base: float,
    steepness: float,
    level: int,
    rows: Samples,
    columns: Samples,
) -> NDArray[np.float32]:
    """Return 1 where waves rise above 0 and 0 where they do not, with an edge in between.

    Parameters
    ----------
    waves : tuple of (length in pixels, height)
    base : float
        Added to the waves.
    steepness : float
        The larger, the sharper is the edge.
    level : int
    rows, columns : ndarray of int
        Positions on the level.
    """
    stride = 2.0**level
    y, x = ((part + 0.5) * stride - 0.5 for part in (rows, columns))
    height = np.full((len(rows), len(columns)), base, np.float32)
    for length, strength in waves:
        # Waves shorter than a pixel average out.
        if length > 2 * stride:
            height += _interpolate_noise(length, strength, y, x)
    height *= steepness
    height += 0.5
    np.clip(height, 0, 1, out=height)
    return height


def _interpolate_noise(cell: int, strength: float, y: Samples, x: Samples) -> NDArray[np.float32]:
    """Return smooth noise from -strength/2 to strength/2, random at the corners of cells."""
    corners = _random_corners(cell, strength)
    top, down = _locate_in_cells(y, cell)
    left, right = _locate_in_cells(x, cell)
    first = top[0]
    last = top[-1] + 2
    lines = corners[first:last, left]
    lines += (corners[first:last, left + 1] - lines) * right
    above: NDArray[np.float32] = lines[top - first]
    above += (lines[top - first + 1] - above) * down[:, np.newaxis]
    return above


def _locate_in_cells(at: Samples, cell: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the cell of each position and how far into it the position lies, smoothed."""
    whole = np.maximum(np.floor(at / cell), 0).astype(np.intp)
    part = np.clip(at / cell - whole, 0, 1).astype(np.float32)
    return whole, part * part * (3 - 2 * part)


@lru_cache(len(_TISSUE) + len(_GLANDS))
def _random_corners(cell: int, strength: float) -> NDArray[np.float32]:
    side = SLIDE_SIDE // cell + 3
    values = np.random.default_rng(cell).random((side, side), np.float32)
    centered: NDArray[np.float32] = (values - np.float32(0.5)) * np.float32(strength)
    return centered
