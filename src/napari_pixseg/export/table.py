"""The region table on disk: Parquet, written in parts that fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE_NAME = "regions.parquet"
_ROWS_PER_GROUP = 1 << 20


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
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(table), _ROWS_PER_GROUP):
            rows = table[start : start + _ROWS_PER_GROUP]
            columns = [np.ascontiguousarray(rows[name]) for name in names]
            writer.write_table(pa.table(columns, schema=schema))
