"""The pixels of an image as colors and as classes, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.algorithm.kernels.arrays import Packed
from napari_pixseg.algorithm.kernels.dispatch import kernel_choice
from napari_pixseg.classification.class_lookup import ClassLookup, ClassTable, look_up_classes
from napari_pixseg.classification.counting import count_colors
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.median import Halo
from napari_pixseg.classification.tile import Tile, tile_from_classes, tile_from_packed
from napari_pixseg.errors import NotAnImage
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.tile_source import TileSource, lazy_tiles
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image

if TYPE_CHECKING:
    import dask.array as da

# With more tiles than this, map_overlap's graph costs more than reading halos twice.
DIRECT_TILES = 10_000

# Called with the packed colors of a box while they are counted.
Observer: TypeAlias = Callable[[PixelSlices, Packed], None]


@dataclass(frozen=True, eq=False, repr=False)
class Pixels:
    """The colors and classes of an image, after window and denoising, tile by tile.

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
        """Whether each task reads its own box instead of going through Dask arrays."""
        return reads_directly(self.image, self.tiling)

    def read(self, slices: PixelSlices) -> Packed:
        """Read the denoised packed colors of a box."""
        return self.read_tile(slices).packed_colors()

    def read_tile(self, slices: PixelSlices) -> Tile:
        """Read the denoised colors of a box, with the part of its halo that exists."""
        if not self.radius:
            return self.encoding.read_tile(self.image, slices)
        halo = Halo.around(slices, self.image.shape, self.radius)
        return Tile.from_packed(halo.denoise(self._read_packed(halo.outer)))

    def count(
        self, monitor: RunMonitor | None = None, observer: Observer | None = None
    ) -> ColorTable:
        """Pass 1: count the colors of all pixels that have data.

        Parameters
        ----------
        monitor : RunMonitor, optional
        observer : callable, optional
            ``observer(slices, packed)`` is called for every tile after it was read, in this process
            and from several threads, so it cannot be used with distributed schedulers.
        """
        kernel_choice.expect_image(math.prod(self.tiling.shape))
        space = self.encoding.space
        if observer is None:
            return count_colors(self.color_tiles(), space, monitor)
        return count_colors(
            self.color_tiles(),
            space,
            monitor,
            lambda packed, number: observer(self.tiling.slices(number), packed),
        )

    def color_tiles(self) -> TileSource:
        """Return the tiles of denoised colors."""
        if self.is_direct:
            return TileSource.from_slices(self.read_tile, self.tiling)
        if self.radius:
            return self._tiles_of(self._map_overlap(_give_packed, np.uint32)).map(tile_from_packed)
        return self._tiles_of(self._lazy_colors())

    def class_tiles(self, lookup: NDArray[Any], keep_samples: bool = False) -> TileSource:
        """Return the tiles of classes: pass 2.

        Parameters
        ----------
        lookup : (2^24 + 1,) ndarray
            Class by packed color.
        keep_samples : bool
            Whether tiles also keep their samples, if that costs nothing.
        """
        if self.radius and not self.is_direct:
            # Classes are looked up in the same task that denoises, because they are smaller than
            # colors.
            return self._tiles_of(self.classes(lookup)).map(tile_from_classes)
        return self.color_tiles().map(ClassLookup(ClassTable(lookup), keep_samples))

    def directly_read_class_tiles(self, lookup: NDArray[Any]) -> TileSource:
        """Return the same as :meth:`class_tiles`, with samples; each task reads its own box."""
        colors = TileSource.from_slices(self.read_tile, self.tiling)
        return colors.map(ClassLookup(ClassTable(lookup), keep_samples=True))

    def classes(self, lookup: NDArray[Any]) -> da.Array:
        """Pass 2, lazily: the class of every pixel, axes in engine order."""
        import dask

        # Delayed, so that the table is one node of the graph instead of part of every task.
        table = dask.delayed(ClassTable(lookup), pure=False)
        return self._map_overlap(look_up_classes, lookup.dtype, table=table)

    def _tiles_of(self, array: da.Array) -> TileSource:
        return TileSource.from_array(array.rechunk(self.tiling.chunks), self.tiling)

    def _read_packed(self, slices: PixelSlices) -> Packed:
        return self.encoding.encode(self.image.read(slices))

    def _map_overlap(
        self, function: Callable[..., NDArray[Any]], dtype: Any, **arguments: Any
    ) -> da.Array:
        """Apply ``function(tile, **arguments)`` to the denoised colors of every tile."""
        import dask.array as da

        depth = self._overlap()
        colors = _merge_thin_tiles(self._lazy_colors(), depth)
        return da.map_overlap(
            _apply_to_block,
            colors,
            depth=depth,
            boundary="none",
            trim=False,
            allow_rechunk=False,
            chunks=colors.chunks,
            dtype=dtype,
            meta=np.empty((0,) * colors.ndim, dtype),
            radius=self.radius,
            starts=tuple((0, *accumulate(sizes)) for sizes in colors.chunks),
            function=function,
            arguments=arguments,
        )

    def _lazy_colors(self) -> da.Array:
        """Return colors before denoising, one block for each tile.

        The blocks are packed colors if they will be denoised, because Dask cuts and joins them;
        otherwise they are tiles.
        """
        read = self._read_packed if self.radius else self.read_tile
        if not self.image.source.is_dask:
            # Read and encoded in one step, because map_blocks copies when an axis is dropped.
            return lazy_tiles(read, self.tiling, np.uint32)
        blocks = self.image.blocks(self.tiling.chunks)
        return blocks.map_blocks(
            _encode_block,
            encode=self.encoding.encode if self.radius else self.encoding.tile_of,
            declared=blocks.dtype,
            dtype=np.uint32,
            drop_axis=blocks.ndim - 1,
            meta=np.empty((0,) * (blocks.ndim - 1), np.uint32),
        )

    def _overlap(self) -> dict[int, int]:
        """Overlap along each axis: the radius along y and x where there are several tiles."""
        axes = range(len(self.tiling.shape))
        overlap = dict.fromkeys(axes, 0)
        for axis in axes[-2:]:
            overlap[axis] = self.radius if self.tiling.grid[axis] > 1 else 0
        return overlap


