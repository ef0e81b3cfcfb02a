"""The classes of an image and their colors, decided from its color table.

See docs/algorithm.md, sections 3.8 to 3.10 and, for the two semantics, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import COLORS, ColorTable
from napari_pixseg.algorithm.colorspaces.convert import (
    forward,
    forward_bytes,
    from_byte,
    inverse,
    to_byte,
)
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.algorithm.partition import (
    Intervals,
    Partition,
    partition_colors,
    round_means,
)
from napari_pixseg.algorithm.scale_space import BINS, ChannelScaleSpace, analyze_histogram
from napari_pixseg.errors import ClassError, RecountNeeded
from napari_pixseg.parameters import ColorSpace, Parameters

# Counts are scaled to this many pixels, so that ``st`` means the same for images of any size.
REFERENCE_PIXELS = 1 << 20

CLASS_FIELDS = np.dtype(
    [
        ("number", np.int64),
        ("box", np.int64, (3, 2)),
        ("center", np.uint8, (3,)),
        ("color", np.uint8, (3,)),
        ("count", np.int64),
        ("percentage", np.float64),
        ("box_count", np.int64),
        ("box_percentage", np.float64),
    ]
)


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of an image.

    Attributes
    ----------
    parameters : Parameters
        The parameters of the decision.
    scale_spaces : tuple of three ChannelScaleSpace
        The scale space of each channel, which determined its intervals.
    partition : Partition
    table : (n,) structured ndarray
        One row for each class: ``number`` (from 1), ``box`` (3, 2), ``center`` (bytes of the
        color space), ``color`` (sRGB), ``count`` and ``percentage`` of its pixels in the class
        map, ``box_count`` and ``box_percentage`` of its pixels among those in boxes, which
        ``ct`` is compared with.
    palette : (n + 1, 3) ndarray of uint8
        Color of each class; row 0 (no data) is black.
    palette16 : (n + 1, 3) ndarray of uint16
        The same colors in 16 bits, before the reduction to bytes.
    color_classes : (m,) ndarray of uint16
        Class of each color of the color table.
    """

    parameters: Parameters
    scale_spaces: tuple[ChannelScaleSpace, ChannelScaleSpace, ChannelScaleSpace]
    partition: Partition
    table: NDArray[np.void]
    palette: NDArray[np.uint8]
    palette16: NDArray[np.uint16]
    color_classes: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Smallest unsigned type that holds every class number."""
        return np.dtype(np.uint8) if len(self) <= 255 else np.dtype(np.uint16)

    def classify(
        self, colors: NDArray[np.uint8], space: ColorSpace | None = None
    ) -> NDArray[np.uint16]:
        """Return the class 1..n of any byte colors, counted or not.

        Parameters
        ----------
        colors : (m, 3) ndarray of uint8
        space : ColorSpace, optional
            None means sRGB colors. Otherwise the colors are bytes of this space already.
        """
        if space is None:
            colors = forward_bytes(self.parameters.cs, colors)
        return self.partition.classify(np.ascontiguousarray(colors))

    def lookup(self, table: ColorTable) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return class by packed color, (2^24 + 1,); 0 for colors not counted and no data."""
        # One entry more than there are colors: pixels without data index the last one, which is 0.
        lookup = np.zeros(COLORS + 1, self.dtype)
        lookup[table.packed] = self.color_classes
        return lookup


def decide(table: ColorTable, parameters: Parameters, *, gray: bool = False) -> Classes:
    """Segment a color table.

    Parameters
    ----------
    table : ColorTable
        Counted from at least one pixel.
    parameters : Parameters
        Only ``ct``, ``cs``, ``st`` and ``semantics`` matter here.
    gray : bool
        Whether the image has one channel. Only ``imagemagick6`` palettes depend on it.

    Returns
    -------
    Classes

    Raises
    ------
    ClassError
        If no class reaches ``ct`` (``documented``), or there are more than the semantics allows.
    RecountNeeded
        If the table was counted for another color space or semantics.
    """
    # Checked first, because the bytes of a foreign table would pass for sRGB colors without an
    # error.
    refuse_foreign(table, parameters)
    if not len(table):
        raise ClassError("No pixel has data, so there is nothing to segment; check the input.")
    colors = table.in_space(parameters.cs)
    scale_spaces = _analyze_channels(table, colors, parameters)
    intervals = _fill_empty_channels(scale_spaces, parameters)
    partition = partition_colors(table, colors, intervals, parameters)
    color_classes = partition.classify(colors)
    totals = _sum_classes(color_classes, len(partition.centers), table, parameters)
    palette16 = _make_palette(partition, totals, parameters, gray)
    palette = to_byte(palette16)
    rows = _make_class_table(partition, totals[1:, 0], palette[1:])
    return Classes(parameters, scale_spaces, partition, rows, palette, palette16, color_classes)


