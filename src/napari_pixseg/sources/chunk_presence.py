"""Counts how many chunks of a zarr array exist: zarr reads a missing chunk as the fill value.

Without this check, an image without any chunk would be segmented as one color, without an error.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from napari_pixseg.errors import InputNotFound
from napari_pixseg.sources.regular_files import is_plainly_local
from napari_pixseg.sources.retrying_store import (
    RetryingStore,
    forget_missing_keys,
    missing_keys,
)
from napari_pixseg.sources.source import ChunkCensus
from napari_pixseg.sources.zarr_chunks import ZarrArray

# How many chunks are requested one by one if a store cannot be listed.
_PROBES = 16


@dataclass(frozen=True)
class ChunkPresence:
    """How many of an array's chunks, or shards, exist.

    Attributes
    ----------
    present, total : int
    other_name : str or None
        A file that would be a chunk if the array's metadata used another naming scheme.
    """

    present: int
    total: int
    other_name: str | None = None

    def warn(self) -> tuple[str, ...]:
        """Return a sentence about missing chunks, if there are any."""
        missing = self.total - self.present
        if missing <= 0:
            return ()
        verb = "does" if missing == 1 else "do"
        return (
            f"{missing} of {self.total} chunks {verb} not exist in the input; their pixels are its "
            "fill value, as in arrays that leave such chunks out.",
        )


@dataclass(frozen=True)
class ChunkNames:
    """The names of an array's chunks below its folder, according to its metadata.

    Attributes
    ----------
    grid : tuple of int
        Number of chunks, or of shards, along each axis.
    encode : callable
        Makes the name of a chunk from its index.
    """

    grid: tuple[int, ...]
    encode: Callable[[tuple[int, ...]], str]

    @classmethod
    def of_array(cls, array: ZarrArray) -> ChunkNames:
        """Return the names of an array's chunks; no pixels are read."""
        stored = array.shards or array.chunks
        grid = tuple(math.ceil(n / size) for n, size in zip(array.shape, stored, strict=True))
        return cls(grid, array.metadata.encode_chunk_key)

    @property
    def total(self) -> int:
        """Number of all chunks."""
        return math.prod(self.grid)

    @property
    def first(self) -> str:
        """Name of the first chunk."""
        return self.encode((0,) * len(self.grid))

    def is_chunk(self, name: str) -> bool:
        """Whether a file of this name is a chunk."""
        index = self._index_in(name)
        return index is not None and name == self.encode(index)

    def is_otherwise_named(self, name: str) -> bool:
        """Whether a file would be a chunk under another of the usual naming schemes."""
        return self._index_in(name) is not None and not self.is_chunk(name)

    def spread(self) -> Iterator[tuple[int, ...]]:
        """Yield some indices: all corners, and some in between."""
        ends = [sorted({0, n // 2, n - 1}) for n in self.grid]
        return islice(product(*ends), _PROBES)

    def other_names(self, index: tuple[int, ...]) -> list[str]:
        """Return the names that a chunk would have under the other usual schemes."""
        parts = [str(number) for number in index]
        ways = (".".join(parts), "/".join(parts), "/".join(["c", *parts]), ".".join(["c", *parts]))
        return [name for name in ways if name != self.encode(index)]

    def _index_in(self, name: str) -> tuple[int, ...] | None:
        parts = name.replace("/", ".").split(".")
        if parts[0] == "c":
            parts = parts[1:]
        if len(parts) != len(self.grid) or not all(map(str.isdecimal, parts)):
            return None
        index = tuple(map(int, parts))
        return index if all(i < n for i, n in zip(index, self.grid, strict=True)) else None


class ChunkTally:
    """Counts the chunks among names of files, which it gets one by one."""

    def __init__(self, names: ChunkNames) -> None:
        self._names = names
        self._present = 0
        self._other: str | None = None

    def add(self, name: str) -> None:
        """Take the name of a file, relative to the array's folder."""
        if self._names.is_chunk(name):
            self._present += 1
        elif self._other is None and self._names.is_otherwise_named(name):
            self._other = name

    def result(self) -> ChunkPresence:
        """Return the count."""
        return ChunkPresence(self._present, self._names.total, self._other)


def count_chunks(array: ZarrArray) -> ChunkPresence | None:
    """List an array's files once and count its chunks; no file is opened.

    Parameters
    ----------
    array : zarr.Array
        The array of a source, or a wrapper of it.

    Returns
    -------
    ChunkPresence or None
        None if the store cannot be listed, as on plain web servers.
    """
    names = _listed_names(array)
    if names is None:
        return None
    tally = ChunkTally(ChunkNames.of_array(array))
    for name in names:
        tally.add(name)
    return tally.result()


class ZarrCensus(ChunkCensus):
    """Counts the chunks of a zarr array, from a listing or from the reads that failed.

    Parameters
    ----------
    array : zarr.Array
    shown : str
        The array's name in error messages.
    """

    def __init__(self, array: ZarrArray, shown: str) -> None:
        self._array = array
        self._shown = shown
        self._names = ChunkNames.of_array(array)
        self._tally = ChunkTally(self._names)
        self._is_told = False
        self._listed: ChunkPresence | None = None

    def begin(self, is_told: bool) -> None:
        """Forget the last count, and list the files unless they are listed anyway."""
        self._tally = ChunkTally(self._names)
        store = self._array.store_path.store
        if isinstance(store, RetryingStore):
            forget_missing_keys(store.uri_of(""))
        self._is_told = is_told
        self._listed = None if is_told else count_chunks(self._array)

    def see(self, name: str) -> None:
        """Take the name of a file in the array's folder."""
        self._tally.add(name)

    @property
    def needs_reads(self) -> bool:
        """Whether only reading the chunks tells which of them exist."""
        return not self._is_told and self._listed is None

    def missing_here(self) -> frozenset[str]:
        """Return the keys of chunks that this process requested from a server and did not find."""
        place = self._array.store_path
        if not isinstance(place.store, RetryingStore) or place.store.is_listed:
            return frozenset()
        prefix = f"{place.path}/".lstrip("/")
        found = missing_keys(place.store.uri_of(""))
        return frozenset(key for key in found if key.startswith(prefix))

    def end(self, unfound: frozenset[str], is_allowed: bool) -> tuple[str, ...]:
        """Return warnings about missing chunks, or refuse an array without any."""
        if self._is_told:
            presence = self._tally.result()
        elif self._listed is not None:
            presence = self._listed
        else:
            total = self._names.total
            presence = ChunkPresence(max(total - len(unfound), 0), total)
        if presence.present == 0 and not is_allowed and not _is_complete(self._array):
            raise absent_chunks(self._names, presence.other_name, self._shown)
        return presence.warn()


def refuse_absence(array: ZarrArray, shown: str) -> None:
    """Refuse an array without any chunk, as far as a listing or a few requests can tell.

    If a store cannot be listed and the requested chunks do not exist, only the first pass can tell.

    Raises
    ------
    InputNotFound
    """
    names = ChunkNames.of_array(array)
    if _is_complete(array) or _exists(array, names.first):
        return
    listed = _listed_names(array)
    if listed is None:
        if any(_exists(array, names.encode(index)) for index in names.spread()):
            return
        others = (other for index in names.spread() for other in names.other_names(index))
        other = next((one for one in others if _exists(array, one)), None)
        if other is None:
            return
        raise absent_chunks(names, other, shown)
    other = None
    for name in listed:
        if names.is_chunk(name):
            return
        if other is None and names.is_otherwise_named(name):
            other = name
    raise absent_chunks(names, other, shown)


def absent_chunks(names: ChunkNames, other_name: str | None, shown: str) -> InputNotFound:
    """Return the error for an array without any chunk."""
    if other_name is not None:
        return InputNotFound(
            f"No chunk of this array exists at {shown}: its metadata say that chunks are named "
            f"like {names.first}, but there are files like {other_name}; correct the separator "
            "(dimension_separator, chunk_key_encoding) in the metadata, or use allow_missing=True "
            "(--allow-missing) to segment the fill value."
        )
    return InputNotFound(
        f"None of the {names.total} chunks of this array exists at {shown}, where they would be "
        f"named like {names.first}; see whether they were copied, or, if all pixels are meant to "
        "be the fill value, use allow_missing=True (--allow-missing)."
    )


def _is_complete(array: ZarrArray) -> bool:
    """Whether missing chunks were left out on purpose, because chunks in memory cannot get lost."""
    return isinstance(array.store_path.store, MemoryStore)


def _exists(array: ZarrArray, name: str) -> bool:
    store, path = array.store_path.store, array.store_path.path
    key = f"{path}/{name}".lstrip("/")
    if is_plainly_local(store):
        return os.path.exists(os.path.join(store.root, key))
    if isinstance(store, RetryingStore):
        return sync(store.get_head(key)) is not None
    return sync(store.get(key, default_buffer_prototype())) is not None


def _listed_names(array: ZarrArray) -> Iterator[str] | None:
    """Return the names of the files below an array's folder; None if they cannot be listed."""
    store, path = array.store_path.store, array.store_path.path
    if is_plainly_local(store):
        return _walk_names(os.path.join(store.root, path), "")
    if not store.supports_listing or (isinstance(store, RetryingStore) and not store.is_listed):
        return None
    prefix = f"{path}/".lstrip("/")
    return iter(sync(_collect(store, prefix)))


async def _collect(store: Store, prefix: str) -> list[str]:
    found: AsyncIterator[Any] = store.list_prefix(prefix)
    return [name.removeprefix(prefix).lstrip("/") async for name in found]


def _walk_names(folder: str, above: str) -> Iterator[str]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk_names(entry.path, f"{above}{entry.name}/")
            else:
                yield above + entry.name
