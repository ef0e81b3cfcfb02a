"""Reads how many pixels an encoded picture says it has, without decoding it.

Tiles of a TIFF and chunks of a zarr may be pictures (JPEG, WebP and others), and decoders trust
their headers.
"""

from __future__ import annotations

import re
import struct

# Markers of JPEG and JPEG-LS whose segment holds the size; C4, C8 and CC mean something else.
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}

# Markers without a segment.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})

# First bytes, and format and place of both lengths; heights of BMP may be negative.
_PLAIN_HEADERS = (
    (b"\x89PNG\r\n\x1a\n", ">II", 16),
    (b"Lerc2 ", "<II", 14),
    (b"GIF8", "<HH", 6),
    (b"qoif", ">II", 4),
    (b"BM", "<ii", 18),
)

_BOX_OF_SIZE = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)

_JPEG_XL_BITS = (9, 13, 18, 30)
_JPEG_XL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def pixels_of_picture(content: bytes) -> int | None:
    """Return width times height as stated by a picture.

    Returns
    -------
    int or None
        None if the format is unknown or the header incomplete; the largest number if there are
        several pictures in one.
    """
    try:
        return _read_pixels(content)
    except (struct.error, IndexError):
        return None


def _read_pixels(content: bytes) -> int | None:
    if content[:2] == b"\xff\xd8":
        return _pixels_of_jpeg(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _pixels_of_webp(content)
    if content[4:8] in (b"jP  ", b"JXL "):
        at = _find_codestream(content)
        return None if at is None else _pixels_of_codestream(content, at)
    if content[:3] == b"II\xbc":
        return _pixels_of_jpeg_xr(content)
    if content[4:8] == b"ftyp":
        found = _BOX_OF_SIZE.findall(content)
        return max((_product(">II", one, 0) for one in found), default=None)
    for magic, form, at in _PLAIN_HEADERS:
        if content.startswith(magic):
            return abs(_product(form, content, at))
    return _pixels_of_codestream(content, 0)


def _product(form: str, content: bytes, at: int) -> int:
    height, width = struct.unpack_from(form, content, at)
    return int(height) * int(width)


def _find_codestream(content: bytes) -> int | None:
    """Return where the picture begins among the boxes of a JPEG 2000 or JPEG XL file."""
    at = 0
    while True:
        size, kind = struct.unpack_from(">I4s", content, at)
        begin = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, begin)
            begin += 8
        if kind in (b"jp2c", b"jxlc", b"jxlp"):
            return begin + (4 if kind == b"jxlp" else 0)
        # The last box has a size of zero.
        if size < begin - at:
            return None
        at += int(size)


def _pixels_of_codestream(content: bytes, at: int) -> int | None:
    if content[at : at + 4] == b"\xff\x4f\xff\x51":
        return _pixels_of_jpeg_2000(content, at)
    return _pixels_of_jpeg_xl(content, at + 2) if content[at : at + 2] == b"\xff\x0a" else None


def _pixels_of_jpeg(content: bytes) -> int | None:
    at = 2
    while True:
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker in _START_OF_FRAME:
            return _product(">HH", content, at + 5)
        if marker == 0xDA:
            return None
        bare = 1 if marker == 0xFF else 2
        is_bare = marker == 0xFF or marker in _BARE
        at += bare if is_bare else 2 + int(struct.unpack_from(">H", content, at + 2)[0])


def _pixels_of_webp(content: bytes) -> int | None:
    if content[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return int(width & 0x3FFF) * int(height & 0x3FFF)
    if content[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return int(((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1))
    if content[12:16] == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        return (width + 1) * (height + 1)
    return None


def _pixels_of_jpeg_2000(content: bytes, at: int) -> int:
    right, bottom, left, top = struct.unpack_from(">IIII", content, at + 8)
    return int(max(0, right - left) * max(0, bottom - top))


def _pixels_of_jpeg_xl(content: bytes, at: int) -> int:
    bits = int.from_bytes(content[at : at + 10], "little")

    def take(count: int) -> int:
        nonlocal bits
        found = bits & ((1 << count) - 1)
        bits >>= count
        return found

    def take_length(is_small: int) -> int:
        return (take(5) + 1) * 8 if is_small else take(_JPEG_XL_BITS[take(2)]) + 1

    is_small = take(1)
    height = take_length(is_small)
    ratio = take(3)
    if ratio == 0:
        return height * take_length(is_small)
    numerator, denominator = _JPEG_XL_RATIOS[ratio - 1]
    return height * (height * numerator // denominator)


def _pixels_of_jpeg_xr(content: bytes) -> int | None:
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    lengths = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from("<HHII", content, entry)
        lengths[tag] = value & 0xFFFF if kind == 3 else value
    if not {0xBC80, 0xBC81} <= lengths.keys():
        return None
    return int(lengths[0xBC80] * lengths[0xBC81])
