"""Reports chunks of an input that cannot be decoded, or leaves them out on request.

Whether a chunk is damaged depends only on the input and never on the tiles, so all passes leave out
the same chunks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager

import numpy as np

from napari_pixseg.errors import (
    CorruptInput,
    InputNotFound,
    NotAnImage,
    OversizedChunk,
    PixsegError,
    Unavailable,
)
from napari_pixseg.slices import ChunkIndex, PixelSlices, Samples, cut_along_chunks, move_box
from napari_pixseg.sources.missing_codecs import describe_missing_codec
from napari_pixseg.sources.network_faults import (
    denied_input,
    describe_fault,
    is_denied,
    is_passing,
    out_of_files,
)
from napari_pixseg.sources.source import ChunkedArray, Source, is_masked


def read_box(source: Source, box: PixelSlices, missing: Set[ChunkIndex] = frozenset()) -> Samples:
    """Read a box of a source.

    Parameters
    ----------
    source : Source
    box : tuple of slice
        One for each dimension, with start and stop.
    missing : set of chunk indices
        Chunks that are left out and not read.

    Returns
    -------
    ndarray
        Masked at left-out chunks, if the box touches any of them.

    Raises
    ------
    CorruptInput
        If another chunk cannot be decoded.
    Unavailable, InputNotFound, NotAnImage
        If the input cannot be read at all, for reasons other than its content.
    """
    source.prove_input()
    if missing and any(index in missing for index, *_ in _chunks_of_box(source, box)):
        return _read_masked(source, box, missing)
    with _damage_reported(source, box):
        part: Samples = source.array[box]
        return part if is_masked(part) else np.asarray(part)


def read_chunks(
    source: Source, array: ChunkedArray, box: PixelSlices
) -> list[tuple[PixelSlices, Samples]]:
    """Read a box of a source chunk by chunk from its array; errors are those of :func:`read_box`.

    See :meth:`ChunkedArray.read_chunks`.
    """
    source.prove_input()
    with _damage_reported(source, box):
        return array.read_chunks(box)


@contextmanager
def _damage_reported(source: Source, box: PixelSlices) -> Iterator[None]:
    """Replace a codec's error with one that names the first damaged chunk of a box."""
    try:
        yield
    except Exception as error:
        _raise_unless_damage(source, error)
        damaged = damaged_chunks(source, box)
        if not damaged:
            raise
        kind = OversizedChunk if isinstance(error, OversizedChunk) else CorruptInput
        raise kind(_describe_damage(source, damaged[0], error)) from None


def damaged_chunks(source: Source, box: PixelSlices) -> list[ChunkIndex]:
    """Return the indices of the chunks of a box that cannot be decoded."""
    # Few boxes are damaged, so chunks are read one by one only after a failure.
    try:
        source.array[box]
    except Exception as error:  # noqa: BLE001 - codecs raise anything
        _raise_unless_damage(source, error)
        chunks = _chunks_of_box(source, box)
        return [index for index, chunk, _ in chunks if not _is_readable(source, chunk)]
    return []


def missing_parts(source: Source, missing: Set[ChunkIndex]) -> list[tuple[str, PixelSlices]]:
    """Return the name of each left-out chunk, such as its file, and its box in the source."""
    sizes = source.decoded_chunks
    assert sizes is not None
    return [
        (source.describe_chunk(index), _box_of_chunk(index, sizes, source.array.shape))
        for index in sorted(missing)
    ]


def known_rows(block: Samples) -> Samples:
    """Return the pixels of a (..., c) block that are not masked, (n, c)."""
    rows = block.reshape(-1, block.shape[-1])
    if not is_masked(rows):
        return rows
    unmasked: Samples = rows.data[~np.ma.getmaskarray(rows).any(axis=1)]
    return unmasked


def _read_masked(source: Source, box: PixelSlices, missing: Set[ChunkIndex]) -> Samples:
    # Read chunk by chunk: reading the box at once would also decode the left-out chunks.
    shape = tuple(part.stop - part.start for part in box)
    result = np.ma.zeros(shape, source.array.dtype)
    result.mask = np.zeros(shape, np.bool_)
    for index, chunk, there in _chunks_of_box(source, box):
        if index in missing:
            result[there] = np.ma.masked
        else:
            result[there] = read_box(source, chunk)
    return result


