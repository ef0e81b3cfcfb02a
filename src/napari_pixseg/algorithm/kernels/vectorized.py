"""The kernels that a small picture needs, in plain NumPy.

Each does the same as the kernel in :mod:`compiled` whose name it has, with ``_vectorized`` added.
Arrays are processed in blocks that stay in the processor's cache. With several threads the blocks
are larger, because threads wait for each other between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.arrays import (
    AnyArray,
    Bytes,
    ClassNumbers,
    Counts,
    Indices,
    Packed,
)
from napari_pixseg.algorithm.kernels.threads import parallel_slices, thread_slices

_BLOCK = 1 << 15


_SHARED_BLOCK = 1 << 17


# Distances that stay in the processor's cache.
_CACHED = 1 << 17


_NO_BOX = -(1 << 62)


def _cut_blocks(length: int, block: int = _BLOCK) -> Iterator[slice]:
    return (slice(start, start + block) for start in range(0, length, block))


def pack_pixels_vectorized(pixels: Bytes, packed: Packed) -> None:
    """Pack byte colors; see :func:`compiled.pack_pixels`."""
    parallel_slices(lambda part: _pack_contiguous(pixels[part], packed[part]), len(pixels))


def _pack_contiguous(pixels: Bytes, packed: AnyArray) -> None:
    """Pack contiguous byte colors into unsigned integers of at least 32 bits."""
    if pixels.shape[1] == 3 and len(pixels):
        # Four bytes from each color on are read as one number. The last color has no fourth byte.
        words = np.ndarray(len(pixels) - 1, ">u4", pixels, strides=pixels.strides[:1])
        packed[:-1] = words
        packed[:-1] >>= 8
        pixels = pixels[-1:]
        packed = packed[-1:]
    packed[:] = pixels[:, 0]
    for channel in (1, 2):
        packed <<= 8
        if channel < pixels.shape[1]:
            packed |= pixels[:, channel]
        elif pixels.shape[1] == 1:
            packed |= pixels[:, 0]


def count_distinct(packed: Packed) -> tuple[Packed, Counts]:
    """Sort values in place; return the distinct ones, ascending, and their counts."""
    if not packed.size:
        return packed.copy(), np.empty(0, np.int64)
    parts = thread_slices(packed.size)
    # No value left of a bound is larger than one right of it, so parts are sorted separately.
    if len(parts) > 1:
        packed.partition([part.start for part in parts[1:]])
    runs = parallel_slices(lambda part: _count_sorted(packed[part]), packed.size)
    for i, ((left, left_counts), (right, right_counts)) in enumerate(pairwise(runs)):
        if left[-1] == right[0]:
            right_counts[0] += left_counts[-1]
            runs[i] = left[:-1], left_counts[:-1]
    colors, counts = (np.concatenate(lists) for lists in zip(*runs, strict=True))
    return colors, counts


def _count_sorted(values: Packed) -> tuple[Packed, Counts]:
    """Sort values in place; return the distinct ones and their counts, in one thread."""
    values.sort()
    starts = _find_run_starts(values)
    counts = np.empty(starts.size, np.int64)
    np.subtract(starts[1:], starts[:-1], out=counts[:-1])
    counts[-1] = values.size - starts[-1]
    return values[starts], counts


def _find_run_starts(ordered: Packed) -> NDArray[np.intp]:
    """Return where each run of equal values begins."""
    begins = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def merge_counts_vectorized(
    colors: Packed,
    counts: Counts,
    others: Packed,
    their_counts: Counts,
    merged: Packed,
    merged_counts: Counts,
) -> int:
    """Merge two lists of colors; see :func:`compiled.merge_counts`."""
    both = np.concatenate([colors, others])
    # A stable sort merges two ascending runs in linear time.
    order = np.argsort(both, kind="stable")
    ordered = both[order]
    starts = _find_run_starts(ordered)
    merged[: starts.size] = ordered[starts]
    if starts.size:
        sums = np.add.reduceat(np.concatenate([counts, their_counts])[order], starts)
        merged_counts[: starts.size] = sums
    return int(starts.size)


def add_histograms_vectorized(colors: Bytes, counts: Counts, result: Counts) -> None:
    """Add the bytes of each channel to histograms; see :func:`compiled.add_histograms`."""
    for channel in range(3):
        np.add.at(result[channel], colors[:, channel].astype(np.intp), counts)


def add_box_totals_vectorized(
    colors: Bytes, counts: Counts, first: Indices, shape: tuple[int, int], totals: Counts
) -> None:
    """Add colors to the first box that contains them; see :func:`compiled.add_box_totals`."""
    offsets = _box_offsets(first, shape)
    for rows in _cut_blocks(len(colors)):
        boxes = _number_boxes(colors[rows], offsets)
        inside = np.flatnonzero(boxes >= 0)
        _add_totals(
            boxes.take(inside), colors[rows].take(inside, 0), counts[rows].take(inside), totals
        )


def add_class_totals_vectorized(
    classes: ClassNumbers, colors: Bytes, counts: Counts, totals: Counts
) -> None:
    """Add colors to their classes; see :func:`compiled.add_class_totals`."""
    for rows in _cut_blocks(classes.size):
        _add_totals(classes[rows].astype(np.intp), colors[rows], counts[rows], totals)


def _add_totals(index: NDArray[np.intp], colors: Bytes, counts: Counts, totals: Counts) -> None:
    # Not bincount, whose floating-point weights would round sums beyond 2^53.
    np.add.at(totals[:, 0], index, counts)
    for channel in range(3):
        np.add.at(totals[:, 1 + channel], index, counts * colors[:, channel])


def _box_offsets(intervals: Indices, shape: tuple[int, int]) -> Indices:
    """Return what each byte of a channel adds to the number of its box.

    A byte in no interval adds a number so far below 0 that the sum stays negative.
    """
    strides = np.array([[shape[0] * shape[1]], [shape[1]], [1]])
    return np.where(intervals < 0, _NO_BOX // 4, intervals * strides)


def _number_boxes(colors: Bytes, offsets: Indices) -> NDArray[np.intp]:
    # Clipping is faster than a check of bounds, and every byte has an offset.
    boxes: NDArray[np.intp] = np.take(offsets[0], colors[:, 0], mode="clip")
    boxes += np.take(offsets[1], colors[:, 1], mode="clip")
    boxes += np.take(offsets[2], colors[:, 2], mode="clip")
    return boxes


def number_kept_boxes_vectorized(counts: Counts, share: float, relative: bool) -> Indices:
    """Number the boxes that are kept; see :func:`compiled.number_kept_boxes`."""
    numbers = np.full(counts.size, -1, np.int64)
    kept = 0
    for box in np.flatnonzero(counts > 0).tolist():
        least = kept * share / 100.0 if relative else share
        if float(counts[box]) >= least:
            numbers[box] = kept
            kept += 1
    return numbers


def classify_colors_vectorized(
    colors: Bytes,
    first: Indices,
    last: Indices,
    shape: tuple[int, int],
    numbers: Indices,
    result: ClassNumbers,
) -> None:
    """Give each color the class of its box; see :func:`compiled.classify_colors`."""
    # Colors in no box have negative numbers, which are clipped to this additional entry.
    numbers = np.concatenate([[-1], numbers])
    all_offsets = _find_box_offsets(first, last, shape)
    for rows in _cut_blocks(len(colors)):
        block = colors[rows]
        boxes = _number_boxes(block, all_offsets[0])
        found = numbers.take(boxes + 1, mode="clip")
        # Where margins overlap, a color whose first box was dropped may be in another box.
        for offsets in all_offsets[1:]:
            left = np.flatnonzero((found < 0) & (boxes >= 0))
            found[left] = numbers.take(_number_boxes(block[left], offsets) + 1, mode="clip")
        result[rows] = found + 1


def _find_box_offsets(first: Indices, last: Indices, shape: tuple[int, int]) -> list[Indices]:
    """Return offsets of the first box that contains a color, of the second, and so on."""
    most = [range(max(int(spread), 0) + 1) for spread in (last - first).max(axis=1)]
    offsets_of_boxes = []
    for steps in product(*most):
        intervals = first + np.array(steps)[:, np.newaxis]
        reached = (first >= 0) & (intervals <= last)
        offsets_of_boxes.append(_box_offsets(np.where(reached, intervals, -1), shape))
    return offsets_of_boxes


def find_nearest_centers_vectorized(colors: Bytes, centers: Indices, result: ClassNumbers) -> None:
    """Give each color the class of its nearest center; see :func:`compiled.find_nearest_centers`.

    All squared distances from a color x share x^2. Without it they are c^2 - 2 c x, which is a
    product of two matrices and fits 19 bits and a sign. The index fills the bits below, so that
    one minimum finds both. Single precision is exact up to 24 bits, double precision up to 53.
    """
    bits = max(int(len(centers) - 1).bit_length(), 1)
    kind = np.dtype(np.float32 if bits <= 5 else np.float64)
    weights = np.empty((len(centers), 4), kind)
    weights[:, :3] = (-2 * centers) << bits
    weights[:, 3] = ((centers**2).sum(axis=1) << bits) | np.arange(len(centers))
    whole = np.dtype(np.int32 if bits <= 5 else np.int64)
    for rows in _cut_blocks(len(colors), min(max(_CACHED // len(centers), 16), 1 << 13)):
        planes = np.ones((4, len(colors[rows])), kind)
        planes[:3] = colors[rows].T
        best = np.minimum.reduce(weights @ planes, axis=0)
        result[rows] = (best.astype(whole) & ((1 << bits) - 1)) + 1


def look_up_colors_vectorized(packed: Packed, table: AnyArray, result: AnyArray) -> int:
    """Replace colors by their entries; see :func:`compiled.look_up_colors`."""
    return _look_up_blocks(np.copyto, packed, table, result)


def look_up_pixels_vectorized(pixels: Bytes, table: AnyArray, result: AnyArray) -> int:
    """Replace byte colors by their entries; see :func:`compiled.look_up_pixels`."""
    return _look_up_blocks(
        lambda index, block: _pack_contiguous(block, index.view(np.uintp)), pixels, table, result
    )


def _look_up_blocks(
    fill_indices: Callable[[NDArray[np.intp], AnyArray], None],
    colors: AnyArray,
    table: AnyArray,
    result: AnyArray,
) -> int:
    """Replace colors by entries of a table, whose indices ``fill_indices`` writes."""

    def look_up_part(part: slice) -> int:
        index = np.empty(min(_SHARED_BLOCK, part.stop - part.start), np.intp)
        zeros = 0
        for rows in _cut_blocks(part.stop - part.start, _SHARED_BLOCK):
            block, entries = colors[part][rows], result[part][rows]
            at = index[: len(block)]
            fill_indices(at, block)
            # With clipping NumPy writes to the result directly; no index is beyond the table.
            np.take(table, at, out=entries, mode="clip")
            zeros += len(block) - int(np.count_nonzero(entries))
        return zeros

    return sum(parallel_slices(look_up_part, len(colors)))


def count_numbers_vectorized(numbers: AnyArray, counts: Counts) -> None:
    """Count numbers; see :func:`compiled.count_numbers`."""
    for rows in _cut_blocks(numbers.size):
        found = np.bincount(numbers[rows], minlength=counts.size)
        counts += found[: counts.size]


def paint_classes_vectorized(classes: AnyArray, colors: Bytes, plane: Bytes) -> None:
    """Write the color of each class; see :func:`compiled.paint_classes`."""
    for rows in _cut_blocks(classes.size):
        np.take(colors, classes[rows], out=plane[rows], mode="clip")
