"""Chunks of local zarr arrays, each in one step of the thread that asks for it.

zarr goes through its event loop between finding, reading, decoding and copying a
chunk, and threads that work on tiles wait for each other there. Where chunks are
plain files this reads and writes the same bytes with the same codecs at once.
What is not plain (remote stores, parts of chunks that are to be written, shards,
filters, steps) is left to zarr.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numcodecs
import numcodecs.abc
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.storage import LocalStore

from napari_pixseg.slices import Index, PixelSlices, pieces

_DEFAULT = "zarr.core.codec_pipeline.BatchedCodecPipeline"


_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


# What these decode does not depend on their settings.
_DECODERS = {"zstd": numcodecs.Zstd, "blosc": numcodecs.Blosc, "gzip": numcodecs.GZip}


@dataclass(frozen=True)
class ChunkFiles:
    """A local zarr array whose chunks are files; what is not said here is the array's.

    Attributes
    ----------
    array : zarr.Array
    shape, chunks : tuple of int
        Of the array, which looks them up each time.
    folder : str
        Where the array is.
    stored : dtype
        Of the samples in the files.
    codec : numcodecs codec or None
        What decodes a file.
    encodes : bool
        Whether the codec has the settings of the array, so that it may also write.
    """

    array: Any
    shape: Index
    chunks: Index
    folder: str
    stored: np.dtype[Any]
    codec: numcodecs.abc.Codec | None
    encodes: bool

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # Of unpickling, when there is no array yet.
            raise AttributeError(name)
        return getattr(self.array, name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it, for NumPy."""
        if copy is False:
            raise ValueError("An array on disk is not read without a copy.")
        return np.asarray(self[(...,)], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        region = _region(key, self.shape)
        if region is None:
            return np.asarray(self.array[key])
        result = np.empty([part.stop - part.start for part in region], self.array.dtype)
        for index, inside, there in pieces(region, self.chunks):
            chunk = self._chunk(index)
            result[there] = self._fill if chunk is None else chunk[inside]
        return result

    def parts(self, region: PixelSlices) -> list[tuple[PixelSlices, NDArray[Any]]]:
        """Return the chunks of a region: where in it each is, and its samples as they are.

        They cannot be written, and what is not in the region is cut off.
        """
        found = []
        for index, inside, there in pieces(region, self.chunks):
            chunk = self._chunk(index)
            if chunk is None:
                chunk = np.full(self.chunks, self._fill, self.stored)
            found.append((there, chunk[inside]))
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        region = _region(key, self.shape)
        if region is None or not self._takes(region, value):
            self.array[key] = value
            return
        for index, _, there in pieces(region, self.chunks):
            self._write(index, value[there])

    @property
    def _fill(self) -> Any:
        fill = self.array.fill_value
        return np.zeros((), self.array.dtype)[()] if fill is None else fill

    def _path(self, index: Index) -> str:
        return f"{self.folder}/{self.array.metadata.encode_chunk_key(index)}"

    def _chunk(self, index: Index) -> NDArray[Any] | None:
        try:
            with open(self._path(index), "rb", buffering=0) as file:
                content = file.read()
        except _NOT_THERE:
            return None
        if self.codec is not None:
            content = self.codec.decode(content)
        return np.frombuffer(content, self.stored).reshape(self.chunks)

    def _takes(self, region: PixelSlices, value: Any) -> bool:
        """Whether a value is whole chunks, and all of them are to be written."""
        return (
            self.encodes
            and not self.array.read_only
            # Chunks of the fill value may have to be left out, or removed.
            and self.array.config.write_empty_chunks
            and isinstance(value, np.ndarray)
            and value.shape == tuple(part.stop - part.start for part in region)
            and all(
                part.start % chunk == 0 and (part.stop % chunk == 0 or part.stop == length)
                for part, chunk, length in zip(region, self.chunks, self.shape, strict=True)
            )
        )

    def _write(self, index: Index, block: NDArray[Any]) -> None:
        chunk = np.ascontiguousarray(block, self.stored)
        if block.shape != self.chunks:
            chunk = np.full(self.chunks, self._fill, self.stored)
            chunk[tuple(slice(0, length) for length in block.shape)] = block
        content = chunk if self.codec is None else self.codec.encode(chunk)
        path = self._path(index)
        # As zarr does: whole or not at all, under a name that is swept up after a crash.
        partial = f"{os.path.splitext(path)[0]}.{os.urandom(16).hex()}.partial"
        try:
            try:
                _put(partial, content)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _put(partial, content)
            os.replace(partial, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(partial)
            raise


def _put(path: str, content: Any) -> None:
    with open(path, "wb") as file:
        file.write(content)


def with_fast_local_io(array: zarr.Array[Any]) -> Any:
    """Return an array that does the same, quickly where its chunks are plain files."""
    store = array.store_path.store
    if type(store) is not LocalStore or array.ndim == 0 or array.dtype.kind not in "buif":
        return array
    format_of = _format_3 if array.metadata.zarr_format == 3 else _format_2
    plain = format_of(array.metadata, array.dtype)
    if plain is None:
        return array
    folder = os.path.join(store.root, array.store_path.path)
    return ChunkFiles(array, array.shape, array.chunks, folder, *plain)


def _format_3(metadata: Any, dtype: Any) -> tuple[Any, Any, bool] | None:
    """Return type in the files, codec, and whether it encodes; None if that is not all there is."""
    first, *others = metadata.codecs
    if not (isinstance(first, BytesCodec) and isinstance(metadata.chunk_grid, RegularChunkGrid)):
        return None
    stored = dtype if first.endian is None else dtype.newbyteorder(first.endian.value)
    if not others:
        return stored, None, True
    described = others[0].to_dict()
    name, configuration = described["name"], described.get("configuration", {})
    if len(others) > 1 or name not in _DECODERS:
        return None
    if name == "zstd":
        return stored, numcodecs.Zstd(**configuration), True
    return stored, _DECODERS[name](), False


def _format_2(metadata: Any, dtype: Any) -> tuple[Any, Any, bool] | None:
    codec = metadata.compressor
    known = codec is None or type(codec) in _DECODERS.values()
    if metadata.filters or metadata.order != "C" or not known:
        return None
    return dtype, codec, False


def _region(key: Any, shape: Index) -> PixelSlices | None:
    """Return the slices that a key stands for, with bounds; None if it is something else."""
    key = key if isinstance(key, tuple) else (key,)
    if len(key) == 1 and key[0] is Ellipsis:
        key = (slice(None),) * len(shape)
    if len(key) != len(shape) or not all(isinstance(part, slice) for part in key):
        return None
    bounds = [part.indices(length) for part, length in zip(key, shape, strict=True)]
    if any(step != 1 or start >= stop for start, stop, step in bounds):
        return None
    return tuple(slice(start, stop) for start, stop, _ in bounds)


@contextmanager
def whole_chunks() -> Iterator[None]:
    """Have arrays that are created or opened meanwhile write their chunks whole.

    The pipeline of zarrs, which users may have set for all of zarr, writes in place: a run that
    is killed would leave a part of a chunk.
    """
    with zarr.config.set({"codec_pipeline.path": _DEFAULT}):
        yield
