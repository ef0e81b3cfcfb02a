"""The regions of an image and their table, in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.pixels import Pixels
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.parameters import Parameters
from napari_pixseg.regions.region_pass import RegionPass
from napari_pixseg.regions.region_rows import put_rows
from napari_pixseg.regions.region_table import RegionMeasurer
from napari_pixseg.regions.regions import Regions
from napari_pixseg.regions.rules import resolve_rules
from napari_pixseg.regions.tile_layout import Layout


def find_image_regions(
    pixels: Pixels,
    lookup: NDArray[Any],
    parameters: Parameters,
    classes: Classes,
    monitor: RunMonitor | None = None,
) -> Regions:
    """Find and number the regions of an image, in one pass over its tiles.

    Parameters
    ----------
    pixels : Pixels
    lookup : ndarray
        Class of every packed color.
    parameters : Parameters
        Say what connects pixels, and which classes and sizes are left out.
    classes : Classes
    monitor : RunMonitor, optional
    """
    layout = Layout(pixels.tiling, pixels.image.label_axes)
    region_pass = RegionPass(layout, resolve_rules(parameters, classes))
    return region_pass.run(pixels.class_tiles(lookup), monitor or RunMonitor())


def make_region_table(regions: Regions, pixels: Pixels, lookup: NDArray[Any]) -> NDArray[np.void]:
    """Measure the regions of an image; return one row per region, ascending by number."""
    measurer = RegionMeasurer(regions, pixels.image, pixels.image.source.scale)
    table = np.zeros(regions.count, measurer.dtype)
    make_rows = measurer.row_builder.make_rows
    tiles = pixels.class_tiles(lookup, keep_samples=True)
    crossing = measurer.measure(
        tiles, lambda *inner: put_rows(table, make_rows(*inner)), RunMonitor()
    )
    put_rows(table, crossing)
    return table