def reads_directly(image: Image, tiling: Tiling) -> bool:
    """Whether tasks read their own boxes: if that is cheap, or a graph would cost more."""
    if image.source.is_dask:
        return False
    is_in_memory = image.source.is_in_memory
    return is_in_memory or len(tiling) > DIRECT_TILES or active_client() is not None


def _give_packed(tile: Tile) -> Packed:
    return tile.packed_colors()


def _apply_to_block(
    block: Any,
    radius: int,
    starts: tuple[tuple[int, ...], ...],
    function: Callable[..., NDArray[Any]],
    arguments: dict[str, Any],
    block_id: tuple[int, ...] | None = None,
) -> NDArray[Any]:
    """Apply a function to a tile, denoised if it is a block of packed colors with its halo."""
    if not radius:
        return function(block, **arguments)
    if block.size:
        # Dask adds the halo between tiles. At the image's edges, reflected pixels take its place.
        assert block_id is not None
        bounds = zip(block_id, starts, strict=True)
        slices = tuple(slice(ends[i], ends[i + 1]) for i, ends in bounds)
        block = Halo.around(slices, tuple(ends[-1] for ends in starts), radius).denoise(block)
    return function(Tile.from_packed(block), **arguments)


def _encode_block(
    block: NDArray[Any], encode: Callable[[NDArray[Any]], Any], declared: np.dtype[Any]
) -> Any:
    _refuse_other_dtype(block.dtype, declared)
    return encode(block)


def _refuse_other_dtype(found: np.dtype[Any], declared: np.dtype[Any]) -> None:
    """Refuse a block that lacks the declared type, if that makes a difference.

    For bytes the type matters, because they are taken as they are. Other types only tell how
    numbers are stored.
    """
    kinds = {found.kind, declared.kind}
    alike = declared != np.uint8 and (kinds == {"f"} or kinds <= {"i", "u"})
    if found.newbyteorder("=") != declared.newbyteorder("=") and not alike:
        raise NotAnImage(
            f"The Dask array says that it is {declared}, but a block of it is {found}; give "
            "map_blocks, or whatever made it, the dtype of what its function returns."
        )


def _merge_thin_tiles(array: da.Array, overlap: dict[int, int]) -> da.Array:
    """Join a last tile thinner than the overlap to its neighbor, so that one halo reaches it."""
    chunks = list(array.chunks)
    for axis, need in overlap.items():
        sizes = list(chunks[axis])
        while len(sizes) > 1 and sizes[-1] < need:
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        chunks[axis] = tuple(sizes)
    return array.rechunk(tuple(chunks))
