"""The look-up from colors to classes that all preview levels share."""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.color_table import COLORS, NO_DATA, ColorTable, unpack_colors
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.classification.tile_colors import Packed

ClassNumbers: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


class ClassLookup:
    """Class by packed color, for all colors: those not counted are classified when met.

    The numbers are bytes as long as there are few enough classes: napari computes the color of
    every number that the type has, whenever colors change, and takes 50 ms for 16 bits.
    """

    def __init__(self) -> None:
        self._table: ClassNumbers = np.zeros(COLORS + 1, np.uint8)
        self._classes: Classes | None = None
        self._space: Any = None
        self._counted: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._learned: list[NDArray[np.uint32]] = []
        self._lock = threading.Lock()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the class numbers, uint8 or uint16; it may change with a decision."""
        return self._table.dtype

    def show(self, classes: Classes, table: ColorTable) -> None:
        """Replace the content by a new decision."""
        with self._lock:
            self._clear(table, classes.dtype)
            self._table[table.packed] = classes.color_classes
            self._classes, self._space = classes, table.space

    def _clear(self, table: ColorTable, dtype: np.dtype[Any]) -> None:
        """Forget the decision before, but for colors that the next one is about, too."""
        same = self._counted is table.packed
        stale = self._learned if same else [self._counted, *self._learned]
        if dtype == self.dtype:
            for packed in stale:
                self._table[packed] = 0
        else:
            self._table = np.zeros(COLORS + 1, dtype)
        self._counted, self._learned = table.packed, []

    def look_up(self, packed: Packed) -> ClassNumbers:
        """Return the class of each pixel, 0 for no data."""
        with self._lock:
            result = self._looked_up(packed)
            if np.count_nonzero(result) == result.size:
                return result
            unknown = (result == 0) & (packed != NO_DATA)
            if self._classes is None or not unknown.any():
                return result
            self._learn(np.unique(packed[unknown]))
            return self._looked_up(packed)

    def _looked_up(self, packed: Packed) -> ClassNumbers:
        result = np.empty(packed.shape, self.dtype)
        flat = np.ascontiguousarray(packed).reshape(-1)
        kernels.look_up_colors(flat, self._table, result.reshape(-1))
        return result

    def _learn(self, packed: Packed) -> None:
        """Classify colors that a pyramid made by averaging, or that are still to be counted."""
        assert self._classes is not None
        self._table[packed] = self._classes.classify(unpack_colors(packed), self._space)
        self._learned.append(packed)
