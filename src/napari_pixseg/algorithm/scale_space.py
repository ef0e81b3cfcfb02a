"""From the histogram of a channel to its intervals.

Scale-space filtering after Witkin (1983), as Lim and Lee (1990) and the reference use it: see
docs/algorithm.md, sections 3.2 to 3.8.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BINS = 256


# The reference has the coarsest scale in single precision. Its rounding takes the step nearest 0.2
# below the finest scale, so that step is left out.
_COARSEST = float(np.float32(5.2))
_FINEST = 0.2
_STEP = 0.5
_NEGLIGIBLE = 1e-12


def _list_scales() -> tuple[float, ...]:
    scales: list[float] = []
    while (scale := _COARSEST - _STEP * len(scales)) >= _FINEST:
        scales.append(scale)
    return (*scales, 0.0)


SCALES = _list_scales()


@dataclass(eq=False, repr=False)
class _Node:
    """A node of the interval tree: bins left to right, which one row of marks cut out."""

    left: int
    right: int
    row: int
    children: list[_Node] = field(default_factory=list)

    @property
    def scale(self) -> float:
        return SCALES[self.row] if self.row >= 0 else 0.0

    @property
    def stability(self) -> float:
        return self.scale - self.children[0].scale if self.children else 0.0

    @property
    def is_active(self) -> bool:
        if not self.children:
            return self.stability >= 0.0
        # Not the built-in sum, which is compensated from Python 3.12 on: the last bit matters.
        total = 0.0
        for child in self.children:
            total += child.stability
        return self.stability >= total / len(self.children)


@dataclass(frozen=True, eq=False)
class ChannelScaleSpace:
    """The scale space of one channel, and the intervals found in it.

    Attributes
    ----------
    smoothed : (11, 256) ndarray of float64
        The histogram at every scale, coarse to fine; the last row is raw.
    curvature : (11, 256) ndarray of float64
        Second derivative of ``smoothed``.
    marks : (11, 256) ndarray of int8
        Consolidated marks: -1 in concave, +1 in convex runs.
    signs : (256,) ndarray of int8
        +1 in active nodes that are peaks, -1 in other active nodes, 0 elsewhere.
    scales : (256,) ndarray of float64
        Scale of the node that gave each bin its sign, in bins; NaN where there is none.
    intervals : (i, 2) ndarray of int64
        First and last bin of each interval, both included; may be empty.
    """

    smoothed: NDArray[np.float64]
    curvature: NDArray[np.float64]
    marks: NDArray[np.int8]
    signs: NDArray[np.int8]
    scales: NDArray[np.float64]
    intervals: NDArray[np.int64]


def analyze_histogram(histogram: NDArray[np.int64], threshold: float) -> ChannelScaleSpace:
    """Find the intervals of a channel.

    Parameters
    ----------
    histogram : (256,) ndarray of int64
        Number of pixels at each value.
    threshold : float
        Curvature below which a bin is flat, in pixels per bin cubed.

    Returns
    -------
    ChannelScaleSpace
    """
    smoothed = _smooth_at_all_scales(histogram)
    # The reference differentiates twice rather than with one second-order stencil.
    curvature = _differentiate(_differentiate(smoothed))
    marks = _mark_curved_runs(curvature, threshold)
    _consolidate_marks(marks)
    _set_end_points(marks)
    signs, scales = _sign_bins(_grow_tree(marks), marks)
    return ChannelScaleSpace(smoothed, curvature, marks, signs, scales, _find_intervals(signs))


def _smooth_at_all_scales(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    smoothed = np.zeros((len(SCALES), BINS))
    smoothed[-1] = histogram
    # The same curve lies around each bin, for distances from -255 to 255; bins 0 to 255 see a part.
    curves = _mirrored_gaussians()
    # One bin after the other, because the order of the additions decides the last bit.
    for value in np.flatnonzero(histogram).tolist():
        window = curves[:, BINS - 1 - value : 2 * BINS - 1 - value]
        smoothed[:-1] += float(histogram[value]) * window
    for row, scale in enumerate(SCALES[:-1]):
        smoothed[row] *= 1.0 / (scale * math.sqrt(2.0 * math.pi))
    return smoothed


@cache
def _mirrored_gaussians() -> NDArray[np.float64]:
    halves = np.stack([_half_gaussian(scale) for scale in SCALES[:-1]])
    return np.concatenate([halves[:, :0:-1], halves], axis=1)


def _half_gaussian(scale: float) -> NDArray[np.float64]:
    # Not numpy.exp, whose last bit differs between processors.
    factor = -1.0 / (2.0 * scale * scale)
    values = np.array([math.exp(factor * distance * distance) for distance in range(BINS)])
    negligible = np.flatnonzero(values < _NEGLIGIBLE)
    # The reference stops after the first negligible value.
    values[negligible[1:]] = 0.0
    return values


def _differentiate(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.empty_like(rows)
    # One-sided differences at the ends, where a neighbor is missing.
    result[:, 0] = -1.5 * rows[:, 0] + 2.0 * rows[:, 1] - 0.5 * rows[:, 2]
    result[:, 1:-1] = (rows[:, 2:] - rows[:, :-2]) / 2.0
    result[:, -1] = 0.5 * rows[:, -3] - 2.0 * rows[:, -2] + 1.5 * rows[:, -1]
    return result


def _mark_curved_runs(curvature: NDArray[np.float64], threshold: float) -> NDArray[np.int8]:
    """Mark bins whose sign equals that of the last bin that was not flat."""
    signs = np.sign(curvature).astype(np.int8)
    signs[(curvature >= -threshold) & (curvature < threshold)] = 0
    marks = np.zeros_like(signs)
    for row, row_signs in zip(marks, signs, strict=True):
        # Flat bins are skipped, so a flat stretch does not end a run of one sign.
        steep = np.flatnonzero(row_signs)
        stays = steep[1:][row_signs[steep[1:]] == row_signs[steep[:-1]]]
        row[stays] = row_signs[stays]
    return marks


def _consolidate_marks(marks: NDArray[np.int8]) -> None:
    """Move every mark to the mark of the next finer row that it stems from, fine to coarse."""
    # Bytes, 1 where a bin is marked, can be searched and counted quickly.
    marked = [bytearray((row != 0).tobytes()) for row in marks]
    # Row by row toward coarser scales, because each row is traced to one that is final.
    for i in range(len(marks) - 2, -1, -1):
        values = marks[i].tolist()
        row = marked[i]
        finer = marked[i + 1]
        j = row.find(1)
        while j >= 0:
            target = _find_origin(row, finer, j)
            mark = values[j]
            row[j] = 0
            values[j] = 0
            if target >= 0:
                row[target] = 1
                values[target] = mark
            # The search starts behind j, so a mark that moved up is found again.
            j = row.find(1, j + 1)
        marks[i] = values


def _find_origin(row: bytearray, finer: bytearray, j: int) -> int:
    """Return the bin of the finer row that a mark stems from, or -1."""
    # Bins 0 and 255 are not searched: they stand for no mark below and no mark above.
    before = max(row.rfind(1, 1, j), 0)
    if finer[j] and j != before and _encloses_even_number(finer, before, j):
        return j
    left = max(finer.rfind(1, 1, j), 0)
    if left != before and _encloses_even_number(finer, before, left):
        return left
    right = finer.find(1, j + 1, BINS - 1)
    right = right if right >= 0 else BINS - 1
    return right if right != before and _encloses_even_number(finer, before, right) else -1


def _encloses_even_number(marked: bytearray, start: int, end: int) -> bool:
    """Return whether the number of marks strictly between two bins is even."""
    return marked.count(1, start + 1, max(end, start + 1)) % 2 == 0


def _set_end_points(marks: NDArray[np.int8]) -> None:
    for row in marks:
        first = np.flatnonzero(row[:-1])
        row[0] = -row[first[0] if len(first) else -1]
        last = np.flatnonzero(row[1:])
        row[-1] = -row[last[-1] + 1 if len(last) else 0]


def _grow_tree(marks: NDArray[np.int8]) -> _Node:
    root = _Node(0, BINS - 1, -1)
    leaves = [root]
    for number, row in enumerate(marks):
        marked = np.flatnonzero(row).tolist()
        leaves = [part for leaf in leaves for part in _split_leaf(leaf, marked, number)]
    return root


def _split_leaf(leaf: _Node, marked: list[int], row: int) -> list[_Node]:
    start = bisect_left(marked, leaf.left + 1)
    end = bisect_left(marked, leaf.right)
    if start >= end:
        return [leaf]
    cuts = [leaf.left, *marked[start:end], leaf.right]
    leaf.children = [_Node(a, b, row) for a, b in pairwise(cuts)]
    return leaf.children


def _list_active_nodes(siblings: list[_Node]) -> list[_Node]:
    active = [node for node in siblings if node.is_active]
    # The order matters, because later nodes overwrite end points that they share with others.
    for node in reversed(siblings):
        if not node.is_active:
            active.extend(_list_active_nodes(node.children))
    return active


def _sign_bins(
    root: _Node, marks: NDArray[np.int8]
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    signs = np.zeros(BINS, np.int8)
    scales = np.full(BINS, np.nan)
    for node in _list_active_nodes(root.children):
        # A node that ends with a concave mark has a peak inside.
        is_peak = marks[node.row, node.right] == -1
        signs[node.left : node.right + 1] = 1 if is_peak else -1
        scales[node.left : node.right + 1] = node.scale
    return signs, scales


def _find_intervals(signs: NDArray[np.int8]) -> NDArray[np.int64]:
    intervals = []
    left = -1
    for value, sign in enumerate(signs.tolist()):
        if sign > 0 and left < 0:
            left = value
        elif sign < 0 and left >= 0:
            intervals.append((left, value - 1))
            left = -1
    if left >= 0:
        intervals.append((left, BINS - 1))
    return np.array(intervals, np.int64).reshape(-1, 2)
