"""The image's own layer, where it has no pyramid: it shows what counting has seen of it."""

from __future__ import annotations

from typing import Any

from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers.lazy_levels import ImageLevel
from napari_pixseg.plugin.layers.overview import Overview


class Backdrop:
    """Keeps an Image layer of made-up levels up to date with an overview.

    Parameters
    ----------
    layer : napari.layers.Image
        Left alone if its levels are stored.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        levels = layer.data if layer.multiscale else ()
        self._levels = [level for level in levels if isinstance(level, ImageLevel)]
        self._overview: Overview | None = None
        self._version = -1

    def follow(self, overview: Overview | None, encoding: Encoding, parameters: Parameters) -> None:
        """Show another overview, unless it has other channels or what is shown is complete."""
        complete = self._overview is not None and self._overview.is_complete
        chosen = parameters.channels is not None or parameters.axes is not None
        # Colors of another space are no samples any more.
        if overview is None or complete or chosen or encoding.space is not None:
            return
        self._overview = overview
        for level in self._levels:
            level.follow(overview, encoding)

    def renew(self) -> None:
        """Draw what the overview has learned since it was drawn."""
        if self._overview is None or not self._levels or self._overview.version == self._version:
            return
        self._version = self._overview.version
        self._levels[-1].renew()
        self._layer.refresh(extent=False)
