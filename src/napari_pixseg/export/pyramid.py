"""OME-Zarr 0.5: groups, arrays, metadata and pyramids.

Specification: ngff.openmicroscopy.org, version 0.5. Metadata are few and plain
and written here; the tests have them read by ome-zarr-py and ome-zarr-models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
import zarr.storage
from numpy.typing import NDArray
from zarr.abc.store import Store

from napari_pixseg.errors import OutputConflict
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export.downsample import Gathering, Reduce, TileHalf, halved
from napari_pixseg.export.ngff_metadata import VERSION, with_channels
from napari_pixseg.slices import PixelSlices, box_at_origin, cut_along_chunks, move_box
from napari_pixseg.sources.image import PartOf
from napari_pixseg.sources.zarr_chunks import whole_chunks, with_fast_local_io

# A pyramid ends where a level fits a screen.
COARSEST_SIDE = 512


@dataclass(frozen=True)
class Pyramid:
    """A multiscale array being written.

    Attributes
    ----------
    levels : tuple of zarr.Array or ChunkFiles
        Fine to coarse; each half as large in y and x as the one before.
    axes : str
        Axes of the arrays, with c where they have channels.
    tiling : Tiling
        Tiles of the finest level, without the channel axis.
    made_along : frozenset of int
        Those whose part of the next level is there already.
    gathering : Gathering, optional
        What makes levels beyond the next, where one process writes all tiles.
    """

    levels: tuple[Any, ...]
    axes: str
    tiling: Tiling
    made_along: frozenset[int] = frozenset()
    gathering: Gathering | None = None

    @classmethod
    def create(
        cls,
        store: Store,
        path: str,
        label_axes: str,
        tiling: Tiling,
        dtype: Any,
        channels: int | None,
        resumes: bool = False,
    ) -> Pyramid:
        """Create empty arrays ``path/0``, ``path/1``, ... in a store.

        With ``resumes`` those that are there already are opened.

        Raises
        ------
        OutputConflict
            If one that is there has other metadata.
        """
        axes = label_axes if channels is None else with_channels(label_axes)

        def level(number: int, shape: tuple[int, ...]) -> Any:
            chunks = tuple(min(c, n) for c, n in zip(tiling.write_chunk, shape, strict=True))
            made = _array(
                store, f"{path}/{number}".lstrip("/"), resumes, dtype=dtype, fill_value=0,
                shape=_insert_channels(axes, shape, channels),
                chunks=_insert_channels(axes, chunks, channels), dimension_names=list(axes),
            )  # fmt: skip
            return with_fast_local_io(made)

        shapes = level_shapes(tiling.shape)
        # open_array() takes either from nowhere else. And all at once: each waits for its store.
        with (
            whole_chunks(), zarr.config.set({"array.write_empty_chunks": True}),
            ThreadPoolExecutor(len(shapes)) as pool,
        ):  # fmt: skip
            levels = list(pool.map(level, range(len(shapes)), shapes))
        return cls(tuple(levels), axes, tiling)

    def write_tile(self, number: int, part: PartOf, reduce: Reduce) -> None:
        """Write a tile of the finest level, and its part of the next where that is whole chunks.

        ``part`` gives a part of the tile, channels first where there are any; asked for chunk by
        chunk, what it makes stays in the processor's cache until it is compressed.
        The coarser part comes first: where a tile of the finest level is complete, it is, too.
        """
        region = self.tiling.slices(number)
        *before, last = self._parts(region)
        along = self.writes_along(1) and number not in self.made_along
        coarser = TileHalf(self.half_tiling.slices(number), reduce) if along else None
        for inner in (*before, last):
            block = part(inner)
            if coarser is not None:
                coarser.add(inner, block)
                if inner is last:
                    self.write(1, coarser.region, coarser.block)
            self.write(0, move_box(inner, region), block)
        if coarser is not None and self.gathering is not None:
            self._gather(self.gathering, coarser.region, coarser.block, reduce)

    def _gather(
        self, gathering: Gathering, region: PixelSlices, block: NDArray[Any], reduce: Reduce
    ) -> None:
        """Make a tile's part of all levels beyond the second."""
        for level in range(2, len(self.levels)):
            if not self.writes_along(level):
                return
            region, block = halved(region), reduce(block)
            chunks, shape = self.tiling.write_chunk, self._shape(level)
            for there, whole in gathering.add(level, region, block, chunks, shape):
                self.write(level, there, whole)

    def _parts(self, region: PixelSlices) -> list[PixelSlices]:
        """Cut a tile into chunks, or not at all where half of one would not be whole pixels."""
        chunk = self.tiling.write_chunk
        if any(size % 2 for size in chunk[-2:]):
            return [box_at_origin(region)]
        return [there for _, _, there in cut_along_chunks(region, chunk)]

    @property
    def half_tiling(self) -> Tiling:
        """Tiles of the second level that are halves of those of the finest, with their numbers."""
        *outer, rows, columns = self.tiling.tile
        tile = (*outer, math.ceil(rows / 2), math.ceil(columns / 2))
        return Tiling(self._shape(1), tile, self.tiling.write_chunk)

    def writes_along(self, level: int) -> bool:
        """Whether :meth:`write_tile` writes this level, too."""
        if not 0 < level < len(self.levels) or (level > 1 and self.gathering is None):
            return False
        axes = (self.axes.index("y"), self.axes.index("x"))
        chunks = [self.levels[1].chunks[axis] for axis in axes]
        sizes = zip(self.tiling.grid[-2:], self.tiling.tile[-2:], chunks, strict=True)
        # Half a tile must be whole chunks, and what becomes of it in this level whole pixels.
        return all(
            count == 1 or (tile % (2 * chunk) == 0 and tile % (1 << level) == 0)
            for count, tile, chunk in sizes
        )

    def write(self, level: int, region: PixelSlices, block: NDArray[Any]) -> None:
        """Write a block, channels first where there are any, to a region of a level."""
        if "c" in self.axes:
            block = np.moveaxis(block, 0, self.axes.index("c"))
        self.levels[level][self._index(region)] = block

    def read(self, level: int, region: PixelSlices) -> NDArray[Any]:
        """Read what :meth:`write` wrote."""
        block = np.asarray(self.levels[level][self._index(region)])
        return np.moveaxis(block, self.axes.index("c"), 0) if "c" in self.axes else block

    def read_tile(self, number: int) -> NDArray[Any]:
        """Read a tile of the finest level."""
        return self.read(0, self.tiling.slices(number))

    def _index(self, region: PixelSlices) -> PixelSlices:
        return _insert_channels(self.axes, region, slice(None) if "c" in self.axes else None)

    def build(
        self, reduce: Reduce, stage: str, monitor: RunMonitor, done: Callable[[int], frozenset[int]]
    ) -> None:
        """Fill the coarser levels, each from the one before.

        ``done`` gives the tiles of a level that need not be made again.
        """
        for level in range(1, len(self.levels)):
            tiling, made, name = self.level_tiling(level), done(level), f"{stage} level {level}"
            missing = [number for number in range(len(tiling)) if number not in made]
            if missing:
                step = _LevelStep(self, level, tiling, reduce)
                tile_source = TileSource.from_numbers(_number, tiling).only(missing)
                run_tiles(tile_source, step, name, monitor.part(len(made), len(tiling)))

    def level_tiling(self, level: int) -> Tiling:
        """Tiles of a level: of the finest its own; of others half as large, if in whole chunks.

        A tile of a coarser level is made of one of twice its sides, of which several threads
        would hold four times as much as of the finest.
        """
        shape, chunk = self._shape(level), self.tiling.write_chunk
        sizes = list(self.tiling.tile)
        for axis in (-2, -1):
            if level and sizes[axis] % (2 * chunk[axis]) == 0:
                sizes[axis] //= 2
        tile = tuple(min(size, n) for size, n in zip(sizes, shape, strict=True))
        return Tiling(shape, tile, chunk)

    def _shape(self, level: int) -> tuple[int, ...]:
        pairs = zip(self.axes, self.levels[level].shape, strict=True)
        return tuple(n for axis, n in pairs if axis != "c")


