"""The array-like that napari slices: nothing is read before NumPy asks for the values."""

from __future__ import annotations

import copy
import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import numpy as np

from napari_pixseg.plugin.layer_types import ValueType
from napari_pixseg.slices import PixelSlices, Samples, expand_key

# The selection of a view along one dimension; an integer drops the dimension.
Part: TypeAlias = range | int


class LazyLevel(ABC):
    """One pyramid level for the viewer, read when it is converted to a NumPy array.

    napari first slices the visible rectangle out of all planes and then picks one plane. Therefore
    integers and slices only narrow the view. A zarr array would read the whole stack at the first
    slice, and a Dask array would fill napari's cache.

    Parameters
    ----------
    shape : sequence of int
        Length of each dimension of the whole level.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._parts: tuple[Part, ...] = tuple(range(length) for length in shape)
        self._whole_size = math.prod(shape)
        # Shared by this view and all views that are narrowed from it.
        self._handed_out: list[tuple[tuple[Part, ...], weakref.ref[Samples]]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        return tuple(len(part) for part in self._parts if isinstance(part, range))

    @property
    @abstractmethod
    def dtype(self) -> ValueType:
        """Type of the values."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @abstractmethod
    def _read_parts(self, parts: tuple[Part, ...]) -> Samples:
        """Read some values of the whole level; integers drop their dimension."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Samples:
        values = np.asarray(self._read_parts(self._parts), dtype)
        # napari keeps only whole levels, so no other array ever needs to be updated.
        if values.size == self._whole_size and values.flags.writeable:
            self._handed_out[:] = [(self._parts, weakref.ref(values))]
        return values

    def renew(self) -> None:
        """Write the current values into the array that was returned for the whole level.

        napari 0.9 reads the coarsest level of a plane once and keeps it forever.
        """
        for parts, reference in self._handed_out:
            # The array may be gone, or its type may be too small for the current class numbers.
            values = reference()
            if values is not None and values.dtype == self.dtype:
                values[...] = self._read_parts(parts)

    def __getitem__(self, key: Any) -> Self | Samples:
        """Narrow the view; keys other than integers and slices read it and index the result."""
        items = key if isinstance(key, tuple) else (key,)
        if not all(map(_is_plain, items)):
            values: Samples = np.asarray(self)[key]
            return values
        remaining = iter(expand_key(key, self.ndim))
        parts = [
            _narrow_part(part, next(remaining)) if isinstance(part, range) else part
            for part in self._parts
        ]
        view = copy.copy(self)
        view._parts = tuple(parts)
        return view


def _is_plain(item: object) -> bool:
    """Whether an item of a key narrows a view: an integer, a forward slice or an ellipsis."""
    if isinstance(item, slice):
        return item.step is None or item.step > 0
    # True and False are integers, too, but to NumPy they are masks.
    is_integer = isinstance(item, int | np.integer) and not isinstance(item, bool)
    return is_integer or item is Ellipsis


def _narrow_part(part: range, key: slice | int) -> Part:
    if not isinstance(key, slice):
        return part[int(key)]
    # An empty range may end before it begins, which no array takes as a slice.
    return part[key] or range(0)


def enclosing_box(parts: Sequence[Part]) -> tuple[PixelSlices, tuple[slice | int, ...]]:
    """Return the box of pixels around some parts, and the index that cuts them out of it."""
    box = tuple(
        (slice(part.start, part[-1] + 1) if part else slice(0, 0))
        if isinstance(part, range)
        else slice(part, part + 1)
        for part in parts
    )
    index = tuple(slice(None, None, part.step) if isinstance(part, range) else 0 for part in parts)
    return box, index
