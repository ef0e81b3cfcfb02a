"""The ``details`` of manifests and run records: input, window, color table, classes."""

from __future__ import annotations

import math

import numpy as np

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.export.manifest import JsonObject, software_versions, utc_now
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.damaged_chunks import missing_parts
from napari_pixseg.sources.image import Image


def initial_details(image: Image, parameters: Parameters, outputs: tuple[str, ...]) -> JsonObject:
    """Return the details that are known before any pixel is read."""
    return {
        "parameters": parameters.to_dict(),
        "semantics": parameters.semantics,
        "outputs": list(outputs),
        "input": describe_input(image),
        **skipped_details(image),
        "software": software_versions(),
        "started": utc_now(),
    }


def skipped_details(image: Image) -> JsonObject:
    """Return the left-out chunks, in the input's own axes, and how many pixels they hold."""
    if not image.missing:
        return {}
    chunks = []
    # The boxes of pixels; several chunks may hold the channels of the same pixels.
    boxes = set()
    for name, part in missing_parts(image.source, image.missing):
        start = [bounds.start for bounds in part]
        stop = [bounds.stop for bounds in part]
        chunks.append({"name": name, "start": start, "stop": stop})
        bounds = dict(zip(image.axes, zip(start, stop, strict=True), strict=True))
        # The remaining bounds are the box of pixels, without channels.
        first, end = bounds.pop("c", (0, 1))
        # If a chunk holds nothing but alpha, colors are still complete.
        if any(first <= member < end for member in image.channels or (0,)):
            boxes.add(tuple(bounds.values()))
    pixels = sum(math.prod(b - a for a, b in box) for box in boxes)
    return {"skipped": {"pixels": pixels, "chunks": chunks}}


def describe_input(image: Image) -> JsonObject:
    """Return a description of an input as JSON values."""
    source = image.source
    return {
        "uri": source.uri,
        "kind": source.kind,
        "series": source.series,
        "shape": [int(n) for n in source.array.shape],
        "dtype": str(image.dtype),
        "axes": image.axes,
        "channels": None if image.channels is None else list(image.channels),
        "scale": source.scale,
        "units": source.units,
        "identity": source.identity,
        "notes": list(image.notes),
    }


def counted_details(color_count: ColorCount) -> JsonObject:
    """Return the details that are known once the colors are counted."""
    table = color_count.table()
    window = color_count.pixels().encoding.window
    return {
        "window": None if window is None else [list(pair) for pair in window],
        "color_table": {"sha256": table.hash(), "colors": len(table), "pixels": table.pixels},
    }


def decided_details(
    color_count: ColorCount, classes: Classes, warnings: tuple[str, ...]
) -> JsonObject:
    """Return the details that are known once the classes are decided."""
    return {
        **counted_details(color_count),
        "input_files": color_count.input_fingerprint,
        "classes": [_row_values(row) for row in classes.table],
        "warnings": list(warnings),
    }


def _row_values(row: np.void) -> JsonObject:
    names = row.dtype.names or ()
    return {name: row[name].tolist() for name in names}
