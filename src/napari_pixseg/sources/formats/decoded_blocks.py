"""An array that a library decodes block by block, and that keeps the blocks it decoded last."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import numpy as np

from napari_pixseg.slices import Index, Samples, SampleType, cut_along_chunks, shape_of, split_key

# Neighboring tiles share a plane; at least the one decoded last is kept.
_KEPT_BYTES = 128 << 20


class HasShape(Protocol):
    """The properties of an array that are known before it is read."""

    shape: tuple[int, ...]
    dtype: SampleType


class DecodedBlocks:
    """Reads any part of an array; one block at a time is decoded.

    Parameters
    ----------
    array : HasShape
    block : tuple of int
        Shape of all blocks but the last along each dimension.
    decode : callable
        Returns the block of an index.
    """

    def __init__(self, array: HasShape, block: Index, decode: Callable[[Index], Samples]) -> None:
        self._shape = tuple(array.shape)
        self._dtype = np.dtype(array.dtype)
        self._block = block
        self._decode = decode
        size = math.prod(block) * self._dtype.itemsize
        self._most = max(1, _KEPT_BYTES // max(size, 1))
        self._kept: OrderedDict[Index, Samples] = OrderedDict()
        # Few decoders of microscope files are safe with two threads, and a plane is large.
        self._lock = threading.Lock()

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._shape)

    def read(self, key: object) -> Samples:
        """Return the samples that a key of integers and slices selects."""
        box, rest = split_key(key, self._shape)
        pixels = np.empty(shape_of(box), self._dtype)
        for index, inside, there in cut_along_chunks(box, self._block):
            pixels[there] = self._block_at(index)[inside]
        part: Samples = pixels[rest]
        return part

    def _block_at(self, index: Index) -> Samples:
        with self._lock:
            if index not in self._kept:
                while len(self._kept) >= self._most:
                    self._kept.popitem(last=False)
                self._kept[index] = self._decode(index)
            self._kept.move_to_end(index)
            return self._kept[index]
