"""The table from colors to classes that all levels of a preview share."""

from __future__ import annotations

import threading
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.color_table import COLORS, NO_DATA, ColorTable, unpack_colors
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.parameters import ColorSpace
from napari_pixseg.plugin.layer_types import ValueType

ClassNumbers: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


class PreviewLookup:
    """The class of every packed color; colors that were not counted are classified when met.

    The class numbers are bytes as long as they fit. Whenever colors change, napari computes
    the color of every number of the type, which takes 50 ms for 16 bits.
    """

    def __init__(self) -> None:
        self._table: ClassNumbers = np.zeros(COLORS + 1, np.uint8)
        self._classes: Classes | None = None
        self._space: ColorSpace | None = None
        self._counted: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._learned: list[NDArray[np.uint32]] = []
        self._lock = threading.Lock()

    @property
    def dtype(self) -> ValueType:
        """Type of the class numbers, uint8 or uint16; a decision may change it."""
        return self._table.dtype

    def set_decision(self, classes: Classes, table: ColorTable) -> None:
        """Replace the classes with those of a new decision."""
        with self._lock:
            self._forget_decision(table, classes.dtype)
            self._table[table.packed] = classes.color_classes
            self._classes = classes
            self._space = table.space

    def _forget_decision(self, table: ColorTable, dtype: ValueType) -> None:
        """Forget the previous decision, except for colors that the next one sets anyway."""
        same = self._counted is table.packed
        stale = self._learned if same else [self._counted, *self._learned]
        if dtype == self.dtype:
            for packed in stale:
                # Only entries that were set are cleared: clearing 2^24 at each step of a slider
                # takes long.
                self._table[packed] = 0
        else:
            self._table = np.zeros(COLORS + 1, dtype)
        self._counted = table.packed
        self._learned = []

    def look_up(self, packed: Packed) -> ClassNumbers:
        """Return the class of each pixel; 0 means no data."""
        with self._lock:
            result = self._read_table(packed)
            # Most views hold only counted colors and are done here.
            if np.count_nonzero(result) == result.size:
                return result
            unknown = (result == 0) & (packed != NO_DATA)
            if self._classes is None or not unknown.any():
                return result
            self._classify_unknown(np.unique(packed[unknown]))
            return self._read_table(packed)

    def _read_table(self, packed: Packed) -> ClassNumbers:
        result = np.empty(packed.shape, self.dtype)
        # The kernel needs contiguous arrays.
        flat = np.ascontiguousarray(packed).reshape(-1)
        kernels.look_up_colors(flat, self._table, result.reshape(-1))
        return result

    def _classify_unknown(self, packed: Packed) -> None:
        """Classify colors that were averaged in a pyramid, or not counted yet."""
        assert self._classes is not None
        self._table[packed] = self._classes.classify(unpack_colors(packed), self._space)
        self._learned.append(packed)
