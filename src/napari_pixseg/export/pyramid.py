"""The groups and arrays of an OME-Zarr 0.5, and the levels of its pyramids.

The specification is at ngff.openmicroscopy.org. The metadata are short and simple, so they are
written without another package; the tests read them with ome-zarr-py and ome-zarr-models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
import zarr.storage
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BytesCodec, ZstdCodec

from napari_pixseg.errors import OutputConflict, PixsegError
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export.downsample import Gathering, Reduce, TileHalf, halve_slices
from napari_pixseg.export.ngff_metadata import VERSION, with_channels
from napari_pixseg.slices import PixelSlices, box_at_origin, cut_along_chunks, move_box
from napari_pixseg.sources.image import PartOf
from napari_pixseg.sources.zarr_chunks import whole_chunks, with_fast_local_io

# In pixels. A pyramid ends with a level that fits on a screen.
COARSEST_SIDE = 512


# Spelled out, because users may have set other defaults for all of zarr. If a crash of the machine
# leaves a chunk incomplete, the checksum reveals it; without one, every third such chunk can be
# decoded.
_FORMAT: dict[str, Any] = {
    "zarr_format": 3,
    "filters": (),
    "serializer": BytesCodec(endian="little"),
    "compressors": (ZstdCodec(level=0, checksum=True),),
    "chunk_key_encoding": {"name": "default", "separator": "/"},
}


@dataclass(frozen=True)
class Pyramid:
    """A multiscale array that is being written.

    Attributes
    ----------
    levels : tuple of zarr.Array or ChunkFiles
        Finest first. Each level is half as large in y and x as the one before.
    axes : str
        Axes of the arrays, with c if they have channels.
    tiling : Tiling
        Tiles of the finest level, without the channel axis.
    made_along : frozenset of int
        Tiles whose part of the second level exists already.
    gathering : Gathering, optional
        Makes the levels beyond the second, if one process writes all tiles.
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

        With ``resumes``, arrays that exist already are opened instead.

        Raises
        ------
        OutputConflict
            If an existing array has other metadata.
        """
        axes = label_axes if channels is None else with_channels(label_axes)

        def level(number: int, shape: tuple[int, ...]) -> Any:
            chunks = tuple(min(c, n) for c, n in zip(tiling.write_chunk, shape, strict=True))
            made = _create_array(
                store,
                f"{path}/{number}".lstrip("/"),
                resumes,
                dtype=dtype,
                fill_value=0,
                shape=_insert_channels(axes, shape, channels),
                chunks=_insert_channels(axes, chunks, channels),
                dimension_names=list(axes),
            )
            return with_fast_local_io(made)

        shapes = level_shapes(tiling.shape)
        # open_array() reads these two settings only from zarr's configuration.
        with (
            whole_chunks(),
            zarr.config.set({"array.write_empty_chunks": True}),
            # Creating an array mostly means waiting for the store, so all levels are created at
            # once.
            ThreadPoolExecutor(len(shapes)) as pool,
        ):
            levels = list(pool.map(level, range(len(shapes)), shapes))
        return cls(tuple(levels), axes, tiling)

    def write_tile(self, number: int, part: PartOf, reduce: Reduce) -> None:
        """Write a tile of the finest level, and its part of the next level if that is whole chunks.

        ``part`` returns a part of the tile, channels first if there are any. It is called for one
        chunk at a time, so that a chunk stays in the processor's cache until it is compressed.
        """
        slices = self.tiling.slices(number)
        *before, last = self._cut_tile(slices)
        along = self.writes_along(1) and number not in self.made_along
        coarser = TileHalf(self.half_tiling.slices(number), reduce) if along else None
        for inner in (*before, last):
            block = part(inner)
            if coarser is not None:
                coarser.add(inner, block)
                # Written before the tile's last chunk: if a tile of the finest level is complete,
                # its part of the second level is, too. Resuming relies on this.
                if inner is last:
                    self.write(1, coarser.slices, coarser.block)
            self.write(0, move_box(inner, slices), block)
        if coarser is not None and self.gathering is not None:
            self._gather(self.gathering, coarser.slices, coarser.block, reduce)

    def _gather(
        self, gathering: Gathering, slices: PixelSlices, block: NDArray[Any], reduce: Reduce
    ) -> None:
        """Add a tile's part to all levels beyond the second, and write the chunks it completes."""
        for level in range(2, len(self.levels)):
            if not self.writes_along(level):
                return
            slices, block = halve_slices(slices), reduce(block)
            chunks, shape = self.tiling.write_chunk, self._shape_of_level(level)
            for there, whole in gathering.add(level, slices, block, chunks, shape):
                self.write(level, there, whole)

    def _cut_tile(self, slices: PixelSlices) -> list[PixelSlices]:
        """Cut a tile into chunks, or not at all if half a chunk would not be whole pixels."""
        chunk = self.tiling.write_chunk
        if any(size % 2 for size in chunk[-2:]):
            return [box_at_origin(slices)]
        return [there for _, _, there in cut_along_chunks(slices, chunk)]

    @property
    def half_tiling(self) -> Tiling:
        """Tiles of the second level: those of the finest at half size, with the same numbers."""
        *outer, rows, columns = self.tiling.tile
        tile = (*outer, math.ceil(rows / 2), math.ceil(columns / 2))
        return Tiling(self._shape_of_level(1), tile, self.tiling.write_chunk)

    def writes_along(self, level: int) -> bool:
        """Return whether :meth:`write_tile` writes this level as well."""
        if not 0 < level < len(self.levels) or (level > 1 and self.gathering is None):
            return False
        axes = (self.axes.index("y"), self.axes.index("x"))
        chunks = [self.levels[1].chunks[axis] for axis in axes]
        sizes = zip(self.tiling.grid[-2:], self.tiling.tile[-2:], chunks, strict=True)
        # Half a tile must consist of whole chunks, and its part of this level of whole pixels.
        return all(
            count == 1 or (tile % (2 * chunk) == 0 and tile % (1 << level) == 0)
            for count, tile, chunk in sizes
        )

    def write(self, level: int, slices: PixelSlices, block: NDArray[Any]) -> None:
        """Write a block, channels first if there are any, to a box of a level."""
        if "c" in self.axes:
            block = np.moveaxis(block, 0, self.axes.index("c"))
        self.levels[level][self._array_index(slices)] = block

    def read(self, level: int, slices: PixelSlices) -> NDArray[Any]:
        """Read a box that :meth:`write` has written."""
        block = np.asarray(self.levels[level][self._array_index(slices)])
        return np.moveaxis(block, self.axes.index("c"), 0) if "c" in self.axes else block

    def read_tile(self, number: int) -> NDArray[Any]:
        """Read a tile of the finest level."""
        return self.read(0, self.tiling.slices(number))

    def _array_index(self, slices: PixelSlices) -> PixelSlices:
        return _insert_channels(self.axes, slices, slice(None) if "c" in self.axes else None)

    def build(
        self, reduce: Reduce, stage: str, monitor: RunMonitor, done: Callable[[int], frozenset[int]]
    ) -> None:
        """Fill the coarser levels, each from the one before.

        ``done`` returns the tiles of a level that exist already.
        """
        for level in range(1, len(self.levels)):
            tiling = self.level_tiling(level)
            made = done(level)
            missing = [number for number in range(len(tiling)) if number not in made]
            if missing:
                step = _LevelStep(self, level, tiling, reduce)
                tile_source = TileSource.from_numbers(_return_number, tiling).only(missing)
                part = monitor.part(len(made), len(tiling))
                run_tiles(tile_source, step, f"{stage} level {level}", part)

    def level_tiling(self, level: int) -> Tiling:
        """Return the tiles of a level, at half size for coarser levels if that gives whole chunks.

        A tile of a coarser level is made from a box of twice its sides. At full size, that would
        be four times the memory of a tile of the finest level, for each thread.
        """
        shape, chunk = self._shape_of_level(level), self.tiling.write_chunk
        sizes = list(self.tiling.tile)
        for axis in (-2, -1):
            if level and sizes[axis] % (2 * chunk[axis]) == 0:
                sizes[axis] //= 2
        tile = tuple(min(size, n) for size, n in zip(sizes, shape, strict=True))
        return Tiling(shape, tile, chunk)

    def _shape_of_level(self, level: int) -> tuple[int, ...]:
        pairs = zip(self.axes, self.levels[level].shape, strict=True)
        return tuple(n for axis, n in pairs if axis != "c")


