"""Keeps the components of tiles from pass 2, which finds them, to pass 3, which needs them again.

As runs, components take a few bytes for each hundred pixels: less than the class map and the image,
which would have to be read to find and measure them again. They are kept in the unfinished store,
which every worker sees, and are removed before it is finished. Components that are not in the cache
are found again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO

import numpy as np
from numcodecs import Blosc

from napari_pixseg.algorithm.components import Components
from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.tile import Tile
from napari_pixseg.export.output_location import COMPONENTS_NAME, OutputLocation

# In their order in the file. The sums, if there are any, come last.
_COLUMNS = ("shape", "lines", "sizes", "first_runs", "starts", "numbers", "values")

# If runs are shorter than this many pixels, finding the components again is cheaper.
_SHORT = 4

# Sums below this fit 32 bits.
_LARGEST = 1 << 32

# Reduces the size to a quarter, in less time than the disk would take for the rest.
_CODEC = Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE)


@dataclass(frozen=True)
class ComponentCache:
    """Keeps the components of each tile in a file of its own.

    Attributes
    ----------
    location : OutputLocation
        The unfinished store.
    """

    location: OutputLocation

    def save(self, tile: Tile, number: int) -> None:
        """Write the components of a tile, whole or not at all, if that saves work."""
        components = tile.components
        assert components is not None
        # Noise has about as many runs as pixels, and its runs take more bytes than its classes.
        if _SHORT * len(components.starts) > int(np.prod(components.shape)):
            return
        columns = [np.asarray(getattr(components, name)) for name in _COLUMNS]
        if tile.component_sums is not None:
            columns.append(_narrow_sums(tile.component_sums))
        with self._file(number).new_file() as partial, open(partial, "wb") as file:
            for column in columns:
                _save_array(file, column)

    def numbers(self) -> frozenset[int]:
        """Return the numbers of the tiles in the cache."""
        names = self.location.child(COMPONENTS_NAME).list_names()
        return frozenset(int(name) for name in names if name.isdecimal())

    def load(self, number: int) -> Tile:
        """Return a tile that is in the cache."""
        with open(self._file(number).local_path, "rb") as file:
            shape, *columns = (_load_array(file) for _ in _COLUMNS)
            # If the file goes on, sums were saved.
            sums = _load_array(file) if file.peek(1) else None
        if sums is not None and sums.dtype == np.uint32:
            sums = sums.astype(np.int64)
        t, z, y, x = (int(n) for n in shape)
        components = Components((t, z, y, x), *columns)
        return Tile(components.shape, components=components, component_sums=sums)

    def begin(self) -> None:
        """Create an empty folder; tiles that a killed run has left may be incomplete."""
        self.clear()
        self.location.child(COMPONENTS_NAME).local_path.mkdir()

    def clear(self) -> None:
        """Remove all tiles."""
        self.location.child(COMPONENTS_NAME).remove()

    def _file(self, number: int) -> OutputLocation:
        return self.location.child(f"{COMPONENTS_NAME}/{number}")


def _save_array(file: IO[bytes], column: AnyArray) -> None:
    """Write an array: its type and shape on a line, then its bytes."""
    content = _CODEC.encode(np.ascontiguousarray(column))
    header = {"dtype": column.dtype.str, "shape": column.shape, "bytes": len(content)}
    file.write(json.dumps(header).encode() + b"\n")
    file.write(content)


def _load_array(file: IO[bytes]) -> AnyArray:
    header = json.loads(file.readline())
    content = file.read(header["bytes"])
    array = np.empty(header["shape"], header["dtype"])
    if array.size:
        _CODEC.decode(content, array)
    return array


def _narrow_sums(sums: AnyArray) -> AnyArray:
    """Return sums in 32 bits where they fit."""
    small = sums.dtype == np.int64 and sums.min() >= 0 and sums.max() < _LARGEST
    return sums.astype(np.uint32) if sums.size and small else sums
