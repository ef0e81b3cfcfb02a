"""Makes zarr arrays whose chunks are never decoded to more than their metadata say.

Local chunks that are plain files are read without zarr's codecs and are bounded there
(:mod:`~napari_pixseg.sources.zarr_chunks`). All others (shards, remote stores, filters, several
codecs) are read by zarr, with codecs that replace the array's own. Only the returned array has
them: neither the caller's array nor zarr's configuration changes. A codec pipeline of another
package has its own decoders and is not bounded.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec as Numcodec
from numpy.typing import NDArray
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec, Codec
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer
from zarr.core.indexing import SelectorTuple
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.storage import StorePath

from napari_pixseg.errors import TooLarge
from napari_pixseg.sources.decoding.bounded_decoding import (
    decode_at_most,
    most_after_encoding,
    opens_content,
)
from napari_pixseg.sources.regular_files import RegularFileStore, is_plainly_local
from napari_pixseg.sources.retrying_store import RetryingStore
from napari_pixseg.sources.size_limits import refuse_stored_size
from napari_pixseg.sources.zarr_chunks import ZarrArray

# Codecs of format 3 that decode without knowing the settings they encoded with.
_OPENING_3 = ("zstd", "blosc", "gzip", "numcodecs.zstd", "numcodecs.blosc", "numcodecs.gzip",
              "numcodecs.lz4", "numcodecs.zlib", "numcodecs.bz2")  # fmt: skip

_CHECKSUMS = ("crc32c", "numcodecs.crc32c", "numcodecs.crc32", "numcodecs.adler32",
              "numcodecs.fletcher32", "numcodecs.jenkins_lookup3")  # fmt: skip

# Bytes that an index and a codec add to each chunk in a shard.
_OVERHEAD_OF_CHUNK = 64

# The size of complex numbers of double precision.
_LARGEST_SAMPLE = 16


def with_bounded_decoding(array: ZarrArray) -> ZarrArray:
    """Return an array with the same content that decodes no chunk to more than its size.

    Raises
    ------
    TooLarge
        If a filter makes samples of a size that no image has.
    """
    metadata = array.metadata
    bounded: ArrayV2Metadata | ArrayV3Metadata
    if isinstance(metadata, ArrayV3Metadata):
        bounded = replace(metadata, codecs=_bound_codecs(metadata.codecs))
        is_filtered = not isinstance(metadata.codecs[0], ArrayBytesCodec)
    else:
        bounded = _bound_format_2(metadata, math.prod(array.chunks) * array.dtype.itemsize)
        is_filtered = metadata.filters is not None
    pixels = math.prod(array.shards or array.chunks)
    sample = _LARGEST_SAMPLE if is_filtered else array.dtype.itemsize
    # Programs that write shards in place leave older versions of chunks in them.
    versions = 4 if array.shards else 1
    most = _most_stored(pixels * sample * versions, pixels // math.prod(array.chunks))
    place = StorePath(_bound_store(array.store_path.store, most), array.store_path.path)
    with warnings.catch_warnings():
        # zarr gave this warning already when the array was opened.
        warnings.filterwarnings("ignore", message="Combining a `sharding_indexed` codec")
        opened: AsyncArray[Any] = AsyncArray(
            metadata=bounded, store_path=place, config=array.config
        )
        return zarr.Array(opened)


def _most_stored(size: int, chunks: int) -> int:
    return most_after_encoding(size) + _OVERHEAD_OF_CHUNK * chunks


def _bound_store(store: Any, most: int) -> Any:
    """Return a store that refuses longer values, if finding out lengths costs nothing."""
    if isinstance(store, RetryingStore):
        return RetryingStore(store.remote, store.retries, most)
    if is_plainly_local(store):
        return RegularFileStore(store.root, read_only=True, most_bytes=most)
    return store


# Format 3.


def _bound_codecs(codecs: Iterable[Codec]) -> tuple[Codec, ...]:
    bounded: list[Codec] = []
    # Bytes that codecs add to those of a chunk; None is unknown.
    added: int | None = None
    chunk_pixels = 0
    for codec in codecs:
        if isinstance(codec, ArrayArrayCodec):
            _refuse_large_samples(codec.to_dict().get("configuration"))
            bounded.append(codec)
        elif isinstance(codec, ArrayBytesCodec):
            added = 0 if isinstance(codec, BytesCodec) else None
            if isinstance(codec, ShardingCodec):
                chunk_pixels = math.prod(codec.chunk_shape)
                codec = _BoundedShards.of(codec)
            bounded.append(codec)
        else:
            decoder = _decoder_of(codec)
            bounded.append(
                codec if decoder is None else _BoundedCodec(codec, decoder, added, chunk_pixels)
            )
            is_checksum = codec.to_dict()["name"] in _CHECKSUMS
            added = added + 4 if is_checksum and added is not None else None
    return tuple(bounded)


def _decoder_of(codec: BytesBytesCodec) -> Numcodec | None:
    """Return a bounded version of a codec; None for harmless codecs and for users' own."""
    if not type(codec).__module__.startswith(("zarr.", "numcodecs.")):
        return None
    described: Any = codec.to_dict()
    name = described["name"]
    if name in _OPENING_3:
        return numcodecs.get_codec({"id": name.removeprefix("numcodecs.")})
    if name == "numcodecs.lzma":
        return numcodecs.get_codec({"id": "lzma", **described.get("configuration", {})})
    return None


