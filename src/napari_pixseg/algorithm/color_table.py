"""The color table: how many pixels have each byte color.

The algorithm needs nothing else from an image. Counts are integers and tables are merged by
addition, so the result does not depend on tiles or their order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.colorspaces.convert import UNCHANGED, forward_bytes
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.algorithm.kernels import vectorized
from napari_pixseg.algorithm.kernels.arrays import Counts, Packed, Scratch
from napari_pixseg.algorithm.kernels.dispatch import kernel_choice
from napari_pixseg.parameters import ColorSpace

COLORS = 1 << 24


# Marks a pixel without data: one above the largest packed color.
NO_DATA = np.uint32(COLORS)


# Converted tables take up to 48 MiB each. Users switch back and forth between few color spaces.
_SPACES_KEPT = 4

# With up to this many pixels, 32-bit counters cannot overflow.
COUNTED_AT_ONCE = (1 << 32) - 1


def pack_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack byte colors into 24 bits, ``r << 16 | g << 8 | b``.

    Parameters
    ----------
    pixels : (..., c) ndarray of uint8
        A single channel is used three times; with two channels, the third is 0.

    Returns
    -------
    (...) ndarray of uint32
    """
    if not 1 <= pixels.shape[-1] <= 3:
        raise ValueError(f"Colors have one to three channels, not {pixels.shape[-1]}.")
    packed = np.empty(pixels.shape[:-1], np.uint32)
    rows = np.ascontiguousarray(pixels).reshape(-1, pixels.shape[-1])
    kernels.pack_pixels(rows, packed.reshape(-1))
    return packed


