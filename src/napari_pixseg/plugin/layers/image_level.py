"""One level of an image whose samples are shown unchanged."""

from __future__ import annotations

import numpy as np

from napari_pixseg.algorithm.color_table import unpack_colors
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.plugin.layer_types import ValueType
from napari_pixseg.plugin.layers.lazy_level import LazyLevel, Part, enclosing_box
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.strided_image import StridedImage, lengths_along
from napari_pixseg.slices import PixelSlices, Samples


class ImageLevel(LazyLevel):
    """Samples of one level, for showing an image that has no pyramid of its own.

    The dimensions keep the order of the source, with colors last. A gray image has no color
    dimension. With two channels, the third color is 0, as it is when colors are counted.

    Parameters
    ----------
    level : StridedImage
    """

    def __init__(self, level: StridedImage) -> None:
        self._axes = level.image.own_axes
        channels = () if level.image.gray else (3,)
        super().__init__((*lengths_along(self._axes, level), *channels))
        self._level = level
        self._seen: tuple[Overview, Encoding] | None = None

    def use_overview(self, overview: Overview, encoding: Encoding) -> None:
        """Take views that are too large to be read from an overview, and undo its encoding."""
        self._seen = (overview, encoding)

    @property
    def dtype(self) -> ValueType:
        """Type of the samples."""
        return self._level.image.dtype

    def _read_parts(self, parts: tuple[Part, ...]) -> Samples:
        box, index = enclosing_box(parts)
        image = self._level.image
        # Colors, if there are any, come after the axes.
        wanted = dict(zip(self._axes, box, strict=False))
        samples = self._read_samples(tuple(wanted[axis] for axis in image.label_axes))
        samples = np.asarray(image.in_own_order(samples))
        if image.gray:
            gray: Samples = samples[..., 0][index]
            return gray
        missing = 3 - samples.shape[-1]
        if missing:
            samples = np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, missing)])
        colors: Samples = samples[..., box[-1]][index]
        return colors

    def _read_samples(self, region: PixelSlices) -> Samples:
        if self._seen is not None:
            overview, encoding = self._seen
            if self._level.is_for_overview(region, overview):
                packed = overview.read(region, self._level.stride)
                return decode_samples(packed, encoding, self.dtype)
        return self._level.read(region)


def decode_samples(packed: Packed, encoding: Encoding, dtype: ValueType) -> Samples:
    """Return approximately the samples (..., 3) from which packed colors were made.

    Samples that are not bytes are restored in 256 steps within their window.
    """
    colors = unpack_colors(packed)
    if encoding.window is None:
        return colors.astype(dtype, copy=False)
    windows = encoding.window if len(encoding.window) > 1 else encoding.window * 3
    low, high = np.array([*windows, *[(0.0, 0.0)] * (3 - len(windows))]).T
    samples: Samples = (low + colors * ((high - low) / 255.0)).astype(dtype)
    return samples
