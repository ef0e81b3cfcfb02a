"""Connected components of equal class in one array, numbered in raster order.

A line is cut into runs of equal class, and runs that touch are joined by a
union-find whose roots are always the earliest run, so that numbers come out as
scikit-image gives them. What is kept are the runs: pixels are touched once to
find them, and once more to paint them. All kernels work on four axes t, z, y,
x; components never connect over t.

Memory: ``BYTES_PER_RUN`` for each run and ``BYTES_PER_COMPONENT`` for each
component; of both there are at most as many as pixels. Classes that are neither
uint8 nor uint16 take 8 bytes more for each run, and are copied to 8 bytes a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.dispatch import compiled

# First pixel 4, component 4, class 1 or 2, or 8.
BYTES_PER_RUN = 10


# Size 8, line of the first pixel 4, flags 3, place in its line or final number 8.
BYTES_PER_COMPONENT = 26


Ints = NDArray[np.int32]


Offsets = NDArray[np.int64]


# Places in arrays are unsigned in the innermost loops: at any other number the compiled code
# looks each time whether it counts from the end, and a sum with a signed one is not whole.
At = np.uintp


_NEXT = At(1)


@dataclass(frozen=True)
class Components:
    """The components of an array, as runs along its last axis.

    Attributes
    ----------
    shape : tuple of int
        Pixels along t, z, y, x.
    lines : (n + 1,) ndarray of int32
        Line (raster index over t, z, y) of each component's first pixel.
    sizes : (n + 1,) ndarray of int64
        Pixels of each component; of background in entry 0.
    first_runs : (lines + 1,) ndarray of int64
        Number of the first run of each line, and of all runs.
    starts : (runs,) ndarray of int32
        Where in its line each run begins; it ends where the next one does.
    numbers : (runs,) ndarray of int32
        Component 1..n of each run, in raster order of first pixels; 0 for background.
    values : (runs,) ndarray
        Class of each run; 0 for background.
    """

    shape: tuple[int, int, int, int]
    lines: Ints
    sizes: NDArray[np.int64]
    first_runs: Offsets
    starts: Ints
    numbers: Ints
    values: NDArray[Any]

    def __len__(self) -> int:
        return len(self.sizes) - 1

    @property
    def labels(self) -> Ints:
        """(t, z, y, x) component of each pixel."""
        return self.paint(np.arange(len(self) + 1, dtype=np.int32))

    def paint(self, values: NDArray[Any], part: tuple[slice, ...] | None = None) -> NDArray[Any]:
        """Return each pixel's entry of ``values`` (n + 1,), of all or of a part of t, z, y, x."""
        *outer, across = part or tuple(slice(0, n) for n in self.shape)
        lines: NDArray[Any] = np.arange(len(self.first_runs) - 1).reshape(self.shape[:-1])
        here = lines[tuple(outer)]
        painted = np.empty((*here.shape, across.stop - across.start), values.dtype)
        self._paint(here, values, painted, across.start)
        return painted

    def class_sizes(self, classes: int) -> NDArray[np.int64]:
        """Pixels of each class 0 to ``classes`` - 1; those that are background count as 0."""
        sizes = np.zeros(classes, np.int64)
        _add_runs(self.shape[-1], self.first_runs, self.starts, self.values, sizes)
        return sizes

    def face(self, axis: int, side: int) -> Ints:
        """Components on the first (side 0) or last (1) pixels along an axis, its length 1."""
        shape = (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        if axis == len(self.shape) - 1:
            runs = self.first_runs[1:] - 1 if side else self.first_runs[:-1]
            return self.numbers[runs].reshape(shape)
        lines = np.arange(len(self.first_runs) - 1).reshape(self.shape[:-1])
        at = self.shape[axis] - 1 if side else 0
        face = np.empty(shape, np.int32)
        self._paint(
            np.asarray(lines.take(at, axis=axis)), np.arange(len(self) + 1, dtype=np.int32), face
        )
        return face

    def _paint(
        self, lines: NDArray[Any], values: NDArray[Any], result: NDArray[Any], left: int = 0
    ) -> None:
        _paint_lines(
            np.ascontiguousarray(lines).reshape(-1), left, self.first_runs, self.starts,
            self.numbers, values, result.reshape(-1, result.shape[-1]),
        )  # fmt: skip


def find_components(
    classes: NDArray[Any], connectivity: int, background: Sequence[int] = ()
) -> Components:
    """Find the components of equal class.

    Parameters
    ----------
    classes : (t, z, y, x) ndarray of integers
        0 is background.
    connectivity : int
        Pixels connect when they differ by one in at most this many of z, y, x.
    background : sequence of int
        Other classes that are background.

    Returns
    -------
    Components
        ``labels`` equals ``skimage.measure.label`` of each frame, offsets added.
    """
    rows = compilable(classes).reshape(-1, classes.shape[-1])
    first_runs = np.zeros(len(rows) + 1, np.int64)
    _count_runs(rows, first_runs)
    # One more, because every pixel is written down and the next run overwrites it.
    starts = np.empty(first_runs[-1] + 1, np.int32)
    values = np.empty(first_runs[-1], rows.dtype)
    _cut_runs(rows, first_runs, starts, values)
    if len(background):
        values[np.isin(values, np.asarray(background))] = 0
    numbers = np.arange(first_runs[-1], dtype=np.int32)
    earlier = _earlier_lines(connectivity)
    _join_runs(classes.shape, earlier, first_runs, starts, values, numbers)
    count = _number_roots(values, numbers)
    sizes, lines = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int32)
    _measure_runs(classes.shape[-1], first_runs, starts, numbers, sizes, lines)
    return Components(classes.shape, lines, sizes, first_runs, starts[:-1], numbers, values)


