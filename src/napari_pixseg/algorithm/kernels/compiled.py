"""The loops over colors and pixels that NumPy cannot do in one pass, compiled by numba.

Those that a small picture needs exist in NumPy as well, in :mod:`vectorized`. A kernel with two
versions is declared with ``compiled_or``; see :mod:`dispatch` for how one is chosen.
"""

from __future__ import annotations

import numpy as np

from napari_pixseg.algorithm.kernels import vectorized
from napari_pixseg.algorithm.kernels.arrays import (
    AnyArray,
    Bytes,
    ClassNumbers,
    Counts,
    Indices,
    Packed,
    Scratch,
)
from napari_pixseg.algorithm.kernels.dispatch import compiled, compiled_or


@compiled_or(vectorized.pack_pixels_vectorized)
def pack_pixels(pixels: Bytes, packed: Packed) -> None:
    """Write ``r << 16 | g << 8 | b`` of (n, 1..3) bytes; one channel serves as all three."""
    channels = pixels.shape[1]
    for i in range(pixels.shape[0]):
        red = np.uint32(pixels[i, 0])
        green = red
        blue = red
        if channels >= 2:
            green = np.uint32(pixels[i, 1])
            blue = np.uint32(pixels[i, 2]) if channels == 3 else np.uint32(0)
        packed[i] = (red << np.uint32(16)) | (green << np.uint32(8)) | blue


@compiled
def count_packed_colors(packed: Packed, scratch: Scratch, seen: Packed) -> int:
    """Count packed colors into ``scratch`` and list the distinct ones; return their number.

    ``seen`` receives each color when it is met for the first time.
    """
    distinct = 0
    for i in range(packed.size):
        color = packed[i]
        before = scratch[color]
        if before == 0:
            seen[distinct] = color
            distinct += 1
        scratch[color] = before + np.uint32(1)
    return distinct


@compiled_or(vectorized.merge_counts_vectorized)
def merge_counts(
    colors: Packed,
    counts: Counts,
    others: Packed,
    their_counts: Counts,
    merged: Packed,
    merged_counts: Counts,
) -> int:
    """Merge two ascending lists of colors, adding the counts; return how many there are."""
    i = 0
    j = 0
    n = 0
    while i < colors.size and j < others.size:
        color = colors[i]
        other = others[j]
        count = np.int64(0)
        if color <= other:
            count += counts[i]
            i += 1
        if other <= color:
            count += their_counts[j]
            j += 1
        merged[n] = min(color, other)
        merged_counts[n] = count
        n += 1
    while i < colors.size:
        merged[n] = colors[i]
        merged_counts[n] = counts[i]
        i += 1
        n += 1
    while j < others.size:
        merged[n] = others[j]
        merged_counts[n] = their_counts[j]
        j += 1
        n += 1
    return n


@compiled
def take_counts(seen: Packed, scratch: Scratch, counts: Counts) -> None:
    """Move the counts of the colors in ``seen`` from ``scratch`` to ``counts``."""
    for i in range(seen.size):
        counts[i] = scratch[seen[i]]
        # The next tile finds zeros, without clearing all 2^24 counters.
        scratch[seen[i]] = 0


@compiled_or(vectorized.add_histograms_vectorized)
def add_histograms(colors: Bytes, counts: Counts, result: Counts) -> None:
    """Add the counts of (n, 3) byte colors to three histograms, ``result`` (3, 256)."""
    for i in range(colors.shape[0]):
        for channel in range(3):
            result[channel, colors[i, channel]] += counts[i]


@compiled_or(vectorized.add_box_totals_vectorized)
def add_box_totals(
    colors: Bytes, counts: Counts, first: Indices, shape: tuple[int, int], totals: Counts
) -> None:
    """Add count and byte sums of every color to the first box that contains it.

    ``first`` (3, 256) is the first interval of each channel that contains a value, or -1.
    ``shape`` has the numbers of intervals of channels 1 and 2. ``totals`` (boxes, 4)
    receives the count and the three sums.
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


@compiled_or(vectorized.number_kept_boxes_vectorized)
def number_kept_boxes(counts: Counts, share: float, relative: bool) -> Indices:
    """Number the boxes that are kept from 0, and give -1 to the others.

    A box needs ``share`` pixels. If ``relative``, it needs ``kept * share / 100``, where ``kept``
    is the number of boxes kept before it: docs/algorithm.md, section 7, quirk 1.
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
    first: Indices,
    last: Indices,
    shape: tuple[int, int],
    numbers: Indices,
) -> int:
    # A color outside of all intervals of a channel is in no box at all.
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


