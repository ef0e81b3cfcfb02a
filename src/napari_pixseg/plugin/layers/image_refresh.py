"""Shows the pixels that counting has read in the image's own layer, if it has no pyramid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers.image_level import ImageLevel
from napari_pixseg.plugin.layers.overview import Overview

if TYPE_CHECKING:
    from napari.layers import Image as NapariImage


class ImageRefresh:
    """Keeps an Image layer of virtual levels up to date with an overview.

    Parameters
    ----------
    layer : napari.layers.Image
        A layer of stored levels is left alone.
    """

    def __init__(self, layer: NapariImage) -> None:
        self._layer = layer
        levels = layer.data if layer.multiscale else ()
        self._levels = [level for level in levels if isinstance(level, ImageLevel)]
        self._overview: Overview | None = None
        self._drawn_version = -1

    def use_overview(
        self, overview: Overview | None, encoding: Encoding, parameters: Parameters
    ) -> None:
        """Show another overview, unless it has other channels or the present one is complete."""
        is_complete = self._overview is not None and self._overview.is_complete
        is_choice = parameters.channels is not None or parameters.axes is not None
        # Colors that were converted to another color space cannot be shown as samples.
        if overview is None or is_complete or is_choice or encoding.space is not None:
            return
        self._overview = overview
        for level in self._levels:
            level.use_overview(overview, encoding)

    def draw_news(self) -> None:
        """Draw the pixels that were added to the overview since the last drawing."""
        overview = self._overview
        if overview is None or not self._levels or overview.version == self._drawn_version:
            return
        self._drawn_version = overview.version
        self._levels[-1].renew()
        self._layer.refresh(extent=False)
