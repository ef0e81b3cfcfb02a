"""The recolored picture of a class map, as a lazy array."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray


def recolor_lazily(classes: da.Array, palette: NDArray[np.uint8]) -> da.Array:
    """Return ``palette[classes]`` lazily: (..., 3) uint8."""
    return classes.map_blocks(
        _recolor,
        # This is one node of the graph; an array as argument would be part of every task.
        dask.delayed(_Palette(palette), pure=False),
        dtype=np.uint8,
        chunks=(*classes.chunks, (3,)),
        new_axis=classes.ndim,
        meta=np.empty((0,) * (classes.ndim + 1), np.uint8),
    )


class _Palette:
    """Wraps a palette, so that Dask passes it on as one object."""

    def __init__(self, colors: NDArray[np.uint8]) -> None:
        self.colors = colors


def _recolor(classes: NDArray[Any], palette: _Palette) -> NDArray[np.uint8]:
    colors: NDArray[np.uint8] = palette.colors[classes]
    return colors