@compiled_or(vectorized.classify_colors_vectorized)
def classify_colors(
    colors: Bytes,
    first: Indices,
    last: Indices,
    shape: tuple[int, int],
    numbers: Indices,
    result: ClassNumbers,
) -> None:
    """Write the class 1..n of each (n, 3) byte color, which is its first kept box, or 0."""
    for i in range(colors.shape[0]):
        result[i] = _first_kept(colors[i], first, last, shape, numbers) + 1


@compiled_or(vectorized.find_nearest_centers_vectorized)
def find_nearest_centers(colors: Bytes, centers: Indices, result: ClassNumbers) -> None:
    """Write the class 1..n of each (n, 3) byte color, which is its nearest center.

    The lowest of several nearest ones wins. The search starts at the color's value in channel 0
    and walks outwards until that channel alone is farther away than the best center so far.
    """
    order = np.argsort(centers[:, 0])
    starts = np.searchsorted(centers[order, 0], np.arange(256))
    for i in range(colors.shape[0]):
        red = np.int64(colors[i, 0])
        green = np.int64(colors[i, 1])
        blue = np.int64(colors[i, 2])
        best = np.int64(1) << 40
        winner = -1
        high = starts[colors[i, 0]]
        low = high - 1
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
            # A center at the same distance may still win, if its number is lower.
            if distance > best:
                break
            distance += (centers[index, 1] - green) ** 2
            distance += (centers[index, 2] - blue) ** 2
            if distance < best or (distance == best and index < winner):
                best = distance
                winner = index
        result[i] = winner + 1


@compiled_or(vectorized.add_class_totals_vectorized)
def add_class_totals(classes: ClassNumbers, colors: Bytes, counts: Counts, totals: Counts) -> None:
    """Add count and byte sums of each color to its class; ``totals`` is (n + 1, 4)."""
    for i in range(classes.size):
        row = totals[classes[i]]
        row[0] += counts[i]
        for channel in range(3):
            row[1 + channel] += counts[i] * np.int64(colors[i, channel])


@compiled_or(vectorized.look_up_colors_vectorized)
def look_up_colors(packed: Packed, table: AnyArray, result: AnyArray) -> int:
    """Replace packed colors by their entries in ``table``; return how many entries are 0."""
    zeros = 0
    for i in range(packed.size):
        entry = table[packed[i]]
        result[i] = entry
        zeros += entry == 0
    return zeros


@compiled_or(vectorized.look_up_pixels_vectorized)
def look_up_pixels(pixels: Bytes, table: AnyArray, result: AnyArray) -> int:
    """Do the same as :func:`look_up_colors` for (n, 1..3) bytes, without packing them first."""
    zeros = 0
    channels = pixels.shape[1]
    for i in range(pixels.shape[0]):
        red = np.uint32(pixels[i, 0])
        green = red
        blue = red
        if channels >= 2:
            green = np.uint32(pixels[i, 1])
            blue = np.uint32(pixels[i, 2]) if channels == 3 else np.uint32(0)
        entry = table[red << np.uint32(16) | green << np.uint32(8) | blue]
        result[i] = entry
        zeros += entry == 0
    return zeros


@compiled_or(vectorized.count_numbers_vectorized)
def count_numbers(numbers: AnyArray, counts: Counts) -> None:
    """Add how often each number 0..n-1 occurs to ``counts`` (n,); larger ones are left out."""
    run = 0
    last = 0
    for i in range(numbers.size):
        # Whole runs are added, because repeated additions to one counter wait for each other.
        number = int(numbers[i])
        if number != last:
            if last < counts.size:
                counts[last] += run
            run = 0
            last = number
        run += 1
    if last < counts.size:
        counts[last] += run


@compiled_or(vectorized.paint_classes_vectorized)
def paint_classes(classes: AnyArray, colors: Bytes, plane: Bytes) -> None:
    """Write the color of each class; classes beyond the last one get its color."""
    last = colors.size - 1
    for i in range(classes.size):
        plane[i] = colors[min(int(classes[i]), last)]


@compiled
def halve_planes(planes: Bytes, result: Bytes) -> None:
    """Write the mean of 2 x 2 pixels of (n, y, x) planes, rounded half up."""
    rows = planes.shape[1]
    columns = planes.shape[2]
    for plane in range(planes.shape[0]):
        for y in range(result.shape[1]):
            # The last line of an odd number serves twice, so the mean is that of existing pixels.
            first = planes[plane, 2 * y]
            second = planes[plane, min(2 * y + 1, rows - 1)]
            line = result[plane, y]
            for x in range(columns // 2):
                total = np.uint32(first[2 * x]) + np.uint32(first[2 * x + 1])
                total += np.uint32(second[2 * x]) + np.uint32(second[2 * x + 1])
                line[x] = (total + np.uint32(2)) >> np.uint32(2)
            if columns % 2:
                total = np.uint32(first[columns - 1]) + np.uint32(second[columns - 1])
                line[columns // 2] = (total + np.uint32(1)) >> np.uint32(1)
