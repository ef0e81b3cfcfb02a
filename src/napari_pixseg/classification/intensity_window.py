"""Finds the samples that become 0 and 255, for images that are not uint8.

See docs/algorithm.md, section 8, "Input that is not uint8".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import NotAnImage
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.parameters import Interval, Window
from napari_pixseg.sources.damaged_chunks import known_rows
from napari_pixseg.sources.image import Image


def resolve_window(
    image: Image,
    window: Window,
    tile_source: Callable[[], TileSource],
    monitor: RunMonitor | None = None,
) -> tuple[Interval, ...] | None:
    """Turn the window parameter into numbers; reads pixels only if they determine the window.

    Parameters
    ----------
    image : Image
    window : see Parameters
    tile_source : callable
        Makes a new source of (..., c) sample blocks for each pass.
    monitor : RunMonitor, optional

    Returns
    -------
    tuple of (low, high) or None
        One for each channel; None for bytes taken as they are.

    Raises
    ------
    NotAnImage
        If floats are infinite somewhere.
    """
    dtype = image.dtype
    if isinstance(window, tuple):
        return window
    # Bytes need no window, so every table and look-up works on them as they are.
    if dtype == np.uint8 and window != "minmax":
        return None
    if dtype.kind == "b":
        return ((0.0, 1.0),)
    if window == "dtype":
        return ((float(np.iinfo(dtype).min), float(image.highest_sample or 0)),)
    if dtype.kind == "f" or window == "minmax":
        return extent_window(tile_source, monitor)
    return quantile_window(tile_source, dtype, image.color_channels, monitor)


# The stage's name in progress events.
STAGE = "range"

# The default window leaves out one pixel in a thousand at each end.
_TAIL = 1000

# Each pass counts in 2^16 bins, so a 16-bit image needs one pass, and bins stay in the cache.
_BITS = 16


@dataclass(frozen=True, eq=False)
class Extent:
    """Smallest and largest finite sample of each channel, and how many are infinite."""

    low: tuple[Any, ...]
    high: tuple[Any, ...]
    infinite: int

    @classmethod
    def of_block(cls, block: NDArray[Any], _number: int = 0) -> Extent:
        """Measure a (..., c) block; a channel without finite samples has (inf, -inf)."""
        rows = known_rows(block)
        if rows.dtype.kind in "iu" and len(rows):
            return cls(tuple(rows.min(axis=0).tolist()), tuple(rows.max(axis=0).tolist()), 0)
        finite = np.isfinite(rows)
        low = np.where(finite, rows, np.inf).min(axis=0, initial=np.inf).astype(float)
        high = np.where(finite, rows, -np.inf).max(axis=0, initial=-np.inf).astype(float)
        return cls(tuple(low.tolist()), tuple(high.tolist()), int(np.isinf(rows).sum()))

    @classmethod
    def merge(cls, extents: Sequence[Extent]) -> Extent:
        """Join the extents of parts."""
        low = tuple(min(ends) for ends in zip(*(e.low for e in extents), strict=True))
        high = tuple(max(ends) for ends in zip(*(e.high for e in extents), strict=True))
        return cls(low, high, sum(e.infinite for e in extents))


def _measure_extent(tile_source: Callable[[], TileSource], monitor: RunMonitor | None) -> Extent:
    extent: Extent = run_tiles(tile_source(), Extent.of_block, STAGE, monitor, Extent.merge)
    if extent.infinite:
        raise NotAnImage(
            f"The image holds {extent.infinite} infinite values; give a window (low, high) that "
            "takes them for its ends, or replace them by numbers, or by NaN for no data."
        )
    return extent


def extent_window(
    tile_source: Callable[[], TileSource], monitor: RunMonitor | None
) -> tuple[Interval, ...]:
    """Smallest and largest finite sample of each channel; (0, 0) if there is none."""
    extent = _measure_extent(tile_source, monitor)
    pairs = zip(extent.low, extent.high, strict=True)
    return tuple((float(a), float(b)) if a <= b else (0.0, 0.0) for a, b in pairs)


def quantile_window(
    tile_source: Callable[[], TileSource],
    dtype: np.dtype[Any],
    channels: int,
    monitor: RunMonitor | None,
) -> tuple[Interval, ...]:
    """Exact 0.1 % and 99.9 % points of each channel, whatever the width of the integers.

    Each pass counts samples in 2^16 bins and narrows every point to one bin:
    one pass for 16 bits, at most four more for 64.
    """
    if dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        searches = [[_Search(int(limits.min), int(limits.max))] * 2 for _ in range(channels)]
    else:
        extent = _measure_extent(tile_source, monitor)
        pairs = zip(extent.low, extent.high, strict=True)
        searches = [[_Search(int(a), int(b))] * 2 for a, b in pairs]
    ranks: list[tuple[int, int]] | None = None
    while any(not search.found for pair in searches for search in pair):
        bins = run_tiles(tile_source(), _CountBins(searches), STAGE, monitor, _add_bins)
        if ranks is None:
            total = int(bins[0][0].sum())
            # Nearest ranks, counted from 1 and rounded up: whole numbers, hence exact.
            ranks = [(-(-total // _TAIL), -(-(_TAIL - 1) * total // _TAIL))] * channels
        ranks, searches = _narrow_searches(ranks, searches, bins)
    return tuple((float(low.low), float(high.low)) for low, high in searches)


@dataclass(frozen=True)
class _Search:
    """The range in which a point of the distribution lies: low to high, ends included."""

    low: int
    high: int

    @property
    def found(self) -> bool:
        return self.low == self.high

    @property
    def shift(self) -> int:
        return max((self.high - self.low).bit_length() - _BITS, 0)

    def count(self, samples: NDArray[Any]) -> NDArray[np.int64]:
        inside = samples[(samples >= self.low) & (samples <= self.high)]
        # Modulo 2^64, the difference is correct for both signed and unsigned samples.
        offset = inside.astype(np.uint64) - np.uint64(self.low % (1 << 64))
        bins = (offset >> np.uint64(self.shift)).astype(np.intp)
        size = ((self.high - self.low) >> self.shift) + 1
        return np.bincount(bins, minlength=size).astype(np.int64)

    def narrow(self, bins: NDArray[np.int64], rank: int) -> tuple[int, _Search]:
        """Return the rank within, and the search of, the bin that holds the rank-th sample."""
        cumulated = np.cumsum(bins)
        index = int(np.searchsorted(cumulated, rank))
        before = int(cumulated[index - 1]) if index else 0
        low = self.low + (index << self.shift)
        return rank - before, _Search(low, min(low + (1 << self.shift) - 1, self.high))


@dataclass(frozen=True, eq=False, repr=False)
class _CountBins:
    """Counts a block of samples into the bins of every search of its channel."""

    searches: list[list[_Search]]

    def __call__(self, block: NDArray[Any], _number: int) -> list[list[NDArray[np.int64]]]:
        rows = known_rows(block)
        channel_bins = []
        for channel, (first, second) in enumerate(self.searches):
            samples = np.ascontiguousarray(rows[:, channel])
            # In the first pass both ends search the whole range, so one count serves both.
            bins = first.count(samples)
            channel_bins.append([bins, bins if second == first else second.count(samples)])
        return channel_bins


def _add_bins(parts: list[list[list[NDArray[np.int64]]]]) -> list[list[NDArray[np.int64]]]:
    channels = zip(*parts, strict=True)
    return [[np.sum(bins, axis=0) for bins in zip(*pairs, strict=True)] for pairs in channels]


def _narrow_searches(
    ranks: list[tuple[int, int]], searches: list[list[_Search]], bins: list[list[Any]]
) -> tuple[list[tuple[int, int]], list[list[_Search]]]:
    new_ranks = []
    new_searches = []
    for pair_ranks, pair, pair_bins in zip(ranks, searches, bins, strict=True):
        steps = [
            search.narrow(counts, rank)
            for search, counts, rank in zip(pair, pair_bins, pair_ranks, strict=True)
        ]
        new_ranks.append((steps[0][0], steps[1][0]))
        new_searches.append([search for _, search in steps])
    return new_ranks, new_searches
