"""Decoding a chunk whose size is known, and no further: 61 KB may open to gigabytes."""

from __future__ import annotations

import gzip
import io
import struct
from typing import Any

import numcodecs
import numpy as np

from napari_pixseg.errors import OversizedChunk
from napari_pixseg.sources.size_limits import describe_bytes

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

# Flag of the frame's header -> format of its content size.
_ZSTD_SIZES = {0: "<B", 1: "<H", 2: "<I", 3: "<Q"}


def decode_at_most(codec: Any, content: bytes, limit: int) -> Any:
    """Decode a chunk.

    Parameters
    ----------
    codec : numcodecs codec
        Zstd, Blosc or GZip.
    content : bytes
        The chunk as it is stored.
    limit : int
        Bytes that it should decode to.

    Raises
    ------
    OversizedChunk
        If it would decode to more; that takes no memory.
    """
    if isinstance(codec, numcodecs.GZip):
        return _decode_gzip(content, limit)
    size = _zstd_size(content) if isinstance(codec, numcodecs.Zstd) else _blosc_size(content)
    if size is not None and size > limit:
        raise _oversized(describe_bytes(size), limit)
    if size is None and isinstance(codec, numcodecs.Zstd) and content[:4] == _ZSTD_MAGIC:
        # A frame that does not tell its size is decoded into as much room as it should need.
        return codec.decode(content, out=np.empty(limit, np.uint8))
    return codec.decode(content)


def _decode_gzip(content: bytes, limit: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        decoded = file.read(limit + 1)
    if len(decoded) > limit:
        raise _oversized(f"more than {describe_bytes(limit)}", limit)
    return decoded


def _zstd_size(content: bytes) -> int | None:
    """Return the content size in the header of a zstd frame; None where it is not told."""
    if content[:4] != _ZSTD_MAGIC or len(content) < 5:
        return None
    flags = content[4]
    kind, is_single = flags >> 6, bool(flags & 0x20)
    if kind == 0 and not is_single:
        return None
    at = 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
    form = _ZSTD_SIZES[kind]
    if len(content) < at + struct.calcsize(form):
        return None
    (size,) = struct.unpack_from(form, content, at)
    return int(size) + (256 if kind == 1 else 0)


def _blosc_size(content: bytes) -> int | None:
    return int(struct.unpack_from("<I", content, 4)[0]) if len(content) >= 16 else None


def _oversized(size: str, limit: int) -> OversizedChunk:
    return OversizedChunk(
        f"The chunk decodes to {size} where its metadata say {describe_bytes(limit)}."
    )
