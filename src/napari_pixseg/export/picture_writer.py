"""Write the recolored picture to one file.

PNG and JPEG are painted in memory. TIFF is written one row of tiles at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.classification.tile import Tile
from napari_pixseg.errors import TooLarge
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles, runs_here
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export.class_count_check import count_classes
from napari_pixseg.export.manifest import JsonObject
from napari_pixseg.export.painter import Painter, color_channels

if TYPE_CHECKING:
    import dask.array as da


STAGE = "picture"
# A palette PNG has at most this many colors.
_PALETTE = 256
# Flat colors are runs of equal bytes. Searching for runs only (zlib's Z_RLE) is fastest, and it
# made files about as small as level 6 did.
_PNG: dict[str, Any] = {"compress_level": 1, "compress_type": 3}


_Paint: TypeAlias = Callable[[NDArray[np.integer], int], NDArray[np.uint8]]


# The longest side that libjpeg accepts.
_JPEG_SIDE = 65_500
# A larger picture is not painted in memory.
_LARGEST = 1 << 32
# How many pixels workers send at a time.
_PIXELS_AT_ONCE = 1 << 26
_TIFF_TILE = 512
_OME_UNITS = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm"}
_NGFF_TO_TIFF = {"t": "T", "z": "Z", "y": "Y", "x": "X"}


def refuse_format(suffix: str, shape: tuple[int, ...], channels: int, name: str) -> None:
    """Refuse a picture that its format cannot hold; called before anything is read.

    Raises
    ------
    TooLarge
    """
    if suffix in (".tif", ".tiff"):
        return
    remedy = "write .tif or .ome.zarr instead"
    planes = int(np.prod(shape[:-2]))
    if planes > 1:
        raise TooLarge(
            f"{name} can hold one plane, but the image has {planes}; {remedy}, or take one page of "
            "a TIFF by series (--series)."
        )
    if suffix != ".png" and max(shape) > _JPEG_SIDE:
        raise TooLarge(f"A JPEG is at most {_JPEG_SIDE} pixels wide, not {max(shape)}; {remedy}.")
    size = int(np.prod(shape)) * channels
    if size > _LARGEST:
        raise TooLarge(
            f"{name} would have to hold {size / 2**30:.1f} GiB of pixels in memory, more than "
            f"{_LARGEST / 2**30:.0f} GiB; {remedy}."
        )


def write_picture(
    path: Path,
    tile_source: TileSource,
    tiling: Tiling,
    painter: Painter,
    suffix: str,
    is_ome: bool,
    monitor: RunMonitor,
    lazy: Callable[[], da.Array],
) -> NDArray[np.int64]:
    """Write the recolored picture to a local file; return how many pixels each class has.

    Parameters
    ----------
    path : Path
    tile_source : TileSource
        Tiles of the class map, for formats written from memory.
    tiling : Tiling
    painter : Painter
    suffix : str
        In lower case, with its dot; it decides the format.
    is_ome : bool
        Whether to write a TIFF as an OME-TIFF.
    monitor : RunMonitor
    lazy : callable
        Returns the class map as a Dask array, for TIFF, which is written in order.
    """
    if suffix in (".tif", ".tiff"):
        return _write_tiff(path, lazy(), painter, tiling, monitor, is_ome)
    if suffix == ".png" and _has_palette(painter):
        indices, _ = _paint_in_memory(tile_source, tiling, _add_channel, 1, monitor, None)
        return _write_indices(path, indices, painter.palette)
    paint, length = _paint_with(painter, tiling), len(painter.palette)
    picture, counts = _paint_in_memory(
        tile_source, tiling, paint, painter.channels, monitor, length
    )
    _write_plane(path, picture, suffix)
    return counts


def _has_palette(painter: Painter) -> bool:
    """Whether a PNG can hold one byte for each pixel and list the colors once, in a palette."""
    colored = color_channels(painter.image) == painter.channels == 3
    return colored and len(painter.palette) <= _PALETTE


def _paint_in_memory(
    tile_source: TileSource,
    tiling: Tiling,
    paint: _Paint,
    channels: int,
    monitor: RunMonitor,
    counted: int | None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the picture, and how many pixels the classes 0..counted - 1 have, unless it is None.

    A picture of indices is counted faster once it is complete.
    """
    picture = np.empty((*tiling.shape, channels), np.uint8)
    counts = np.zeros(counted or 0, np.int64)

    def paint_tile(tile: Tile, number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64] | int]:
        classes = tile.known_classes()
        found = 0 if counted is None else count_classes(classes, counted)
        return paint(classes, number), found

    def fill_tile(tile: Tile, number: int) -> NDArray[np.int64] | int:
        picture[tiling.slices(number)], found = paint_tile(tile, number)
        return found

    if runs_here():
        for found in run_tiles(tile_source, fill_tile, STAGE, monitor):
            counts += found
    else:
        # Other processes would fill copies of the picture, so they send their tiles here.
        for batch in _ranges_of_tiles(tiling):
            part = monitor.part(batch.start, len(tiling))
            painted = run_tiles(tile_source.only(batch), paint_tile, STAGE, part)
            for number, (block, found) in zip(batch, painted, strict=True):
                picture[tiling.slices(number)] = block
                counts += found
    return picture.reshape(picture.shape[-3:]), counts


