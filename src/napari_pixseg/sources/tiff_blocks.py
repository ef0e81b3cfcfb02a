"""Tiles and strips of a TIFF file as a zarr array, which keeps those it decoded last.

Importing this module loads zarr, so it is not imported for uncompressed files.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from tifffile import TIFF
from zarr.abc.store import Store
from zarr.storage import WrapperStore

from napari_pixseg.errors import OversizedChunk
from napari_pixseg.sources.decoding.picture_headers import pixels_of_picture

if TYPE_CHECKING:
    from tifffile import TiffPage, TiffPageSeries
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from napari_pixseg.sources.zarr_chunks import ZarrArray

# Decoded blocks kept for each file: neighboring tiles share a strip or a halo.
_KEPT_BYTES = 64 << 20

# Compressions whose blocks are pictures with a header; the last is LERC.
_PICTURES = TIFF.IMAGE_COMPRESSIONS | {34887}

# The last strip may have as many rows as the others, and small tiles whatever they like.
_SMALL_PICTURE = 1 << 16


def open_blocks(series: TiffPageSeries) -> ZarrArray:
    """Return a zarr array whose chunks are the tiles or strips of a series."""
    _bound_decoder(series.keyframe)
    store = series.aszarr(level=0)
    block = math.prod(series.keyframe.chunks) * np.dtype(series.dtype).itemsize
    kept = max(1, _KEPT_BYTES // block)
    return zarr.open_array(_KeptBlocks(store, kept), mode="r", zarr_format=2)


def _bound_decoder(page: TiffPage) -> None:
    """Let a page decode no block that is a picture much larger than the block.

    Other blocks are decoded into as much room as they need.
    """
    if page.compression not in _PICTURES:
        return
    decode = page.decode
    limit = max(math.prod(page.chunks), _SMALL_PICTURE)

    @wraps(decode)
    def decode_at_most(data: bytes | None, index: int, /, **options: Any) -> Any:
        pixels = None if data is None else pixels_of_picture(data)
        if pixels is not None and pixels > limit:
            raise OversizedChunk(
                f"It is a picture of {pixels} pixels, but the tags of the TIFF say {page.chunks}."
            )
        return decode(data, index, **options)

    # tifffile keeps one decoder for all pages that are stored alike, and one at each page.
    page.parent.root._decoders[page.hash] = decode_at_most
    page.__dict__["decode"] = decode_at_most


class _KeptBlocks(WrapperStore[Store]):
    """A store that keeps the blocks it decoded last.

    It runs in zarr's only event loop, so it needs no lock.

    Parameters
    ----------
    store : Store
    most : int
        How many blocks are kept.
    """

    def __init__(self, store: Store, most: int) -> None:
        super().__init__(store)
        self._most = most
        self._kept: OrderedDict[str, asyncio.Future[Buffer | None]] = OrderedDict()

    @property
    def read_only(self) -> bool:
        # tifffile's store is writable if the TIFF is uncompressed and its file writable, as uploads
        # and files in memory are. zarr refuses to open a writable store for reading.
        return True

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is not None or ".z" in key:
            return await self._store.get(key, prototype, byte_range)
        found = self._kept.get(key)
        if found is None or (found.done() and (found.cancelled() or found.exception())):
            # The future is kept, not the block, so that two readers wait for the same decoding.
            found = asyncio.ensure_future(self._store.get(key, prototype))
            self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return await asyncio.shield(found)
