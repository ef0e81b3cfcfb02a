"""Classes for the viewer, looked up only for pixels on the screen.

All levels of a preview share one look-up table. The packed colors of the latest views are kept, so
that a new decision reads no pixels: the same colors just get other classes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.median import Halo
from napari_pixseg.plugin.layer_types import ValueType
from napari_pixseg.plugin.layers.lazy_level import LazyLevel, Part, enclosing_box
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.preview_lookup import PreviewLookup
from napari_pixseg.plugin.layers.strided_image import StridedImage, lengths_along
from napari_pixseg.slices import PixelSlices, Samples

_VIEWS_KEPT = 6

# Identity of a level, then start and stop along each axis.
_ViewKey: TypeAlias = tuple[int, tuple[tuple[int, int], ...]]


class PreviewLevel(LazyLevel):
    """Classes of one level, looked up when they are read.

    Parameters
    ----------
    level : StridedImage
    pixels : PreviewPixels
        Turns samples into packed colors; shared by all levels.
    axes : str, optional
        Dimensions of the layer; those of the source without c if not given. If c is among
        them, every channel shows the same classes.
    """

    def __init__(self, level: StridedImage, pixels: PreviewPixels, axes: str | None = None) -> None:
        self._axes = axes or level.image.own_axes
        super().__init__(lengths_along(self._axes, level))
        self._level = level
        self._pixels = pixels

    @property
    def dtype(self) -> ValueType:
        """Type of the class numbers, which changes with the number of classes."""
        return self._pixels.lookup.dtype

    def _read_parts(self, parts: tuple[Part, ...]) -> Samples:
        box, index = enclosing_box(parts)
        order = self._level.image.label_axes
        wanted = dict(zip(self._axes, box, strict=True))
        packed = self._pixels.read_colors(self._level, tuple(wanted[axis] for axis in order))
        classes: Samples = self._pixels.lookup.look_up(packed)
        classes = classes.transpose([order.index(axis) for axis in self._axes if axis != "c"])
        if "c" in self._axes:
            shape = tuple(side.stop - side.start for side in box)
            # A broadcast array has the channels' shape without a copy for each of them.
            classes = np.broadcast_to(np.expand_dims(classes, self._axes.index("c")), shape)
        part: Samples = classes[index]
        return part


@dataclass(frozen=True)
class _ColorSettings:
    """How samples become colors.

    Attributes
    ----------
    encoding : Encoding
    radius : int
        Radius of the median filter at level 0; 0 means no filter.
    """

    encoding: Encoding
    radius: int


class PreviewPixels:
    """The packed colors of the latest views, and the table that gives them classes."""

    def __init__(self) -> None:
        self.lookup = PreviewLookup()
        self._settings = _ColorSettings(Encoding(), 0)
        self._overview: Overview | None = None
        self._views: OrderedDict[_ViewKey, tuple[StridedImage, Packed]] = OrderedDict()
        self._lock = threading.Lock()

    def encode_with(
        self, encoding: Encoding, radius: int, overview: Overview | None = None
    ) -> None:
        """Set how samples become colors; kept views are dropped if this changes.

        Parameters
        ----------
        encoding : Encoding
        radius : int
            Radius of the median filter; 0 means no filter.
        overview : Overview, optional
            Holds colors that were encoded and filtered in the same way.
        """
        settings = _ColorSettings(encoding, radius)
        with self._lock:
            self._overview = overview
            if settings != self._settings:
                self._settings = settings
                self._views.clear()

    def read_colors(self, level: StridedImage, region: PixelSlices) -> Packed:
        """Return the packed colors of a region of a level."""
        key = (id(level), tuple((part.start, part.stop) for part in region))
        with self._lock:
            settings = self._settings
            overview = self._overview
            if overview is not None and level.is_for_overview(region, overview):
                return overview.read(region, level.stride)
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key][1]
        # Reading takes long, and another thread may change the settings meanwhile.
        packed = _read_packed(level, region, settings)
        with self._lock:
            if settings == self._settings:
                # The level is kept with its view, so that no other level can get its id.
                self._views[key] = (level, packed)
            while len(self._views) > _VIEWS_KEPT:
                self._views.popitem(last=False)
        return packed


def _read_packed(level: StridedImage, region: PixelSlices, settings: _ColorSettings) -> Packed:
    encoding = settings.encoding
    # A pixel of a coarse level stands for many, so the filter needs a smaller radius.
    radius = round(settings.radius / (level.stride * level.reduction))
    if not radius:
        return encoding.encode(level.read(region))
    halo = Halo.around(region, level.shape, radius)
    return halo.denoise(encoding.encode(level.read(halo.outer)))
