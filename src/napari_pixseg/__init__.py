"""Segment images of any size by their colors: napari plugin, library, command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_pixseg.endpoint.client import Endpoint
    from napari_pixseg.errors import PixsegError
    from napari_pixseg.export.manifest import Manifest
    from napari_pixseg.parameters import ColorSpace, Parameters
    from napari_pixseg.regions.label import label_regions
    from napari_pixseg.segment_image import segment
    from napari_pixseg.segmentation import Segmentation

__version__ = "0.1.0"
__all__ = [
    "ColorSpace",
    "Endpoint",
    "Manifest",
    "Parameters",
    "PixsegError",
    "Segmentation",
    "label_regions",
    "segment",
]

# Loaded on first use: importing the package must cost next to nothing, because napari
# imports every installed plugin when it starts.
_HOMES = {
    "ColorSpace": "parameters",
    "Endpoint": "endpoint.client",
    "Manifest": "export.manifest",
    "Parameters": "parameters",
    "PixsegError": "errors",
    "Segmentation": "segmentation",
    "label_regions": "regions.label",
    "segment": "segment_image",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
