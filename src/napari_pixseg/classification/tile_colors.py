"""From samples of any type to packed byte colors: window, alpha, denoising.

After this step every pixel is one integer: 24 bits of color, or ``NO_DATA``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import pack_colors
from napari_pixseg.slices import PixelSlices, whole_box

Packed: TypeAlias = NDArray[np.uint32]


Part: TypeAlias = tuple[PixelSlices, NDArray[Any]]


@dataclass(frozen=True)
class ByteColors:
    """Bytes that are colors as they are; counted and looked up without packing them.

    Attributes
    ----------
    shape : tuple of int
        Of the colors.
    parts : sequence of (region, (..., c) ndarray of uint8)
        Where each part is, and its one to three channels; contiguous, not to be written.
    """

    shape: tuple[int, ...]
    parts: Sequence[Part]

    @classmethod
    def of(cls, shape: tuple[int, ...], parts: Sequence[Part]) -> ByteColors:
        """Take parts as they were read."""
        return cls(shape, [(there, read_only(part)) for there, part in parts])

    def __sizeof__(self) -> int:
        """Bytes of the parts, by which Dask's workers know when to spill."""
        return object.__sizeof__(self) + sum(part.nbytes for _, part in self.parts)

    def packed(self) -> Packed:
        """Return the colors packed."""
        if len(self.parts) == 1:
            return pack_colors(self.parts[0][1])
        result = np.empty(self.shape, np.uint32)
        for there, part in self.parts:
            result[there] = pack_colors(part)
        return result


def read_only(samples: NDArray[Any]) -> NDArray[Any]:
    """Return contiguous samples that cannot be written, of which kernels have one compiled form.

    Of the types that kernels know: native ones, and floats of 32 or 64 bits.
    """
    dtype = samples.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    samples = np.ascontiguousarray(samples, dtype).view()
    samples.flags.writeable = False
    return samples


@dataclass(frozen=True)
class Encoded:
    """Colors, and the samples that they were made of, which are needed again.

    Attributes
    ----------
    colors : (...) ndarray of uint32
        Packed.
    samples : (..., c) ndarray
    """

    colors: Packed
    samples: NDArray[Any]

    def __sizeof__(self) -> int:
        """Bytes of both, as of :class:`ByteColors`."""
        return object.__sizeof__(self) + self.colors.nbytes + self.samples.nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the colors."""
        return self.colors.shape

    @property
    def parts(self) -> Sequence[Part]:
        """The samples, as :class:`ByteColors` has them."""
        return [(whole_box(self.shape), read_only(self.samples))]

    def packed(self) -> Packed:
        """Return the colors packed."""
        return self.colors


Colors: TypeAlias = Packed | ByteColors | Encoded


@dataclass(frozen=True)
class ClassifiedTile:
    """The classes of a tile and the samples they were looked up from.

    Attributes
    ----------
    classes : (...) ndarray of uint8 or uint16
    samples : sequence of (region, (..., c) ndarray)
        Where each part is, and its samples.
    """

    classes: NDArray[Any]
    samples: Sequence[Part]

    def __sizeof__(self) -> int:
        """Bytes of both, as of :class:`ByteColors`."""
        samples = sum(part.nbytes for _, part in self.samples)
        return object.__sizeof__(self) + self.classes.nbytes + samples

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the classes."""
        return self.classes.shape


def packed_colors(colors: Colors) -> Packed:
    """Return colors packed."""
    return colors if isinstance(colors, np.ndarray) else colors.packed()


def samples_of(colors: Colors) -> Sequence[Part] | None:
    """Return the samples that colors were made of, where they are at hand, and where each is."""
    return None if isinstance(colors, np.ndarray) else colors.parts
