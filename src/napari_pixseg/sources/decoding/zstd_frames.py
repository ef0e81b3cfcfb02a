"""Finds the decoded size of zstd frames from their headers, without decoding them."""

from __future__ import annotations

import struct

_MAGIC = b"\x28\xb5\x2f\xfd"
# The last four bits of a skippable frame's number may have any value.
_SKIPPED = b"\x2a\x4d\x18"
_LARGEST_BLOCK = 128 << 10

# Flag of the frame's header -> format of its content size.
_SIZES = {0: "<B", 1: "<H", 2: "<I", 3: "<Q"}


def measure_zstd(content: bytes | memoryview) -> tuple[int | None, bool]:
    """Measure the decoded size of a sequence of zstd frames.

    Parameters
    ----------
    content : bytes-like
        Of single bytes.

    Returns
    -------
    size : int or None
        Decoded bytes, or an upper limit; None if it is not zstd from beginning to end.
    is_told : bool
        Whether all frames state their size.
    """
    total, is_told, at = 0, True, 0
    try:
        while at < len(content):
            if bytes(content[at + 1 : at + 4]) == _SKIPPED and content[at] & 0xF0 == 0x50:
                at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
                continue
            if bytes(content[at : at + 4]) != _MAGIC:
                return None, False
            told, blocks = _read_header(content, at + 4)
            opened, at = _walk_blocks(content, blocks, content[at + 4])
            total += opened if told is None else told
            is_told = is_told and told is not None
    except (IndexError, struct.error):
        return None, False
    return (total, is_told) if at == len(content) else (None, False)


def _read_header(content: bytes | memoryview, at: int) -> tuple[int | None, int]:
    """Return the content size stated by a frame, if any, and where its blocks begin."""
    flags = content[at]
    kind = flags >> 6
    is_single = bool(flags & 0x20)
    at += 1 + (not is_single) + (0, 1, 2, 4)[flags & 3]
    if kind == 0 and not is_single:
        return None, at
    (size,) = struct.unpack_from(_SIZES[kind], content, at)
    return int(size) + (256 if kind == 1 else 0), at + struct.calcsize(_SIZES[kind])


def _walk_blocks(content: bytes | memoryview, at: int, flags: int) -> tuple[int, int]:
    """Return the largest decoded size of a frame's blocks, and where the next frame begins."""
    opened = 0
    while True:
        header = content[at] | content[at + 1] << 8 | content[at + 2] << 16
        kind = header >> 1 & 3
        size = header >> 3
        # A block of one repeated byte states its decoded size.
        opened += _LARGEST_BLOCK if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
        if header & 1:
            return opened, at + (4 if flags & 4 else 0)
