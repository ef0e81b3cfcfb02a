"""The kernels that find, join, number, measure and paint the runs of an array.

A run is a stretch of equal class in a line, which is a row of pixels along x. A component is a set
of runs that touch, kept as a tree: each run has a parent, an earlier run of its set, and the root
is its own parent. All kernels take lines in raster order over t, z and y.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.algorithm.kernels.dispatch import compiled

Ints: TypeAlias = NDArray[np.int32]
Offsets: TypeAlias = NDArray[np.int64]

# Places in arrays are unsigned in the innermost loops. With signed ones the compiled code checks
# each time whether they count from the end. An unsigned and a signed one add up to a float, so
# constants are unsigned, too.
Place = np.uintp
_ONE = Place(1)


@compiled
def count_runs(rows: AnyArray, first_runs: Offsets) -> None:
    """Write the number of the first run of each line, and of all runs at the end."""
    for y in range(rows.shape[0]):
        line = rows[y]
        count = 0
        for x in range(1, line.size):
            count += line[x] != line[x - 1]
        first_runs[y + 1] = first_runs[y] + count + (line.size > 0)


@compiled
def cut_runs(rows: AnyArray, first_runs: Offsets, starts: Ints, values: AnyArray) -> None:
    """Write where every run begins, and its class."""
    for y in range(rows.shape[0]):
        line = rows[y]
        mine = starts[first_runs[y] : first_runs[y + 1] + 1]
        mine[0] = 0
        run = _ONE
        for x in range(1, line.size):
            # Always written, because a branch would be mispredicted at the end of every run.
            mine[run] = x
            run += Place(line[x] != line[x - 1])
        classes = values[first_runs[y] : first_runs[y + 1]]
        for i in range(classes.size):
            classes[i] = line[Place(mine[i])]


@compiled
def add_run_lengths(
    width: int, first_runs: Offsets, starts: Ints, values: AnyArray, sizes: Offsets
) -> None:
    """Add the length of every run to the size of its value."""
    for line in range(first_runs.size - 1):
        stop = width
        # Backward, so the end of a run is the start that was just seen.
        for run in range(first_runs[line + 1] - 1, first_runs[line] - 1, -1):
            sizes[values[run]] += stop - starts[run]
            stop = starts[run]


@compiled
def _find_root(parents: Ints, run: Place) -> Place:
    """Return the root of a run's set, and halve the way to it."""
    parent = Place(parents[run])
    while parent != run:
        above = parents[parent]
        parents[run] = above
        run = Place(above)
        parent = Place(parents[run])
    return run


@compiled
def _unite_sets(parents: Ints, first: Place, second: Place) -> None:
    """Unite two sets under the earlier root."""
    a = _find_root(parents, first)
    b = _find_root(parents, second)
    if a < b:
        parents[b] = a
    elif b < a:
        parents[a] = b


@compiled
def _unite_lines(
    line: int,
    other: int,
    reach: int,
    width: int,
    first_runs: Offsets,
    starts: Ints,
    values: AnyArray,
    parents: Ints,
) -> None:
    """Unite the runs of a line with those of an earlier line that they touch.

    Diagonal neighbors along x touch if ``reach`` is above 0.
    """
    here = Place(first_runs[line])
    here_end = Place(first_runs[line + 1])
    there = Place(first_runs[other])
    there_end = Place(first_runs[other + 1])
    while here < here_end and there < there_end:
        if values[here] == values[there] and values[here] != 0:
            _unite_sets(parents, there, here)
        stop = starts[here + _ONE] if here + _ONE < here_end else width
        other_stop = starts[there + _ONE] if there + _ONE < there_end else width
        if stop == other_stop and reach > 0 and stop < width:
            # Both runs end here, so each touches the run after the other across the corner.
            if values[here] == values[there + _ONE] and values[here] != 0:
                _unite_sets(parents, there + _ONE, here)
            if values[here + _ONE] == values[there] and values[there] != 0:
                _unite_sets(parents, there, here + _ONE)
        # Whichever run ends first makes way for the next one; both do if they end together.
        here += Place(stop <= other_stop)
        there += Place(other_stop <= stop)


@compiled
def unite_runs(
    shape: tuple[int, int, int, int],
    earlier: Offsets,
    first_runs: Offsets,
    starts: Ints,
    values: AnyArray,
    parents: Ints,
) -> None:
    """Unite all runs that touch; ``earlier`` lines are (m, 3): dz, dy and the reach along x."""
    frames, depth, height, width = shape
    for line in range(frames * depth * height):
        z = line // height % depth
        y = line % height
        for k in range(earlier.shape[0]):
            other_z = z + earlier[k, 0]
            other_y = y + earlier[k, 1]
            if other_z >= 0 and 0 <= other_y < height:
                # Frames never meet: z and y were checked within the frame.
                other = line + earlier[k, 0] * height + earlier[k, 1]
                _unite_lines(line, other, earlier[k, 2], width, first_runs, starts, values, parents)


