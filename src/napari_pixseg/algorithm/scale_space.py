"""From a 256-bin histogram to the regions of its channel.

Scale-space filtering after Witkin (1983) as Lim and Lee (1990) use it, in the
form of the reference: ALGORITHM specification, 3.2 to 3.8.
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


# The coarsest scale is a single-precision literal in the reference; through its
# rounding the step nearest 0.2 falls below the finest scale and is left out.
_COARSEST = float(np.float32(5.2))


_FINEST = 0.2


_STEP = 0.5


_NEGLIGIBLE = 1e-12


def _scales() -> tuple[float, ...]:
    scales: list[float] = []
    while (scale := _COARSEST - _STEP * len(scales)) >= _FINEST:
        scales.append(scale)
    return (*scales, 0.0)


SCALES = _scales()


@dataclass
class _Node:
    """An interval of the tree: bins left..right, born at one row of marks."""

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
        total = 0.0
        for child in self.children:
            total += child.stability
        return self.stability >= total / len(self.children)


@dataclass(frozen=True)
class Fingerprint:
    """What the scale space of one channel looks like, for pictures and for the classes.

    Attributes
    ----------
    smoothed : (11, 256) ndarray of float64
        The histogram at every scale, coarse to fine; the last row is raw.
    curvature : (11, 256) ndarray of float64
        Second derivative of ``smoothed``.
    marks : (11, 256) ndarray of int8
        Consolidated marks: -1 in concave, +1 in convex runs.
    signs : (256,) ndarray of int8
        +1 where an active interval is a peak, -1 where it is none, else 0.
    scales : (256,) ndarray of float64
        Scale of the interval that gave each bin its sign, in bins; NaN where there is none.
    regions : (r, 2) ndarray of int64
        First and last bin of each region, both included; may be empty.
    """

    smoothed: NDArray[np.float64]
    curvature: NDArray[np.float64]
    marks: NDArray[np.int8]
    signs: NDArray[np.int8]
    scales: NDArray[np.float64]
    regions: NDArray[np.int64]


def fingerprint(histogram: NDArray[np.int64], threshold: float) -> Fingerprint:
    """Find the regions of a channel.

    Parameters
    ----------
    histogram : (256,) ndarray of int64
        Number of pixels at each value.
    threshold : float
        Curvature below which a bin is flat, in pixels per bin cubed.

    Returns
    -------
    Fingerprint
    """
    smoothed = _smooth(histogram)
    curvature = _derivative(_derivative(smoothed))
    marks = _marks(curvature, threshold)
    _consolidate(marks)
    _set_end_points(marks)
    signs, scales = _signs(_interval_tree(marks), marks)
    return Fingerprint(smoothed, curvature, marks, signs, scales, _regions(signs))


def _smooth(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    smoothed = np.zeros((len(SCALES), BINS))
    smoothed[-1] = histogram
    # Around each bin the same curve, of which a window is taken: distances -255 to 255.
    curves = _curves()
    # One bin after the other: the order of the additions decides the last bit.
    for value in np.flatnonzero(histogram).tolist():
        window = curves[:, BINS - 1 - value : 2 * BINS - 1 - value]
        smoothed[:-1] += float(histogram[value]) * window
    for row, scale in enumerate(SCALES[:-1]):
        smoothed[row] *= 1.0 / (scale * math.sqrt(2.0 * math.pi))
    return smoothed


@cache
def _curves() -> NDArray[np.float64]:
    kernels = np.stack([_kernel(scale) for scale in SCALES[:-1]])
    return np.concatenate([kernels[:, :0:-1], kernels], axis=1)


def _kernel(scale: float) -> NDArray[np.float64]:
    # The C library's function: NumPy's vectorized one differs between processors.
    factor = -1.0 / (2.0 * scale * scale)
    kernel = np.array([math.exp(factor * distance * distance) for distance in range(BINS)])
    negligible = np.flatnonzero(kernel < _NEGLIGIBLE)
    kernel[negligible[1:]] = 0.0
    return kernel


def _derivative(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.empty_like(rows)
    result[:, 0] = -1.5 * rows[:, 0] + 2.0 * rows[:, 1] - 0.5 * rows[:, 2]
    result[:, 1:-1] = (rows[:, 2:] - rows[:, :-2]) / 2.0
    result[:, -1] = 0.5 * rows[:, -3] - 2.0 * rows[:, -2] + 1.5 * rows[:, -1]
    return result


def _marks(curvature: NDArray[np.float64], threshold: float) -> NDArray[np.int8]:
    """Mark bins whose sign equals that of the last bin that was not flat."""
    signs = np.sign(curvature).astype(np.int8)
    signs[(curvature >= -threshold) & (curvature < threshold)] = 0
    marks = np.zeros_like(signs)
    for row, row_signs in zip(marks, signs, strict=True):
        steep = np.flatnonzero(row_signs)
        stays = steep[1:][row_signs[steep[1:]] == row_signs[steep[:-1]]]
        row[stays] = row_signs[stays]
    return marks


def _consolidate(marks: NDArray[np.int8]) -> None:
    """Move every mark, fine to coarse, to the mark of the next finer row it comes from."""
    # Searched as bytes, which are 1 where a bin is marked.
    marked = [bytearray((row != 0).tobytes()) for row in marks]
    for i in range(len(marks) - 2, -1, -1):
        values, row, finer = marks[i].tolist(), marked[i], marked[i + 1]
        j = row.find(1)
        while j >= 0:
            target = _target(row, finer, j)
            row[j] = 0
            mark, values[j] = values[j], 0
            if target >= 0:
                row[target], values[target] = 1, mark
            # One that moved up is met again.
            j = row.find(1, j + 1)
        marks[i] = values


def _target(row: bytearray, finer: bytearray, j: int) -> int:
    """Where a mark comes from; -1: from nowhere."""
    # Bin 0 is not looked at, and stands for no mark below; bin 255 for none above.
    before = max(row.rfind(1, 1, j), 0)
    if finer[j] and j != before and _is_even(finer, before, j):
        return j
    left = max(finer.rfind(1, 1, j), 0)
    if left != before and _is_even(finer, before, left):
        return left
    right = finer.find(1, j + 1, BINS - 1)
    right = right if right >= 0 else BINS - 1
    return right if right != before and _is_even(finer, before, right) else -1


def _is_even(marked: bytearray, start: int, end: int) -> bool:
    """Whether the number of marks strictly between two positions is even."""
    return marked.count(1, start + 1, max(end, start + 1)) % 2 == 0


def _set_end_points(marks: NDArray[np.int8]) -> None:
    for row in marks:
        first = np.flatnonzero(row[:-1])
        row[0] = -row[first[0] if len(first) else -1]
        last = np.flatnonzero(row[1:])
        row[-1] = -row[last[-1] + 1 if len(last) else 0]


def _interval_tree(marks: NDArray[np.int8]) -> _Node:
    root = _Node(0, BINS - 1, -1)
    leaves = [root]
    for number, row in enumerate(marks):
        marked = np.flatnonzero(row).tolist()
        leaves = [part for leaf in leaves for part in _split(leaf, marked, number)]
    return root


def _split(leaf: _Node, marked: list[int], row: int) -> list[_Node]:
    start, end = bisect_left(marked, leaf.left + 1), bisect_left(marked, leaf.right)
    if start >= end:
        return [leaf]
    cuts = [leaf.left, *marked[start:end], leaf.right]
    leaf.children = [_Node(a, b, row) for a, b in pairwise(cuts)]
    return leaf.children


def _active_nodes(siblings: list[_Node]) -> list[_Node]:
    active = [node for node in siblings if node.is_active]
    for node in reversed(siblings):
        if not node.is_active:
            active.extend(_active_nodes(node.children))
    return active


def _signs(root: _Node, marks: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    signs, scales = np.zeros(BINS, np.int8), np.full(BINS, np.nan)
    for node in _active_nodes(root.children):
        is_peak = marks[node.row, node.right] == -1
        signs[node.left : node.right + 1] = 1 if is_peak else -1
        scales[node.left : node.right + 1] = node.scale
    return signs, scales


def _regions(signs: NDArray[np.int8]) -> NDArray[np.int64]:
    regions, left = [], -1
    for value, sign in enumerate(signs.tolist()):
        if sign > 0 and left < 0:
            left = value
        elif sign < 0 and left >= 0:
            regions.append((left, value - 1))
            left = -1
    if left >= 0:
        regions.append((left, BINS - 1))
    return np.array(regions, np.int64).reshape(-1, 2)
