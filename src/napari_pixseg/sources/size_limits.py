"""Refuses inputs of which a part that is decoded at once does not fit into memory.

An array may have any size that can be stored, because it is read in parts. A chunk, a tile of a
TIFF or a picture is decoded as a whole and must fit into the memory of this machine.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from napari_pixseg.errors import OversizedChunk, TooLarge

# An exbibyte: nobody stores more, and counts of pixels must fit into 63 bits.
_LARGEST_ARRAY = 1 << 60

# No picture is compressed better than this; deflate reaches 1,032 and LZW 2,560. Smaller pictures
# do no harm, whatever their headers say.
_BEST_COMPRESSION = 5000
_LARGEST_UNLIKELY = 1 << 30

# Metadata of images are some kilobytes; consolidated ones of many arrays are some megabytes.
_LARGEST_METADATA = 256 << 20

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

# Used if a machine does not tell its memory.
_UNKNOWN_MEMORY = 64 << 30


# The most that a task may read of a server at once; None is whatever there is.
MOST_BYTES: ContextVar[int | None] = ContextVar("MOST_BYTES", default=None)


def memory_of_machine() -> int:
    """Return how many bytes of memory this process may use at most."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        limits.append(_UNKNOWN_MEMORY)
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):
            # There is no such file, or its text is "max".
            continue
    return min(limits)


def refuse_large_array(shape: tuple[int, ...], itemsize: int, name: str) -> None:
    """Refuse an array that claims an impossible size.

    Raises
    ------
    TooLarge
    """
    size = itemsize
    for length in shape:
        size *= int(length)
    if size > _LARGEST_ARRAY:
        raise TooLarge(
            f"{name} has shape {shape}, which is {describe_bytes(size)}, but at most "
            f"{describe_bytes(_LARGEST_ARRAY)} can be segmented; check its metadata, or cut it."
        )


def refuse_large_part(size: int, what: str, name: str, file_bytes: object = None) -> None:
    """Refuse a part that must be decoded at once and does not fit into memory.

    Parameters
    ----------
    size : int
        Bytes that decoding takes.
    what : str
        Such as "picture" or "chunk of (1024, 1024, 3)".
    name : str
        The input, as an error may name it.
    file_bytes : int, optional
        Size of the whole file, if all of it is in one file.

    Raises
    ------
    TooLarge
    """
    # Most inputs are tiny, and finding out the memory would cost more than reading them.
    if size <= 1 << 27:
        return
    possible = file_bytes * _BEST_COMPRESSION if isinstance(file_bytes, int) else size
    if size > max(possible, _LARGEST_UNLIKELY):
        raise TooLarge(
            f"{name} says that it has a {what} that takes {describe_bytes(size)} to decode, but a "
            f"file of its size can hold {describe_bytes(possible)} at most; check its header."
        )
    limit = memory_of_machine()
    if size > limit:
        raise TooLarge(
            f"{name} has a {what} that takes {describe_bytes(size)} to decode, but this machine "
            f"has {describe_bytes(limit)} of memory; store it in smaller chunks or tiles."
        )


def refuse_large_metadata(size: object, shown: str) -> None:
    """Refuse metadata of a size that no image needs; None is an unknown size.

    Raises
    ------
    TooLarge
    """
    if isinstance(size, int) and size > _LARGEST_METADATA:
        raise TooLarge(
            f"{shown} has {describe_bytes(size)} of metadata, but at most "
            f"{describe_bytes(_LARGEST_METADATA)} are read; check the file."
        )


def refuse_stored_size(size: int, limit: int) -> None:
    """Refuse to read a chunk that takes more stored bytes than it can need.

    Raises
    ------
    OversizedChunk
    """
    if size > limit:
        raise OversizedChunk(
            f"The chunk is stored in {describe_bytes(size)}, but what its metadata say takes "
            f"{describe_bytes(limit)} at most."
        )


def describe_bytes(size: int) -> str:
    """Return a size for people, such as "1.5 GiB"."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(max(size.bit_length() - 1, 0) // 10, len(units) - 1)
    value = size / 1024**power
    return f"{value:.0f} {units[power]}" if power == 0 or value >= 100 else (
        f"{value:.1f} {units[power]}"
    )  # fmt: skip


def extent_of_gif(file: IO[bytes]) -> tuple[int, int]:
    """Return the height and width that the frames of a GIF cover together; decodes no pixels.

    A frame may lie outside of the canvas, and decoders then enlarge the canvas.
    """
    file.seek(0)
    header = file.read(13)
    width, height = _two_numbers(header[6:10])
    file.seek(_color_table_bytes(header[10:11]), os.SEEK_CUR)
    while (block := file.read(1)) in (b"!", b","):
        if block == b"!":
            file.read(1)
        else:
            described = file.read(9)
            left, top = _two_numbers(described[:4])
            columns, rows = _two_numbers(described[4:8])
            width, height = max(width, left + columns), max(height, top + rows)
            file.seek(_color_table_bytes(described[8:9]) + 1, os.SEEK_CUR)
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], os.SEEK_CUR)
    return height, width


def _two_numbers(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[:2], "little"), int.from_bytes(content[2:4], "little")


def _color_table_bytes(flags: bytes) -> int:
    is_there = bool(flags) and flags[0] & 0x80
    return 3 << (flags[0] & 7) + 1 if is_there else 0