def _ranges_of_tiles(tiling: Tiling) -> Iterator[range]:
    """Yield numbers of tiles in groups that fit in memory besides the picture."""
    size = max(_PIXELS_AT_ONCE // tiling.tile_pixels, 1)
    for start in range(0, len(tiling), size):
        yield range(start, min(start + size, len(tiling)))


def _paint_with(painter: Painter, tiling: Tiling) -> _Paint:
    def paint_tile(classes: NDArray[np.integer], number: int) -> NDArray[np.uint8]:
        return np.moveaxis(painter.paint_tile(classes, tiling.slices(number)), 0, -1)

    return paint_tile


def _add_channel(classes: NDArray[np.integer], _number: int) -> NDArray[np.uint8]:
    return classes[..., np.newaxis].astype(np.uint8, copy=False)


def _write_indices(
    path: Path, classes: NDArray[np.uint8], palette: NDArray[np.uint8]
) -> NDArray[np.int64]:
    # The index of the palette is the class, so a reader gets the classes back.
    counts = _save_plane(path, classes[..., 0], _PNG, palette)
    return np.array(counts[: len(palette)], np.int64)


def _write_plane(path: Path, picture: NDArray[np.uint8], suffix: str) -> None:
    options = _PNG
    if suffix != ".png":
        # JPEG has no alpha. These options blur flat colors least.
        picture = picture[..., : 1 if picture.shape[-1] <= 2 else 3]
        options = {"quality": 95, "subsampling": 0}
    _save_plane(path, picture[..., 0] if picture.shape[-1] == 1 else picture, options)


def _save_plane(
    path: Path,
    plane: NDArray[np.uint8],
    options: Mapping[str, Any],
    palette: NDArray[np.uint8] | None = None,
) -> list[int]:
    """Write a plane; return how many pixels have each index of the palette, if there is one."""
    # Stores do not need Pillow.
    from PIL import Image as PillowImage

    picture = PillowImage.fromarray(plane)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    picture.save(path, **options)
    return [] if palette is None else picture.histogram()


@dataclass(frozen=True, eq=False, repr=False)
class _TiffTiles:
    """The picture's TIFF tiles in the order in which they are written."""

    classes: da.Array
    painter: Painter
    tiling: Tiling
    monitor: RunMonitor
    counts: NDArray[np.int64]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        height = self.tiling.tile[-2]
        planes = list(np.ndindex(*self.tiling.shape[:-2]))
        starts = range(0, self.tiling.shape[-2], height)
        total = self.count_strips()
        for done, (plane, start) in enumerate((p, s) for p in planes for s in starts):
            self.monitor.tell(STAGE, done, total)
            self.monitor.check()
            yield from self._strip_tiles(
                plane, slice(start, min(start + height, self.tiling.shape[-2]))
            )

    def count_strips(self) -> int:
        """Return the number of strips, the steps of the stage."""
        return math.prod(self.tiling.shape[:-2]) * self.tiling.grid[-2]

    def _strip_tiles(self, plane: tuple[int, ...], rows: slice) -> Iterator[NDArray[np.uint8]]:
        outer = tuple(slice(index, index + 1) for index in plane)
        part = (*outer, rows, slice(0, self.tiling.shape[-1]))
        classes = np.asarray(self.classes[part].compute())
        self.counts[...] += count_classes(classes, len(self.counts))
        strip = np.moveaxis(self.painter.paint_tile(classes, part), 0, -1)
        height, width, channels = strip.shape[-3:]
        strip = strip.reshape(height, width, channels)
        for top in range(0, height, _TIFF_TILE):
            for left in range(0, width, _TIFF_TILE):
                tile = strip[top : top + _TIFF_TILE, left : left + _TIFF_TILE]
                yield np.ascontiguousarray(tile if channels > 1 else tile[..., 0])


def _write_tiff(
    path: Path,
    classes: da.Array,
    painter: Painter,
    tiling: Tiling,
    monitor: RunMonitor,
    is_ome: bool,
) -> NDArray[np.int64]:
    # Only TIFF needs tifffile.
    import tifffile

    # Strips are computed one after the other, so no TIFF tile may lie in two of them.
    height = max(tiling.tile[-2] // _TIFF_TILE, 1) * _TIFF_TILE
    tiling = Tiling(tiling.shape, (*tiling.tile[:-2], height, tiling.tile[-1]), tiling.write_chunk)
    axes = "".join(_NGFF_TO_TIFF[axis] for axis in painter.image.label_axes)
    gray = color_channels(painter.image) == 1
    samples = (painter.channels,) if painter.channels > 1 else ()
    counts = np.zeros(len(painter.palette), np.int64)
    tiles = _TiffTiles(classes, painter, tiling, monitor, counts)
    tifffile.imwrite(
        path,
        ome=is_ome,
        data=iter(tiles),
        shape=(*tiling.shape, *samples),
        dtype=np.uint8,
        bigtiff=int(np.prod(tiling.shape)) * painter.channels > 1 << 31,
        tile=(_TIFF_TILE, _TIFF_TILE),
        compression="zlib",
        planarconfig="contig" if samples else None,
        photometric="minisblack" if gray else "rgb",
        extrasamples=["unassalpha"] if painter.keeps_alpha else None,
        metadata={"axes": axes + "S" * len(samples), **_pixel_size(painter, is_ome)},
        **_tiff_resolution(painter),
    )
    # tifffile takes exactly as many tiles as there are, so the iterator never runs out.
    monitor.tell(STAGE, tiles.count_strips(), tiles.count_strips())
    return counts


def _pixel_size(painter: Painter, is_ome: bool) -> JsonObject:
    source = painter.image.source
    sizes = {axis: source.scale[axis] for axis in "xyz" if axis in source.scale and is_ome}
    units = {axis: _OME_UNITS.get(source.units.get(axis, "")) for axis in sizes}
    known = {f"PhysicalSize{axis.upper()}": size for axis, size in sizes.items() if units[axis]}
    named = {f"PhysicalSize{axis.upper()}Unit": unit for axis, unit in units.items() if unit}
    return known | named


def _tiff_resolution(painter: Painter) -> JsonObject:
    source = painter.image.source
    if source.units.get("x") != "micrometer" or not {"x", "y"} <= set(source.scale):
        return {}
    per_centimeter = tuple(1e4 / source.scale[axis] for axis in "xy")
    return {"resolution": per_centimeter, "resolutionunit": "CENTIMETER"}