def _chunks_of_box(
    source: Source, box: PixelSlices
) -> Iterator[tuple[ChunkIndex, PixelSlices, PixelSlices]]:
    """Cut a box along chunks.

    Yields
    ------
    index, chunk, there
        Number of the chunk, its part of the box as a box of the source, and where in the box it is.
    """
    sizes = source.decoded_chunks
    if sizes is None:
        return
    for index, _, there in cut_along_chunks(box, sizes):
        yield index, move_box(there, box), there


def _box_of_chunk(index: ChunkIndex, sizes: tuple[int, ...], shape: tuple[int, ...]) -> PixelSlices:
    bounds = zip(index, sizes, shape, strict=True)
    return tuple(slice(i * size, min((i + 1) * size, n)) for i, size, n in bounds)


def _is_readable(source: Source, box: PixelSlices) -> bool:
    try:
        source.array[box]
    except Exception as error:  # noqa: BLE001 - codecs raise anything
        _raise_unless_damage(source, error)
        return False
    return True


def _raise_unless_damage(source: Source, error: Exception) -> None:
    """Raise a readable error for a failed read, unless a codec could not decode."""
    failure = _failure_of_read(source, error)
    if failure is not None:
        raise failure from (error if _is_local(source) else None)
    if not _is_damage(source, error):
        raise error


def _failure_of_read(source: Source, error: BaseException) -> PixsegError | None:
    """Return the error for an input that could not be read, or that needs a missing package.

    None if the content is damaged, or if the error is already one of ours.
    """
    # Arrays in files wrap the error of their decoder.
    if isinstance(error, NotAnImage) and error.__context__ is not None:
        return _failure_of_read(source, error.__context__)
    if isinstance(error, (PixsegError, MemoryError)):
        return None
    filename = getattr(error, "filename", None)
    shown = (
        os.path.normpath(str(filename))
        if filename and _is_local(source)
        else source.uri or source.name
    )
    if (limit := out_of_files(error)) is not None:
        return limit
    if is_denied(error):
        return denied_input(shown)
    if (missing := describe_missing_codec(error)) is not None:
        return NotAnImage(f"{source.name} {missing}")
    # Libraries also report damaged content as an OSError, but without the system's error number.
    has_number = isinstance(error, OSError) and error.errno is not None
    if isinstance(error, FileNotFoundError):
        return InputNotFound(f"{shown} no longer exists; put it back, and run again.")
    if not (is_passing(error) or has_number):
        return None
    reason = " ".join(f"{error}".split()).rstrip(".") if _is_local(source) else ""
    return Unavailable(
        f"{shown} cannot be read ({reason or describe_fault(error)}): check the disk or the "
        "connection, and finish the run with resume (resume=True, --resume)."
    )


def _is_local(source: Source) -> bool:
    """Whether errors may be quoted: for a remote input they may contain a URL with secrets."""
    return source.uri is None or source.uri.startswith("file:")


def _is_damage(source: Source, error: BaseException) -> bool:
    """Whether a codec failed, rather than the memory, the disk or the network."""
    if source.decoded_chunks is None or isinstance(error, MemoryError):
        return False
    # Arrays in files wrap the error of their decoder.
    if isinstance(error, NotAnImage) and error.__context__ is not None:
        return _is_damage(source, error.__context__)
    # gzip and bz2 report damaged content as an OSError, but without the system's error number.
    is_transient = isinstance(error, OSError) and error.errno is not None
    return isinstance(error, OversizedChunk) or not (is_transient or isinstance(error, PixsegError))


def _describe_damage(source: Source, index: ChunkIndex, error: BaseException) -> str:
    cause = error.__context__ if isinstance(error, NotAnImage) else error
    may_be_told = _is_local(source) or isinstance(cause, OversizedChunk)
    reason = f"{cause}".rstrip(".") if may_be_told and f"{cause}" else type(cause).__name__
    (name, box), *_ = missing_parts(source, {index})
    pixels = ", ".join(f"{part.start}:{part.stop}" for part in box)
    return (
        f"{source.name} is damaged: {name}, chunk {index} with the pixels [{pixels}], cannot be "
        f"decoded ({' '.join(reason.split())}); repair the input, or carry on without such chunks "
        "by on_error='skip' (--on-error skip)."
    )
