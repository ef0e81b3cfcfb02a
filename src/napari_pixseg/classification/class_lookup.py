"""The classes of pixels, looked up in a table of all colors."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import NO_DATA
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.classification.input_changed_errors import uncounted_colors
from napari_pixseg.classification.tile import Tile


class ClassTable:
    """The class of each packed color. Dask passes it on as one object.

    Parameters
    ----------
    entries : (2^24 + 1,) ndarray
    """

    def __init__(self, entries: NDArray[Any]) -> None:
        self.entries = entries

    def __reduce__(self) -> tuple[Any, ...]:
        # Graphs carry the table to workers, and most of its entries are zeros. Even the fastest
        # level of compression removes nearly all of them.
        content = zlib.compress(self.entries.tobytes(), level=1)
        return _unpack_table, (content, self.entries.dtype)


def _unpack_table(content: bytes, dtype: np.dtype[Any]) -> ClassTable:
    return ClassTable(np.frombuffer(zlib.decompress(content), dtype))


@dataclass(frozen=True, eq=False, repr=False)
class ClassLookup:
    """Looks up the classes of a tile of colors; a step of a :class:`TileSource`.

    Attributes
    ----------
    table : ClassTable
    keep_samples : bool
        Whether the samples are still needed.
    """

    table: ClassTable
    keep_samples: bool

    def __call__(self, tile: Tile, _number: int) -> Tile:
        """Look up the classes of a tile."""
        return tile.with_classes(look_up_classes(tile, self.table), self.keep_samples)


def look_up_classes(tile: Tile, table: ClassTable) -> NDArray[Any]:
    """Return the classes of a tile of colors.

    Raises
    ------
    InputChanged
        If it holds a color that was not counted.
    """
    classes = np.empty(tile.shape, table.entries.dtype)
    if tile.byte_parts is None:
        packed = np.ascontiguousarray(tile.packed_colors())
        # The kernel counts zeros at no cost, and most tiles have no zero that must be checked.
        zeros = kernels.look_up_colors(packed.reshape(-1), table.entries, classes.reshape(-1))
        is_unknown = bool(zeros and ((classes == 0) & (packed != NO_DATA)).any())
    else:
        parts = tile.byte_parts
        is_unknown = any(_look_up_part(part, table, classes[there]) for there, part in parts)
    if is_unknown:
        raise uncounted_colors()
    return classes


def _look_up_part(part: NDArray[np.uint8], table: ClassTable, result: NDArray[Any]) -> bool:
    """Look up a part of a tile; return whether it holds a color that was not counted."""
    # A part that is narrower than its tile is not contiguous, as the kernel requires.
    classes = result if result.flags.c_contiguous else np.empty(result.shape, result.dtype)
    rows = part.reshape(-1, part.shape[-1])
    zeros = kernels.look_up_pixels(rows, table.entries, classes.reshape(-1))
    if classes is not result:
        result[...] = classes
    return bool(zeros)