def sum_samples(
    components: Components, parts: Sequence[tuple[tuple[int, ...], NDArray[Any]]]
) -> NDArray[Any]:
    """Add up the samples of each component.

    Parameters
    ----------
    components : Components
    parts : sequence of (t, z, y, x) and (t, z, y, x, c) ndarray
        First pixel and samples of each part of the array; those that share lines from left to
        right.

    Returns
    -------
    (n + 1, c) ndarray
        int64, or float64 for floats and 64-bit integers; row 0 is the background's.
    """
    dtype, channels = parts[0][1].dtype, parts[0][1].shape[-1]
    exact = dtype.kind in "bui" and dtype.itemsize < 8
    totals = np.zeros((len(components) + 1, channels), np.int64 if exact else np.float64)
    # The run at which the next part of a line begins.
    runs = components.first_runs[:-1].copy()
    lines = np.arange(len(runs)).reshape(components.shape[:-1])
    # Sums of whole lines of them fit 32 bits.
    longest = 1 << 32 - 8 * dtype.itemsize if dtype in (np.uint8, np.uint16) else 0
    for first, samples in parts:
        pairs = zip(first[:-1], samples.shape[:3], strict=True)
        here = np.ascontiguousarray(lines[tuple(slice(at, at + n) for at, n in pairs)])
        add = _add_colors if channels == 3 and samples.shape[3] <= longest else _add_samples
        add(
            here.reshape(-1), first[-1], components.first_runs, components.starts,
            components.numbers, samples.reshape(-1, *samples.shape[-2:]), runs, totals,
        )  # fmt: skip
    return totals


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
def _count_runs(rows: NDArray[Any], first_runs: Offsets) -> None:
    for y in range(rows.shape[0]):
        line, count = rows[y], 0
        for x in range(1, line.size):
            count += line[x] != line[x - 1]
        first_runs[y + 1] = first_runs[y] + count + (line.size > 0)


@compiled
def _cut_runs(rows: NDArray[Any], first_runs: Offsets, starts: Ints, values: NDArray[Any]) -> None:
    """Write down where every run begins, and its class."""
    for y in range(rows.shape[0]):
        line, mine = rows[y], starts[first_runs[y] : first_runs[y + 1] + 1]
        mine[0], run = 0, _NEXT
        for x in range(1, line.size):
            # Without a branch, which would be guessed wrong at the end of every run.
            mine[run] = x
            run += At(line[x] != line[x - 1])
        classes = values[first_runs[y] : first_runs[y + 1]]
        for i in range(classes.size):
            classes[i] = line[At(mine[i])]


@compiled
def _add_runs(
    width: int, first_runs: Offsets, starts: Ints, values: NDArray[Any], sizes: NDArray[np.int64]
) -> None:
    for line in range(first_runs.size - 1):
        stop = width
        for run in range(first_runs[line + 1] - 1, first_runs[line] - 1, -1):
            sizes[values[run]] += stop - starts[run]
            stop = starts[run]


@compiled
def _root(parents: Ints, run: At) -> At:
    parent = At(parents[run])
    while parent != run:
        above = parents[parent]
        parents[run] = above
        run = At(above)
        parent = At(parents[run])
    return run


@compiled
def _join(parents: Ints, first: At, second: At) -> None:
    """Unite two sets under the earlier root."""
    a, b = _root(parents, first), _root(parents, second)
    if a < b:
        parents[b] = a
    elif b < a:
        parents[a] = b


@compiled
def _join_lines(
    line: int, other: int, reach: int, width: int, first_runs: Offsets, starts: Ints,
    values: NDArray[Any], parents: Ints,
) -> None:  # fmt: skip
    """Join the runs of a line with those of an earlier one that they touch."""
    here, here_end = At(first_runs[line]), At(first_runs[line + 1])
    there, there_end = At(first_runs[other]), At(first_runs[other + 1])
    while here < here_end and there < there_end:
        if values[here] == values[there] and values[here] != 0:
            _join(parents, there, here)
        stop = starts[here + _NEXT] if here + _NEXT < here_end else width
        other_stop = starts[there + _NEXT] if there + _NEXT < there_end else width
        if stop == other_stop and reach > 0 and stop < width:
            # Both end here: across the corner each touches what follows the other.
            if values[here] == values[there + _NEXT] and values[here] != 0:
                _join(parents, there + _NEXT, here)
            if values[here + _NEXT] == values[there] and values[there] != 0:
                _join(parents, there, here + _NEXT)
        here += At(stop <= other_stop)
        there += At(other_stop <= stop)


