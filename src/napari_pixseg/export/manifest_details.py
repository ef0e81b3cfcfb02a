"""What a manifest and a run record say of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.export.manifest import software_versions, utc_now
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.damage import missing_parts
from napari_pixseg.sources.image import Image


def initial_details(
    image: Image, parameters: Parameters, outputs: tuple[str, ...]
) -> dict[str, Any]:
    """Return the part of the details that is known before anything is read."""
    return {
        "parameters": parameters.to_dict(),
        "semantics": parameters.semantics,
        "outputs": list(outputs),
        "input": describe_input(image),
        **skipped_details(image),
        "software": software_versions(),
        "started": utc_now(),
    }


def skipped_details(image: Image) -> dict[str, Any]:
    """Return which chunks are left out, in the input's own axes, and how many pixels."""
    if not image.missing:
        return {}
    chunks, planes = [], set()
    for name, part in missing_parts(image.source, image.missing):
        start, stop = [p.start for p in part], [p.stop for p in part]
        chunks.append({"name": name, "start": start, "stop": stop})
        bounds = dict(zip(image.axes, zip(start, stop, strict=True), strict=True))
        first, end = bounds.pop("c", (0, 1))
        # A chunk that holds alpha alone leaves the colors as they are.
        if any(first <= member < end for member in image.channels or (0,)):
            planes.add(tuple(bounds.values()))
    pixels = sum(math.prod(b - a for a, b in box) for box in planes)
    return {"skipped": {"pixels": pixels, "chunks": chunks}}


def describe_input(image: Image) -> dict[str, Any]:
    """Return what an input is, as JSON values."""
    source = image.source
    return {
        "uri": source.uri,
        "kind": source.kind,
        "shape": [int(n) for n in source.array.shape],
        "dtype": str(image.dtype),
        "axes": image.axes,
        "channels": None if image.channels is None else list(image.channels),
        "scale": source.scale,
        "units": source.units,
        "identity": source.identity,
        "notes": list(image.notes),
    }


def counted_details(color_count: ColorCount) -> dict[str, Any]:
    """Return what is known once the colors are counted."""
    table = color_count.table()
    window = color_count.pixels().encoding.window
    return {
        "window": None if window is None else [list(pair) for pair in window],
        "color_table": {"sha256": table.hash(), "colors": len(table), "pixels": table.pixels},
    }


def decided_details(
    color_count: ColorCount, classes: Classes, warnings: tuple[str, ...]
) -> dict[str, Any]:
    """Return what is known once the classes are decided."""
    return {
        **counted_details(color_count),
        "classes": [_row_values(row) for row in classes.table],
        "warnings": list(warnings),
    }


def _row_values(row: np.void) -> dict[str, Any]:
    names = row.dtype.names or ()
    return {name: row[name].tolist() for name in names}
