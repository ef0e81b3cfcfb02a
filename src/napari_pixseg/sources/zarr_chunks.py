"""Reads and writes chunks of local zarr arrays in the calling thread.

zarr goes through its event loop between finding, reading, decoding and copying a chunk, and threads
that work on tiles wait for each other there. If chunks are plain files, this module reads and
writes the same bytes with the same codecs in one go. Everything else (remote stores, shards,
filters, keys with steps, writing parts of chunks) is left to zarr.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numcodecs
import numcodecs.abc
import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import BytesCodec
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata

from napari_pixseg.slices import (
    ChunkIndex,
    PixelSlices,
    Samples,
    SampleType,
    cut_along_chunks,
    plain_box,
)
from napari_pixseg.sources.decoding.bounded_decoding import decode_at_most, most_after_encoding
from napari_pixseg.sources.regular_files import is_plainly_local, read_regular
from napari_pixseg.sources.source import ChunkedArray

ZarrArray: TypeAlias = zarr.Array[Any]


# Data type in the files, codec, and whether the codec may also be used for writing.
_PlainFormat: TypeAlias = tuple[SampleType, numcodecs.abc.Codec | None, bool]


_DEFAULT_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"


_CHUNK_IS_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


# Codecs that can decode without knowing the settings used for encoding.
_DECODERS = {"zstd": numcodecs.Zstd, "blosc": numcodecs.Blosc, "gzip": numcodecs.GZip}


@dataclass(frozen=True)
class ChunkFiles(ChunkedArray):
    """A local zarr array whose chunks are files; other attributes are delegated to the array.

    Attributes
    ----------
    array : zarr.Array
    shape, chunks : tuple of int
        Copies of the array's attributes, which it would look up each time.
    folder : str
        The array's.
    stored : dtype
        Data type of the samples in the files.
    codec : numcodecs codec or None
        Decodes a file; None if files are not compressed.
    encodes : bool
        Whether the codec has the array's settings, so that it may also be used for writing.
    """

    array: ZarrArray
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    folder: str
    stored: SampleType
    codec: numcodecs.abc.Codec | None
    encodes: bool

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # pickle looks up such names before the array is set.
            raise AttributeError(name)
        return getattr(self.array, name)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Samples:
        """Read the whole array, for NumPy."""
        if copy is False:
            raise ValueError("An array on disk is not read without a copy.")
        return np.asarray(self[(...,)], dtype)

    def __getitem__(self, key: Any) -> Samples:
        box = plain_box(key, self.shape)
        if box is None:
            return np.asarray(self.array[key])
        result = np.empty([part.stop - part.start for part in box], self.array.dtype)
        for index, inside, there in cut_along_chunks(box, self.chunks):
            chunk = self._read_chunk(index)
            result[there] = self._fill_value if chunk is None else chunk[inside]
        return result

    def read_chunks(self, box: PixelSlices) -> list[tuple[PixelSlices, Samples]]:
        """Return the chunks that a box meets, each cut to the box, and where in the box it is.

        They are read-only, in the byte order of the files.
        """
        found = []
        for index, inside, there in cut_along_chunks(box, self.chunks):
            chunk = self._read_chunk(index)
            if chunk is None:
                chunk = np.full(self.chunks, self._fill_value, self.stored)
            found.append((there, chunk[inside]))
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        box = plain_box(key, self.shape)
        if box is None or not self._is_whole_chunks(box, value):
            self.array[key] = value
            return
        for index, _, there in cut_along_chunks(box, self.chunks):
            self._write_chunk(index, value[there])

    @property
    def _fill_value(self) -> Any:
        fill = self.array.fill_value
        return np.zeros((), self.array.dtype)[()] if fill is None else fill

    def _path_of_chunk(self, index: ChunkIndex) -> str:
        return f"{self.folder}/{self.array.metadata.encode_chunk_key(index)}"

    def _read_chunk(self, index: ChunkIndex) -> Samples | None:
        path = self._path_of_chunk(index)
        size = math.prod(self.chunks) * self.stored.itemsize
        content: bytes | memoryview
        try:
            content = read_regular(path, most_after_encoding(size))
        except _CHUNK_IS_MISSING:
            return None
        if self.codec is not None:
            content = decode_at_most(self.codec, content, size)
        return np.frombuffer(content, self.stored).reshape(self.chunks)

    def _is_whole_chunks(self, box: PixelSlices, value: object) -> bool:
        """Whether a value consists of whole chunks that may all be written here."""
        return (
            self.encodes
            and not self.array.read_only
            # Otherwise chunks of the fill value would have to be left out, or removed.
            and self.array.config.write_empty_chunks
            and isinstance(value, np.ndarray)
            and value.shape == tuple(part.stop - part.start for part in box)
            and all(
                part.start % chunk == 0 and (part.stop % chunk == 0 or part.stop == length)
                for part, chunk, length in zip(box, self.chunks, self.shape, strict=True)
            )
        )

    def _write_chunk(self, index: ChunkIndex, block: Samples) -> None:
        chunk = np.ascontiguousarray(block, self.stored)
        if block.shape != self.chunks:
            # Chunks at the edge are stored at full size, as in zarr.
            chunk = np.full(self.chunks, self._fill_value, self.stored)
            chunk[tuple(slice(0, length) for length in block.shape)] = block
        content = chunk if self.codec is None else self.codec.encode(chunk)
        path = self._path_of_chunk(index)
        # Like zarr, this writes a chunk whole or not at all. After a crash, files of this name are
        # removed. A random name, because two workers write the same chunk if one of them was
        # believed dead.
        partial = f"{os.path.splitext(path)[0]}.{os.urandom(16).hex()}.partial"
        try:
            try:
                _write_file(partial, content)
            except FileNotFoundError:
                # The folder of the array holds its metadata. Where it is not, as after a move or
                # on a worker with a disk of its own, nobody would find the chunk: this fails.
                os.stat(self.folder)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _write_file(partial, content)
            os.replace(partial, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(partial)
            raise


def _write_file(path: str, content: Any) -> None:
    with open(path, "wb") as file:
        file.write(content)


def with_fast_local_io(array: ZarrArray) -> ZarrArray | ChunkFiles:
    """Return an array with the same content, faster if its chunks are plain local files."""
    store = array.store_path.store
    if not is_plainly_local(store) or array.ndim == 0 or array.dtype.kind not in "buif":
        return array
    metadata = array.metadata
    if isinstance(metadata, ArrayV3Metadata):
        plain_format = _plain_format_3(metadata, array.dtype)
    else:
        plain_format = _plain_format_2(metadata, array.dtype)
    if plain_format is None:
        return array
    folder = os.path.join(store.root, array.store_path.path)
    return ChunkFiles(array, array.shape, array.chunks, folder, *plain_format)


def _plain_format_3(metadata: ArrayV3Metadata, dtype: SampleType) -> _PlainFormat | None:
    """Return how chunks of zarr format 3 are stored; None if that needs more than one codec."""
    first, *others = metadata.codecs
    if not (isinstance(first, BytesCodec) and isinstance(metadata.chunk_grid, RegularChunkGrid)):
        return None
    stored = dtype if first.endian is None else dtype.newbyteorder(first.endian.value)
    if not others:
        return stored, None, True
    described = others[0].to_dict()
    name = described["name"]
    configuration: Any = described.get("configuration", {})
    if len(others) > 1 or name not in _DECODERS:
        return None
    if name == "zstd":
        return stored, numcodecs.Zstd(**configuration), True
    return stored, _DECODERS[name](), False


def _plain_format_2(metadata: ArrayV2Metadata, dtype: SampleType) -> _PlainFormat | None:
    codec = metadata.compressor
    is_known = codec is None or type(codec) in _DECODERS.values()
    if metadata.filters or metadata.order != "C" or not is_known:
        return None
    return dtype, codec, False


@contextmanager
def whole_chunks() -> Iterator[None]:
    """Make arrays that are created or opened in the ``with`` block write their chunks whole.

    Users may have set another codec pipeline for all of zarr. The one of the package zarrs writes
    in place, so a killed run would leave a partial chunk.
    """
    with zarr.config.set({"codec_pipeline.path": _DEFAULT_PIPELINE}):
        yield
