"""What a job does with an image: segment it and write the answer's picture."""

from __future__ import annotations

import threading

from napari_pixseg.export.manifest import Manifest
from napari_pixseg.parameters import Parameters
from napari_pixseg.segmentation import open_segmentation
from napari_pixseg.sources.source import Source


def write_recolored(
    path: str, source: Source, parameters: Parameters, cancel: threading.Event
) -> Manifest:
    """Segment an image and write the recolored picture, without a manifest."""
    segmentation = open_segmentation(source, parameters)
    return segmentation.export(path, ("recolored",), blob=True, cancel=cancel)
