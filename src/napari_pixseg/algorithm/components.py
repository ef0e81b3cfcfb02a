"""Connected components of equal class in one array, numbered in raster order.

Lines are cut into runs of equal class, and runs that touch are united by a union-find. Its roots
are always the earliest run of a set, so the numbers are those of scikit-image. Only runs are kept:
pixels are read once to find them and written once to paint them. Arrays have the axes t, z, y, x,
and components never connect across t.

Memory: ``BYTES_PER_RUN`` for each run and ``BYTES_PER_COMPONENT`` for each component. There are at
most as many of either as pixels. Classes other than uint8 and uint16 take 8 more bytes for each
run, and are copied to 8 bytes for each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_pixseg.algorithm.kernels import runs as run_kernels
from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.algorithm.kernels.runs import Ints, Offsets

# Start 4, number 4, class 1 or 2.
BYTES_PER_RUN = 10


# Size 8, line of the first pixel 4, flags 3, place in its line or final number 8.
BYTES_PER_COMPONENT = 26


@dataclass(frozen=True, eq=False)
class Components:
    """The components of an array, as runs along its last axis.

    Attributes
    ----------
    shape : tuple of int
        Pixels along t, z, y, x.
    lines : (n + 1,) ndarray of int32
        Line (raster index over t, z, y) of each component's first pixel.
    sizes : (n + 1,) ndarray of int64
        Pixels of each component; entry 0 is the background.
    first_runs : (lines + 1,) ndarray of int64
        Number of the first run of each line; the last entry is the number of runs.
    starts : (runs,) ndarray of int32
        Where in its line each run begins. It ends where the next one begins.
    numbers : (runs,) ndarray of int32
        Component 1..n of each run, in raster order of first pixels; 0 for background.
    values : (runs,) ndarray
        Class of each run; 0 for background.
    """

    shape: tuple[int, int, int, int]
    lines: Ints
    sizes: Offsets
    first_runs: Offsets
    starts: Ints
    numbers: Ints
    values: AnyArray

    def __len__(self) -> int:
        return len(self.sizes) - 1

    @property
    def labels(self) -> Ints:
        """Component of each pixel, (t, z, y, x)."""
        return self.paint(np.arange(len(self) + 1, dtype=np.int32))

    def paint(self, values: AnyArray, part: tuple[slice, ...] | None = None) -> AnyArray:
        """Return the entry of ``values`` (n + 1,) for each pixel, of all or of a part."""
        *outer, across = part or tuple(slice(0, n) for n in self.shape)
        lines: AnyArray = np.arange(len(self.first_runs) - 1).reshape(self.shape[:-1])
        here = lines[tuple(outer)]
        painted = np.empty((*here.shape, across.stop - across.start), values.dtype)
        self._paint_lines(here, values, painted, across.start)
        return painted

    def class_sizes(self, classes: int) -> Offsets:
        """Return the pixels of each class 0 to ``classes`` - 1; background classes count as 0."""
        sizes = np.zeros(classes, np.int64)
        run_kernels.add_run_lengths(
            self.shape[-1], self.first_runs, self.starts, self.values, sizes
        )
        return sizes

    def face(self, axis: int, side: int) -> Ints:
        """Return the components on the first (side 0) or last (side 1) pixels along an axis."""
        shape = (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        # Along x a face is the first or last run of each line, so no pixel need be painted.
        if axis == len(self.shape) - 1:
            runs = self.first_runs[1:] - 1 if side else self.first_runs[:-1]
            return self.numbers[runs].reshape(shape)
        lines = np.arange(len(self.first_runs) - 1).reshape(self.shape[:-1])
        at = self.shape[axis] - 1 if side else 0
        face = np.empty(shape, np.int32)
        self._paint_lines(
            np.asarray(lines.take(at, axis=axis)), np.arange(len(self) + 1, dtype=np.int32), face
        )
        return face

    def _paint_lines(
        self, lines: AnyArray, values: AnyArray, result: AnyArray, left: int = 0
    ) -> None:
        run_kernels.paint_lines(
            np.ascontiguousarray(lines).reshape(-1),
            left,
            self.first_runs,
            self.starts,
            self.numbers,
            values,
            result.reshape(-1, result.shape[-1]),
        )


def find_components(
    classes: AnyArray, connectivity: int, background: Sequence[int] = ()
) -> Components:
    """Find the components of equal class.

    Parameters
    ----------
    classes : (t, z, y, x) ndarray of integers
        0 is background.
    connectivity : int
        Pixels connect when they differ by one in at most this many of z, y, x.
    background : sequence of int
        Further classes that are background.

    Returns
    -------
    Components
        Its ``labels`` equal ``skimage.measure.label`` of each frame plus the labels before it.
    """
    rows = as_compilable(classes).reshape(-1, classes.shape[-1])
    first_runs = np.zeros(len(rows) + 1, np.int64)
    run_kernels.count_runs(rows, first_runs)
    # One more, because the start of a run that does not come is written behind the last one.
    starts = np.empty(first_runs[-1] + 1, np.int32)
    values = np.empty(first_runs[-1], rows.dtype)
    run_kernels.cut_runs(rows, first_runs, starts, values)
    if len(background):
        # Done on runs, which are far fewer than pixels.
        values[np.isin(values, _as_values(background, classes.dtype, rows.dtype))] = 0
    # At first every run is a set of its own: its own parent.
    numbers = np.arange(first_runs[-1], dtype=np.int32)
    earlier = _list_earlier_lines(connectivity)
    run_kernels.unite_runs(classes.shape, earlier, first_runs, starts, values, numbers)
    count = run_kernels.number_roots(values, numbers)
    sizes = np.zeros(count + 1, np.int64)
    lines = np.zeros(count + 1, np.int32)
    run_kernels.measure_runs(classes.shape[-1], first_runs, starts, numbers, sizes, lines)
    return Components(classes.shape, lines, sizes, first_runs, starts[:-1], numbers, values)


def sum_samples(
    components: Components, parts: Sequence[tuple[tuple[int, ...], AnyArray]]
) -> AnyArray:
    """Add up the samples of each component.

    Parameters
    ----------
    components : Components
    parts : sequence of (t, z, y, x) and (t, z, y, x, c) ndarray
        First pixel and samples of each part of the array. Parts that share lines come in order
        from left to right.

    Returns
    -------
    (n + 1, c) ndarray
        int64, or float64 for floats and 64-bit integers; row 0 is the background's.
    """
    dtype = parts[0][1].dtype
    channels = parts[0][1].shape[-1]
    # Sums of 64-bit integers could overflow; floats lose digits but no magnitude.
    exact = dtype.kind in "bui" and dtype.itemsize < 8
    totals = np.zeros((len(components) + 1, channels), np.int64 if exact else np.float64)
    # The run at which the next part of each line begins.
    runs = components.first_runs[:-1].copy()
    lines = np.arange(len(runs)).reshape(components.shape[:-1])
    # The sum of this many samples fits 32 bits.
    longest = 1 << 32 - 8 * dtype.itemsize if dtype in (np.uint8, np.uint16) else 0
    for first, samples in parts:
        pairs = zip(first[:-1], samples.shape[:3], strict=True)
        here = np.ascontiguousarray(lines[tuple(slice(at, at + n) for at, n in pairs)])
        add = (
            run_kernels.add_color_samples
            if channels == 3 and samples.shape[3] <= longest
            else run_kernels.add_samples
        )
        add(
            here.reshape(-1),
            first[-1],
            components.first_runs,
            components.starts,
            components.numbers,
            samples.reshape(-1, *samples.shape[-2:]),
            runs,
            totals,
        )
    return totals


def as_compilable(classes: AnyArray) -> AnyArray:
    """Return classes as uint8, uint16 or else int64: numba compiles a variant for each type."""
    wanted = classes.dtype if classes.dtype in (np.uint8, np.uint16) else np.dtype(np.int64)
    return np.require(classes, wanted, ["C", "W"])


def _as_values(numbers: Sequence[int], dtype: np.dtype[Any], compilable: np.dtype[Any]) -> AnyArray:
    """Return class numbers as :func:`as_compilable` gives them; others cannot occur.

    NumPy compares uint64 with int64 as floats, which are not exact above 2^53.
    """
    limits = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    possible = [number for number in numbers if limits.min <= number <= limits.max]
    return np.array(possible, dtype).astype(compilable)


def _list_earlier_lines(connectivity: int) -> Offsets:
    """Return earlier lines that touch a line, (m, 3): dz, dy and the reach along x."""
    steps = [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    # A step along z or y uses up one of the axes; the remaining ones allow steps along x.
    reachable = [(dz, dy, connectivity - abs(dz) - abs(dy)) for dz, dy in steps]
    touching = [(dz, dy, min(reach, 1)) for dz, dy, reach in reachable if reach >= 0]
    return np.array(touching, np.int64).reshape(-1, 3)
