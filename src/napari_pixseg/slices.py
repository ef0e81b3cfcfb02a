"""Boxes of pixels as tuples of slices, and how they are cut along chunks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TypeAlias

PixelSlices: TypeAlias = tuple[slice, ...]


Index: TypeAlias = tuple[int, ...]


def moved(inner: PixelSlices, region: PixelSlices) -> PixelSlices:
    """Where a part of a region is in the whole."""
    pairs = zip(inner, region, strict=True)
    return tuple(slice(p.start + r.start, p.stop + r.start) for p, r in pairs)


def from_zero(region: PixelSlices) -> PixelSlices:
    """Return all of a region, as a part of itself."""
    return tuple(slice(0, part.stop - part.start) for part in region)


def pieces(region: PixelSlices, chunks: Index) -> Iterator[tuple[Index, PixelSlices, PixelSlices]]:
    """Cut a region along chunks: number of the chunk, part of the chunk, part of the region."""
    axes = []
    for part, size in zip(region, chunks, strict=True):
        cuts = []
        for number in range(part.start // size, (part.stop - 1) // size + 1):
            start, stop = max(part.start, number * size), min(part.stop, (number + 1) * size)
            inside = slice(start - number * size, stop - number * size)
            cuts.append((number, inside, slice(start - part.start, stop - part.start)))
        axes.append(cuts)
    for piece in product(*axes):
        index, inside, there = zip(*piece, strict=True)
        yield index, inside, there


def _all_of(shape: tuple[int, ...]) -> PixelSlices:
    return tuple(slice(0, length) for length in shape)
