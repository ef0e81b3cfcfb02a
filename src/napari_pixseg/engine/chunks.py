"""Chunks of local zarr arrays, each in one step of one thread.

zarr's own pipeline goes back to its event loop between reading, decoding and
copying a chunk, and fills a chunk before it copies what is written to it. This
one, a codec pipeline as zarr lets others bring, does the same with the same
codecs at once, so that threads do not wait for each other. What is not plain
(remote stores, parts of chunks, shards, filters) is left to zarr's.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.codec import SupportsSyncCodec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline
from zarr.storage import LocalStore, StorePath

_PATH = "codec_pipeline.path"
_DEFAULT = "zarr.core.codec_pipeline.BatchedCodecPipeline"
_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class ChunkPipeline(BatchedCodecPipeline):
    """zarr's codec pipeline, with plain local chunks handled in one step."""

    async def read_batch(
        self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> None:
        """Read chunks into their places in ``out``; see zarr's CodecPipeline."""
        batch = list(batch_info)
        if not self._is_plain(batch):
            await super().read_batch(batch, out, drop_axes)
            return
        for getter, spec, chunk_part, out_part, _ in batch:
            parts = chunk_part, out, out_part, drop_axes
            await asyncio.to_thread(self._read, _path(getter), spec, *parts)

    async def write_batch(
        self, batch_info: Iterable[Any], value: Any, drop_axes: tuple[int, ...] = ()
    ) -> None:
        """Write parts of ``value`` as chunks; see zarr's CodecPipeline."""
        batch = list(batch_info)
        whole = all(is_whole for *_, is_whole in batch)
        # Chunks of the fill value may have to be left out, or removed.
        keeps_empty = all(spec.config.write_empty_chunks for _, spec, *_ in batch)
        if not (whole and keeps_empty and value.shape and self._is_plain(batch)):
            await super().write_batch(batch, value, drop_axes)
            return
        for setter, spec, chunk_part, out_part, is_whole in batch:
            block = value[out_part]
            if block.shape != spec.shape:
                block = self._merge_chunk_array(
                    None, value, out_part, spec, chunk_part, is_whole, drop_axes
                )
            setter.store._check_writable()
            await asyncio.to_thread(self._write, _path(setter), spec, block)

    def _is_plain(self, batch: list[Any]) -> bool:
        codecs = (self.array_bytes_codec, *self.bytes_bytes_codecs)
        return (
            not self.array_array_codecs
            and not self.supports_partial_decode
            and all(isinstance(codec, SupportsSyncCodec) for codec in codecs)
            and all(type(getattr(place, "store", None)) is LocalStore for place, *_ in batch)
        )

    def _read(
        self, path: Path, spec: Any, chunk_part: Any, out: Any, out_part: Any, drop_axes: Any
    ) -> None:
        try:
            content = spec.prototype.buffer.from_bytes(path.read_bytes())
        except _NOT_THERE:
            fill = spec.fill_value
            out[out_part] = spec.dtype.default_scalar() if fill is None else fill
            return
        for codec in reversed(self.bytes_bytes_codecs):
            content = codec._decode_sync(content, spec)  # type: ignore[attr-defined]
        block = self.array_bytes_codec._decode_sync(content, spec)  # type: ignore[attr-defined]
        part = block[chunk_part]
        out[out_part] = part.squeeze(axis=drop_axes) if drop_axes else part

    def _write(self, path: Path, spec: Any, block: Any) -> None:
        content = self.array_bytes_codec._encode_sync(block, spec)  # type: ignore[attr-defined]
        for codec in self.bytes_bytes_codecs:
            content = codec._encode_sync(content, spec)  # type: ignore[attr-defined]
        # As zarr does: whole or not at all, under a name that is swept up after a crash.
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        try:
            try:
                partial.write_bytes(content.as_buffer_like())
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_bytes(content.as_buffer_like())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _path(place: StorePath) -> Path:
    store = place.store
    assert isinstance(store, LocalStore)
    return store.root / place.path


register_pipeline(ChunkPipeline)


@contextmanager
def whole_chunks() -> Iterator[None]:
    """Have arrays that are created or opened meanwhile write their chunks whole, by this pipeline.

    That of zarrs, which users may have set for all of zarr, writes in place: a run that is killed
    would leave a part of a chunk.
    """
    with zarr.config.set({_PATH: f"{ChunkPipeline.__module__}.{ChunkPipeline.__qualname__}"}):
        yield


@contextmanager
def quick_reading() -> Iterator[None]:
    """Have arrays that are opened meanwhile read by this pipeline, unless another one is set."""
    if zarr.config.get(_PATH) != _DEFAULT:
        yield
        return
    with whole_chunks():
        yield
