"""A zarr store on a server whose reads are tried again when the network spoils them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, StorePath, WrapperStore

from napari_pixseg.sources.network_faults import (
    denied_input,
    is_denied,
    is_passing,
    pauses,
    unreachable_input,
)
from napari_pixseg.sources.urls import public_uri
from napari_pixseg.sources.zarr_chunks import ZarrArray


class RetryingStore(WrapperStore[FsspecStore]):
    """A store that answers with a value, or None where the server says that there is none.

    Parameters
    ----------
    store : FsspecStore
    retries : int
        How often a read that the network spoils is tried again.
    """

    def __init__(self, store: FsspecStore, retries: int) -> None:
        super().__init__(store)
        self.retries = retries

    def _with_store(self, store: FsspecStore) -> RetryingStore:
        return type(self)(store, self.retries)

    def __eq__(self, value: object) -> bool:
        return isinstance(value, RetryingStore) and self._store == value._store

    @property
    def remote(self) -> FsspecStore:
        """The store itself."""
        return self._store

    def uri_of(self, key: str) -> str:
        """Return the URI of a key, without secrets."""
        path = f"{self._store.path.rstrip('/')}/{key}".rstrip("/")
        return public_uri(self._store.fs.unstrip_protocol(path))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a value, or a part of it.

        Raises
        ------
        Unavailable
            If the network failed in all attempts.
        InputNotFound
            If the server refuses this user.
        """
        waiting = pauses(self.retries)
        while True:
            try:
                return await self._store.get(key, prototype, byte_range)
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
        # The wrapped store would answer by itself, without another attempt.
        async for answer in Store._get_many(self, requests):
            yield answer


def with_retries(array: ZarrArray, retries: int) -> ZarrArray:
    """Return an array with the same content whose reads from a server are tried again."""
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
