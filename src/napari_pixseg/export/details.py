"""What a manifest and a run record say of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_pixseg.engine.classify import Counted
from napari_pixseg.engine.image import Image
from napari_pixseg.export.manifest import now, software
from napari_pixseg.model.classes import Classes
from napari_pixseg.parameters import Parameters


def details_of(image: Image, parameters: Parameters, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Return the part of the details that is known before anything is read."""
    return {
        "parameters": parameters.to_dict(),
        "semantics": parameters.semantics,
        "outputs": list(outputs),
        "input": describe_input(image),
        "software": software(),
        "started": now(),
    }


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


def counted_details(counted: Counted) -> dict[str, Any]:
    """Return what is known once the colors are counted."""
    table = counted.table()
    window = counted.pixels().encoding.window
    return {
        "window": None if window is None else [list(pair) for pair in window],
        "color_table": {"sha256": table.hash(), "colors": len(table), "pixels": table.pixels},
    }


def decided_details(
    counted: Counted, classes: Classes, warnings: tuple[str, ...]
) -> dict[str, Any]:
    """Return what is known once the classes are decided."""
    return {
        **counted_details(counted),
        "classes": [_row(row) for row in classes.table],
        "warnings": list(warnings),
    }


def _row(row: np.void) -> dict[str, Any]:
    names = row.dtype.names or ()
    return {name: row[name].tolist() for name in names}
