"""Decodes a chunk to its known size and no further: 61 KB may expand to gigabytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from typing import Any, TypeAlias

import numpy as np
from numcodecs.abc import Codec

from napari_pixseg.errors import OversizedChunk
from napari_pixseg.sources.decoding.picture_headers import pixels_of_picture
from napari_pixseg.sources.decoding.zstd_frames import measure_zstd
from napari_pixseg.sources.size_limits import (
    describe_bytes,
    refuse_large_metadata,
    refuse_stored_size,
)

# Names of the metadata in a zarr store; all other values are chunks.
ZARR_DOCUMENTS = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")

# The type that decoders of numcodecs take and return: any object of single bytes.
_Content: TypeAlias = bytes | memoryview

# Byte codecs of imagecodecs, which decode only into the given room.
_FITTING = frozenset(
    f"imagecodecs_{name}"
    for name in (
        *("blosc", "blosc2", "brotli", "bz2", "deflate", "lz4", "lz4f", "lzf", "lzfse", "lzma"),
        *("lzo", "lzw", "packbits", "snappy", "zlib", "zlibng", "zopfli", "zstd"),
    )
)

# Codecs of imagecodecs that make a picture of the size in its header.
_PICTURES = frozenset(
    f"imagecodecs_{name}"
    for name in (
        *("apng", "avif", "bmp", "gif", "heif", "htj2k", "jpeg", "jpeg2k", "jpegls", "jpegxl"),
        *("jpegxr", "lerc", "ljpeg", "mozjpeg", "png", "qoi", "spng", "ultrahdr", "webp"),
    )
)

_Stream: TypeAlias = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile

_STREAMS = ("gzip", "bz2", "lzma")

_OPENING = frozenset({"zstd", "blosc", "lz4", "zlib", *_STREAMS}) | _FITTING | _PICTURES


def decode_at_most(codec: Codec, content: _Content, limit: int, is_exact: bool = True) -> _Content:
    """Decode a chunk.

    Parameters
    ----------
    codec : numcodecs codec
        Codecs that neither compress nor hold a picture are called unchanged.
    content : bytes-like
        The chunk as it is stored; single bytes.
    limit : int
        Bytes that it should decode to.
    is_exact : bool
        Whether it must decode to exactly this size, or to at most this size.

    Raises
    ------
    OversizedChunk
        If it would decode to more; finding that out takes no memory.
    """
    name = codec.codec_id
    if name == "zstd":
        return _decode_zstd(codec, content, limit, is_exact)
    if name in ("blosc", "lz4"):
        size = (
            _size_in_header(content, 4, 16) if name == "blosc" else _size_in_header(content, 0, 4)
        )
        if size > limit:
            raise _oversized(describe_bytes(size), limit)
    elif name in _STREAMS:
        with _open_stream(codec, io.BytesIO(content)) as file:
            return _refuse_more(file.read(limit + 1), limit)
    elif name == "zlib":
        return _decode_zlib(content, limit)
    elif name in _FITTING:
        return _refuse_more(codec.decode(content, out=np.empty(limit + 1, np.uint8)), limit)
    elif name in _PICTURES:
        pixels = pixels_of_picture(bytes(content))
        if pixels is not None and pixels > limit:
            raise _oversized(f"{pixels} pixels", limit)
    decoded: _Content = codec.decode(content)
    return decoded


def opens_content(codec: Codec) -> bool:
    """Whether a codec may expand few bytes to many, unless it is bounded."""
    return codec.codec_id in _OPENING


def refuse_large_value(key: str, size: int, most: int | None) -> None:
    """Refuse to read a value of a zarr store that is larger than it can need to be.

    Parameters
    ----------
    key : str
    size : int
        Bytes of the value.
    most : int, optional
        Bytes that a chunk may have.

    Raises
    ------
    OversizedChunk, TooLarge
    """
    if key.endswith(ZARR_DOCUMENTS):
        refuse_large_metadata(size, key)
    elif most is not None:
        refuse_stored_size(size, most)


def most_after_encoding(size: int) -> int:
    """Return how many bytes a codec needs at most to store a number of bytes."""
    return 2 * size + (1 << 20)


def _decode_zstd(codec: Codec, content: _Content, limit: int, is_exact: bool) -> _Content:
    decoded: _Content
    size, is_told = measure_zstd(content)
    if size is not None and size > limit and (is_told or not is_exact):
        raise _oversized(describe_bytes(size), limit)
    if is_exact and not is_told:
        # Data that do not state their size are decoded into as much room as they should need.
        try:
            decoded = codec.decode(content, out=np.empty(limit, np.uint8))
            return decoded
        except RuntimeError as error:
            if "too small" in f"{error}":
                raise _oversized(f"more than {describe_bytes(limit)}", limit) from None
            raise
    if size is None:
        raise ValueError("it is not zstd from beginning to end")
    decoded = codec.decode(content)
    return decoded


def _open_stream(codec: Any, content: io.BytesIO) -> _Stream:
    if codec.codec_id == "gzip":
        return gzip.GzipFile(fileobj=content)
    if codec.codec_id == "bz2":
        return bz2.BZ2File(content)
    return lzma.LZMAFile(content, format=codec.format, filters=codec.filters)


def _decode_zlib(content: _Content, limit: int) -> _Content:
    stream = zlib.decompressobj()
    decoded = stream.decompress(content, limit + 1)
    _refuse_more(decoded, limit)
    if not stream.eof:
        raise zlib.error("incomplete or truncated stream")
    return decoded


def _size_in_header(content: _Content, at: int, length: int) -> int:
    """Return the size in the header of a chunk; 0 if it has no header and cannot be decoded."""
    return int(struct.unpack_from("<I", content, at)[0]) if len(content) >= length else 0


def _refuse_more(decoded: _Content, limit: int) -> _Content:
    if len(decoded) > limit:
        raise _oversized(f"more than {describe_bytes(limit)}", limit)
    return decoded


def _oversized(size: str, limit: int) -> OversizedChunk:
    return OversizedChunk(
        f"The chunk decodes to {size} where its metadata say {describe_bytes(limit)}."
    )
