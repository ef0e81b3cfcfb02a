"""Every decision of a segmentation, made on a color table: boxes, classes, colors.

ALGORITHM specification, 3.8 to 3.10 and, for the two semantics, section 8.
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
from napari_pixseg.algorithm.kernels import vectorized
from napari_pixseg.algorithm.kernels.threads import parallel_slices
from napari_pixseg.algorithm.scale_space import BINS, Fingerprint, fingerprint
from napari_pixseg.errors import ClassError, RecountNeeded
from napari_pixseg.parameters import ColorSpace, Parameters

SAFE_MARGIN = 3


_FEW_CENTERS = 64


# Of fewer colors NumPy may have to find the boxes, in steps too short for threads.
_SHARED_FROM = 1 << 20


# ``st`` means the same at every size because counts are taken to this many pixels.
REFERENCE_PIXELS = 1 << 20


MAX_CLASSES = {"documented": 65535, "imagemagick6": 256}


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


@dataclass(frozen=True)
class Partition:
    """Where the classes lie: the three channels cut into regions, and the boxes kept.

    Attributes
    ----------
    regions : tuple of three (r, 2) ndarrays of int64
        First and last byte of each region of a channel.
    numbers : (r0 * r1 * r2,) ndarray of int64
        Class index of each box from 0, channel 2 fastest; -1 where it was dropped.
    centers : (n, 3) ndarray of int64
        Rounded mean of the colors counted in each kept box.
    box_counts : (n,) ndarray of int64
        Pixels counted in each kept box.
    counted : int
        Pixels counted in any box, kept or not.
    """

    regions: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    numbers: NDArray[np.int64]
    centers: NDArray[np.int64]
    box_counts: NDArray[np.int64]
    color_count: int

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(n, 3, 2) first and last byte of each kept box, per channel."""
        kept = np.flatnonzero(self.numbers >= 0)
        per_channel = np.unravel_index(kept, [len(regions) for regions in self.regions])
        pairs = zip(self.regions, per_channel, strict=True)
        return np.stack([regions[index] for regions, index in pairs], axis=1)

    def classify(self, colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Return class 1..n of (m, 3) bytes of the color space; 1 where no box was kept."""
        result = np.ones(len(colors), np.uint16)
        if not len(self.centers):
            return result
        first, last = _containing(self.regions)
        shape = len(self.regions[1]), len(self.regions[2])
        parallel_slices(
            lambda part: kernels.classify_colors(
                colors[part], first, last, shape, self.numbers, result[part]
            ),
            len(colors), _SHARED_FROM,
        )  # fmt: skip
        left = result == 0
        count = np.count_nonzero(left)
        if 2 * count > left.size:
            # Picking most of them takes longer than looking at all.
            np.copyto(result, self._nearest(colors), where=left)
        elif count:
            result[left] = self._nearest(colors[left])
        return result

    def _nearest(self, colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
        classes = np.empty(len(colors), np.uint16)
        if len(self.centers) <= _FEW_CENTERS:
            # Compared at once, faster than looked for, and faster than threads that wait.
            vectorized.find_nearest_centers_vectorized(colors, self.centers, classes)
        else:
            parallel_slices(
                lambda part: kernels.find_nearest_centers(
                    colors[part], self.centers, classes[part]
                ),
                len(colors),
            )
        return classes


@dataclass(frozen=True)
class Classes:
    """The classes of an image, decided.

    Attributes
    ----------
    parameters : Parameters
        What was asked for.
    fingerprints : tuple of three Fingerprint
        Scale space of the three channels, to show why.
    partition : Partition
    table : (n,) structured ndarray
        Per class ``number`` (from 1), ``box`` (3, 2), ``center`` (bytes of the color space),
        ``color`` (sRGB), ``count`` and ``percentage`` of the class map's pixels,
        ``box_count`` and ``box_percentage`` of those counted in boxes: ``ct``'s measure.
    palette : (n + 1, 3) ndarray of uint8
        Color of each class; row 0 (no data) is black.
    palette16 : (n + 1, 3) ndarray of uint16
        The same before the reduction to bytes.
    color_classes : (m,) ndarray of uint16
        Class of each color of the color table.
    """

    parameters: Parameters
    fingerprints: tuple[Fingerprint, Fingerprint, Fingerprint]
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
            None: sRGB colors; otherwise they are bytes of this space already.
        """
        if space is None:
            colors = forward_bytes(self.parameters.cs, colors)
        return self.partition.classify(np.ascontiguousarray(colors))

    def lookup(self, table: ColorTable) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return class by packed color, (2^24 + 1,); 0 for colors not counted and no data."""
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
        Of these ``ct``, ``cs``, ``st`` and ``semantics`` matter here.
    gray : bool
        The image has one channel; only ``imagemagick6`` palettes depend on it.

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
    refuse_foreign(table, parameters)
    if not len(table):
        raise ClassError("No pixel has data, so there is nothing to segment; check the input.")
    colors = table.in_space(parameters.cs)
    fingerprints = _fingerprints(table, colors, parameters)
    regions = _usable_regions(fingerprints, parameters)
    partition = _partition(table, colors, regions, parameters)
    color_classes = partition.classify(colors)
    totals = _class_totals(color_classes, len(partition.centers), table, parameters)
    palette16 = _palette(partition, totals, parameters, gray)
    palette = to_byte(palette16)
    rows = _class_rows(partition, totals[1:, 0], palette[1:])
    return Classes(parameters, fingerprints, partition, rows, palette, palette16, color_classes)


def refuse_foreign(table: ColorTable, parameters: Parameters) -> None:
    """Raise RecountNeeded if a table cannot answer for these parameters."""
    if table.space is None:
        return
    if parameters.semantics != "imagemagick6" or parameters.cs != table.space:
        raise RecountNeeded(
            f"These colors were counted as {table.space.name} bytes of 16-bit samples "
            "(semantics imagemagick6) and serve no other color space or semantics: "
            "a recount is needed; call segment() again with the new parameters."
        )


def _fingerprints(
    table: ColorTable, colors: NDArray[np.uint8], parameters: Parameters
) -> tuple[Fingerprint, Fingerprint, Fingerprint]:
    counts = np.zeros((3, BINS), np.int64)
    kernels.add_histograms(colors, table.counts, counts)
    if parameters.semantics == "documented":
        threshold = parameters.st * table.pixels / REFERENCE_PIXELS
    else:
        threshold = parameters.st or 1.0
    first, second, third = (fingerprint(histogram, threshold) for histogram in counts)
    return first, second, third


def _usable_regions(
    fingerprints: tuple[Fingerprint, ...], parameters: Parameters
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Regions of the channels, with what stands in where a channel has none."""
    regions = [channel.regions for channel in fingerprints]
    whole, zero = np.array([[0, BINS - 1]]), np.array([[0, 0]])
    if parameters.semantics == "documented":
        regions = [found if len(found) else whole for found in regions]
    else:
        for channel in range(3):
            if not len(regions[channel]):
                # The reference's one default box; the channels after the first flat one stay at 0.
                regions = [whole if i <= channel else zero for i in range(3)]
                break
    return regions[0], regions[1], regions[2]


def _containing(
    regions: tuple[NDArray[np.int64], ...],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last region of each channel that contain a byte, margin included; -1: none."""
    first, last = np.full((3, BINS), -1, np.int64), np.full((3, BINS), -2, np.int64)
    value = np.arange(BINS)[:, np.newaxis]
    for channel, bounds in enumerate(regions):
        inside = (value >= bounds[:, 0] - SAFE_MARGIN) & (value <= bounds[:, 1] + SAFE_MARGIN)
        covered = inside.any(axis=1)
        first[channel, covered] = inside.argmax(axis=1)[covered]
        # Regions are ascending and disjoint, so those that contain a value are neighbors.
        last[channel, covered] = (first[channel] + inside.sum(axis=1) - 1)[covered]
    return first, last


def _partition(
    table: ColorTable,
    colors: NDArray[np.uint8],
    regions: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    parameters: Parameters,
) -> Partition:
    sizes = [len(bounds) for bounds in regions]
    totals = np.zeros((sizes[0] * sizes[1] * sizes[2], 4), np.int64)
    first, _ = _containing(regions)
    kernels.add_box_totals(colors, table.counts, first, (sizes[1], sizes[2]), totals)
    color_count = int(totals[:, 0].sum())
    relative = parameters.semantics == "imagemagick6"
    share = parameters.ct if relative else (color_count * parameters.ct) / 100.0
    numbers = kernels.number_kept_boxes(totals[:, 0].copy(), share, relative)
    kept = totals[numbers >= 0]
    _refuse_class_count(len(kept), totals[:, 0], parameters)
    centers = _rounded_means(kept)
    return Partition(regions, numbers, centers, kept[:, 0].copy(), color_count)


def _refuse_class_count(kept: int, counts: NDArray[np.int64], parameters: Parameters) -> None:
    most = MAX_CLASSES[parameters.semantics]
    if kept > most:
        raise ClassError(
            f"There are {kept} classes, more than the {most} that semantics "
            f"{parameters.semantics!r} allows; raise st or ct to get fewer."
        )
    if kept or parameters.semantics == "imagemagick6":
        return
    if not counts.any():
        raise ClassError(
            "No class reaches ct %: the boxes found hold no pixel; change st or try another cs."
        )
    largest = 100.0 * counts.max() / counts.sum()
    raise ClassError(
        f"No class reaches ct = {parameters.ct:g} %: the largest box holds {largest:.3g} % "
        "of the counted pixels; lower ct, or raise st to get larger boxes."
    )


def _rounded_means(totals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Means of byte sums, rounded half up in integers: (n, 4) totals to (n, 3)."""
    count = np.maximum(totals[:, :1], 1)
    means: NDArray[np.int64] = (2 * totals[:, 1:] + count) // (2 * count)
    return means


def _class_totals(
    color_classes: NDArray[np.uint16], classes: int, table: ColorTable, parameters: Parameters
) -> NDArray[np.int64]:
    """(n + 1, 4) pixels of each class and, where the palette is made of them, sums of colors."""
    totals = np.zeros((max(classes, 1) + 1, 4), np.int64)
    if parameters.semantics == "documented":
        kernels.add_class_totals(color_classes, table.colors, table.counts, totals)
    else:
        np.add.at(totals[:, 0], color_classes, table.counts)
    return totals


def _palette(
    partition: Partition, totals: NDArray[np.int64], parameters: Parameters, gray: bool
) -> NDArray[np.uint16]:
    if parameters.semantics == "documented":
        return from_byte(_rounded_means(totals).astype(np.uint8))
    centers = partition.centers if len(partition.centers) else np.zeros((1, 3), np.int64)
    # In the reference the class number overwrites K, which shares its memory.
    black = np.arange(len(centers))
    colors = inverse(parameters.cs, from_byte(centers.astype(np.uint8)), black)
    if gray:
        colors = forward(ColorSpace.GRAY, colors)
    return np.concatenate([np.zeros((1, 3), np.uint16), colors])


def _class_rows(
    partition: Partition, counts: NDArray[np.int64], colors: NDArray[np.uint8]
) -> NDArray[np.void]:
    rows = np.zeros(len(counts), CLASS_FIELDS)
    rows["number"] = np.arange(1, len(counts) + 1)
    rows["color"] = colors
    rows["count"] = counts
    rows["percentage"] = 100.0 * counts / max(int(counts.sum()), 1)
    if len(partition.centers):
        rows["box"] = partition.boxes
        rows["center"] = partition.centers
        rows["box_count"] = partition.box_counts
        rows["box_percentage"] = 100.0 * partition.box_counts / partition.color_count
    return rows
