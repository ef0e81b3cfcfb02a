"""Connected regions of equal class, stitched over tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from napari_pixseg.engine.classify import Pixels, refuse_connectivity
from napari_pixseg.engine.image import Image, open_image
from napari_pixseg.engine.run import Feed, Watch, run_tiles
from napari_pixseg.engine.samples import Seen
from napari_pixseg.engine.seams import (
    Block,
    Keep,
    KeptTile,
    Layout,
    Numbering,
    Rules,
    Step,
    TileComponents,
    TileNumbers,
    final_numbers,
    four,
    number_regions,
)
from napari_pixseg.engine.sources import open_source
from napari_pixseg.engine.tiling import Tiling, plan_tiles
from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.model.classes import Classes
from napari_pixseg.parameters import Background, Parameters

_UINT32_REGIONS = (1 << 32) - 1


def lazy_dtype(tiling: Tiling) -> np.dtype[Any]:
    """Smallest type that holds a number for every pixel."""
    pixels = int(np.prod([int(n) for n in tiling.shape], dtype=object))
    return smallest_dtype(pixels)


def smallest_dtype(count: int) -> np.dtype[Any]:
    """uint32, or uint64 above 2^32 - 1 regions."""
    return np.dtype(np.uint32 if count <= _UINT32_REGIONS else np.uint64)


@dataclass
class Regions:
    """The regions of a class map.

    Attributes
    ----------
    layout : Layout
    rules : Rules
    feed : callable
        Makes a feed of class tiles, anew for each pass.
    keep : callable, optional
        Takes the components of every tile when they are found; a later feed may give them back.
    """

    layout: Layout
    rules: Rules
    feed: Callable[[], Feed] = field(repr=False)
    keep: Keep | None = field(default=None, repr=False)
    _numbering: Numbering | None = field(default=None, init=False, repr=False)

    def numbering(self, watch: Watch | None = None, also: Step | None = None) -> Numbering:
        """Return every region's number; the seams are found on first use.

        ``also`` is then called with every tile and its number, to spare a pass.
        """
        if self._numbering is None:
            self._numbering = number_regions(
                self.feed(), self.layout, self.rules, watch or Watch(), also, self.keep
            )
        return self._numbering

    @property
    def count(self) -> int:
        """Number of regions."""
        return self.numbering().count

    def relabel(self, number: int) -> Relabel:
        """Return what turns the classes of one tile into regions; it can be sent anywhere."""
        sides = tuple(self.layout.seam_sides(number))
        return Relabel(self.layout.axes, sides, self.rules, self.numbering().tiles[number])

    def lazy(self, classes: da.Array) -> da.Array:
        """Return the regions of a class map whose chunks are the tiles, in its axes' order."""
        tiling, dtype = self.layout.tiling, lazy_dtype(self.layout.tiling)
        name = f"regions-{tokenize(classes.name, self.rules)}"
        tasks = {}
        for number in range(len(tiling)):
            position = tiling.position(number)
            block = (classes.name, *position)
            tasks[(name, *position)] = (_regions_of, block, self.relabel(number), dtype)
        graph = HighLevelGraph.from_collections(name, tasks, dependencies=[classes])
        return da.Array(graph, name, classes.chunks, dtype=dtype)


