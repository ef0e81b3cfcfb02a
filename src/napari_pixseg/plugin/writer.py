"""Saves the segmentation behind a Labels layer, with its manifest, from napari's menus."""

from __future__ import annotations

import os

from napari_pixseg.errors import ParameterError
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.plugin.layer_types import (
    MANIFEST_KEY,
    SEGMENTATION_KEY,
    ArrayLike,
    LayerState,
)
from napari_pixseg.segmentation import Segmentation

_OUTPUTS = ("classes", "recolored")


def write_store(path: str, data: ArrayLike, meta: LayerState) -> list[str]:
    """Write the segmentation of a Labels layer as OME-Zarr, or as the path's ending says.

    Parameters
    ----------
    path : str
        A path without an ending gets ``.ome.zarr``.
    data : array-like
        Ignored, because the layer may show only a preview of what is exported.
    meta : mapping
        State of the layer. ``meta["metadata"]["pixseg"]`` is its :class:`Segmentation`.

    Returns
    -------
    list of str
        Paths that were written.

    Raises
    ------
    ParameterError
        If the layer has no segmentation.
    OutputConflict, TooLarge, ClassError, NoSpace
        As :meth:`Segmentation.export` raises them.
    """
    return export_layer(add_ending(path, ".ome.zarr"), meta)


def write_picture(path: str, data: ArrayLike, meta: LayerState) -> list[str]:
    """Write the recolored picture of a Labels layer's segmentation, and its manifest.

    Parameters
    ----------
    path : str
        A path without an ending gets ``.png``.
    data, meta
        See :func:`write_store`.

    Returns
    -------
    list of str
        Paths that were written.
    """
    return export_layer(add_ending(path, ".png"), meta)


def add_ending(path: str, ending: str) -> str:
    """Return a path with an ending; one that it has already stays."""
    return path if os.path.splitext(path)[1] else path + ending


def export_layer(path: str, meta: LayerState) -> list[str]:
    """Export the segmentation in the state of a layer; return the paths that were written."""
    segmentation_of(meta).export(path, outputs=_OUTPUTS, overwrite=False)
    manifests = [path + ".json"] if path.lower().endswith(PICTURES) else []
    return [path, *manifests]


def segmentation_of(meta: LayerState) -> Segmentation:
    """Return the segmentation in the state of a layer.

    Raises
    ------
    ParameterError
        If the layer has no segmentation.
    """
    metadata = meta.get("metadata") or {}
    segmentation = metadata.get(SEGMENTATION_KEY)
    if isinstance(segmentation, Segmentation):
        return segmentation
    name = repr(meta.get("name", "This layer"))
    if MANIFEST_KEY in metadata:
        raise ParameterError(
            f"{name} was opened from a finished output, {metadata[MANIFEST_KEY].link}; "
            "copy that folder, or segment the image again with the parameters of its manifest."
        )
    raise ParameterError(
        f"{name} holds no segmentation; open Segment (pixseg), choose an image, and save the "
        "Labels layer that appears."
    )
