"""The region table on disk: Parquet, written in parts that fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.memory import let_go
from napari_pixseg.engine.regiontable import Columns, put_rows

TABLE_NAME = "regions.parquet"
_ROWS_PER_GROUP = 1 << 17


@contextmanager
def temporary_table(rows: int, dtype: np.dtype[np.void]) -> Iterator[Columns]:
    """Give columns that lie on disk while they are filled, and are gone afterwards."""
    names = dtype.names or ()
    if not rows:
        yield {name: np.zeros(0, dtype[name]) for name in names}
        return
    with tempfile.TemporaryDirectory(prefix="pixseg-") as folder:
        yield {
            name: np.memmap(Path(folder) / name, dtype[name], "w+", shape=(rows,)) for name in names
        }


def write_parquet(
    path: Path, table: Columns, more: Columns, check: Callable[[], None] = lambda: None
) -> None:
    """Write columns as Parquet.

    Parameters
    ----------
    path : Path
    table : dict of str to (n,) ndarray
        Row i is region i + 1.
    more : dict of str to ndarray
        Rows that are put into the table on the way, ascending by ``number``.
    check : callable
        Called before each group of rows; may raise.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.from_numpy_dtype(column.dtype) for name, column in table.items()}
    # Dictionaries of other columns are given up after half the work: their values differ.
    # Numbers and coordinates differ little from row to row.
    packed = [name for name, kind in kinds.items() if pa.types.is_integer(kind) and name != "class"]
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["class"]}
    options["column_encoding"] = dict.fromkeys(packed, "DELTA_BINARY_PACKED")
    with pq.ParquetWriter(path, pa.schema(list(kinds.items())), **options) as writer:
        for start in range(0, len(table["number"]), _ROWS_PER_GROUP):
            check()
            rows = slice(start, start + _ROWS_PER_GROUP)
            group = {name: column[rows] for name, column in table.items()}
            first, last = np.searchsorted(more["number"], [start + 1, start + 1 + _ROWS_PER_GROUP])
            put_rows(group, {name: more[name][first:last] for name in more}, start + 1)
            columns = [_column(group[name], kind) for name, kind in kinds.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))
            for column in table.values():
                let_go(column)


def _column(values: NDArray[Any], kind: Any) -> Any:
    """Wrap values without a look at them: pa.array() would import pandas, which takes a second."""
    import pyarrow as pa

    plain = np.packbits(values, bitorder="little") if values.dtype == bool else values
    buffer = pa.py_buffer(np.ascontiguousarray(plain))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])
