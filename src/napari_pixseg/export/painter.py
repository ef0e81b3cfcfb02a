"""Paints the recolored picture of classes: gray or color, with alpha if the input has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.classification.encoding import alpha_bytes
from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image


@dataclass(frozen=True, eq=False, repr=False)
class Painter:
    """Paints classes in their colors.

    Attributes
    ----------
    image : Image
        The input, which provides the alpha.
    palette : (n + 1, 3) ndarray of uint8
    keeps_alpha : bool
        Whether the picture has the input's alpha as its last channel.
    """

    image: Image
    palette: NDArray[np.uint8]
    keeps_alpha: bool

    @classmethod
    def for_image(cls, image: Image, classes: Classes) -> Painter:
        """Return a painter; semantics ``imagemagick6`` drops alpha, as ImageMagick does."""
        # ImageMagick makes every pixel opaque.
        keeps_alpha = image.alpha is not None and classes.parameters.semantics == "documented"
        return cls(image, classes.palette, keeps_alpha)

    @property
    def channels(self) -> int:
        """The number of channels: 1 for gray or 3 for color, and one more for alpha."""
        return color_channels(self.image) + self.keeps_alpha

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The name of each channel."""
        names = ("gray",) if self.image.gray else ("red", "green", "blue")
        return (*names, "alpha") if self.keeps_alpha else names

    def paint_tile(self, classes: NDArray[np.integer], part: PixelSlices) -> NDArray[np.uint8]:
        """Return the picture of a part of the class map, (channels, ...) uint8."""
        picture = np.empty((self.channels, *classes.shape), np.uint8)
        # The compiled kernel takes one contiguous line, so classes are copied only if need be.
        flat = np.require(classes, requirements=["C", "W"]).reshape(-1)
        for channel in range(color_channels(self.image)):
            colors = np.ascontiguousarray(self.palette[:, channel])
            kernels.paint_classes(flat, colors, picture[channel].reshape(-1))
        if self.keeps_alpha:
            picture[-1] = alpha_bytes(self.image.read_alpha(part), self.image.highest_sample)
        return picture


def color_channels(image: Image) -> int:
    """Return the number of color channels in the picture of an image."""
    return 1 if image.gray else 3