def refuse_foreign(table: ColorTable, parameters: Parameters) -> None:
    """Raise RecountNeeded if a table cannot be used for these parameters."""
    if table.space is None:
        return
    if parameters.semantics != "imagemagick6" or parameters.cs != table.space:
        raise RecountNeeded(
            f"These colors were counted as {table.space.name} bytes of 16-bit samples "
            "(semantics imagemagick6) and serve no other color space or semantics: "
            "a recount is needed; call segment() again with the new parameters."
        )


def _analyze_channels(
    table: ColorTable, colors: NDArray[np.uint8], parameters: Parameters
) -> tuple[ChannelScaleSpace, ChannelScaleSpace, ChannelScaleSpace]:
    counts = np.zeros((3, BINS), np.int64)
    # Histograms are made from the table: 2^24 rows at most, however many pixels there are.
    kernels.add_histograms(colors, table.counts, counts)
    if parameters.semantics == "documented":
        threshold = parameters.st * table.pixels / REFERENCE_PIXELS
    else:
        # The reference treats 0 as "not given".
        threshold = parameters.st or 1.0
    first, second, third = (analyze_histogram(histogram, threshold) for histogram in counts)
    return first, second, third


def _fill_empty_channels(
    scale_spaces: tuple[ChannelScaleSpace, ...], parameters: Parameters
) -> Intervals:
    """Return the intervals of each channel, with a substitute where a channel has none."""
    intervals = [channel.intervals for channel in scale_spaces]
    whole = np.array([[0, BINS - 1]])
    zero = np.array([[0, 0]])
    if parameters.semantics == "documented":
        intervals = [found if len(found) else whole for found in intervals]
    else:
        for channel in range(3):
            if not len(intervals[channel]):
                # The reference has one default box, in which channels after the flat one are 0.
                intervals = [whole if i <= channel else zero for i in range(3)]
                break
    return intervals[0], intervals[1], intervals[2]


def _sum_classes(
    color_classes: NDArray[np.uint16], classes: int, table: ColorTable, parameters: Parameters
) -> NDArray[np.int64]:
    """Return the pixels of each class, and its sums of colors if the palette needs them."""
    # Row 0 is for no data. Without any kept box all pixels still have class 1, in imagemagick6.
    totals = np.zeros((max(classes, 1) + 1, 4), np.int64)
    if parameters.semantics == "documented":
        kernels.add_class_totals(color_classes, table.colors, table.counts, totals)
    else:
        np.add.at(totals[:, 0], color_classes, table.counts)
    return totals


def _make_palette(
    partition: Partition, totals: NDArray[np.int64], parameters: Parameters, gray: bool
) -> NDArray[np.uint16]:
    if parameters.semantics == "documented":
        return from_byte(round_means(totals).astype(np.uint8))
    centers = partition.centers if len(partition.centers) else np.zeros((1, 3), np.int64)
    # In the reference the class number overwrites K: docs/algorithm.md, section 7, quirk 6.
    black = np.arange(len(centers))
    colors = inverse(parameters.cs, from_byte(centers.astype(np.uint8)), black)
    if gray:
        # Conversions round, so the three channels may differ by one: the result must stay gray.
        colors = forward(ColorSpace.GRAY, colors)
    return np.concatenate([np.zeros((1, 3), np.uint16), colors])


def _make_class_table(
    partition: Partition, counts: NDArray[np.int64], colors: NDArray[np.uint8]
) -> NDArray[np.void]:
    rows = np.zeros(len(counts), CLASS_FIELDS)
    rows["number"] = np.arange(1, len(counts) + 1)
    rows["color"] = colors
    rows["count"] = counts
    # An image whose classes are all empty must not divide by 0.
    rows["percentage"] = 100.0 * counts / max(int(counts.sum()), 1)
    if len(partition.centers):
        rows["box"] = partition.boxes
        rows["center"] = partition.centers
        rows["box_count"] = partition.box_counts
        rows["box_percentage"] = 100.0 * partition.box_counts / partition.counted_pixels
    return rows
