"""Connected components of equal class in one array, numbered in raster order.

Components are found run by run with a union-find whose roots are always the
earliest run, so that numbers come out as scikit-image gives them. All kernels
work on four axes t, z, y, x; components never connect over t.

Memory: 4 bytes for each pixel (8 more for classes that are neither uint8 nor
uint16) and at most ``BYTES_PER_COMPONENT`` for each component, of which there
are at most as many as pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.model.compile import compiled

# Union-find parent 4, size 8, line of the first pixel 4, flags 2, final number 8.
BYTES_PER_COMPONENT = 26
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Components:
    """The components of an array.

    Attributes
    ----------
    labels : (t, z, y, x) ndarray of int32
        1..n in raster order of first pixels; 0 where the class is 0.
    sizes : (n + 1,) ndarray of int64
        Pixels of each component; of background in entry 0.
    lines : (n + 1,) ndarray of int32
        Line (raster index over t, z, y) of each component's first pixel.
    """

    labels: Ints
    sizes: NDArray[np.int64]
    lines: Ints

    def __len__(self) -> int:
        return len(self.sizes) - 1


def find_components(classes: NDArray[Any], connectivity: int) -> Components:
    """Find the components of equal, non-zero class.

    Parameters
    ----------
    classes : (t, z, y, x) ndarray of integers
        0 is background.
    connectivity : int
        Pixels connect when they differ by one in at most this many of z, y, x.

    Returns
    -------
    Components
        ``labels`` equals ``skimage.measure.label`` of each frame, offsets added.
    """
    classes = compilable(classes)
    labels = np.empty(classes.shape, np.int32)
    parents = np.empty(classes.size + 1, np.int32)
    runs = _link_runs(classes, _earlier_lines(connectivity), labels, parents)
    count = _number_roots(parents, runs)
    sizes, lines = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int32)
    _relabel_and_measure(labels, parents, sizes, lines)
    return Components(labels, sizes, lines)


def without_classes(classes: NDArray[Any], background: Sequence[int]) -> NDArray[Any]:
    """Return the classes with some of them set to 0."""
    if not len(background):
        return classes
    return np.where(np.isin(classes, np.asarray(background)), classes.dtype.type(0), classes)


def compilable(classes: NDArray[Any]) -> NDArray[Any]:
    """Keep the number of compiled variants small: bytes, 16 bits, and the rest as 64."""
    wanted = classes.dtype if classes.dtype in (np.uint8, np.uint16) else np.dtype(np.int64)
    return np.require(classes, wanted, ["C", "W"])


def _earlier_lines(connectivity: int) -> NDArray[np.int64]:
    """Lines before the present one that touch it: (m, 3) of dz, dy and the reach along x."""
    steps = [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    reachable = [(dz, dy, connectivity - abs(dz) - abs(dy)) for dz, dy in steps]
    touching = [(dz, dy, min(reach, 1)) for dz, dy, reach in reachable if reach >= 0]
    return np.array(touching, np.int64).reshape(-1, 3)


@compiled
def _root(parents: Ints, label: int) -> int:
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = parents[label]
    return label


@compiled
def _join(parents: Ints, first: int, second: int) -> int:
    """Unite two sets under the earlier root, and return it."""
    a, b = _root(parents, first), _root(parents, second)
    if a < b:
        parents[b] = a
        return a
    parents[a] = b
    return b


@compiled
def _label_run(
    value: int,
    start: int,
    stop: int,
    line: NDArray[Any],
    labels: Ints,
    label: int,
    parents: Ints,
) -> int:
    """Join a run with what it touches in positions start..stop of an earlier line."""
    last = 0
    for x in range(start, stop):
        if line[x] == value and labels[x] != last:
            last = labels[x]
            label = _root(parents, last) if label == 0 else _join(parents, label, last)
    return label


@compiled
def _link_runs(
    classes: NDArray[Any], earlier: NDArray[np.int64], labels: Ints, parents: Ints
) -> int:
    """Give every run of equal class a provisional label; return how many there are."""
    frames, depth, height, width = classes.shape
    count = 0
    for t in range(frames):
        for z in range(depth):
            for y in range(height):
                line, line_labels = classes[t, z, y], labels[t, z, y]
                x = 0
                while x < width:
                    start, value = x, line[x]
                    while x < width and line[x] == value:
                        x += 1
                    label = 0
                    if value != 0:
                        for k in range(earlier.shape[0]):
                            oz, oy, reach = z + earlier[k, 0], y + earlier[k, 1], earlier[k, 2]
                            if oz >= 0 and 0 <= oy < height:
                                label = _label_run(
                                    value, max(start - reach, 0), min(x + reach, width),
                                    classes[t, oz, oy], labels[t, oz, oy], label, parents,
                                )  # fmt: skip
                        if label == 0:
                            count += 1
                            parents[count] = count
                            label = count
                    line_labels[start:x] = label
    return count


@compiled
def _number_roots(parents: Ints, count: int) -> int:
    """Replace provisional labels by 1..n; a root is the earliest of its set."""
    number = 0
    parents[0] = 0
    for label in range(1, count + 1):
        if parents[label] == label:
            number += 1
            parents[label] = number
        else:
            parents[label] = parents[parents[label]]
    return number


@compiled
def _relabel_and_measure(
    labels: Ints, numbers: Ints, sizes: NDArray[np.int64], lines: Ints
) -> None:
    frames, depth, height, width = labels.shape
    seen, index = 0, 0
    for t in range(frames):
        for z in range(depth):
            for y in range(height):
                line = labels[t, z, y]
                for x in range(width):
                    number = numbers[line[x]]
                    line[x] = number
                    sizes[number] += 1
                    if number > seen:
                        seen = number
                        lines[number] = index
                index += 1


@compiled
def number_pixels(labels: Ints, numbers: NDArray[Any], result: NDArray[Any]) -> None:
    """Replace labels by their entries of ``numbers``."""
    for i in range(labels.size):
        result[i] = numbers[labels[i]]
