"""Passes 1 and 2: count the colors of an image, and look up the class of every pixel."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_counter import ColorCounter, shares_counters
from napari_pixseg.algorithm.color_table import NO_DATA, ColorTable, release_counters
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.algorithm.kernels.dispatch import kernel_choice
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.median import median, reflect_margin, with_halo
from napari_pixseg.classification.tile_colors import (
    ByteColors,
    ClassifiedTile,
    Colors,
    Packed,
    packed_colors,
    samples_of,
)
from napari_pixseg.errors import InputChanged, NotAnImage
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image

if TYPE_CHECKING:
    import dask.array as da


_ANEW = (
    "leave the input alone while it is segmented, and segment it anew, over what is unfinished "
    "(overwrite=True, --overwrite)"
)


# From here on map_overlap's graph costs more than it is worth: each task reads for itself.
DIRECT_TILES = 10_000


# Sees the packed colors of a region while they are counted.
Observer: TypeAlias = Callable[[PixelSlices, Packed], None]


# Called with the colors of a tile and the class table.
LookUp: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Pixels:
    """The packed colors of an image, after window and denoising, tile by tile.

    Attributes
    ----------
    image : Image
    tiling : Tiling
    encoding : Encoding
    radius : int
        Radius of the median filter, 0 for none.
    """

    image: Image
    tiling: Tiling
    encoding: Encoding
    radius: int

    @property
    def is_direct(self) -> bool:
        """Whether each task reads its own region instead of going through map_overlap."""
        return _reads_directly(self.image, self.tiling)

    def overlapped(self, function: Callable[..., Any], dtype: Any, **arguments: Any) -> da.Array:
        """Apply ``function(colors, **arguments)`` to the denoised colors of every tile."""
        import dask.array as da

        encoded = self._encoded()
        depth = _depth(self.radius, self.tiling)
        encoded = _merge_thin_tiles(encoded, depth)
        return da.map_overlap(
            _on_tile, encoded, depth=depth, boundary="none", trim=False, allow_rechunk=False,
            chunks=encoded.chunks, dtype=dtype, meta=np.empty((0,) * encoded.ndim, dtype),
            radius=self.radius, depth_of=tuple(depth.values()), grid=encoded.numblocks,
            function=function, arguments=arguments,
        )  # fmt: skip

    def _encoded(self) -> da.Array:
        """Colors before denoising, one block for each tile; packed if they are to be denoised."""
        import dask.array as da

        if not self.image.source.is_dask:
            # Read and encoded in one step: map_blocks copies what loses an axis.
            reader = _EncodedReader(self.image, self.encoding, packs=self.radius > 0)
            return da.from_array(
                reader, self.tiling.chunks, name=False, asarray=False,
                meta=np.empty((0,) * reader.ndim, reader.dtype),
            )  # fmt: skip
        blocks = self.image.blocks(self.tiling.chunks)
        return blocks.map_blocks(
            _encode, encoding=self.encoding, packs=self.radius > 0, said=blocks.dtype,
            dtype=np.uint32, drop_axis=blocks.ndim - 1,
            meta=np.empty((0,) * (blocks.ndim - 1), np.uint32),
        )  # fmt: skip

    def read(self, region: PixelSlices) -> Packed:
        """Read the denoised packed colors of a region."""
        return packed_colors(self.colors(region))

    def colors(self, region: PixelSlices) -> Colors:
        """Read the denoised colors of a region, with what of its halo exists."""
        if not self.radius:
            return self.encoding.colors(self.image, region)
        halo, margins, inner = with_halo(region, self.image.shape, self.radius)
        packed = self.encoding.encode(self.image.read(halo))
        return median(reflect_margin(packed, margins), self.radius)[inner]

    def color_tiles(self) -> TileSource:
        """Tiles of denoised colors for :func:`run_tiles`."""
        if self.is_direct:
            return TileSource.of_reader(_TileReader(self), self.tiling)
        return _tile_source_of(self.overlapped(_unchanged, np.uint32), self.tiling)

    def count(
        self, monitor: RunMonitor | None = None, observer: Observer | None = None
    ) -> ColorTable:
        """Pass 1: count the colors of all pixels that have data.

        Parameters
        ----------
        monitor : RunMonitor, optional
        observer : callable, optional
            ``observer(region, packed)`` sees every tile on the way, once it is read. It is
            called in this process, from several threads: not for distributed schedulers.
        """
        kernel_choice.expect_image(math.prod(self.tiling.shape))
        if shares_counters(len(self.tiling), runs_here()):
            counts = ColorCounter(self.encoding.space)
            run_tiles(
                self.color_tiles(), _Adding(counts, self._numbered(observer)), "colors", monitor
            )
            return counts.table()
        counter = _TileCounter(self.encoding, self._numbered(observer))
        try:
            table: ColorTable = run_tiles(
                self.color_tiles(), counter, "colors", monitor, ColorTable.merge
            )
        finally:
            release_counters()
        return table

    def _numbered(self, observer: Observer | None) -> Callable[[Packed, int], None] | None:
        if observer is None:
            return None
        return lambda packed, number: observer(self.tiling.slices(number), packed)

    def classes(self, lookup: NDArray[Any]) -> da.Array:
        """Pass 2, lazily: the class of every pixel, axes in engine order."""
        return self._looked_up(lookup, _look_up)

    def class_tiles(self, lookup: NDArray[Any]) -> TileSource:
        """Tiles of classes for :func:`run_tiles`."""
        return self._looked_up_feed(lookup, _look_up)

    def classified_tiles(self, lookup: NDArray[Any]) -> TileSource:
        """Tiles of classes, as :class:`ClassifiedTile` where that costs nothing."""
        return self._looked_up_feed(lookup, _see)

    def seen(self, lookup: NDArray[Any]) -> Callable[[int], ClassifiedTile | NDArray[Any]]:
        """Return what reads a tile by itself, as :meth:`classified_tiles` has it."""
        return _TileReader(self, _Lookup(lookup), _see)

    def _looked_up_feed(self, lookup: NDArray[Any], look_up: LookUp) -> TileSource:
        if self.is_direct:
            return TileSource.of_reader(_TileReader(self, _Lookup(lookup), look_up), self.tiling)
        return _tile_source_of(self._looked_up(lookup, look_up), self.tiling)

    def _looked_up(self, lookup: NDArray[Any], look_up: LookUp) -> da.Array:
        import dask

        # Wrapped, so that the table is one node of the graph and not a part of every task.
        table = dask.delayed(_Lookup(lookup), pure=False)
        return self.overlapped(look_up, lookup.dtype, table=table)


def _reads_directly(image: Image, tiling: Tiling) -> bool:
    """Whether tasks read their own regions: where any region is cheap, or a graph is not."""
    if image.source.is_dask:
        return False
    is_in_memory = image.source.is_in_memory
    return is_in_memory or len(tiling) > DIRECT_TILES or active_client() is not None


class _Lookup:
    """A class table that Dask passes on as it is."""

    def __init__(self, table: NDArray[Any]) -> None:
        self.table = table

    def __reduce__(self) -> tuple[Any, ...]:
        # Most of its 2^24 entries are zeros: lazy arrays carry it in their graph.
        content = zlib.compress(self.table.tobytes(), level=1)
        return _unpacked_lookup, (content, self.table.dtype)


def _unpacked_lookup(content: bytes, dtype: np.dtype[Any]) -> _Lookup:
    return _Lookup(np.frombuffer(zlib.decompress(content), dtype))


class _EncodedReader:
    """Colors as an array-like, for Dask to slice."""

    def __init__(self, image: Image, encoding: Encoding, packs: bool) -> None:
        self._image, self._encoding, self._packs = image, encoding, packs
        self.shape, self.ndim, self.dtype = image.shape, len(image.shape), np.dtype(np.uint32)

    def __getitem__(self, index: PixelSlices) -> Colors:
        colors = self._encoding.colors(self._image, index)
        return packed_colors(colors) if self._packs else colors


@dataclass(frozen=True)
class _TileReader:
    """Reads tiles inside their tasks; with a class table, gives classes."""

    pixels: Pixels
    lookup: _Lookup | None = None
    look_up: LookUp | None = None

    def __call__(self, number: int) -> Any:
        colors = self.pixels.colors(self.pixels.tiling.slices(number))
        return colors if self.look_up is None else self.look_up(colors, self.lookup)


@dataclass(frozen=True)
class _TileCounter:
    encoding: Encoding
    observer: Callable[[Packed, int], None] | None = None

    def __call__(self, colors: Colors, number: int) -> ColorTable:
        packed = packed_colors(colors)
        if self.observer is not None:
            self.observer(packed, number)
        # What a scheduler brought may be needed again.
        is_ours = isinstance(colors, ByteColors) and self.observer is None
        return ColorTable.from_packed(packed, self.encoding.space, in_place=is_ours)


@dataclass(frozen=True)
class _Adding:
    """Adds tiles to one counter, for schedulers whose tasks are threads of this process."""

    counter: ColorCounter
    observer: Callable[[Packed, int], None] | None

    def __call__(self, colors: Colors, number: int) -> None:
        if self.observer is not None:
            self.observer(packed_colors(colors), number)
        if isinstance(colors, ByteColors):
            for _, part in colors.parts:
                self.counter.add_pixels(part)
        else:
            self.counter.add_packed(packed_colors(colors))


def _encode(block: NDArray[Any], encoding: Encoding, packs: bool, said: np.dtype[Any]) -> Colors:
    _refuse_other_dtype(block.dtype, said)
    return encoding.encode(block) if packs else encoding.of_block(block)


def _refuse_other_dtype(found: np.dtype[Any], said: np.dtype[Any]) -> None:
    """Refuse a block that is not of the type its array has promised, if that makes a difference.

    Bytes are taken as they are; of other numbers the type is only how they are stored.
    """
    kinds = {found.kind, said.kind}
    alike = said != np.uint8 and (kinds == {"f"} or kinds <= {"i", "u"})
    if found.newbyteorder("=") != said.newbyteorder("=") and not alike:
        raise NotAnImage(
            f"The Dask array says that it is {said}, but a block of it is {found}; give "
            "map_blocks, or whatever made it, the dtype of what its function returns."
        )


def _unchanged(colors: Colors) -> Colors:
    return colors


def _look_up(colors: Colors, table: _Lookup) -> NDArray[Any]:
    result = np.empty(colors.shape, table.table.dtype)
    if isinstance(colors, ByteColors):
        unknown = any(
            _look_up_part(part, table.table, result[there]) for there, part in colors.parts
        )
    else:
        flat, packed = result.reshape(-1), packed_colors(colors)
        zeros = kernels.look_up_colors(np.ascontiguousarray(packed).reshape(-1), table.table, flat)
        unknown = bool(zeros and ((result == 0) & (packed != NO_DATA)).any())
    if unknown:
        raise InputChanged(
            "The input holds colors that were not there when they were counted: it has changed "
            f"meanwhile; {_ANEW}."
        )
    return result


def _look_up_part(part: NDArray[np.uint8], table: NDArray[Any], result: NDArray[Any]) -> bool:
    """Look up a part of a tile; return whether it holds a color that was not counted."""
    classes = result if result.flags.c_contiguous else np.empty(result.shape, result.dtype)
    rows = part.reshape(-1, part.shape[-1])
    zeros = kernels.look_up_pixels(rows, table, classes.reshape(-1))
    if classes is not result:
        result[...] = classes
    return bool(zeros)


def _see(colors: Colors, table: _Lookup) -> ClassifiedTile | NDArray[Any]:
    classes, samples = _look_up(colors, table), samples_of(colors)
    # Of denoised colors they are not at hand.
    return classes if samples is None else ClassifiedTile(classes, samples)


def _on_tile(
    packed: Packed,
    radius: int,
    depth_of: tuple[int, ...],
    grid: tuple[int, ...],
    function: Callable[..., Any],
    arguments: dict[str, Any],
    block_id: tuple[int, ...] | None = None,
) -> Any:
    """Denoise a tile with its halo, trim the halo, and apply the function."""
    if radius and packed.size:
        assert block_id is not None
        # Dask brings halos only between tiles; at the image's edges, and along axes
        # that are one tile, the picture is continued by reflection.
        margins, inner = [(0, 0)] * packed.ndim, [slice(None)] * packed.ndim
        for axis in (packed.ndim - 2, packed.ndim - 1):
            ends = block_id[axis] == 0, block_id[axis] == grid[axis] - 1
            before, after = (0 if end else depth_of[axis] for end in ends)
            margins[axis] = radius - before, radius - after
            inner[axis] = slice(radius, radius + packed.shape[axis] - before - after)
        packed = median(reflect_margin(packed, tuple(margins)), radius)[tuple(inner)]
    return function(packed, **arguments)


def _depth(radius: int, tiling: Tiling) -> dict[int, int]:
    """Overlap along each axis: the radius over y and x where there is more than one tile."""
    depth = dict.fromkeys(range(len(tiling.shape)), 0)
    for axis in (len(tiling.shape) - 2, len(tiling.shape) - 1):
        depth[axis] = radius if tiling.grid[axis] > 1 else 0
    return depth


def _merge_thin_tiles(array: da.Array, depth: dict[int, int]) -> da.Array:
    """Join a last tile thinner than the overlap to its neighbor, so that one halo reaches it."""
    chunks = list(array.chunks)
    for axis, need in depth.items():
        sizes = list(chunks[axis])
        while len(sizes) > 1 and sizes[-1] < need:
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        chunks[axis] = tuple(sizes)
    return array.rechunk(tuple(chunks))


def _tile_source_of(array: da.Array, tiling: Tiling) -> TileSource:
    return TileSource.of_array(array.rechunk(tiling.chunks), tiling)
