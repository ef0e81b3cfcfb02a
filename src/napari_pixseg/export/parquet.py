"""The region table on disk: a Parquet file, written in groups of rows that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from napari_pixseg.export.measurement_spill import RowFiles
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.regions.region_rows import Columns, put_rows

# About 20 MiB of rows; two groups are in memory at a time.
_ROWS_PER_GROUP = 1 << 17
_INTEGERS = "DELTA_BINARY_PACKED"
_REALS = "BYTE_STREAM_SPLIT"


def write_parquet(
    path: Path, rows: RowFiles, more: Columns, count: int, check: Callable[[], None] = lambda: None
) -> None:
    """Write rows 1..count as Parquet.

    Parameters
    ----------
    path : Path
    rows : RowFiles
        Files with most of the rows.
    more : dict of str to ndarray
        The other rows, ascending by ``number``.
    count : int
    check : callable
        Called before each group of rows; may raise to stop the writing.
    """
    dtype = rows.row_builder.dtype
    kinds = {name: pa.from_numpy_dtype(dtype[name]) for name in dtype.names or ()}
    # Few values repeat, so Parquet would abandon its dictionaries halfway. Delta encoding suits
    # numbers and coordinates, which change little from row to row. Byte-stream splitting suits
    # means, whose first bytes are alike.
    encodings = {pa.int32(): _INTEGERS, pa.int64(): _INTEGERS, pa.float64(): _REALS}
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}
    options["write_batch_size"] = _ROWS_PER_GROUP
    # If a crash of the machine cuts a file off, a resumed run notices it by these checksums.
    options["write_page_checksum"] = True
    options["column_encoding"] = {
        name: encodings[kind] for name, kind in kinds.items() if kind in encodings
    }
    starts = range(1, count + 1, _ROWS_PER_GROUP)

    def order_rows(start: int) -> Columns:
        stop = min(start + _ROWS_PER_GROUP, count + 1)
        group = rows.read_group(start, stop)
        # Regions that cross seams are known only at the end, so they are not in the files.
        late = slice(*np.searchsorted(more["number"], [start, stop]))
        put_rows(group, {name: column[late] for name, column in more.items()}, start)
        return group

    with pq.ParquetWriter(path, pa.schema(list(kinds.items())), **options) as writer:
        # One group is sorted while the previous one is compressed.
        for group in _make_one_ahead(order_rows, starts):
            check()
            columns = [_arrow_array(group[name], kind) for name, kind in kinds.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))


def count_rows(location: OutputLocation) -> int | None:
    """Return how many rows a table says it has; None if it cannot be read."""
    try:
        with location.open() as file:
            return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return None


def is_whole(location: OutputLocation) -> bool:
    """Whether a table exists and agrees with its checksums; reads all of it."""
    try:
        with location.open() as file:
            table = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(table.num_row_groups):
                table.read_row_group(group)
    except (OSError, pa.ArrowException):
        return False
    return True


def _make_one_ahead(make: Callable[[int], Columns], starts: Sequence[int]) -> Iterator[Columns]:
    with ThreadPoolExecutor(1) as beside:
        coming = [beside.submit(make, start) for start in starts[:1]]
        for start in starts[1:]:
            coming.append(beside.submit(make, start))
            yield coming.pop(0).result()
        for last in coming:
            yield last.result()


def _arrow_array(values: NDArray[Any], kind: Any) -> Any:
    """Wrap values without copying; pa.array() would import pandas, which takes a second."""
    plain = np.packbits(values, bitorder="little") if values.dtype == bool else values
    buffer = pa.py_buffer(np.ascontiguousarray(plain))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])
