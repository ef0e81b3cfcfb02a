"""The kernels that a small picture needs, in plain NumPy; each does what its namesake does.

Arrays are worked on in blocks that stay in the processor's cache; larger ones where several
threads work, which wait for each other between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.threads import parallel_slices, shares

Bytes = NDArray[np.uint8]


Counts = NDArray[np.int64]


Colors = NDArray[np.uint32]


_BLOCK = 1 << 15


_SHARED_BLOCK = 1 << 17


# Distances that stay in the processor's cache.
_CACHED = 1 << 17


_NO_BOX = -(1 << 62)


def _blocks(length: int, block: int = _BLOCK) -> Iterator[slice]:
    return (slice(start, start + block) for start in range(0, length, block))


def pack(pixels: Bytes, packed: Colors) -> None:
    """Pack byte colors; see :func:`kernels.pack`."""
    parallel_slices(lambda part: _pack(pixels[part], packed[part]), len(pixels))


def _pack(pixels: Bytes, packed: Any) -> None:
    """Pack contiguous byte colors into unsigned integers of at least 32 bits."""
    if pixels.shape[1] == 3 and len(pixels):
        # The four bytes from each color on are one number; behind the last one there is none.
        words = np.ndarray(len(pixels) - 1, ">u4", pixels, strides=pixels.strides[:1])
        packed[:-1] = words
        packed[:-1] >>= 8
        pixels, packed = pixels[-1:], packed[-1:]
    packed[:] = pixels[:, 0]
    for channel in (1, 2):
        packed <<= 8
        if channel < pixels.shape[1]:
            packed |= pixels[:, channel]
        elif pixels.shape[1] == 1:
            packed |= pixels[:, 0]


def distinct(packed: Colors) -> tuple[Colors, Counts]:
    """Sort values in place; return the distinct ones, ascending, and how often each occurs."""
    if not packed.size:
        return packed.copy(), np.empty(0, np.int64)
    parts = shares(packed.size)
    # What is left of a bound is at most what is right of it: each part is sorted by itself.
    if len(parts) > 1:
        packed.partition([part.start for part in parts[1:]])
    runs = parallel_slices(lambda part: _runs(packed[part]), packed.size)
    for i, ((left, left_counts), (right, right_counts)) in enumerate(pairwise(runs)):
        if left[-1] == right[0]:
            right_counts[0] += left_counts[-1]
            runs[i] = left[:-1], left_counts[:-1]
    colors, counts = (np.concatenate(lists) for lists in zip(*runs, strict=True))
    return colors, counts


def _runs(values: Colors) -> tuple[Colors, Counts]:
    """Sort values in place; return the distinct ones, and how often each occurs."""
    values.sort()
    starts = _starts(values)
    counts = np.empty(starts.size, np.int64)
    np.subtract(starts[1:], starts[:-1], out=counts[:-1])
    counts[-1] = values.size - starts[-1]
    return values[starts], counts


def _starts(ordered: Colors) -> NDArray[np.intp]:
    """Where each run of equal values begins."""
    begins = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def add_tables(
    colors: Colors,
    counts: Counts,
    others: Colors,
    their_counts: Counts,
    merged: Colors,
    merged_counts: Counts,
) -> int:
    """Merge two lists of colors; see :func:`kernels.add_tables`."""
    both = np.concatenate([colors, others])
    # Of two ascending runs the stable sort is a merge.
    order = np.argsort(both, kind="stable")
    ordered = both[order]
    starts = _starts(ordered)
    merged[: starts.size] = ordered[starts]
    if starts.size:
        sums = np.add.reduceat(np.concatenate([counts, their_counts])[order], starts)
        merged_counts[: starts.size] = sums
    return int(starts.size)


def histograms(colors: Bytes, counts: Counts, result: Counts) -> None:
    """Count the bytes of each channel; see :func:`kernels.histograms`."""
    for channel in range(3):
        np.add.at(result[channel], colors[:, channel].astype(np.intp), counts)


def box_totals(
    colors: Bytes, counts: Counts, first: NDArray[np.int64], shape: tuple[int, int], totals: Counts
) -> None:
    """Add colors to the first box that contains them; see :func:`kernels.box_totals`."""
    offsets = _box_offsets(first, shape)
    for rows in _blocks(len(colors)):
        boxes = _boxes(colors[rows], offsets)
        inside = np.flatnonzero(boxes >= 0)
        _add(boxes.take(inside), colors[rows].take(inside, 0), counts[rows].take(inside), totals)


def class_totals(
    classes: NDArray[np.uint16], colors: Bytes, counts: Counts, totals: Counts
) -> None:
    """Add colors to their classes; see :func:`kernels.class_totals`."""
    for rows in _blocks(classes.size):
        _add(classes[rows].astype(np.intp), colors[rows], counts[rows], totals)


def _add(index: NDArray[np.intp], colors: Bytes, counts: Counts, totals: Counts) -> None:
    # Integers: sums of counts as floating-point weights would round beyond 2^53.
    np.add.at(totals[:, 0], index, counts)
    for channel in range(3):
        np.add.at(totals[:, 1 + channel], index, counts * colors[:, channel])


def _box_offsets(regions: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """What each byte of a channel adds to the number of a box; without a region far below 0."""
    strides = np.array([[shape[0] * shape[1]], [shape[1]], [1]])
    return np.where(regions < 0, _NO_BOX // 4, regions * strides)


def _boxes(colors: Bytes, offsets: NDArray[np.int64]) -> NDArray[np.intp]:
    # Clipping spares a look at every byte; there is an offset for each.
    boxes: NDArray[np.intp] = np.take(offsets[0], colors[:, 0], mode="clip")
    boxes += np.take(offsets[1], colors[:, 1], mode="clip")
    boxes += np.take(offsets[2], colors[:, 2], mode="clip")
    return boxes


def kept_boxes(counts: Counts, share: float, relative: bool) -> NDArray[np.int64]:
    """Number the boxes that are kept; see :func:`kernels.kept_boxes`."""
    numbers = np.full(counts.size, -1, np.int64)
    kept = 0
    for box in np.flatnonzero(counts > 0).tolist():
        least = kept * share / 100.0 if relative else share
        if float(counts[box]) >= least:
            numbers[box] = kept
            kept += 1
    return numbers


def classify(
    colors: Bytes,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    shape: tuple[int, int],
    numbers: NDArray[np.int64],
    result: NDArray[np.uint16],
) -> None:
    """Give each color the class of its box; see :func:`kernels.classify`."""
    # One more number, to which those of colors that lie in no box are clipped.
    numbers = np.concatenate([[-1], numbers])
    ways = _ways(first, last, shape)
    for rows in _blocks(len(colors)):
        block = colors[rows]
        boxes = _boxes(block, ways[0])
        found = numbers.take(boxes + 1, mode="clip")
        # A color that is in no first box is in no other; of margins that overlap, some are.
        for offsets in ways[1:]:
            left = np.flatnonzero((found < 0) & (boxes >= 0))
            found[left] = numbers.take(_boxes(block[left], offsets) + 1, mode="clip")
        result[rows] = found + 1


def _ways(
    first: NDArray[np.int64], last: NDArray[np.int64], shape: tuple[int, int]
) -> list[NDArray[np.int64]]:
    """Offsets of the first box, the second ... that contain a color, in the order of boxes."""
    most = [range(max(int(spread), 0) + 1) for spread in (last - first).max(axis=1)]
    ways = []
    for steps in product(*most):
        regions = first + np.array(steps)[:, np.newaxis]
        reached = (first >= 0) & (regions <= last)
        ways.append(_box_offsets(np.where(reached, regions, -1), shape))
    return ways


def nearest(colors: Bytes, centers: NDArray[np.int64], result: NDArray[np.uint16]) -> None:
    """Give each color the class of its nearest center; see :func:`kernels.nearest`.

    With x^2 left out, which all distances from a color x share, they are c^2 - 2 c x: whole
    numbers of 19 bits and a sign, and a product of two matrices. The index fills the bits
    below, so that one minimum finds both; 24 bits are exact in single precision, 53 in double.
    """
    bits = max(int(len(centers) - 1).bit_length(), 1)
    kind: Any = np.float32 if bits <= 5 else np.float64
    weights = np.empty((len(centers), 4), kind)
    weights[:, :3] = (-2 * centers) << bits
    weights[:, 3] = ((centers**2).sum(axis=1) << bits) | np.arange(len(centers))
    whole: Any = np.int32 if kind is np.float32 else np.int64
    for rows in _blocks(len(colors), min(max(_CACHED // len(centers), 16), 1 << 13)):
        planes = np.ones((4, len(colors[rows])), kind)
        planes[:3] = colors[rows].T
        best = np.minimum.reduce(weights @ planes, axis=0)
        result[rows] = (best.astype(whole) & ((1 << bits) - 1)) + 1


def look_up(packed: Colors, table: NDArray[Any], result: NDArray[Any]) -> int:
    """Replace colors by their entries; see :func:`kernels.look_up`."""
    return _looked_up(np.copyto, packed, table, result)


def look_up_pixels(pixels: Bytes, table: NDArray[Any], result: NDArray[Any]) -> int:
    """Replace byte colors by their entries; see :func:`kernels.look_up_pixels`."""
    return _looked_up(
        lambda index, block: _pack(block, index.view(np.uintp)), pixels, table, result
    )


def _looked_up(
    fill: Callable[[NDArray[np.intp], Any], None],
    colors: NDArray[Any],
    table: NDArray[Any],
    result: NDArray[Any],
) -> int:
    """Replace colors, of which a function makes the places in the table."""

    def look_up_part(part: slice) -> int:
        index = np.empty(min(_SHARED_BLOCK, part.stop - part.start), np.intp)
        zeros = 0
        for rows in _blocks(part.stop - part.start, _SHARED_BLOCK):
            block, entries = colors[part][rows], result[part][rows]
            at = index[: len(block)]
            fill(at, block)
            # Clipping spares a copy of the result; no index is beyond the table.
            np.take(table, at, out=entries, mode="clip")
            zeros += len(block) - int(np.count_nonzero(entries))
        return zeros

    return sum(parallel_slices(look_up_part, len(colors)))


def count_numbers(numbers: NDArray[Any], counts: Counts) -> None:
    """Count numbers; see :func:`kernels.count_numbers`."""
    for rows in _blocks(numbers.size):
        found = np.bincount(numbers[rows], minlength=counts.size)
        counts += found[: counts.size]


def paint(classes: NDArray[Any], colors: Bytes, plane: Bytes) -> None:
    """Write the color of each class; see :func:`kernels.paint`."""
    for rows in _blocks(classes.size):
        np.take(colors, classes[rows], out=plane[rows], mode="clip")