def unpack_colors(packed: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Undo :func:`pack_colors`: (...) packed colors to (..., 3) bytes."""
    # In big-endian order the three bytes of a color follow an empty one.
    bytes_ = np.ascontiguousarray(packed, ">u4").view(np.uint8).reshape(*packed.shape, 4)
    return np.ascontiguousarray(bytes_[..., 1:])


@dataclass(frozen=True)
class ColorTable:
    """Counts of byte colors.

    Attributes
    ----------
    packed : (n,) ndarray of uint32
        The distinct colors, packed and ascending.
    counts : (n,) ndarray of int64
        Pixels of each color, all positive.
    space : ColorSpace or None
        None means that the bytes are sRGB colors, which can be converted to every
        color space. Otherwise 16-bit samples were converted to this space before they were
        counted, and the table serves no other space.
    """

    packed: NDArray[np.uint32]
    counts: NDArray[np.int64]
    space: ColorSpace | None = None
    _converted: dict[ColorSpace, NDArray[np.uint8]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def from_packed(
        cls,
        packed: NDArray[np.uint32],
        space: ColorSpace | None = None,
        *,
        in_place: bool = False,
    ) -> ColorTable:
        """Count packed colors of any shape; pixels without data are left out.

        Parameters
        ----------
        packed : ndarray of uint32
        space : ColorSpace, optional
            The table's ``space``.
        in_place : bool
            Whether the colors may be sorted in place, which saves a copy.
        """
        flat = np.ascontiguousarray(packed, np.uint32).reshape(-1)
        if flat.size and flat.max() > NO_DATA:
            raise ValueError(f"Packed colors are at most {NO_DATA}, not {flat.max()}.")
        if flat.size > COUNTED_AT_ONCE:
            starts = range(0, flat.size, COUNTED_AT_ONCE)
            parts = (cls.from_packed(flat[i : i + COUNTED_AT_ONCE], space) for i in starts)
            return cls.merge(parts)
        is_ours = in_place or not np.shares_memory(flat, packed)
        colors, counts = kernel_choice.run(
            flat.size,
            lambda: vectorized.count_distinct(flat if is_ours else flat.copy()),
            lambda: _count_in_scratch(flat),
        )
        if len(colors) and colors[-1] == NO_DATA:
            colors = colors[:-1].copy()
            counts = counts[:-1].copy()
        return cls(colors, counts, space)

    @classmethod
    def from_pixels(cls, pixels: NDArray[np.uint8]) -> ColorTable:
        """Count the colors of (..., c) bytes, c from 1 to 3."""
        return cls.from_packed(pack_colors(pixels), in_place=True)

    @classmethod
    def merge(cls, tables: Iterable[ColorTable]) -> ColorTable:
        """Add tables; the result does not depend on their order.

        Raises
        ------
        ValueError
            If tables of different color spaces are mixed.
        """
        parts = list(tables)
        if not parts:
            return cls(np.empty(0, np.uint32), np.empty(0, np.int64))
        if any(part.space != parts[0].space for part in parts):
            raise ValueError("Color tables of different color spaces cannot be merged.")
        while len(parts) > 1:
            # In pairs, so that a color is moved once for each doubling and not for each part.
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [_add_tables(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        return parts[0]

    def __len__(self) -> int:
        return len(self.packed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ColorTable):
            return NotImplemented
        return (
            self.space == other.space
            and np.array_equal(self.packed, other.packed)
            and np.array_equal(self.counts, other.counts)
        )

    def __getstate__(self) -> dict[str, object]:
        # Converted colors are quickly made again, and large to send.
        return {name: getattr(self, name) for name in ("packed", "counts", "space")} | {
            "_converted": {}
        }

    @property
    def pixels(self) -> int:
        """Number of pixels with data."""
        return int(self.counts.sum())

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """The distinct colors as (n, 3) bytes."""
        return unpack_colors(self.packed)

    def in_space(self, space: ColorSpace) -> NDArray[np.uint8]:
        """Return the colors' bytes in a color space, (n, 3); the latest few are kept."""
        if self.space is not None or space in UNCHANGED:
            return self.colors
        converted = self._converted.get(space)
        if converted is None:
            converted = forward_bytes(space, self.colors)
            while len(self._converted) >= _SPACES_KEPT:
                # The oldest goes first. Another thread may have removed it already.
                self._converted.pop(next(iter(self._converted)), None)
            self._converted[space] = converted
        return converted

    def hash(self) -> str:
        """SHA-256 of the table's content, the same on every machine."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        # Not needed to segment: it loads OpenSSL, which takes time at the start.
        import hashlib

        digest = hashlib.sha256(b"" if self.space is None else bytes([self.space]))
        # A fixed byte order makes the hash the same on every processor.
        digest.update(np.ascontiguousarray(self.packed, "<u4").data)
        digest.update(np.ascontiguousarray(self.counts, "<i8").data)
        return digest.hexdigest()


class _ScratchPool:
    """Zeroed counters for all colors, one array for each thread that counts at the moment.

    Users leave the counters zero, so that a small tile does not pay for clearing 2^24 entries.
    After an interruption an array may hold counts, and is not used again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Scratch] = []

    @contextmanager
    def lend(self) -> Iterator[Scratch]:
        """Lend one array."""
        with self._lock:
            scratch = self._idle.pop() if self._idle else np.zeros(COLORS + 1, np.uint32)
        yield scratch
        # Not in a finally clause: see the class.
        with self._lock:
            self._idle.append(scratch)

    def release(self) -> None:
        """Give the memory of idle arrays back."""
        with self._lock:
            self._idle.clear()


_scratch_pool = _ScratchPool()


def release_counters() -> None:
    """Give the memory back that counting keeps from tile to tile, 64 MiB for each thread."""
    _scratch_pool.release()


def _count_in_scratch(flat: Packed) -> tuple[Packed, Counts]:
    """Return the distinct colors, ascending, and their counts."""
    seen = np.empty(min(flat.size, COLORS + 1), np.uint32)
    with _scratch_pool.lend() as scratch:
        distinct = kernels.count_packed_colors(flat, scratch, seen)
        # Few distinct colors are sorted sooner than 2^24 counters are searched.
        colors = np.sort(seen[:distinct])
        counts = np.empty(len(colors), np.int64)
        kernels.take_counts(colors, scratch, counts)
    return colors, counts


def _add_tables(one: ColorTable, other: ColorTable) -> ColorTable:
    # Merged tables can be no longer than the number of colors, so this never wastes much.
    most = min(len(one) + len(other), COLORS)
    packed = np.empty(most, np.uint32)
    counts = np.empty(most, np.int64)
    distinct = kernels.merge_counts(
        one.packed, one.counts, other.packed, other.counts, packed, counts
    )
    return ColorTable(packed[:distinct].copy(), counts[:distinct].copy(), one.space)