@compiled
def number_roots(values: AnyArray, numbers: Ints) -> int:
    """Replace the parents of runs by the numbers 1..n of their sets; return n."""
    # A root is the earliest run of its set, so its number is known before it is needed.
    count = 0
    for run in range(numbers.size):
        if values[run] == 0:
            numbers[run] = 0
        elif numbers[run] == run:
            count += 1
            numbers[run] = count
        else:
            numbers[run] = numbers[Place(numbers[run])]
    return count


@compiled
def measure_runs(
    width: int,
    first_runs: Offsets,
    starts: Ints,
    numbers: Ints,
    sizes: Offsets,
    lines: Ints,
) -> None:
    """Add up the pixels of each component, and write the line in which it begins."""
    seen = 0
    for line in range(first_runs.size - 1):
        end = first_runs[line + 1]
        for run in range(first_runs[line], end):
            number = numbers[run]
            sizes[number] += (starts[run + 1] if run + 1 < end else width) - starts[run]
            # Numbers ascend in raster order, so a new highest one is a first pixel.
            if number > seen:
                seen = number
                lines[number] = line


@compiled
def paint_lines(
    lines: Offsets,
    left: int,
    first_runs: Offsets,
    starts: Ints,
    numbers: Ints,
    values: AnyArray,
    result: AnyArray,
) -> None:
    """Paint the runs of some lines into rows of ``result``, which begin at ``left``."""
    width = result.shape[1]
    for row in range(lines.size):
        end = first_runs[lines[row] + 1]
        run = first_runs[lines[row]]
        x = 0
        while run + 1 < end and starts[run + 1] <= left:
            run += 1
        while x < width:
            stop = min(starts[run + 1] - left, width) if run + 1 < end else width
            value = values[numbers[run]]
            pixels = result[row, x:stop]
            for i in range(pixels.size):
                pixels[i] = value
            x = stop
            run += 1


@compiled
def add_samples(
    lines: Offsets,
    left: int,
    first_runs: Offsets,
    starts: Ints,
    numbers: Ints,
    rows: AnyArray,
    runs: Offsets,
    totals: AnyArray,
) -> None:
    """Add samples (lines, x, c), which begin at ``left``, to the totals of their components.

    ``runs`` has the run at ``left`` for each line of the array, and receives the run after the
    samples.
    """
    width = rows.shape[1]
    channels = rows.shape[2]
    for row in range(lines.size):
        line = lines[row]
        run = runs[line]
        end = first_runs[line + 1]
        x = 0
        while x < width:
            total = totals[numbers[run]]
            stop = starts[run + 1] - left if run + 1 < end else width
            run += stop <= width and run + 1 < end
            stop = min(stop, width)
            if channels == 3:
                # Most images have three channels, whose sums fit registers.
                a = total[0]
                b = total[1]
                c = total[2]
                for i in range(x, stop):
                    a += rows[row, i, 0]
                    b += rows[row, i, 1]
                    c += rows[row, i, 2]
                total[0] = a
                total[1] = b
                total[2] = c
            else:
                for i in range(x, stop):
                    for channel in range(channels):
                        total[channel] += rows[row, i, channel]
            x = stop
        runs[line] = run


@compiled
def add_color_samples(
    lines: Offsets,
    left: int,
    first_runs: Offsets,
    starts: Ints,
    numbers: Ints,
    rows: AnyArray,
    runs: Offsets,
    totals: AnyArray,
) -> None:
    """Do the same as :func:`add_samples` for three channels of 8 or 16 bits, as most images have.

    Sums along the whole line are made without a branch. Those of a run are the difference between
    its two ends.
    """
    width = Place(rows.shape[1])
    sums = np.zeros((width + _ONE, 3), np.uint32)
    for row in range(lines.size):
        colors = rows[row]
        a = np.uint32(0)
        b = np.uint32(0)
        c = np.uint32(0)
        for i in range(colors.shape[0]):
            a += np.uint32(colors[i, 0])
            b += np.uint32(colors[i, 1])
            c += np.uint32(colors[i, 2])
            sums[i + 1, 0] = a
            sums[i + 1, 1] = b
            sums[i + 1, 2] = c
        line = lines[row]
        run = Place(runs[line])
        end = Place(first_runs[line + 1])
        x = Place(0)
        while x < width:
            total = totals[Place(numbers[run])]
            later = run + _ONE
            stop = Place(starts[later] - left) if later < end else width
            run += Place(stop <= width and later < end)
            stop = min(stop, width)
            for channel in range(3):
                total[channel] += sums[stop, channel] - sums[x, channel]
            x = stop
        runs[line] = run
