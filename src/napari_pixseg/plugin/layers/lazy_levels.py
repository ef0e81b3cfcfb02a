"""Arrays for the viewer that look up only what is on the screen.

A preview level is an array-like over an image and one look-up table shared by
all levels. When the table changes nothing is read again: the packed colors of
the latest views are kept, and looked up anew.
"""

from __future__ import annotations

import copy
import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import unpack_colors
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.median import median, reflect_margin, with_halo
from napari_pixseg.classification.tile_colors import Packed
from napari_pixseg.plugin.layers.class_lookup import ClassLookup, ClassNumbers
from napari_pixseg.plugin.layers.level_image import LevelImage
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.slices import PixelSlices, split_key

_VIEWS_KEPT = 6


class _Level(ABC):
    """What napari asks of an array: shape, type, and slices.

    napari cuts a view out of all planes first and picks the plane afterwards: plain slices
    therefore give a narrower level, and nothing is read before an array is asked for.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._region: PixelSlices = tuple(slice(0, n) for n in shape)
        self._whole = tuple(shape)
        # One list for this level and all that are narrowed from it.
        self._handed_out: list[weakref.ref[NDArray[Any]]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return tuple(part.stop - part.start for part in self._region)

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._region)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @abstractmethod
    def _read(self, region: PixelSlices) -> NDArray[Any]:
        """Read a region of the whole level."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = np.asarray(self._read(self._region), dtype)
        if self.shape == self._whole and array.flags.writeable:
            self._handed_out[:] = [weakref.ref(array)]
        return array

    def renew(self) -> None:
        """Write what is known today into the whole level as it was handed out before.

        napari 0.9 keeps the coarsest level of a plane for ever.
        """
        for reference in self._handed_out:
            array = reference()
            if array is not None and array.dtype == self.dtype:
                array[...] = self._read(self._region)

    def __getitem__(self, key: Any) -> Any:
        region, index = split_key(key, self.shape)
        narrower = copy.copy(self)
        pairs = zip(self._region, region, strict=True)
        narrower._region = tuple(
            slice(whole.start + part.start, whole.start + part.stop) for whole, part in pairs
        )
        if all(isinstance(k, slice) and k.step in (None, 1) for k in index):
            return narrower
        return np.asarray(narrower)[index]


class PreviewLevel(_Level):
    """Classes of one level, looked up when read.

    Parameters
    ----------
    level : LevelImage
    pixels : PreviewPixels
        How samples become packed colors; shared by all levels.
    axes : str, optional
        Dimensions of the layer, by default those of the source without c. Along c, if it is
        among them, all members show the same classes.
    """

    def __init__(self, level: LevelImage, pixels: PreviewPixels, axes: str | None = None) -> None:
        self._axes = axes or level.image.own_axes
        super().__init__(_shape_along(self._axes, level))
        self._level, self._pixels = level, pixels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the class numbers, which follows the decision."""
        return self._pixels.lookup.dtype

    def _read(self, region: PixelSlices) -> ClassNumbers:
        order = self._level.image.label_axes
        wanted = dict(zip(self._axes, region, strict=True))
        view = self._pixels.view(self._level, tuple(wanted[axis] for axis in order))
        classes = self._pixels.lookup.look_up(view)
        own: ClassNumbers = classes.transpose(
            [order.index(axis) for axis in self._axes if axis != "c"]
        )
        if "c" not in self._axes:
            return own
        shape = tuple(part.stop - part.start for part in region)
        return np.broadcast_to(np.expand_dims(own, self._axes.index("c")), shape)


class ImageLevel(_Level):
    """Samples of one level, for showing an image that has no pyramid of its own.

    Dimensions come in the source's order, colors last: one channel has no dimension, and with
    two the third is 0, as when colors are counted.
    """

    def __init__(self, level: LevelImage) -> None:
        self._axes = level.image.own_axes
        channels = () if level.image.gray else (3,)
        super().__init__((*_shape_along(self._axes, level), *channels))
        self._level = level
        self._seen: tuple[Overview, Encoding] | None = None

    def follow(self, overview: Overview, encoding: Encoding) -> None:
        """Take views that are too much to read from an overview, and undo its encoding."""
        self._seen = overview, encoding

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples."""
        return self._level.image.dtype

    def _read(self, region: PixelSlices) -> NDArray[Any]:
        image = self._level.image
        wanted = dict(zip(self._axes, region, strict=False))
        samples = self._samples(tuple(wanted[axis] for axis in image.label_axes))
        samples = np.asarray(image.in_own_order(samples))
        if image.gray:
            return samples[..., 0]
        missing = 3 - samples.shape[-1]
        if missing:
            samples = np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, missing)])
        return samples[..., region[-1]]

    def _samples(self, region: PixelSlices) -> NDArray[Any]:
        if self._seen is None or not _is_for_overview(self._level, region, self._seen[0]):
            return self._level.read(region)
        overview, encoding = self._seen
        return decoded(overview.read(region, self._level.stride), encoding, self.dtype)


