"""Arrays for the viewer that look up only what is on the screen.

A preview level is an array-like over an image and one look-up table shared by
all levels. When the table changes nothing is read again: the packed colors of
the latest views are kept, and looked up anew.
"""

from __future__ import annotations

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.image import Image, Region
from napari_pixseg.engine.samples import Encoding, Packed, median, reflect_margin, with_halo
from napari_pixseg.model import kernels
from napari_pixseg.model.classes import Classes
from napari_pixseg.model.colortable import COLORS, NO_DATA, ColorTable, unpack_colors

# Above this, napari would ask for a whole plane at once: levels are made up.
LARGEST_PLANE = 16_000_000
# The coarsest made-up level has no side longer than this.
_COARSEST_SIDE = 1024
# A view that would read more pixels than this is sampled from blocks instead.
_LARGEST_READ = 1 << 27
_VIEWS_KEPT = 6


class Lookup:
    """Class by packed color, for all colors: those not counted are classified when met.

    Attributes
    ----------
    dtype : numpy.dtype
        uint16, whatever the number of classes, so that layers keep their type.
    """

    dtype = np.dtype(np.uint16)

    def __init__(self) -> None:
        self._table = np.zeros(COLORS + 1, self.dtype)
        self._classes: Classes | None = None
        self._space: Any = None
        self._filled: list[NDArray[np.uint32]] = []
        self._lock = threading.Lock()

    def show(self, classes: Classes, table: ColorTable) -> None:
        """Replace the content by a new decision."""
        with self._lock:
            for packed in self._filled:
                self._table[packed] = 0
            self._table[table.packed] = classes.color_classes
            self._filled = [table.packed]
            self._classes, self._space = classes, table.space

    def look_up(self, packed: Packed) -> NDArray[np.uint16]:
        """Return the class of each pixel, 0 for no data."""
        with self._lock:
            result = self._looked_up(packed)
            unknown = (result == 0) & (packed != NO_DATA)
            if self._classes is None or not unknown.any():
                return result
            self._learn(np.unique(packed[unknown]))
            return self._looked_up(packed)

    def _looked_up(self, packed: Packed) -> NDArray[np.uint16]:
        result = np.empty(packed.shape, self.dtype)
        flat = np.ascontiguousarray(packed).reshape(-1)
        kernels.look_up(flat, self._table, result.reshape(-1))
        return result

    def _learn(self, packed: Packed) -> None:
        """Classify colors that a pyramid made by averaging, or that are still to be counted."""
        assert self._classes is not None
        self._table[packed] = self._classes.classify(unpack_colors(packed), self._space)
        self._filled.append(packed)


@dataclass(frozen=True)
class LevelImage:
    """One level of an image: every ``stride``-th pixel of a stored array.

    Attributes
    ----------
    image : Image
    stride : int
        1 for levels that are stored.
    """

    image: Image
    stride: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along t, z, y, x."""
        *outer, rows, columns = self.image.shape
        stride = self.stride
        return (*outer, math.ceil(rows / stride), math.ceil(columns / stride))

    def read(self, region: Region) -> NDArray[Any]:
        """Read samples (..., c) of a region of this level."""
        if self.stride == 1:
            return self.image.read(region)
        *outer, rows, columns = region
        area = (rows.stop - rows.start) * (columns.stop - columns.start) * self.stride**2
        if area <= _LARGEST_READ:
            wide = (*outer, self._widened(rows, -2), self._widened(columns, -1))
            return self.image.read(wide)[..., :: self.stride, :: self.stride, :]
        return self._sampled(tuple(outer), rows, columns)

    def _widened(self, part: slice, axis: int) -> slice:
        return slice(part.start * self.stride, min(part.stop * self.stride, self.image.shape[axis]))

    def _sampled(self, outer: Region, rows: slice, columns: slice) -> NDArray[Any]:
        """Show a few blocks of pixels large: reading all of a terabyte for a glance takes hours.

        The region is divided into a grid of cells; each shows the middle of what it covers.
        """
        lines = [
            np.concatenate([self._cell(outer, y, x) for x in _cells(columns)], axis=-2)
            for y in _cells(rows)
        ]
        return np.concatenate(lines, axis=-3)

    def _cell(self, outer: Region, rows: slice, columns: slice) -> NDArray[Any]:
        """Read as many neighboring pixels as the cell has, from the middle of what it covers."""
        sides, missing = [], [(0, 0)] * len(outer)
        for part, n in zip((rows, columns), self.image.shape[-2:], strict=True):
            length = part.stop - part.start
            start = min((part.start + part.stop) // 2 * self.stride, n - 1)
            sides.append(slice(start, min(start + length, n)))
            missing.append((0, length - (sides[-1].stop - start)))
        return np.pad(self.image.read((*outer, *sides)), [*missing, (0, 0)], mode="edge")


def _cells(part: slice) -> list[slice]:
    """Cut a side of a view into at most eight cells."""
    step = max(math.ceil((part.stop - part.start) / 8), 1)
    return [
        slice(start, min(start + step, part.stop)) for start in range(part.start, part.stop, step)
    ]


def made_up_levels(image: Image) -> list[LevelImage]:
    """Return levels for an image that is stored as one: strided where a plane is large."""
    levels = [LevelImage(image)]
    if math.prod(image.shape[-2:]) <= LARGEST_PLANE:
        return levels
    while max(levels[-1].shape[-2:]) > _COARSEST_SIDE:
        levels.append(LevelImage(image, levels[-1].stride * 2))
    return levels


class _Level(ABC):
    """What napari asks of an array: shape, type, and slices.

    napari cuts a view out of all planes first and picks the plane afterwards: plain slices
    therefore give a narrower level, and nothing is read before an array is asked for.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._region: Region = tuple(slice(0, n) for n in shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return tuple(part.stop - part.start for part in self._region)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._region)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @abstractmethod
    def _read(self, region: Region) -> NDArray[Any]:
        """Read a region of the whole level."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._read(self._region), dtype)

    def __getitem__(self, key: Any) -> Any:
        region, index = _normalized(key, self.shape)
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
    """

    def __init__(self, level: LevelImage, pixels: PreviewPixels) -> None:
        super().__init__(level.shape, Lookup.dtype)
        self._level, self._pixels = level, pixels

    def _read(self, region: Region) -> NDArray[np.uint16]:
        return self._pixels.lookup.look_up(self._pixels.view(self._level, region))


