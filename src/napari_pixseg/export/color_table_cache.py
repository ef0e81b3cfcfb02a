"""The color table of an unfinished run: with it, a run that is continued counts nothing again."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np

from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.export.manifest_details import counted_details
from napari_pixseg.export.output_location import COLORS_NAME, OutputLocation
from napari_pixseg.parameters import ColorSpace

_NO_SPACE = -1


def save_colors(color_count: ColorCount, location: OutputLocation) -> None:
    """Write the color table into an unfinished store, whole or not at all."""
    table = color_count.table()
    space = _NO_SPACE if table.space is None else int(table.space)
    with location.child(COLORS_NAME).new_file() as partial, open(partial, "wb") as file:
        # Of a file that it knows as one, NumPy does not say that the disk is full.
        plain = SimpleNamespace(write=file.write)
        for column in (table.packed, table.counts, np.int64(space)):
            np.save(plain, column)


def restore_colors(
    color_count: ColorCount, location: OutputLocation, record: dict[str, Any]
) -> bool:
    """Take the color table and the window from an unfinished store.

    Only what the run record vouches for by its hash is taken, and only if the
    image was not counted in this process already.

    Returns
    -------
    bool
        Whether the store has the table.
    """
    said, window = record.get("color_table"), record.get("window")
    table = None if said is None else _load_table(location)
    if said is None or table is None or table.hash() != said["sha256"]:
        return False
    color_count.restore(table, None if window is None else tuple((a, b) for a, b in window))
    return bool(counted_details(color_count)["window"] == window)


def _load_table(location: OutputLocation) -> ColorTable | None:
    content = location.child(COLORS_NAME).read_bytes()
    if content is None:
        return None
    file = io.BytesIO(content)
    try:
        packed, counts, space = (np.load(file, allow_pickle=False) for _ in range(3))
        return ColorTable(packed, counts, None if space == _NO_SPACE else ColorSpace(int(space)))
    except (ValueError, TypeError, OSError, EOFError):
        return None
