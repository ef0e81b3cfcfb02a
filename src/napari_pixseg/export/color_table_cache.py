"""The color table of an unfinished run, saved so that a resumed run need not count again."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np

from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.export.manifest import JsonObject
from napari_pixseg.export.manifest_details import counted_details
from napari_pixseg.export.output_location import COLORS_NAME, OutputLocation
from napari_pixseg.parameters import ColorSpace

# Means in the file: "counted as sRGB, no color space applied".
_NO_SPACE = -1


def save_colors(color_count: ColorCount, location: OutputLocation) -> None:
    """Write the color table into an unfinished store, whole or not at all."""
    table = color_count.table()
    space = _NO_SPACE if table.space is None else int(table.space)
    with location.child(COLORS_NAME).new_file() as partial, open(partial, "wb") as file:
        # NumPy hides a full disk if it recognizes a real file, so it gets an object with only
        # write().
        plain = SimpleNamespace(write=file.write)
        for column in (table.packed, table.counts, np.int64(space)):
            np.save(plain, column)


def restore_colors(color_count: ColorCount, location: OutputLocation, record: JsonObject) -> bool:
    """Take the color table and the window from an unfinished store.

    The table is taken only if its hash is the one in the run record, and only if
    this process has not counted the image already.

    Returns
    -------
    bool
        Whether the store holds the right table.
    """
    recorded = record.get("color_table")
    if recorded is None:
        return False
    table = _load_table(location)
    if table is None or table.hash() != recorded["sha256"]:
        return False
    window = record.get("window")
    pairs = None if window is None else tuple((a, b) for a, b in window)
    color_count.restore(table, pairs, tuple(record.get("absence", ())))
    return bool(counted_details(color_count)["window"] == window)


def _load_table(location: OutputLocation) -> ColorTable | None:
    content = location.child(COLORS_NAME).read_bytes()
    if content is None:
        return None
    file = io.BytesIO(content)
    try:
        # In the order in which save_colors() writes them.
        packed, counts, space = (np.load(file, allow_pickle=False) for _ in range(3))
        return ColorTable(packed, counts, None if space == _NO_SPACE else ColorSpace(int(space)))
    except Exception:  # noqa: BLE001 - NumPy raises anything where a header is damaged
        # If the file is damaged, the colors are counted again.
        return None