@compiled
def _join_runs(
    shape: tuple[int, int, int, int], earlier: NDArray[np.int64], first_runs: Offsets,
    starts: Ints, values: NDArray[Any], parents: Ints,
) -> None:  # fmt: skip
    frames, depth, height, width = shape
    for line in range(frames * depth * height):
        z, y = line // height % depth, line % height
        for k in range(earlier.shape[0]):
            oz, oy = z + earlier[k, 0], y + earlier[k, 1]
            if oz >= 0 and 0 <= oy < height:
                other = line + earlier[k, 0] * height + earlier[k, 1]
                _join_lines(line, other, earlier[k, 2], width, first_runs, starts, values, parents)


@compiled
def _number_roots(values: NDArray[Any], numbers: Ints) -> int:
    """Replace the parents of runs by numbers 1..n; a root is the earliest of its set."""
    count = 0
    for run in range(numbers.size):
        if values[run] == 0:
            numbers[run] = 0
        elif numbers[run] == run:
            count += 1
            numbers[run] = count
        else:
            numbers[run] = numbers[At(numbers[run])]
    return count


@compiled
def _measure_runs(
    width: int, first_runs: Offsets, starts: Ints, numbers: Ints, sizes: NDArray[np.int64],
    lines: Ints,
) -> None:  # fmt: skip
    seen = 0
    for line in range(first_runs.size - 1):
        end = first_runs[line + 1]
        for run in range(first_runs[line], end):
            number = numbers[run]
            sizes[number] += (starts[run + 1] if run + 1 < end else width) - starts[run]
            if number > seen:
                seen = number
                lines[number] = line


@compiled
def _paint_lines(
    lines: NDArray[np.int64], left: int, first_runs: Offsets, starts: Ints, numbers: Ints,
    values: NDArray[Any], result: NDArray[Any],
) -> None:  # fmt: skip
    """Paint the runs of some lines into rows of ``result``, whose first pixels are at ``left``."""
    width = result.shape[1]
    for row in range(lines.size):
        end, x = first_runs[lines[row] + 1], 0
        run = first_runs[lines[row]]
        while run + 1 < end and starts[run + 1] <= left:
            run += 1
        while x < width:
            stop = min(starts[run + 1] - left, width) if run + 1 < end else width
            value, pixels = values[numbers[run]], result[row, x:stop]
            for i in range(pixels.size):
                pixels[i] = value
            x, run = stop, run + 1


@compiled
def _add_samples(
    lines: NDArray[np.int64], left: int, first_runs: Offsets, starts: Ints, numbers: Ints,
    rows: NDArray[Any], runs: Offsets, totals: NDArray[Any],
) -> None:  # fmt: skip
    """Add samples (lines, x, c), of which the first are at ``left``, to their components' totals.

    ``runs`` are where the lines begin, and become where they go on.
    """
    width, channels = rows.shape[1], rows.shape[2]
    for row in range(lines.size):
        line = lines[row]
        run, end, x = runs[line], first_runs[line + 1], 0
        while x < width:
            total = totals[numbers[run]]
            stop = starts[run + 1] - left if run + 1 < end else width
            run += stop <= width and run + 1 < end
            stop = min(stop, width)
            if channels == 3:
                # Sums in registers: most images have three channels.
                a, b, c = total[0], total[1], total[2]
                for i in range(x, stop):
                    a += rows[row, i, 0]
                    b += rows[row, i, 1]
                    c += rows[row, i, 2]
                total[0], total[1], total[2] = a, b, c
            else:
                for i in range(x, stop):
                    for channel in range(channels):
                        total[channel] += rows[row, i, channel]
            x = stop
        runs[line] = run


@compiled
def _add_colors(
    lines: NDArray[np.int64], left: int, first_runs: Offsets, starts: Ints, numbers: Ints,
    rows: NDArray[Any], runs: Offsets, totals: NDArray[Any],
) -> None:  # fmt: skip
    """Do what :func:`_add_samples` does with three channels of 8 or 16 bits, as most images have.

    The sums of a run are what those of its line have grown by, which are made without a branch.
    """
    width = At(rows.shape[1])
    sums = np.zeros((width + _NEXT, 3), np.uint32)
    for row in range(lines.size):
        colors, a, b, c = rows[row], np.uint32(0), np.uint32(0), np.uint32(0)
        for i in range(colors.shape[0]):
            a += np.uint32(colors[i, 0])
            b += np.uint32(colors[i, 1])
            c += np.uint32(colors[i, 2])
            sums[i + 1, 0], sums[i + 1, 1], sums[i + 1, 2] = a, b, c
        line, x = lines[row], At(0)
        run, end = At(runs[line]), At(first_runs[line + 1])
        while x < width:
            total, later = totals[At(numbers[run])], run + _NEXT
            stop = At(starts[later] - left) if later < end else width
            run += At(stop <= width and later < end)
            stop = min(stop, width)
            for channel in range(3):
                total[channel] += sums[stop, channel] - sums[x, channel]
            x = stop
        runs[line] = run
