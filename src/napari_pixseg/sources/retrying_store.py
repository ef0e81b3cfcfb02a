"""A zarr store on a server whose reads are repeated if the network fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import FsspecStore, StorePath, WrapperStore

from napari_pixseg.sources.decoding.bounded_decoding import ZARR_DOCUMENTS, refuse_large_value
from napari_pixseg.sources.network_faults import (
    denied_input,
    is_denied,
    is_passing,
    pauses,
    unreachable_input,
)
from napari_pixseg.sources.size_limits import MOST_BYTES
from napari_pixseg.sources.urls import ARCHIVES, public_uri
from napari_pixseg.sources.zarr_chunks import ZarrArray

# For each store, how many keys that were not found are remembered; enough for a warning.
_missing: dict[str, set[str]] = {}


_MOST_MISSING = 1 << 20


# fsspec would list a web page by its links, and a cache does not know all files.
_UNLISTED = ("http", "https", "simplecache", "filecache", "blockcache")


class RetryingStore(WrapperStore[FsspecStore]):
    """A store that returns a value, or None if the server says that there is none.

    Parameters
    ----------
    store : FsspecStore
    retries : int
        How often a read that the network spoils is tried again.
    most_bytes : int, optional
        Chunks in archives and on web servers that are stored in more are not read.
    """

    def __init__(self, store: FsspecStore, retries: int, most_bytes: int | None = None) -> None:
        super().__init__(store)
        self.retries = retries
        self._most_bytes = most_bytes

    def _with_store(self, store: FsspecStore) -> RetryingStore:
        return type(self)(store, self.retries, self._most_bytes)

    def __eq__(self, value: object) -> bool:
        return isinstance(value, RetryingStore) and self._store == value._store

    @property
    def remote(self) -> FsspecStore:
        """The wrapped store."""
        return self._store

    def uri_of(self, key: str) -> str:
        """Return the URI of a key, without secrets."""
        path = f"{self._store.path.rstrip('/')}/{key}".rstrip("/")
        return public_uri(self._store.fs.unstrip_protocol(path))

    @property
    def is_listed(self) -> bool:
        """Whether the server can list its files."""
        return not any(one in _UNLISTED for one in self._protocols)

    @property
    def _protocols(self) -> tuple[str, ...]:
        protocol = self._filesystem.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    @property
    def _filesystem(self) -> Any:
        return getattr(self._store.fs, "sync_fs", self._store.fs)

    async def get_head(self, key: str) -> Buffer | None:
        """Read the first byte of a value; None if there is no value."""
        return await self.get(key, default_buffer_prototype(), RangeByteRequest(0, 1))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a value, or a part of it.

        Raises
        ------
        Unavailable
            If the network failed in all attempts.
        InputNotFound
            If the server refuses access to this user.
        OversizedChunk, TooLarge
            If an archive or a web server has more of it than it can need to be.
        """
        # Archives know the size of a value without opening it.
        if byte_range is None and any(one in ARCHIVES for one in self._protocols):
            self._refuse_large(key)
        waiting = pauses(self.retries)
        while True:
            try:
                found = await self._get_bounded(key, prototype, byte_range)
                if found is None and not key.endswith(ZARR_DOCUMENTS):
                    self._note_missing(key)
                return found
            except Exception as error:
                if not (is_denied(error) or is_passing(error)):
                    raise
                fault = error
            # Raised out here, an error does not drag along the library's, which cannot be pickled.
            if is_denied(fault):
                raise denied_input(self.uri_of(key))
            pause = next(waiting, None)
            if pause is None:
                raise unreachable_input(self.uri_of(key), fault, self.retries)
            await asyncio.sleep(pause)

    async def _get_bounded(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        is_chunk = not key.endswith(ZARR_DOCUMENTS)
        before = MOST_BYTES.set(self._most_bytes if is_chunk else None)
        try:
            return await self._store.get(key, prototype, byte_range)
        finally:
            MOST_BYTES.reset(before)

    def _refuse_large(self, key: str) -> None:
        try:
            size = self._filesystem.info(f"{self._store.path}/{key}".strip("/"))["size"]
        except FileNotFoundError:
            return
        refuse_large_value(key, size, self._most_bytes)

    def _note_missing(self, key: str) -> None:
        keys = _missing.setdefault(self.uri_of(""), set())
        if len(keys) < _MOST_MISSING:
            keys.add(key)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Read parts of values."""
        return list(await asyncio.gather(*(self.get(k, prototype, part) for k, part in key_ranges)))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        # The wrapped store's own method would make only one attempt.
        async for answer in Store._get_many(self, requests):
            yield answer


def missing_keys(uri: str) -> frozenset[str]:
    """Return the keys that this process looked for in a store and did not find."""
    return frozenset(_missing.get(uri, ()))


def forget_missing_keys(uri: str) -> None:
    """Forget which keys of a store were not found: they may exist now."""
    _missing.pop(uri, None)


def with_retries(array: ZarrArray, retries: int) -> ZarrArray:
    """Return an array with the same content whose reads from a server are repeated on failure."""
    place = array.store_path
    store = place.store
    if isinstance(store, RetryingStore) or not isinstance(store, FsspecStore):
        return array
    remote: AsyncArray[Any] = AsyncArray(
        metadata=array.metadata,
        store_path=StorePath(RetryingStore(store, retries), place.path),
        config=array.config,
    )
    return zarr.Array(remote)
