"""The loops over colors and pixels that NumPy cannot do in one pass.

Each is a few lines of Python, compiled; what small pictures need is there in NumPy, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels import vectorized
from napari_pixseg.algorithm.kernels.dispatch import compiled, compiled_or

Bytes = NDArray[np.uint8]


Counts = NDArray[np.int64]


# Counters of all 2^24 colors are the largest thing a thread holds: 32 bits halve it.
Scratch = NDArray[np.uint32]


@compiled_or(vectorized.pack)
def pack(pixels: Bytes, packed: NDArray[np.uint32]) -> None:
    """Write ``r << 16 | g << 8 | b`` of (n, 1..3) bytes; one channel serves as all three."""
    channels = pixels.shape[1]
    for i in range(pixels.shape[0]):
        red = np.uint32(pixels[i, 0])
        green, blue = red, red
        if channels >= 2:
            green = np.uint32(pixels[i, 1])
            blue = np.uint32(pixels[i, 2]) if channels == 3 else np.uint32(0)
        packed[i] = (red << np.uint32(16)) | (green << np.uint32(8)) | blue


@compiled
def tally(packed: NDArray[np.uint32], scratch: Scratch, seen: NDArray[np.uint32]) -> int:
    """Count packed colors into ``scratch``, list each new one in ``seen``; return how many."""
    distinct = 0
    for i in range(packed.size):
        color = packed[i]
        before = scratch[color]
        if before == 0:
            seen[distinct] = color
            distinct += 1
        scratch[color] = before + np.uint32(1)
    return distinct


@compiled_or(vectorized.add_tables)
def add_tables(
    colors: NDArray[np.uint32],
    counts: Counts,
    others: NDArray[np.uint32],
    their_counts: Counts,
    merged: NDArray[np.uint32],
    merged_counts: Counts,
) -> int:
    """Merge two ascending lists of colors, adding the counts; return how many there are."""
    i, j, n = 0, 0, 0
    while i < colors.size and j < others.size:
        color, other = colors[i], others[j]
        count = np.int64(0)
        if color <= other:
            count += counts[i]
            i += 1
        if other <= color:
            count += their_counts[j]
            j += 1
        merged[n], merged_counts[n] = min(color, other), count
        n += 1
    while i < colors.size:
        merged[n], merged_counts[n] = colors[i], counts[i]
        i, n = i + 1, n + 1
    while j < others.size:
        merged[n], merged_counts[n] = others[j], their_counts[j]
        j, n = j + 1, n + 1
    return n


@compiled
def collect(seen: NDArray[np.uint32], scratch: Scratch, counts: Counts) -> None:
    """Take the counts of the colors in ``seen`` out of ``scratch``, leaving zeros."""
    for i in range(seen.size):
        counts[i] = scratch[seen[i]]
        scratch[seen[i]] = 0


@compiled_or(vectorized.histograms)
def histograms(colors: Bytes, counts: Counts, result: Counts) -> None:
    """Add the counts of (n, 3) byte colors to three histograms, ``result`` (3, 256)."""
    for i in range(colors.shape[0]):
        for channel in range(3):
            result[channel, colors[i, channel]] += counts[i]


@compiled_or(vectorized.box_totals)
def box_totals(
    colors: Bytes, counts: Counts, first: NDArray[np.int64], shape: tuple[int, int], totals: Counts
) -> None:
    """Add count and byte sums of every color to the first box that contains it.

    ``first`` (3, 256) is the first region of each channel that contains a value
    (-1: none), ``shape`` the numbers of regions of channels 1 and 2, ``totals``
    (boxes, 4) receives the count and the three sums.
    """
    for i in range(colors.shape[0]):
        a = first[0, colors[i, 0]]
        b = first[1, colors[i, 1]]
        c = first[2, colors[i, 2]]
        if a < 0 or b < 0 or c < 0:
            continue
        box = (a * shape[0] + b) * shape[1] + c
        totals[box, 0] += counts[i]
        for channel in range(3):
            totals[box, 1 + channel] += counts[i] * np.int64(colors[i, channel])


@compiled_or(vectorized.kept_boxes)
def kept_boxes(counts: Counts, share: float, relative: bool) -> NDArray[np.int64]:
    """Number the boxes that are kept from 0, give -1 to the others.

    ``relative``: each box is compared with ``kept * share / 100``, the number of boxes kept before
    it (the reference's slip); otherwise with ``share`` itself.
    """
    numbers = np.full(counts.size, -1, np.int64)
    kept = 0
    for box in range(counts.size):
        least = kept * share / 100.0 if relative else share
        if counts[box] > 0 and counts[box] >= least:
            numbers[box] = kept
            kept += 1
    return numbers


@compiled
def _first_kept(
    color: Bytes,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    shape: tuple[int, int],
    numbers: NDArray[np.int64],
) -> int:
    for channel in range(3):
        if first[channel, color[channel]] < 0:
            return -1
    for a in range(first[0, color[0]], last[0, color[0]] + 1):
        for b in range(first[1, color[1]], last[1, color[1]] + 1):
            for c in range(first[2, color[2]], last[2, color[2]] + 1):
                number = numbers[(a * shape[0] + b) * shape[1] + c]
                if number >= 0:
                    return int(number)
    return -1


@compiled_or(vectorized.classify)
def classify(
    colors: Bytes,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    shape: tuple[int, int],
    numbers: NDArray[np.int64],
    result: NDArray[np.uint16],
) -> None:
    """Write class 1..n of each (n, 3) byte color: its first kept box; 0 where there is none."""
    for i in range(colors.shape[0]):
        result[i] = _first_kept(colors[i], first, last, shape, numbers) + 1


@compiled_or(vectorized.nearest)
def nearest(colors: Bytes, centers: NDArray[np.int64], result: NDArray[np.uint16]) -> None:
    """Write class 1..n of each (n, 3) byte color: its nearest center, ties to the lowest.

    Walks outwards from the first center not below the color in channel 0 until that
    channel alone is farther than the best so far.
    """
    order = np.argsort(centers[:, 0])
    starts = np.searchsorted(centers[order, 0], np.arange(256))
    for i in range(colors.shape[0]):
        red, green, blue = np.int64(colors[i, 0]), np.int64(colors[i, 1]), np.int64(colors[i, 2])
        best, winner = np.int64(1) << 40, -1
        low, high = starts[colors[i, 0]] - 1, starts[colors[i, 0]]
        while low >= 0 or high < order.size:
            upwards = low < 0 or (
                high < order.size and centers[order[high], 0] - red <= red - centers[order[low], 0]
            )
            index = order[high] if upwards else order[low]
            if upwards:
                high += 1
            else:
                low -= 1
            distance = (centers[index, 0] - red) ** 2
            if distance > best:
                break
            distance += (centers[index, 1] - green) ** 2
            distance += (centers[index, 2] - blue) ** 2
            if distance < best or (distance == best and index < winner):
                best, winner = distance, index
        result[i] = winner + 1


@compiled_or(vectorized.class_totals)
def class_totals(
    classes: NDArray[np.uint16], colors: Bytes, counts: Counts, totals: Counts
) -> None:
    """Add count and byte sums of each color to its class; ``totals`` is (n + 1, 4)."""
    for i in range(classes.size):
        row = totals[classes[i]]
        row[0] += counts[i]
        for channel in range(3):
            row[1 + channel] += counts[i] * np.int64(colors[i, channel])


@compiled_or(vectorized.look_up)
def look_up(
    packed: NDArray[np.uint32], table: NDArray[np.generic], result: NDArray[np.generic]
) -> int:
    """Replace packed colors by their entries of ``table``; return how many of these are 0."""
    zeros = 0
    for i in range(packed.size):
        entry = table[packed[i]]
        result[i] = entry
        zeros += entry == 0
    return zeros


@compiled_or(vectorized.look_up_pixels)
def look_up_pixels(pixels: Bytes, table: NDArray[np.generic], result: NDArray[np.generic]) -> int:
    """Do what :func:`look_up` does with (n, 1..3) bytes, without packing them first."""
    zeros = 0
    channels = pixels.shape[1]
    for i in range(pixels.shape[0]):
        red = np.uint32(pixels[i, 0])
        green, blue = red, red
        if channels >= 2:
            green = np.uint32(pixels[i, 1])
            blue = np.uint32(pixels[i, 2]) if channels == 3 else np.uint32(0)
        entry = table[red << np.uint32(16) | green << np.uint32(8) | blue]
        result[i] = entry
        zeros += entry == 0
    return zeros


@compiled_or(vectorized.count_numbers)
def count_numbers(numbers: NDArray[Any], counts: Counts) -> None:
    """Count how often each number 0..n-1 occurs, into ``counts`` (n,); leave out others."""
    run, last = 0, 0
    for i in range(numbers.size):
        # Run by run: a counter that is added to again and again waits for itself.
        number = int(numbers[i])
        if number != last:
            if last < counts.size:
                counts[last] += run
            run, last = 0, number
        run += 1
    if last < counts.size:
        counts[last] += run


@compiled_or(vectorized.paint)
def paint(classes: NDArray[Any], colors: Bytes, plane: Bytes) -> None:
    """Write the color of each class; classes beyond the last are painted as the last."""
    last = colors.size - 1
    for i in range(classes.size):
        plane[i] = colors[min(int(classes[i]), last)]


@compiled
def halve(planes: Bytes, result: Bytes) -> None:
    """Write the mean of 2 x 2 pixels of (n, y, x) planes, rounded half up."""
    rows, columns = planes.shape[1], planes.shape[2]
    for plane in range(planes.shape[0]):
        for y in range(result.shape[1]):
            # At odd ends a line serves twice, which leaves the mean of the pixels there are.
            first, second = planes[plane, 2 * y], planes[plane, min(2 * y + 1, rows - 1)]
            line = result[plane, y]
            for x in range(columns // 2):
                total = np.uint32(first[2 * x]) + np.uint32(first[2 * x + 1])
                total += np.uint32(second[2 * x]) + np.uint32(second[2 * x + 1])
                line[x] = (total + np.uint32(2)) >> np.uint32(2)
            if columns % 2:
                total = np.uint32(first[columns - 1]) + np.uint32(second[columns - 1])
                line[columns // 2] = (total + np.uint32(1)) >> np.uint32(1)