@dataclass(frozen=True)
class Relabel:
    """Finds a tile's components again and gives them their final numbers."""

    axes: str
    sides: tuple[tuple[int, int], ...]
    rules: Rules
    numbers: TileNumbers

    def components(self, block: Block) -> tuple[TileComponents, NDArray[np.int64]]:
        """Return the components of a tile, from its classes or as kept, and their regions."""
        if isinstance(block, KeptTile):
            tile = TileComponents.made_of(block.components, self.sides, self.rules)
        else:
            classes = block.classes if isinstance(block, Seen) else block
            classes = classes.reshape(four(classes.shape, self.axes, 1))
            tile = TileComponents.of(classes, self.sides, self.rules)
        return tile, final_numbers(tile, self.numbers)

    def regions(self, classes: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a tile's regions, in the shape of its classes."""
        tile, numbers = self.components(classes)
        return tile.components.paint(numbers.astype(dtype)).reshape(classes.shape)


def _regions_of(classes: NDArray[Any], relabel: Relabel, dtype: np.dtype[Any]) -> NDArray[Any]:
    return relabel.regions(classes, dtype)


def regions_of(
    pixels: Pixels, classes: Classes, lookup: NDArray[Any], parameters: Parameters
) -> Regions:
    """Return the regions of a segmentation's class map.

    Parameters
    ----------
    pixels : Pixels
    classes : Classes
        Asked for the largest class, if that is the background.
    lookup : (2^24 + 1,) ndarray
        Class by packed color.
    parameters : Parameters
        Of these ``connectivity``, ``background`` and ``min_size`` matter here.
    """
    background = background_classes(
        parameters.background, lambda: int(np.argmax(classes.table["count"])) + 1
    )
    rules = Rules(parameters.connectivity, background, parameters.min_size)
    layout = Layout(pixels.tiling, pixels.image.label_axes)
    return Regions(layout, rules, lambda: pixels.class_feed(lookup))


def background_classes(background: Background, largest: Callable[[], int]) -> tuple[int, ...]:
    """Resolve what was asked for to class numbers; ``largest`` is asked only if need be."""
    if background is None:
        return ()
    return (largest(),) if background == "largest" else tuple(background)


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
    ParameterError, NotAnImage, InputNotFound
        Before anything is computed.
    """
    asked = Parameters(
        axes=axes,
        connectivity=connectivity,
        background=background,  # type: ignore[arg-type]
        min_size=min_size,
    )
    image = open_class_map(class_map, asked.axes)
    refuse_connectivity(image.label_axes, asked.connectivity)
    tiling = plan_tiles(image)
    classes = _class_blocks(image, tiling)
    feed = _FeedOfArray(classes, tiling)
    named = background_classes(asked.background, lambda: _largest_class(feed()))
    rules = Rules(asked.connectivity, named, asked.min_size)
    regions = Regions(Layout(tiling, image.label_axes), rules, feed)
    return image.in_own_order(regions.lazy(classes))


def open_class_map(class_map: object, axes: str | None) -> Image:
    """Open an array of class numbers; without metadata it is yx or zyx."""
    if axes is not None and "c" in axes:
        raise ParameterError(f"axes = {axes!r} names channels, but a class map has none.")
    source = open_source(class_map)
    guess = {2: "yx", 3: "zyx"}.get(source.array.ndim)
    if axes is None and source.axes is None and guess is None:
        raise ParameterError(
            f"What are the dimensions of {source.name}, shape {tuple(source.array.shape)}? "
            "Give axes with one letter of t, z, y, x for each, for example axes='tzyx'."
        )
    image = open_image(source, axes or source.axes or guess)
    if image.channels is not None:
        raise NotAnImage(
            f"{image.source.name} has channels (axes {image.axes!r}); a class map has one number "
            "for each pixel."
        )
    if image.dtype.kind not in "bui":
        raise NotAnImage(f"{image.source.name} holds {image.dtype}; a class map holds integers.")
    return image


def _class_blocks(image: Image, tiling: Tiling) -> da.Array:
    dtype = np.dtype(np.uint8) if image.dtype.kind == "b" else image.dtype
    if not isinstance(image.source.array, da.Array):
        # map_blocks copies what loses an axis.
        reader = _ClassReader(image, dtype)
        return da.from_array(
            reader, tiling.chunks, name=False, asarray=False,
            meta=np.empty((0,) * reader.ndim, reader.dtype),
        )  # fmt: skip
    blocks = image.blocks(tiling.chunks)
    return blocks.map_blocks(
        _without_channel, dtype=dtype, drop_axis=blocks.ndim - 1,
        meta=np.empty((0,) * (blocks.ndim - 1), dtype),
    )  # fmt: skip


class _ClassReader:
    """A class map as an array-like in engine order, for Dask to slice."""

    def __init__(self, image: Image, dtype: np.dtype[Any]) -> None:
        self._image, self.dtype = image, dtype
        self.shape, self.ndim = image.shape, len(image.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return _without_channel(self._image.read(index))


def _without_channel(block: NDArray[Any]) -> NDArray[Any]:
    classes = block[..., 0]
    return classes.astype(np.uint8) if classes.dtype.kind == "b" else classes


@dataclass(frozen=True)
class _FeedOfArray:
    classes: da.Array
    tiling: Tiling

    def __call__(self) -> Feed:
        return Feed.of_array(self.classes, self.tiling)


def _largest_class(feed: Feed) -> int:
    counts: dict[int, int] = run_tiles(feed, _count_classes, "class sizes", None, _add_counts)
    counts.pop(0, None)
    return min(counts, key=lambda number: (-counts[number], number), default=0)


def _count_classes(classes: NDArray[Any], _number: int) -> dict[int, int]:
    numbers, counts = np.unique(classes, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _add_counts(parts: list[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for part in parts:
        for number, count in part.items():
            total[number] = total.get(number, 0) + count
    return total
