"""``label_regions()``: connected regions of any class map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.parameter_checks import refuse_connectivity
from napari_pixseg.classification.tile import Tile, tile_from_classes
from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.execution.dask_cluster import check_workers
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource, lazy_tiles
from napari_pixseg.execution.tiling import Tiling, plan_tiles
from napari_pixseg.parameters import Background, Parameters
from napari_pixseg.regions.region_pass import RegionPass
from napari_pixseg.regions.rules import Rules, resolve_background
from napari_pixseg.regions.tile_layout import Layout
from napari_pixseg.slices import PixelSlices
from napari_pixseg.sources.image import Image, open_image
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.read_options import ReadOptions


def label_regions(
    class_map: object,
    axes: str | None = None,
    connectivity: int = 1,
    background: Background | int | Sequence[int] = None,
    min_size: int = 0,
) -> da.Array:
    """Label the connected regions of equal class of any class map, of any size.

    Parameters
    ----------
    class_map : array, path or URL
        Integers, 0 is nothing; lazy arrays are computed tile by tile, once to
        find the seams (now; once more before for ``background="largest"``), and
        again where the result is sliced.
    axes : str, optional
        One letter of ``t z y x`` for each dimension; else metadata, else yx or zyx.
    connectivity : int
        1 (faces) to the number of spatial axes (corners).
    background : {"largest"}, int or sequence of int, optional
        Classes that get 0; largest is the one of most pixels, ties to the lowest.
    min_size : int
        Regions of fewer pixels get 0.

    Returns
    -------
    dask.array.Array
        The shape of the class map; uint32, uint64 above 2^32 - 1 pixels. Numbers
        are 1..N in raster order of the regions' first pixels, over t, z, y, x;
        regions never connect over t. The same as ``skimage.measure.label`` gives
        on the whole map (on each frame, offsets added) for any chunking.

    Raises
    ------
    ParameterError, NotAnImage, InputNotFound, ClusterUnfit
        Before anything is computed; NotAnImage while it is computed, if a number is negative.
    """
    asked = Parameters(
        axes=axes,
        connectivity=connectivity,
        background=background,  # type: ignore[arg-type]
        min_size=min_size,
    )
    image = open_class_map(class_map, asked.axes)
    refuse_connectivity(image.label_axes, asked.connectivity)
    check_workers(image.source, set())
    tiling = plan_tiles(image)
    classes = _lazy_classes(image, tiling)
    tiles = TileSource.from_array(classes, tiling).map(tile_from_classes)
    named = resolve_background(asked.background, lambda: _find_largest_class(tiles))
    rules = Rules(asked.connectivity, named, asked.min_size)
    region_pass = RegionPass(Layout(tiling, image.label_axes), rules)
    regions = region_pass.run(tiles, RunMonitor())
    return image.in_own_order(regions.lazy_labels(classes))


def open_class_map(class_map: object, axes: str | None) -> Image:
    """Open an array of class numbers; without metadata, its axes are yx or zyx."""
    if axes is not None and "c" in axes:
        raise ParameterError(f"axes = {axes!r} names channels, but a class map has none.")
    source = open_source(class_map)
    guess = {2: "yx", 3: "zyx"}.get(source.array.ndim)
    if axes is None and source.axes is None and guess is None:
        raise ParameterError(
            f"What are the dimensions of {source.name}, shape {tuple(source.array.shape)}? "
            "Give axes with one letter of t, z, y, x for each, for example axes='tzyx'."
        )
    # A map that is all background may have no chunk, because zarr leaves out chunks of the fill
    # value.
    reading = ReadOptions(allow_missing=True)
    image = open_image(source, axes or source.axes or guess, options=reading)
    if image.channels is not None:
        raise NotAnImage(
            f"{image.source.name} has channels (axes {image.axes!r}); a class map has one number "
            "for each pixel."
        )
    if image.dtype.kind not in "bui":
        raise NotAnImage(f"{image.source.name} holds {image.dtype}; a class map holds integers.")
    return image


def _lazy_classes(image: Image, tiling: Tiling) -> da.Array:
    """Return a class map as a Dask array of one block for each tile, axes in engine order."""
    dtype = np.dtype(np.uint8) if image.dtype.kind == "b" else image.dtype
    if not image.source.is_dask:
        # Read and stripped in one step, because map_blocks copies when an axis is dropped.
        return lazy_tiles(_ClassReader(image), tiling, dtype)
    blocks = image.blocks(tiling.chunks)
    return blocks.map_blocks(
        _drop_channel,
        dtype=dtype,
        drop_axis=blocks.ndim - 1,
        meta=np.empty((0,) * (blocks.ndim - 1), dtype),
    )


@dataclass(frozen=True)
class _ClassReader:
    """Reads a box of a class map."""

    image: Image

    def __call__(self, slices: PixelSlices) -> AnyArray:
        return _drop_channel(self.image.read(slices))


def _drop_channel(block: AnyArray) -> AnyArray:
    classes = block[..., 0]
    if classes.dtype.kind == "i" and classes.size and (lowest := classes.min()) < 0:
        raise NotAnImage(
            f"The class map holds {lowest}, but classes are 1 and more, and 0 is nothing; give "
            "each class a positive number."
        )
    return classes.astype(np.uint8) if classes.dtype.kind == "b" else classes


def _find_largest_class(tiles: TileSource) -> int:
    """Return the class with the most pixels, other than 0; ties go to the lowest class."""
    counts: dict[int, int] = run_tiles(tiles, _count_classes, "class sizes", None, _add_counts)
    counts.pop(0, None)
    return min(counts, key=lambda number: (-counts[number], number), default=0)


def _count_classes(tile: Tile, _number: int) -> dict[int, int]:
    numbers, counts = np.unique(tile.known_classes(), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _add_counts(parts: list[dict[int, int]]) -> dict[int, int]:
    total: Counter[int] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
