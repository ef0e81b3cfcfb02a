"""Boxes of pixels, given as tuples of slices: moved, cut along chunks, made from NumPy keys."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# A box: one slice with start and stop for each dimension.
PixelSlices: TypeAlias = tuple[slice, ...]


# Number of a chunk, or of a pixel, along each dimension.
Index: TypeAlias = tuple[int, ...]


ChunkIndex: TypeAlias = Index


# Data type and pixels of any image.
SampleType: TypeAlias = np.dtype[Any]
Samples: TypeAlias = NDArray[Any]


def move_box(inner: PixelSlices, outer: PixelSlices) -> PixelSlices:
    """Return where a box lies in the whole, given where it lies in an outer box."""
    pairs = zip(inner, outer, strict=True)
    return tuple(slice(i.start + o.start, i.stop + o.start) for i, o in pairs)


def box_at_origin(box: PixelSlices) -> PixelSlices:
    """Return a box of the same size that starts at 0."""
    return tuple(slice(0, part.stop - part.start) for part in box)


def whole_box(shape: tuple[int, ...]) -> PixelSlices:
    """Return the box that covers an array of this shape."""
    return tuple(slice(0, length) for length in shape)


def shape_of(box: PixelSlices) -> tuple[int, ...]:
    """Return how many pixels a box has along each axis."""
    return tuple(part.stop - part.start for part in box)


def cut_along_chunks(
    box: PixelSlices, chunks: Index
) -> Iterator[tuple[ChunkIndex, PixelSlices, PixelSlices]]:
    """Cut a box along chunks.

    Yields
    ------
    index, inside, there
        Number of the chunk, the part of the chunk that the box takes, and where in the box it is.
    """
    axes = []
    for part, size in zip(box, chunks, strict=True):
        cuts = []
        for number in range(part.start // size, (part.stop - 1) // size + 1):
            start = max(part.start, number * size)
            stop = min(part.stop, (number + 1) * size)
            inside = slice(start - number * size, stop - number * size)
            cuts.append((number, inside, slice(start - part.start, stop - part.start)))
        axes.append(cuts)
    for piece in product(*axes):
        index, inside, there = zip(*piece, strict=True)
        yield index, inside, there


def expand_key(key: object, ndim: int) -> tuple[Any, ...]:
    """Expand a key to one item for each dimension, as NumPy does.

    ``array[expand_key(key, array.ndim)]`` is ``array[key]`` for every key of integers, slices
    and at most one ``...``. An ellipsis becomes as many full slices as are missing, and full
    slices are added behind a key that is too short. Items are passed on as they are: other
    kinds (``None``, masks, arrays of indices) are left to the array, and count as one dimension.

    Parameters
    ----------
    key : object
        The argument of ``__getitem__``.
    ndim : int
        Number of dimensions of the array.

    Raises
    ------
    IndexError
        If there are more items than dimensions, or two ellipses.
    """
    items: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
    # A loop: items may be arrays, which `in` would compare, and a generator costs more.
    for position, item in enumerate(items):
        if item is Ellipsis:
            added = (slice(None),) * (ndim - len(items) + 1)
            items = (*items[:position], *added, *items[position + 1 :])
            if any(other is Ellipsis for other in items):
                raise IndexError("a key can have only one ellipsis ('...')")
            break
    if len(items) > ndim:
        raise IndexError(f"{len(items)} indices for {ndim} dimensions")
    return items if len(items) == ndim else (*items, *(slice(None),) * (ndim - len(items)))


def split_key(key: object, shape: tuple[int, ...]) -> tuple[PixelSlices, tuple[int | slice, ...]]:
    """Split a key into the smallest box that contains what it selects, and a key of that box.

    ``array[box][rest]`` is ``array[key]`` for every key of integers, slices and ``...``.

    Parameters
    ----------
    key : object
        The argument of ``__getitem__``.
    shape : tuple of int
        Shape of the array.

    Returns
    -------
    box : tuple of slice
        Bounds within the array; ``slice(0, 0)`` along dimensions where nothing is selected.
    rest : tuple of int or slice
        Key of the box: 0 for each integer, else a slice over the whole length, perhaps with a step.

    Raises
    ------
    IndexError
        If an integer is out of bounds, or the key does not fit the number of dimensions.
    TypeError
        If an item is neither an integer nor a slice.
    """
    items = expand_key(key, len(shape))
    parts = [_split_item(item, length) for item, length in zip(items, shape, strict=True)]
    return tuple(box for box, _ in parts), tuple(rest for _, rest in parts)


def _split_item(item: Any, length: int) -> tuple[slice, int | slice]:
    if not isinstance(item, slice):
        position = operator.index(item)
        if not -length <= position < length:
            raise IndexError(f"Index {position} is out of bounds for a length of {length}.")
        return slice(position % length, position % length + 1), 0
    wanted = range(*item.indices(length))
    if not wanted:
        return slice(0, 0), slice(None)
    first = min(wanted[0], wanted[-1])
    last = max(wanted[0], wanted[-1])
    step = None if wanted.step == 1 else wanted.step
    return slice(first, last + 1), slice(None, None, step)


def plain_box(key: object, shape: tuple[int, ...]) -> PixelSlices | None:
    """Return the box that a key selects; None if it selects anything else.

    Integers, steps, masks and empty slices are not boxes.
    """
    items = expand_key(key, len(shape))
    box = []
    for item, length in zip(items, shape, strict=True):
        if not isinstance(item, slice):
            return None
        start, stop, step = item.indices(length)
        if step != 1 or start >= stop:
            return None
        box.append(slice(start, stop))
    return tuple(box)