@dataclass(frozen=True)
class _BoundedCodec(BytesBytesCodec):
    """A codec that decodes no more than its chunk should have.

    Attributes
    ----------
    inner : BytesBytesCodec
        The codec in the metadata, which also encodes.
    decoder : numcodecs codec
    added : int or None
        Bytes that the codecs before it add to those of a chunk.
    chunk_pixels : int
        Size of the chunks in the shards that it decodes to; 0 if it does not decode to shards.
    """

    is_fixed_size = False

    inner: BytesBytesCodec
    decoder: Numcodec
    added: int | None
    chunk_pixels: int

    def to_dict(self) -> dict[str, Any]:
        return self.inner.to_dict()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return self.inner.compute_encoded_size(input_byte_length, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode, chunk_data, chunk_spec)

    def _decode(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        content = _as_bytes(chunk_data.as_numpy_array())
        pixels = math.prod(chunk_spec.shape)
        size = pixels * chunk_spec.dtype.to_native_dtype().itemsize
        if self.added is not None:
            decoded = decode_at_most(self.decoder, content, size + self.added)
        else:
            chunks = pixels // self.chunk_pixels if self.chunk_pixels else 1
            most = _most_stored(size, chunks)
            decoded = decode_at_most(self.decoder, content, most, is_exact=False)
        return chunk_spec.prototype.buffer.from_bytes(decoded)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await self.inner._encode_single(chunk_data, chunk_spec)


class _BoundedShards(ShardingCodec):
    """Shards whose chunks are neither decoded nor read beyond their size."""

    @classmethod
    def of(cls, codec: ShardingCodec) -> _BoundedShards:
        return cls(
            chunk_shape=codec.chunk_shape,
            codecs=_bound_codecs(codec.codecs),
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Only the metadata are pickled, and they contain no bounds.
        super().__setstate__(state)
        object.__setattr__(self, "codecs", _bound_codecs(self.codecs))

    async def _decode_partial_single(
        self, byte_getter: Any, selection: SelectorTuple, shard_spec: ArraySpec
    ) -> NDBuffer | None:
        size = math.prod(self.chunk_shape) * shard_spec.dtype.to_native_dtype().itemsize
        getter: Any = _BoundedGetter(byte_getter, most_after_encoding(size * _LARGEST_SAMPLE))
        return await super()._decode_partial_single(getter, selection, shard_spec)


class _ByteGetter(Protocol):
    async def get(
        self, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None: ...


@dataclass(frozen=True)
class _BoundedGetter:
    """Reads a shard, but at once no more of it than a chunk may take."""

    getter: _ByteGetter
    most: int

    async def get(
        self, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if isinstance(byte_range, RangeByteRequest):
            refuse_stored_size(byte_range.end - byte_range.start, self.most)
        return await self.getter.get(prototype, byte_range)


# Format 2.


def _bound_format_2(metadata: ArrayV2Metadata, size: int) -> ArrayV2Metadata:
    filters = metadata.filters or ()
    is_exact = True
    bounded = []
    for codec in filters:
        _refuse_large_samples(codec.get_config())
        bounded.append(_bound_numcodec(codec, size, is_exact))
        # Filters that change the type of samples make at most the largest type of each sample.
        size = most_after_encoding(size * _LARGEST_SAMPLE) if is_exact else size
        is_exact = False
    compressor = metadata.compressor
    if compressor is not None:
        compressor = _bound_numcodec(compressor, size, is_exact)
    return replace(metadata, filters=tuple(bounded) or None, compressor=compressor)


def _bound_numcodec(codec: Any, limit: int, is_exact: bool) -> Any:
    if not opens_content(codec):
        return codec
    return _BoundedNumcodec(codec, limit, is_exact, codec.codec_id)


@dataclass(frozen=True)
class _BoundedNumcodec:
    """A codec of numcodecs that decodes to no more bytes than a limit."""

    inner: Any
    limit: int
    is_exact: bool
    # zarr recognizes a codec by a name in its class.
    codec_id: str = "bounded"

    def encode(self, buf: Any) -> Any:
        return self.inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        if out is not None:
            return self.inner.decode(buf, out)
        content = _as_bytes(np.asarray(buf))
        return decode_at_most(self.inner, content, self.limit, self.is_exact)

    def get_config(self) -> Any:
        return self.inner.get_config()

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return numcodecs.get_codec(config)


def _as_bytes(content: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(content).reshape(-1).view(np.uint8).data


def _refuse_large_samples(configuration: Any) -> None:
    """Refuse a filter whose sample type alone expands few bytes to many."""
    for name in ("dtype", "decode_dtype"):
        found = (configuration or {}).get(name)
        if found is not None and np.dtype(found).itemsize > _LARGEST_SAMPLE:
            raise TooLarge(
                f"A filter makes samples of type {found!r}, but at most {_LARGEST_SAMPLE} bytes "
                "each can be segmented; check the metadata."
            )
