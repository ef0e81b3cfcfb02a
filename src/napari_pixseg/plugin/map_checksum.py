"""A checksum of a map of classes or regions, which shows whether it was changed by hand."""

from __future__ import annotations

import zlib

import numpy as np

from napari_pixseg.plugin.layer_types import ArrayLike


def checksum_of(pixels: ArrayLike) -> int:
    """Return a checksum of a map; painting on the map changes it."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)