class ImageLevel(_Level):
    """Samples of one level, for showing an image that has no pyramid of its own."""

    def __init__(self, level: LevelImage) -> None:
        channels = () if level.image.gray else (level.image.color_channels,)
        super().__init__((*level.shape, *channels), level.image.dtype)
        self._level = level

    def _read(self, region: Region) -> NDArray[Any]:
        if self._level.image.gray:
            return self._level.read(region)[..., 0]
        return self._level.read(region[:-1])[..., region[-1]]


class PreviewPixels:
    """The packed colors of the latest views, and the table that gives them classes."""

    def __init__(self) -> None:
        self.lookup = Lookup()
        self._encoding, self._radius = Encoding(), 0
        self._views: OrderedDict[Any, Packed] = OrderedDict()
        self._lock = threading.Lock()

    def encode_with(self, encoding: Encoding, radius: int) -> None:
        """Change how samples become colors; kept views are dropped if it really changes."""
        with self._lock:
            if (encoding, radius) != (self._encoding, self._radius):
                self._encoding, self._radius = encoding, radius
                self._views.clear()

    def view(self, level: LevelImage, region: Region) -> Packed:
        """Return the packed colors of a region of a level."""
        key = (id(level), *((part.start, part.stop) for part in region))
        with self._lock:
            encoding, radius = self._encoding, self._radius
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key]
        packed = _read_packed(level, region, encoding, radius)
        with self._lock:
            self._views[key] = packed
            while len(self._views) > _VIEWS_KEPT:
                self._views.popitem(last=False)
        return packed


def _read_packed(level: LevelImage, region: Region, encoding: Encoding, radius: int) -> Packed:
    # On coarser levels the filter shrinks with the pixels it stands for.
    radius = radius if level.stride == 1 else round(radius / level.stride)
    if not radius:
        return encoding.encode(level.read(region))
    halo, margins, inner = with_halo(region, level.shape, radius)
    packed = reflect_margin(encoding.encode(level.read(halo)), margins)
    return median(packed, radius)[inner]


def _normalized(key: Any, shape: Sequence[int]) -> tuple[Region, tuple[Any, ...]]:
    """Split a key into the region to read and the index to apply to what was read."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(k is Ellipsis for k in keys):
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    keys += [slice(None)] * (len(shape) - len(keys))
    parts = [_normalized_part(k, n) for k, n in zip(keys, shape, strict=True)]
    return tuple(region for region, _ in parts), tuple(index for _, index in parts)


def _normalized_part(key: Any, length: int) -> tuple[slice, Any]:
    if not isinstance(key, slice):
        position = int(key)
        if not -length <= position < length:
            raise IndexError(f"Index {position} is out of bounds for a length of {length}.")
        return slice(position % length, position % length + 1), 0
    wanted = range(*key.indices(length))
    if not wanted:
        return slice(0, 0), slice(None)
    first, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
    step = None if wanted.step == 1 else wanted.step
    return slice(first, last + 1), slice(None, None, step)
