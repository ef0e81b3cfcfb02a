"""Where the tiles of a pass come from: a Dask graph, or a function that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_pixseg.execution.tiling import Tiling

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class TileSource:
    """Where tiles come from: keys of a graph, or a function, and which tiles are wanted.

    With a tiling, the blocks of the graph are held against it: Dask believes what it is told.

    A Dask array brings its own graph; a reader is asked for each tile inside
    the task that uses it, which keeps huge graphs at one task a tile. Where a key
    is None, the reader is asked.
    """

    numbers: Sequence[int]
    graph: Mapping[Any, Any]
    keys: Sequence[Any] | None
    read: Callable[[int], Any] | None
    tiling: Tiling | None = None
    is_ordered: bool = False

    @classmethod
    def of_array(cls, array: da.Array, tiling: Tiling) -> TileSource:
        """Take the blocks of a Dask array whose leading chunks are the tiles."""
        import dask

        (optimized,) = dask.optimize(array)
        trailing = (0,) * (array.ndim - len(tiling.shape))
        numbers = range(len(tiling))
        keys = [(optimized.name, *tiling.position(number), *trailing) for number in numbers]
        return cls(numbers, dict(optimized.__dask_graph__()), keys, None, tiling)

    @classmethod
    def of_reader(cls, read: Callable[[int], Any], tiling: Tiling) -> TileSource:
        """Call ``read(number)`` for every tile."""
        return cls(range(len(tiling)), {}, None, read)

    def part(self, numbers: Sequence[int]) -> TileSource:
        """Return a feed of some of the tiles."""
        return replace(self, numbers=numbers)

    def ordered(self, numbers: Sequence[int]) -> TileSource:
        """Return a feed of tiles that are begun in about this order, whatever Dask prefers."""
        return replace(self, numbers=numbers, is_ordered=True)

    def instead(self, read: Callable[[int], Any], numbers: frozenset[int]) -> TileSource:
        """Return a feed that calls ``read(number)`` for some of the tiles, not their source."""
        if not numbers:
            return self
        if self.keys is None:
            assert self.read is not None
            return replace(self, read=_Either(numbers, read, self.read))
        from dask.optimization import cull

        keys = [None if number in numbers else key for number, key in enumerate(self.keys)]
        # Schedulers need not look which tasks nobody asks for.
        graph, _ = cull(dict(self.graph), [key for key in keys if key is not None])
        return replace(self, graph=graph, keys=keys, read=read)


@dataclass(frozen=True)
class _Either:
    """Reads the tiles of these numbers in one way, the others in another."""

    numbers: frozenset[int]
    one: Callable[[int], Any]
    other: Callable[[int], Any]

    def __call__(self, number: int) -> Any:
        return self.one(number) if number in self.numbers else self.other(number)
