"""The boxes of a segmentation: counts them, chooses the kept ones, and finds a color's class.

See docs/algorithm.md, sections 3.8 and 3.9 and, for the two semantics, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.algorithm.kernels import vectorized
from napari_pixseg.algorithm.kernels.threads import parallel_slices
from napari_pixseg.algorithm.scale_space import BINS
from napari_pixseg.errors import ClassError
from napari_pixseg.parameters import Parameters

# First and last byte of each interval, for each of the three channels.
Intervals: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

# A color counts as inside a box up to this distance from it.
SAFE_MARGIN = 3
MAX_CLASSES = {"documented": 65535, "imagemagick6": 256}

# Up to this many centers, comparing with all of them at once is faster than searching, and faster
# than threads, which wait for each other.
_FEW_CENTERS = 64

# For fewer colors NumPy may find the boxes, in steps too short to share among threads.
_SHARED_FROM = 1 << 20


@dataclass(frozen=True, eq=False)
class Partition:
    """The position of the classes: the intervals of the channels, and the kept boxes.

    Attributes
    ----------
    intervals : tuple of three (i, 2) ndarrays of int64
        First and last byte of each interval of a channel.
    numbers : (i0 * i1 * i2,) ndarray of int64
        Class index of each box from 0, channel 2 fastest; -1 for boxes that were dropped.
    centers : (n, 3) ndarray of int64
        Rounded mean of the colors counted in each kept box.
    box_counts : (n,) ndarray of int64
        Pixels counted in each kept box.
    counted_pixels : int
        Pixels counted in any box, kept or not.
    """

    intervals: Intervals
    numbers: NDArray[np.int64]
    centers: NDArray[np.int64]
    box_counts: NDArray[np.int64]
    counted_pixels: int

    @property
    def boxes(self) -> NDArray[np.int64]:
        """First and last byte of each kept box in each channel, (n, 3, 2)."""
        kept = np.flatnonzero(self.numbers >= 0)
        per_channel = np.unravel_index(kept, [len(bounds) for bounds in self.intervals])
        pairs = zip(self.intervals, per_channel, strict=True)
        return np.stack([bounds[index] for bounds, index in pairs], axis=1)

    def classify(self, colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Return class 1..n of (m, 3) bytes of the color space; 1 where no box was kept."""
        # If no box was kept, there is only class 1, which is black in the color space.
        result = np.ones(len(colors), np.uint16)
        if not len(self.centers):
            return result
        first, last = _find_containing_intervals(self.intervals)
        # Channel 0 is not needed to number a box, as in any row-major index.
        shape = (len(self.intervals[1]), len(self.intervals[2]))

        def classify_part(part: slice) -> None:
            kernels.classify_colors(colors[part], first, last, shape, self.numbers, result[part])

        parallel_slices(classify_part, len(colors), _SHARED_FROM)
        # Colors outside all kept boxes go to the nearest center.
        left = result == 0
        count = np.count_nonzero(left)
        if 2 * count > left.size:
            # Selecting most of the colors takes longer than classifying all of them.
            np.copyto(result, self._classify_by_center(colors), where=left)
        elif count:
            result[left] = self._classify_by_center(colors[left])
        return result

    def _classify_by_center(self, colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
        classes = np.empty(len(colors), np.uint16)
        if len(self.centers) <= _FEW_CENTERS:
            vectorized.find_nearest_centers_vectorized(colors, self.centers, classes)
        else:
            parallel_slices(
                lambda part: kernels.find_nearest_centers(
                    colors[part], self.centers, classes[part]
                ),
                len(colors),
            )
        return classes


def _find_containing_intervals(
    intervals: Intervals,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last interval of each channel that contain a byte, (3, 256) each.

    Margins are included. A byte in no interval has -1 and -2, so that the range is empty.
    """
    first = np.full((3, BINS), -1, np.int64)
    last = np.full((3, BINS), -2, np.int64)
    value = np.arange(BINS)[:, np.newaxis]
    for channel, bounds in enumerate(intervals):
        inside = (value >= bounds[:, 0] - SAFE_MARGIN) & (value <= bounds[:, 1] + SAFE_MARGIN)
        covered = inside.any(axis=1)
        first[channel, covered] = inside.argmax(axis=1)[covered]
        # Intervals are ascending and disjoint, so those that contain a value are neighbors.
        last[channel, covered] = (first[channel] + inside.sum(axis=1) - 1)[covered]
    return first, last


def partition_colors(
    table: ColorTable, colors: NDArray[np.uint8], intervals: Intervals, parameters: Parameters
) -> Partition:
    """Count the colors in boxes and keep the boxes that are large enough.

    Parameters
    ----------
    table : ColorTable
    colors : (m, 3) ndarray of uint8
        Its colors in the color space.
    intervals : tuple of three (i, 2) ndarrays of int64
        At least one interval of each channel.
    parameters : Parameters
        Only ``ct`` and ``semantics`` matter.

    Returns
    -------
    Partition

    Raises
    ------
    ClassError
        If there are more boxes than the semantics allows, or none in ``documented``.
    """
    sizes = [len(bounds) for bounds in intervals]
    totals = np.zeros((sizes[0] * sizes[1] * sizes[2], 4), np.int64)
    first, _ = _find_containing_intervals(intervals)
    kernels.add_box_totals(colors, table.counts, first, (sizes[1], sizes[2]), totals)
    counted_pixels = int(totals[:, 0].sum())
    relative = parameters.semantics == "imagemagick6"
    # The order of these operations is part of the specification: it decides the last bit.
    share = parameters.ct if relative else (counted_pixels * parameters.ct) / 100.0
    numbers = kernels.number_kept_boxes(totals[:, 0].copy(), share, relative)
    kept = totals[numbers >= 0]
    _refuse_class_count(len(kept), totals[:, 0], parameters)
    centers = round_means(kept)
    return Partition(intervals, numbers, centers, kept[:, 0].copy(), counted_pixels)


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


def round_means(totals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return means (n, 3) of byte sums in (n, 4) totals, rounded half up."""
    # In integers, because floating-point sums would be inexact beyond 2^53.
    # An empty box has a count of 0; its mean becomes 0 instead of an error.
    count = np.maximum(totals[:, :1], 1)
    means: NDArray[np.int64] = (2 * totals[:, 1:] + count) // (2 * count)
    return means