def decoded(packed: Packed, encoding: Encoding, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return about the (..., 3) samples that colors were made of: 256 steps within the window."""
    colors = unpack_colors(packed)
    if encoding.window is None:
        return colors.astype(dtype, copy=False)
    windows = encoding.window if len(encoding.window) > 1 else encoding.window * 3
    low, high = np.array([*windows, *[(0.0, 0.0)] * (3 - len(windows))]).T
    samples: NDArray[Any] = (low + colors * ((high - low) / 255.0)).astype(dtype)
    return samples


def _shape_along(axes: str, level: LevelImage) -> tuple[int, ...]:
    """Length of a level's dimensions, of which c is as long as in the source."""
    image = level.image
    lengths = dict(zip(image.label_axes, level.shape, strict=True))
    if "c" in axes:
        lengths["c"] = int(image.source.array.shape[image.axes.index("c")])
    return tuple(lengths[axis] for axis in axes)


class PreviewPixels:
    """The packed colors of the latest views, and the table that gives them classes."""

    def __init__(self) -> None:
        self.lookup = ClassLookup()
        self._encoding, self._radius = Encoding(), 0
        self._overview: Overview | None = None
        self._views: OrderedDict[Any, tuple[LevelImage, Packed]] = OrderedDict()
        self._lock = threading.Lock()

    def encode_with(
        self, encoding: Encoding, radius: int, overview: Overview | None = None
    ) -> None:
        """Change how samples become colors; kept views are dropped if it really changes.

        Parameters
        ----------
        encoding : Encoding
        radius : int
            Of the median filter, 0 for none.
        overview : Overview, optional
            Filled with colors that were encoded and filtered like this.
        """
        with self._lock:
            self._overview = overview
            if (encoding, radius) != (self._encoding, self._radius):
                self._encoding, self._radius = encoding, radius
                self._views.clear()

    def view(self, level: LevelImage, region: PixelSlices) -> Packed:
        """Return the packed colors of a region of a level."""
        key = (id(level), *((part.start, part.stop) for part in region))
        with self._lock:
            encoding, radius, overview = self._encoding, self._radius, self._overview
            if overview is not None and _is_for_overview(level, region, overview):
                return overview.read(region, level.stride)
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key][1]
        packed = _read_packed(level, region, encoding, radius)
        with self._lock:
            if (encoding, radius) == (self._encoding, self._radius):
                # With the level, so that no other gets its id.
                self._views[key] = level, packed
            while len(self._views) > _VIEWS_KEPT:
                self._views.popitem(last=False)
        return packed


def _is_for_overview(level: LevelImage, region: PixelSlices, overview: Overview) -> bool:
    return level.stride >= overview.stride or level.is_too_much(region)


def _read_packed(level: LevelImage, region: PixelSlices, encoding: Encoding, radius: int) -> Packed:
    # On coarser levels the filter shrinks with the pixels it stands for.
    radius = round(radius / (level.stride * level.reduction))
    if not radius:
        return encoding.encode(level.read(region))
    halo, margins, inner = with_halo(region, level.shape, radius)
    packed = reflect_margin(encoding.encode(level.read(halo)), margins)
    return median(packed, radius)[inner]
