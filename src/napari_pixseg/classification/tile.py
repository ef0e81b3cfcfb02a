"""A tile: its colors, classes, samples and components, as far as they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from napari_pixseg.algorithm.color_table import pack_colors
from napari_pixseg.algorithm.components import Components
from napari_pixseg.algorithm.kernels.arrays import AnyArray, Packed
from napari_pixseg.slices import PixelSlices, whole_box

# The place of a part of a tile, and its (..., c) samples.
Part: TypeAlias = tuple[PixelSlices, AnyArray]


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile. Attributes that are not known are None.

    Attributes
    ----------
    shape : tuple of int
        Pixels along each axis.
    packed : (...) ndarray of uint32, optional
        The colors, packed.
    byte_parts : sequence of (slices, (..., c) ndarray of uint8), optional
        The colors as the bytes that were read, with one to three channels. They are counted and
        looked up without packing them. They are contiguous and must not be written to.
    samples : sequence of (slices, (..., c) ndarray), optional
        The samples that the colors were made of, unchanged.
    classes : (...) ndarray of uint8 or uint16, optional
    components : Components, optional
        The connected components of equal class.
    component_sums : (n + 1, c) ndarray, optional
        Sum of the samples of each component.
    """

    shape: tuple[int, ...]
    packed: Packed | None = None
    byte_parts: Sequence[Part] | None = None
    samples: Sequence[Part] | None = None
    classes: AnyArray | None = None
    components: Components | None = None
    component_sums: AnyArray | None = None

    @classmethod
    def from_packed(cls, packed: Packed) -> Tile:
        """Return a tile with nothing but colors."""
        return cls(packed.shape, packed=packed)

    @classmethod
    def from_bytes(cls, shape: tuple[int, ...], parts: Sequence[Part]) -> Tile:
        """Return a tile of bytes that need no conversion to colors."""
        parts = [(there, as_kernel_input(part)) for there, part in parts]
        return cls(shape, byte_parts=parts, samples=parts)

    @classmethod
    def from_samples(cls, packed: Packed, samples: AnyArray) -> Tile:
        """Return a tile of colors and the (..., c) samples they were made of."""
        return cls(packed.shape, packed=packed, samples=[(whole_box(packed.shape), samples)])

    @classmethod
    def from_classes(cls, classes: AnyArray) -> Tile:
        """Return a tile with nothing but classes."""
        return cls(classes.shape, classes=classes)

    def with_classes(self, classes: AnyArray, keep_samples: bool) -> Tile:
        """Return the tile with its classes, without its colors."""
        return Tile(self.shape, samples=self.samples if keep_samples else None, classes=classes)

    def with_components(self, components: Components) -> Tile:
        """Return the tile with its components."""
        return replace(self, components=components)

    def packed_colors(self) -> Packed:
        """Return the colors packed; bytes are packed now."""
        if self.packed is not None:
            return self.packed
        assert self.byte_parts is not None
        if len(self.byte_parts) == 1:
            return pack_colors(self.byte_parts[0][1])
        result = np.empty(self.shape, np.uint32)
        for there, part in self.byte_parts:
            result[there] = pack_colors(part)
        return result

    def known_classes(self) -> AnyArray:
        """Return the classes of a tile that has them."""
        assert self.classes is not None
        return self.classes

    def __sizeof__(self) -> int:
        """Bytes of all arrays; Dask's workers use it to decide when to spill."""
        arrays = [self.packed, self.classes, self.component_sums]
        # Bytes that are colors are also the samples, so they count once.
        arrays += [part for _, part in self.samples or self.byte_parts or ()]
        if (found := self.components) is not None:
            arrays += [found.lines, found.sizes, found.first_runs]
            arrays += [found.starts, found.numbers, found.values]
        total = sum(array.nbytes for array in arrays if array is not None)
        return object.__sizeof__(self) + total


def tile_from_classes(classes: AnyArray, _number: int) -> Tile:
    """Return a tile of classes; a step of a :class:`TileSource`."""
    return Tile.from_classes(classes)


def tile_from_packed(packed: Packed, _number: int) -> Tile:
    """Return a tile of packed colors; a step of a :class:`TileSource`."""
    return Tile.from_packed(packed)


def as_kernel_input(samples: AnyArray) -> AnyArray:
    """Return contiguous, read-only samples of a type that kernels know.

    Kernels are compiled for these types only: native integers, and floats of 32 or 64 bits.
    """
    dtype = samples.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    samples = np.ascontiguousarray(samples, dtype).view()
    # numba compiles another variant for writable arrays; this keeps it to one.
    samples.flags.writeable = False
    return samples
