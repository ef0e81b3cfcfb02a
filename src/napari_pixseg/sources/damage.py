"""Chunks of an input that cannot be decoded: named, and left out where that is asked for.

Which they are depends on the input alone, never on tiles, so that all passes
agree on what is missing.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import CorruptInput, NotAnImage, PixsegError
from napari_pixseg.slices import moved, pieces
from napari_pixseg.sources.source import Source, is_masked

ChunkIndex: TypeAlias = tuple[int, ...]


Key: TypeAlias = tuple[slice, ...]


def read_part(source: Source, key: Key, missing: Set[ChunkIndex] = frozenset()) -> NDArray[Any]:
    """Read a part of a source.

    Parameters
    ----------
    source : Source
    key : tuple of slice
        One for each dimension, with start and stop.
    missing : set of chunk indices
        Chunks that are not looked at.

    Returns
    -------
    ndarray
        Masked where chunks are missing, if any of the part's are.

    Raises
    ------
    CorruptInput
        If another chunk cannot be decoded.
    """
    if missing and any(index in missing for index, *_ in _pieces(source, key)):
        return _masked(source, key, missing)
    with _naming_damage(source, key):
        return np.asarray(source.array[key])


def read_chunks(source: Source, key: Key) -> list[tuple[Key, NDArray[Any]]]:
    """Read a part of a source of :class:`ChunkFiles` chunk by chunk; as :func:`read_part`."""
    with _naming_damage(source, key):
        chunks: list[tuple[Key, NDArray[Any]]] = source.array.parts(key)
        return chunks


@contextmanager
def _naming_damage(source: Source, key: Key) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_damage(source, error):
            raise
        bad = damaged_chunks(source, key)
        if not bad:
            raise
        raise CorruptInput(_sentence(source, bad[0], error)) from None


def damaged_chunks(source: Source, key: Key) -> list[ChunkIndex]:
    """Return the indices of the chunks of a part that cannot be decoded."""
    try:
        source.array[key]
    except Exception as error:
        if not _is_damage(source, error):
            raise
        return [
            index for index, piece, _ in _pieces(source, key) if not _is_readable(source, piece)
        ]
    return []


def missing_parts(source: Source, missing: Set[ChunkIndex]) -> list[tuple[str, Key]]:
    """Return the file, or the tile's name, and the part of the source of each missing chunk."""
    sizes = _chunks(source)
    assert sizes is not None
    return [
        (_name(source, index), _piece(index, sizes, source.array.shape))
        for index in sorted(missing)
    ]


def known_rows(block: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels of a (..., c) block that are not masked, (n, c)."""
    rows = block.reshape(-1, block.shape[-1])
    if not is_masked(rows):
        return rows
    kept: NDArray[Any] = rows.data[~np.ma.getmaskarray(rows).any(axis=1)]
    return kept


def _masked(source: Source, key: Key, missing: Set[ChunkIndex]) -> NDArray[Any]:
    shape = tuple(part.stop - part.start for part in key)
    result = np.ma.zeros(shape, source.array.dtype)
    result.mask = np.zeros(shape, np.bool_)
    for index, piece, there in _pieces(source, key):
        if index in missing:
            result[there] = np.ma.masked
        else:
            result[there] = read_part(source, piece)
    return result


def _pieces(source: Source, key: Key) -> Iterator[tuple[ChunkIndex, Key, Key]]:
    """Cut a part along the chunks: number of the chunk, where it is in the source and the part."""
    sizes = _chunks(source)
    if sizes is None:
        return
    for index, _, there in pieces(key, sizes):
        yield index, moved(there, key), there


def _piece(index: ChunkIndex, sizes: tuple[int, ...], shape: tuple[int, ...]) -> Key:
    bounds = zip(index, sizes, shape, strict=True)
    return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in bounds)


def _chunks(source: Source) -> tuple[int, ...] | None:
    """Return the size of what is decoded by itself: the chunks inside shards, where there are."""
    own = getattr(source.array, "chunks", None) if "zarr" in source.kind else None
    chunks = own or source.chunks
    return None if chunks is None or source.kind == "dask" else tuple(int(n) for n in chunks)


def _is_readable(source: Source, piece: Key) -> bool:
    try:
        source.array[piece]
    except Exception as error:
        if not _is_damage(source, error):
            raise
        return False
    return True


def _is_damage(source: Source, error: BaseException) -> bool:
    """Whether a codec failed, and not the memory, the disk or the network."""
    if _chunks(source) is None or isinstance(error, MemoryError):
        return False
    if isinstance(error, NotAnImage) and error.__context__ is not None:
        return _is_damage(source, error.__context__)
    # gzip alone complains of its content with an OSError.
    transient = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
    return not transient and not isinstance(error, PixsegError)


def _sentence(source: Source, index: ChunkIndex, error: BaseException) -> str:
    cause = error.__context__ if isinstance(error, NotAnImage) else error
    # Of remote inputs the reason may quote a URL with its secrets.
    is_local = source.uri is None or source.uri.startswith("file:")
    reason = f"{cause}".rstrip(".") if is_local and f"{cause}" else type(cause).__name__
    (name, piece), *_ = missing_parts(source, {index})
    pixels = ", ".join(f"{part.start}:{part.stop}" for part in piece)
    return (
        f"{source.name} is damaged: {name}, chunk {index} with the pixels [{pixels}], cannot be "
        f"decoded ({' '.join(reason.split())}); repair the input, or carry on without such chunks "
        "by on_error='skip' (--on-error skip)."
    )


def _name(source: Source, index: ChunkIndex) -> str:
    array = source.array
    if "zarr" not in source.kind:
        return f"tile {'/'.join(map(str, index))}"
    shards = array.shards
    if shards is not None:
        triples = zip(index, array.chunks, shards, strict=True)
        index = tuple(i * chunk // shard for i, chunk, shard in triples)
    key: str = array.metadata.encode_chunk_key(index)
    return f"{array.path}/{key}".lstrip("/")
