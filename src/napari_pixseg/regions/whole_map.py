"""The regions of a class map that is in memory as a whole, without tiles and without Dask."""

from __future__ import annotations

import numpy as np

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import to_tzyx


def label_whole_map(classes: AnyArray, axes: str, rules: Rules) -> AnyArray:
    """Return the region of every pixel, equal to those of a large image cut into tiles.

    Parameters
    ----------
    classes : ndarray of unsigned integers
    axes : str
        Axes of the class map, some of t, z, y, x, in this order.
    rules : Rules

    Returns
    -------
    ndarray of int32
        The shape of `classes`; 1..N in raster order of first pixels, 0 = none.
    """
    found = TileComponents.find(classes.reshape(to_tzyx(classes.shape, axes, 1)), (), rules)
    # Components are in raster order, so the kept ones are numbered in the same order.
    numbers = np.cumsum(found.large_enough, dtype=np.int32)
    numbers[~found.large_enough] = 0
    return found.components.paint(numbers).reshape(classes.shape)
