"""Writes TIFF files of any structure, byte by byte, for tests: no other library is asked."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Type of a tag's values: its number, and its letter in Python's struct.
KINDS = {"B": 1, "H": 3, "L": 4}
NONE, DEFLATE, PACKBITS = 1, 8, 32773


@dataclass
class RawTiff:
    """One page, and how it is to be stored.

    ``samples`` are (y, x) or (y, x, s) integers; more tags by their number, as (type, values).
    """

    samples: NDArray[Any]
    bits: int
    photometric: int
    tags: dict[int, tuple[str, Sequence[int]]] = field(default_factory=dict)
    without: Sequence[int] = ()
    order: str = "<"
    planes: bool = False
    rows: int | None = None
    tile: tuple[int, int] | None = None
    compression: int = NONE
    predictor: bool = False

    def save(self, path: Path) -> Path:
        """Write the file."""
        body = bytearray()
        offsets, lengths = [], []
        for block in self.blocks():
            offsets.append(8 + len(body))
            lengths.append(len(block))
            body += block + b"\0" * (len(block) % 2)
        tags = {**self.structure(offsets, lengths), **self.tags}
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            if tag in self.without:
                continue
            content = struct.pack(f"{self.order}{len(values)}{kind}", *values)
            if len(content) > 4:
                offset = 8 + len(body)
                body += content + b"\0" * (len(content) % 2)
                content = struct.pack(f"{self.order}L", offset)
            head = struct.pack(f"{self.order}HHL", tag, KINDS[kind], len(values))
            entries += head + content.ljust(4, b"\0")
        mark = b"II" if self.order == "<" else b"MM"
        head = mark + struct.pack(f"{self.order}HL", 42, 8 + len(body))
        count = struct.pack(f"{self.order}H", len(entries) // 12)
        path.write_bytes(head + bytes(body) + count + entries + bytes(4))
        return path

    def structure(
        self, offsets: Sequence[int], lengths: Sequence[int]
    ) -> dict[int, tuple[str, Sequence[int]]]:
        """Return the tags that say how the page is stored."""
        height, width = self.samples.shape[:2]
        count = 1 if self.samples.ndim == 2 else self.samples.shape[2]
        where = (324, 325) if self.tile else (273, 279)
        tags: dict[int, tuple[str, Sequence[int]]] = {
            256: ("L", (width,)),
            257: ("L", (height,)),
            258: ("H", (self.bits,) * count),
            259: ("H", (self.compression,)),
            262: ("H", (self.photometric,)),
            277: ("H", (count,)),
            284: ("H", (2 if self.planes else 1,)),
            where[0]: ("L", offsets),
            where[1]: ("L", lengths),
        }
        if self.predictor:
            tags[317] = ("H", (2,))
        if self.tile:
            tags |= {322: ("L", (self.tile[1],)), 323: ("L", (self.tile[0],))}
        else:
            tags[278] = ("L", (self.rows or height,))
        return tags

    def blocks(self) -> Iterator[bytes]:
        """Yield the strips or tiles, plane after plane."""
        whole = self.samples if self.samples.ndim == 3 else self.samples[..., np.newaxis]
        channels = whole.shape[2]
        planes = [whole[..., i : i + 1] for i in range(channels)] if self.planes else [whole]
        for plane in planes:
            height, width = plane.shape[:2]
            rows, columns = self.tile or (self.rows or height, width)
            for y in range(math.ceil(height / rows)):
                for x in range(math.ceil(width / columns)):
                    part = plane[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns]
                    if self.tile:
                        missing = (rows - part.shape[0], columns - part.shape[1])
                        part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)))
                    yield self.encode(part)

    def encode(self, part: NDArray[Any]) -> bytes:
        """Return a block as it is stored."""
        part = part.astype(np.uint64)
        if self.predictor:
            part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1]))
            part &= np.uint64(2**self.bits - 1)
        rows = part.reshape(part.shape[0], -1)
        if self.bits in (8, 16, 32):
            lines = [row.astype(f"{self.order}u{self.bits // 8}").tobytes() for row in rows]
        else:
            shifts = np.arange(self.bits - 1, -1, -1, dtype=np.uint64)
            ones = (rows[..., np.newaxis] >> shifts & np.uint64(1)).astype(np.uint8)
            packed = np.packbits(ones.reshape(len(rows), -1), axis=1)
            lines = [line.tobytes() for line in packed]
        if self.compression == DEFLATE:
            return zlib.compress(b"".join(lines))
        if self.compression == PACKBITS:
            # Literal runs only, which every decoder has to read.
            return b"".join(literal_runs(line) for line in lines)
        return b"".join(lines)


def literal_runs(line: bytes) -> bytes:
    """Return bytes in the code of PackBits, without compressing them."""
    parts = (line[i : i + 128] for i in range(0, len(line), 128))
    return b"".join(bytes([len(part) - 1]) + part for part in parts)
