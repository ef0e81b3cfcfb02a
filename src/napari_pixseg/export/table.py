"""The region table on disk: Parquet, written in parts that fit in memory."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.regiontable import Columns, put_rows
from napari_pixseg.export.place import ROWS_NAME, Place
from napari_pixseg.model.compile import compiled

TABLE_NAME = "regions.parquet"
_ROWS_PER_GROUP = 1 << 17
_INTEGERS, _REALS = "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"


class RowFiles:
    """Rows of the region table on disk, part by part as they come, until they can be put in order.

    Parameters
    ----------
    folder : Path
    dtype : structured dtype
        Columns, ``number`` among them.
    """

    def __init__(self, folder: Path, dtype: np.dtype[np.void]) -> None:
        self._folder, self._names = folder, itertools.count()
        self.kinds = {name: dtype[name] for name in dtype.names or ()}
        # First and last number of each part.
        self._numbers: dict[int, tuple[int, int]] = {}

    def put(self, rows: Columns) -> None:
        """Write rows whose numbers ascend; the disk is all that several threads share."""
        if not len(rows["number"]):
            return
        part = next(self._names)
        with open(self._folder / str(part), "wb") as file:
            for name, kind in self.kinds.items():
                file.write(np.ascontiguousarray(rows[name], kind).data)
        self._numbers[part] = int(rows["number"][0]), int(rows["number"][-1])

    def group(self, start: int, stop: int) -> Columns:
        """Return rows start <= number < stop in order; those that were not put are undefined."""
        group = {name: np.empty(stop - start, kind) for name, kind in self.kinds.items()}
        for number, (first, last) in self._numbers.items():
            if first < stop and last >= start:
                part = self._part(number, start, stop)
                for name, values in part.items():
                    _lay(values, part["number"], start, group[name])
        return group

    def _part(self, number: int, start: int, stop: int) -> Columns:
        # As it may be written: kernels for arrays that cannot would have to be compiled besides.
        content = np.memmap(self._folder / str(number), np.uint8, "c")
        count, offset = len(content) // sum(kind.itemsize for kind in self.kinds.values()), 0
        columns: Columns = {}
        for name, kind in self.kinds.items():
            columns[name] = np.ndarray(count, kind, content, offset)
            offset += count * kind.itemsize
        rows = slice(*np.searchsorted(columns["number"], [start, stop]))
        return {name: column[rows] for name, column in columns.items()}


@compiled
def _lay(
    values: NDArray[Any], numbers: NDArray[np.int64], first: int, column: NDArray[Any]
) -> None:
    """Write values where their numbers say."""
    for i in range(values.size):
        column[numbers[i] - first] = values[i]


@contextmanager
def temporary_rows(dtype: np.dtype[np.void], place: Place) -> Iterator[RowFiles]:
    """Give a place on disk for rows; they are gone afterwards.

    A hundred bytes for each region may be more than where the system keeps temporary files, so
    they lie in the unfinished store, if that is on a disk.
    """
    folder = place.child(ROWS_NAME)
    if not place.is_local:
        with tempfile.TemporaryDirectory(prefix="pixseg-") as elsewhere:
            yield RowFiles(Path(elsewhere), dtype)
        return
    # What a run that was killed has left.
    folder.remove()
    folder.local.mkdir()
    try:
        yield RowFiles(folder.local, dtype)
    finally:
        # At the latest they go with the commit.
        with suppress(OSError):
            folder.remove()


def write_parquet(
    path: Path, rows: RowFiles, more: Columns, count: int, check: Callable[[], None] = lambda: None
) -> None:
    """Write rows 1..count as Parquet.

    Parameters
    ----------
    path : Path
    rows : RowFiles
        Most of the rows.
    more : dict of str to ndarray
        The others, ascending by ``number``.
    count : int
    check : callable
        Called before each group of rows; may raise.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.from_numpy_dtype(kind) for name, kind in rows.kinds.items()}
    # Dictionaries are given up after half the work: values differ. Numbers and coordinates
    # differ little from row to row, and the first bytes of means are alike.
    encodings = {pa.int32(): _INTEGERS, pa.int64(): _INTEGERS, pa.float64(): _REALS}
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
    options["write_batch_size"] = _ROWS_PER_GROUP
    options["column_encoding"] = {
        name: encodings[kind] for name, kind in kinds.items() if kind in encodings
    }
    starts = range(1, count + 1, _ROWS_PER_GROUP)

    def ordered(start: int) -> Columns:
        stop = min(start + _ROWS_PER_GROUP, count + 1)
        group = rows.group(start, stop)
        late = slice(*np.searchsorted(more["number"], [start, stop]))
        put_rows(group, {name: column[late] for name, column in more.items()}, start)
        return group

    with pq.ParquetWriter(path, pa.schema(list(kinds.items())), **options) as writer:
        # The next group is put in order while one is compressed.
        for group in _one_ahead(ordered, starts):
            check()
            columns = [_column(group[name], kind) for name, kind in kinds.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))


def _one_ahead(make: Callable[[int], Columns], starts: Sequence[int]) -> Iterator[Columns]:
    with ThreadPoolExecutor(1) as beside:
        coming = [beside.submit(make, start) for start in starts[:1]]
        for start in starts[1:]:
            coming.append(beside.submit(make, start))
            yield coming.pop(0).result()
        for last in coming:
            yield last.result()


def _column(values: NDArray[Any], kind: Any) -> Any:
    """Wrap values without a look at them: pa.array() would import pandas, which takes a second."""
    import pyarrow as pa

    plain = np.packbits(values, bitorder="little") if values.dtype == bool else values
    buffer = pa.py_buffer(np.ascontiguousarray(plain))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])
