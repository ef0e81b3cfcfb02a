"""Components of tiles, kept from the pass that finds them to the pass that writes them.

As runs they are a few bytes for each hundred pixels, less than the class map
and the image that would have to be read to find and measure them again. They
lie in the unfinished store, where every worker finds them, and are gone from the
finished one; what is not there is found again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from napari_pixseg.algorithm.components import Components
from napari_pixseg.export.output_location import KEPT_NAME, OutputLocation
from napari_pixseg.regions.tile_components import KeptTile

# In the order of the file; the totals, if there are any, come last.
_COLUMNS = ("shape", "lines", "sizes", "first_runs", "starts", "numbers", "values")


# Runs shorter than this many pixels are cheaper to find again.
_SHORT = 4


_LARGEST = 1 << 32


# A fourth of the size in less time than the disk would take for the rest.
_CODEC = Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE)


@dataclass(frozen=True)
class KeptTiles:
    """The components of each tile in a file of its own.

    Attributes
    ----------
    location : OutputLocation
        The unfinished store.
    """

    location: OutputLocation

    def keep(self, tile: KeptTile, number: int) -> None:
        """Write a tile, whole or not at all, if that is worth it."""
        components = tile.components
        if _SHORT * len(components.starts) > int(np.prod(components.shape)):
            return
        columns = [np.asarray(getattr(components, name)) for name in _COLUMNS]
        if tile.totals is not None:
            columns.append(_narrow(tile.totals))
        with self._file(number).new_file() as partial, open(partial, "wb") as file:
            for column in columns:
                _save(file, column)

    def numbers(self) -> frozenset[int]:
        """Return the numbers of the tiles that are there."""
        names = self.location.child(KEPT_NAME).list_names()
        return frozenset(int(name) for name in names if name.isdecimal())

    def kept(self, number: int) -> KeptTile:
        """Return a tile that is there."""
        with open(self._file(number).local_path, "rb") as file:
            shape, *columns = (_load(file) for _ in _COLUMNS)
            totals = _load(file) if file.peek(1) else None
        if totals is not None and totals.dtype == np.uint32:
            totals = totals.astype(np.int64)
        t, z, y, x = (int(n) for n in shape)
        return KeptTile(Components((t, z, y, x), *columns), totals)

    def remove(self) -> None:
        """Remove all tiles."""
        self.location.child(KEPT_NAME).remove()

    def _file(self, number: int) -> OutputLocation:
        return self.location.child(f"{KEPT_NAME}/{number}")


def _save(file: IO[bytes], column: NDArray[Any]) -> None:
    """Write an array: its type and shape on a line, then its bytes."""
    content = _CODEC.encode(np.ascontiguousarray(column))
    header = {"dtype": column.dtype.str, "shape": column.shape, "bytes": len(content)}
    file.write(json.dumps(header).encode() + b"\n")
    file.write(content)


def _load(file: IO[bytes]) -> NDArray[Any]:
    header = json.loads(file.readline())
    content, array = file.read(header["bytes"]), np.empty(header["shape"], header["dtype"])
    if array.size:
        _CODEC.decode(content, array)
    return array


def _narrow(totals: NDArray[Any]) -> NDArray[Any]:
    small = totals.dtype == np.int64 and totals.min() >= 0 and totals.max() < _LARGEST
    return totals.astype(np.uint32) if totals.size and small else totals
