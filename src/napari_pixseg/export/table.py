"""The region table on disk: Parquet, written in parts that fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.memory import let_go

TABLE_NAME = "regions.parquet"
_ROWS_PER_GROUP = 1 << 18


@contextmanager
def temporary_table(rows: int, dtype: np.dtype[np.void]) -> Iterator[NDArray[np.void]]:
    """Give a table that lies on disk while it is filled, and is gone afterwards."""
    if not rows:
        yield np.zeros(0, dtype)
        return
    with tempfile.TemporaryDirectory(prefix="pixseg-") as folder:
        yield np.memmap(Path(folder) / "rows", dtype, "w+", shape=(rows,))


def write_parquet(path: Path, table: NDArray[np.void]) -> None:
    """Write a structured array as Parquet, one column for each field.

    Parameters
    ----------
    path : Path
    table : (n,) structured ndarray
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = table.dtype.names or ()
    types = [pa.from_numpy_dtype(table.dtype[name]) for name in names]
    schema = pa.schema(list(zip(names, types, strict=True)))
    # Dictionaries of other columns are given up after half the work: their values differ.
    options = {"compression": "zstd", "use_dictionary": ["class"]}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, len(table), _ROWS_PER_GROUP):
            rows = table[start : start + _ROWS_PER_GROUP]
            columns = [_column(rows[name], schema.field(name).type) for name in names]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            let_go(table)


def _column(values: NDArray[Any], kind: Any) -> Any:
    """Wrap values without a look at them: pa.array() would import pandas, which takes a second."""
    import pyarrow as pa

    plain = np.packbits(values, bitorder="little") if values.dtype == bool else values
    buffer = pa.py_buffer(np.ascontiguousarray(plain))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])