def _array(store: Store, path: str, resumes: bool, **described: Any) -> zarr.Array[Any]:
    """Create an array, or open the one that a run left unfinished."""
    if resumes:
        wanted = zarr.create_array(zarr.storage.MemoryStore(), name=path, **described)
        with suppress(FileNotFoundError):
            found = zarr.open_array(store, path=path, mode="r+")
            _refuse_other(path, found.metadata, wanted.metadata)
            return found
    # A chunk of zeros must be there too: what is not there is not done.
    config: Any = {"write_empty_chunks": True}
    return zarr.create_array(store, name=path, config=config, **described)


def _refuse_other(path: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise OutputConflict(
            f"The unfinished output cannot be resumed, because the metadata of "
            f"{path or 'its root'} are not what this run would write; ask to overwrite it."
        )


def _number(number: int) -> int:
    return number


@dataclass(frozen=True)
class _LevelStep:
    pyramid: Pyramid
    level: int
    tiling: Tiling
    reduce: Reduce

    def __call__(self, _block: Any, number: int) -> None:
        region = self.tiling.slices(number)
        finer = self.pyramid._shape(self.level - 1)
        *outer, rows, columns = region
        source = [*outer, _doubled(rows, finer[-2]), _doubled(columns, finer[-1])]
        block = self.reduce(self.pyramid.read(self.level - 1, tuple(source)))
        self.pyramid.write(self.level, region, block)


def _doubled(part: slice, length: int) -> slice:
    return slice(2 * part.start, min(2 * part.stop, length))


def level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of a pyramid's levels over t, z, y, x."""
    shapes = [shape]
    while max(shapes[-1][-2:]) > COARSEST_SIDE:
        *outer, rows, columns = shapes[-1]
        shapes.append((*outer, math.ceil(rows / 2), math.ceil(columns / 2)))
    return shapes


def _insert_channels(axes: str, values: Sequence[Any], channels: Any) -> tuple[Any, ...]:
    if channels is None:
        return tuple(values)
    position = axes.index("c")
    return (*values[:position], channels, *values[position:])


def create_group(store: Store, path: str, ome: dict[str, Any], resumes: bool = False) -> None:
    """Create a group with OME metadata; with ``resumes`` it may be there already.

    Raises
    ------
    OutputConflict
        If it is there with other metadata.
    """
    attributes = {"ome": {"version": VERSION, **ome}}
    if resumes:
        with suppress(FileNotFoundError):
            found = zarr.open_group(store, path=path, mode="r+").attrs.asdict()
            _refuse_other(path, found, json.loads(json.dumps(attributes)))
            return
    zarr.create_group(store, path=path, attributes=attributes)
