"""Where the tiles of a pass come from: a Dask graph, or a function that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.slices import PixelSlices

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import DTypeLike

# Reads the tile of a number.
ReadTile: TypeAlias = Callable[[int], Any]
# Reads the pixels of a box.
ReadSlices: TypeAlias = Callable[[PixelSlices], Any]
# Called with a tile and its number.
TileFunction: TypeAlias = Callable[[Any, int], Any]


@dataclass(frozen=True, eq=False, repr=False)
class TileSource:
    """Where tiles come from, and which of them are wanted.

    A Dask array brings its own graph. A function is called inside the task that uses the tile, so
    that even a huge graph has only one task for each tile.

    Attributes
    ----------
    numbers : sequence of int
        The tiles that are wanted, in the order in which they are begun.
    graph : mapping
        Dask's tasks; empty if all tiles are read.
    keys : sequence, optional
        Key of each tile in the graph, by number; None for tiles that a function reads.
    read : callable, optional
        Reads a tile that has no key.
    steps : tuple of callable
        Functions applied to a block of the graph, inside the task that uses it.
    tiling : Tiling, optional
        Shapes of the blocks. They are checked, because Dask takes declared chunks on trust.
    is_ordered : bool
        Whether the order of ``numbers`` is kept, whatever Dask prefers.
    """

    numbers: Sequence[int]
    graph: Mapping[Any, Any]
    keys: Sequence[Any] | None
    read: ReadTile | None
    steps: tuple[TileFunction, ...] = ()
    tiling: Tiling | None = None
    is_ordered: bool = False

    @classmethod
    def from_array(cls, array: da.Array, tiling: Tiling) -> TileSource:
        """Take the blocks of a Dask array whose leading chunks are the tiles."""
        # Imported only where it is needed: importing Dask takes as long as segmenting a picture.
        import dask

        (optimized,) = dask.optimize(array)
        trailing = (0,) * (array.ndim - len(tiling.shape))
        numbers = range(len(tiling))
        keys = [(optimized.name, *tiling.position(number), *trailing) for number in numbers]
        return cls(numbers, dict(optimized.__dask_graph__()), keys, None, tiling=tiling)

    @classmethod
    def from_numbers(cls, read: ReadTile, tiling: Tiling) -> TileSource:
        """Call ``read(number)`` for every tile."""
        return cls(range(len(tiling)), {}, None, read)

    @classmethod
    def from_slices(cls, read: ReadSlices, tiling: Tiling) -> TileSource:
        """Call ``read(slices)`` for every tile."""
        return cls.from_numbers(_SlicesReader(read, tiling), tiling)

    def map(self, step: TileFunction) -> TileSource:
        """Return a source that gives ``step(tile, number)``, computed where the tile is used."""
        read = None if self.read is None else _MappedReader(self.read, step)
        return replace(self, read=read, steps=(*self.steps, step))

    def only(self, numbers: Sequence[int]) -> TileSource:
        """Return a source of only some of the tiles."""
        return replace(self, numbers=numbers)

    def in_order(self, numbers: Sequence[int]) -> TileSource:
        """Return a source of tiles that are begun in about this order, whatever Dask prefers."""
        return replace(self, numbers=numbers, is_ordered=True)

    def replaced_by(self, other: TileSource, numbers: frozenset[int]) -> TileSource:
        """Return a source that reads some of the tiles from another, which must not be a graph."""
        if not numbers:
            return self
        assert other.read is not None
        if self.keys is None:
            assert self.read is not None
            return replace(self, read=_EitherReader(numbers, other.read, self.read))
        from dask.optimization import cull

        keys = [None if number in numbers else key for number, key in enumerate(self.keys)]
        # This spares schedulers from finding out which tasks nobody needs.
        graph, _ = cull(dict(self.graph), [key for key in keys if key is not None])
        return replace(self, graph=graph, keys=keys, read=other.read)


@dataclass(frozen=True, eq=False, repr=False)
class _SlicesReader:
    """Reads the tile with a number, given a function that reads slices."""

    read: ReadSlices
    tiling: Tiling

    def __call__(self, number: int) -> Any:
        return self.read(self.tiling.slices(number))


@dataclass(frozen=True, eq=False, repr=False)
class _MappedReader:
    """Reads a tile and applies a function to it."""

    read: ReadTile
    step: TileFunction

    def __call__(self, number: int) -> Any:
        return self.step(self.read(number), number)


@dataclass(frozen=True, eq=False, repr=False)
class _EitherReader:
    """Reads the tiles with these numbers in one way, and all others in another."""

    numbers: frozenset[int]
    one: ReadTile
    other: ReadTile

    def __call__(self, number: int) -> Any:
        return self.one(number) if number in self.numbers else self.other(number)


def lazy_tiles(read: ReadSlices, tiling: Tiling, dtype: DTypeLike) -> da.Array:
    """Return a Dask array whose blocks are what ``read`` returns for the slices of the tiles.

    Blocks are passed on as they are: ``read`` need not return arrays.
    """
    import dask.array as da

    reader = _SliceableReader(read, tiling.shape, np.dtype(dtype))
    return da.from_array(
        reader,
        tiling.chunks,
        name=False,
        asarray=False,
        meta=np.empty((0,) * reader.ndim, reader.dtype),
    )


@dataclass(frozen=True, eq=False, repr=False)
class _SliceableReader:
    """A function of slices as an array-like, for Dask to slice."""

    read: ReadSlices
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, slices: PixelSlices) -> Any:
        return self.read(slices)
