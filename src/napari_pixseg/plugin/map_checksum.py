"""Whether a map of classes or regions was changed by hand since it was computed."""

from __future__ import annotations

import zlib

import numpy as np

from napari_pixseg.plugin.layer_types import ArrayLike


def checksum_of(pixels: ArrayLike) -> int:
    """Return a checksum of a map, which painting on it changes."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)
