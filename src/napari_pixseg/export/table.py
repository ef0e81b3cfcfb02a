"""The region table on disk: Parquet, written in parts that fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.regiontable import Columns, put_rows

TABLE_NAME = "regions.parquet"
_ROWS_PER_GROUP = 1 << 17


class RowFiles:
    """Rows of the region table on disk, tile by tile as they come, until they can be put in order.

    Parameters
    ----------
    folder : Path
    dtype : structured dtype
        Columns, ``number`` among them, which ascends within a tile.
    """

    def __init__(self, folder: Path, dtype: np.dtype[np.void]) -> None:
        self._folder = folder
        self.kinds = {name: dtype[name] for name in dtype.names or ()}
        # First and last number of each tile that has rows.
        self._numbers: dict[int, tuple[int, int]] = {}

    def put(self, rows: Columns, tile: int) -> None:
        """Write the rows of a tile; the disk is the only thing that several threads share."""
        if not len(rows["number"]):
            return
        with open(self._folder / str(tile), "wb") as file:
            for name, kind in self.kinds.items():
                file.write(np.ascontiguousarray(rows[name], kind).data)
        self._numbers[tile] = int(rows["number"][0]), int(rows["number"][-1])

    def group(self, start: int, stop: int) -> Columns:
        """Return rows start <= number < stop in order; those that were not put are undefined."""
        group = {name: np.empty(stop - start, kind) for name, kind in self.kinds.items()}
        for tile, (first, last) in self._numbers.items():
            if first < stop and last >= start:
                put_rows(group, self._part(tile, start, stop), start)
        return group

    def _part(self, tile: int, start: int, stop: int) -> Columns:
        content = np.memmap(self._folder / str(tile), np.uint8, "r")
        count, offset = len(content) // sum(kind.itemsize for kind in self.kinds.values()), 0
        columns: Columns = {}
        for name, kind in self.kinds.items():
            columns[name] = np.ndarray(count, kind, content, offset)
            offset += count * kind.itemsize
        rows = slice(*np.searchsorted(columns["number"], [start, stop]))
        return {name: column[rows] for name, column in columns.items()}


@contextmanager
def temporary_rows(dtype: np.dtype[np.void]) -> Iterator[RowFiles]:
    """Give a place on disk for rows; they are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pixseg-") as folder:
        yield RowFiles(Path(folder), dtype)


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
    # Dictionaries of other columns are given up after half the work: their values differ.
    # Numbers and coordinates differ little from row to row.
    packed = [name for name, kind in kinds.items() if pa.types.is_integer(kind) and name != "class"]
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["class"]}
    options["column_encoding"] = dict.fromkeys(packed, "DELTA_BINARY_PACKED")
    with pq.ParquetWriter(path, pa.schema(list(kinds.items())), **options) as writer:
        for start in range(1, count + 1, _ROWS_PER_GROUP):
            check()
            stop = min(start + _ROWS_PER_GROUP, count + 1)
            group = rows.group(start, stop)
            late = slice(*np.searchsorted(more["number"], [start, stop]))
            put_rows(group, {name: column[late] for name, column in more.items()}, start)
            columns = [_column(group[name], kind) for name, kind in kinds.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))


def _column(values: NDArray[Any], kind: Any) -> Any:
    """Wrap values without a look at them: pa.array() would import pandas, which takes a second."""
    import pyarrow as pa

    plain = np.packbits(values, bitorder="little") if values.dtype == bool else values
    buffer = pa.py_buffer(np.ascontiguousarray(plain))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])