def _create_array(store: Store, path: str, resumes: bool, **described: Any) -> zarr.Array[Any]:
    """Create an array, or open the one that a run left unfinished."""
    described |= _FORMAT
    if resumes:
        # zarr completes the metadata when it creates an array, so an array is created for
        # comparison.
        wanted = zarr.create_array(zarr.storage.MemoryStore(), name=path, **described)
        with suppress(FileNotFoundError), _comparable_metadata(path):
            found = zarr.open_array(store, path=path, mode="r+", zarr_format=3)
            _refuse_other(path, found.metadata, wanted.metadata)
            return found
    # A chunk of zeros is written as well, because a missing chunk means that its tile is not done.
    config: Any = {"write_empty_chunks": True, "order": "C"}
    return zarr.create_array(store, name=path, config=config, **described)


def _refuse_other(path: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise _other_metadata(path)


@contextmanager
def _comparable_metadata(path: str) -> Iterator[None]:
    """Turn zarr's various errors about an unreadable array or group into one of ours."""
    try:
        yield
    except (PixsegError, FileNotFoundError):
        # A missing array is created; zarr's error for it is a ValueError as well.
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise _other_metadata(path) from error


def _other_metadata(path: str) -> OutputConflict:
    return OutputConflict(
        f"The unfinished output cannot be resumed, because the metadata of {path or 'its root'} "
        "are not what this run would write; ask to overwrite it."
    )


def _return_number(number: int) -> int:
    return number


@dataclass(frozen=True)
class _LevelStep:
    """Makes one tile of a coarser level from the level before it."""

    pyramid: Pyramid
    level: int
    tiling: Tiling
    reduce: Reduce

    def __call__(self, _block: Any, number: int) -> None:
        slices = self.tiling.slices(number)
        finer = self.pyramid._shape_of_level(self.level - 1)
        *outer, rows, columns = slices
        source = [*outer, _double_slice(rows, finer[-2]), _double_slice(columns, finer[-1])]
        block = self.reduce(self.pyramid.read(self.level - 1, tuple(source)))
        self.pyramid.write(self.level, slices, block)


def _double_slice(part: slice, length: int) -> slice:
    return slice(2 * part.start, min(2 * part.stop, length))


def level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of a pyramid's levels over t, z, y, x."""
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
    """Create a group with OME metadata. With ``resumes`` it may exist already.

    Raises
    ------
    OutputConflict
        If it exists with other metadata.
    """
    attributes = {"ome": {"version": VERSION, **ome}}
    if resumes:
        with suppress(FileNotFoundError), _comparable_metadata(path):
            found = zarr.open_group(store, path=path, mode="r+", zarr_format=3).attrs.asdict()
            # Converted through JSON, which turns tuples into lists, as in the stored attributes.
            _refuse_other(path, found, json.loads(json.dumps(attributes)))
            return
    zarr.create_group(store, path=path, attributes=attributes, zarr_format=3)
