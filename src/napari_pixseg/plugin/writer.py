"""Saves the segmentation behind a Labels layer, with its manifest, from napari's menus."""

from __future__ import annotations

import os

from napari_pixseg.errors import ParameterError
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.plugin.layer_types import (
    CHECKSUM_KEY,
    MANIFEST_KEY,
    OUTPUT_KEY,
    SEGMENTATION_KEY,
    ArrayLike,
    LayerState,
)
from napari_pixseg.plugin.map_checksum import checksum_of
from napari_pixseg.segmentation import Segmentation


def write_store(path: str, data: ArrayLike, meta: LayerState) -> list[str]:
    """Write what a Labels layer shows as OME-Zarr, or as the path's ending says.

    A layer of regions is written with its classes and its table.

    Parameters
    ----------
    path : str
        A path without an ending gets ``.ome.zarr``.
    data : array-like
        Used only to detect corrections by hand, because a preview has fewer pixels than the export.
    meta : mapping
        State of the layer. ``meta["metadata"]["pixseg"]`` is its :class:`Segmentation`.

    Returns
    -------
    list of str
        Paths that were written.

    Raises
    ------
    ParameterError
        If the layer has no segmentation, or was painted on.
    OutputConflict, TooLarge, ClassError, NoSpace
        As :meth:`Segmentation.export` raises them.
    """
    return export_layer(add_ending(path, ".ome.zarr"), data, meta)


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
    return export_layer(add_ending(path, ".png"), data, meta)


def add_ending(path: str, ending: str) -> str:
    """Return a path with an ending; an existing ending is kept."""
    return path if os.path.splitext(path)[1] else path + ending


def export_layer(path: str, data: ArrayLike, meta: LayerState) -> list[str]:
    """Export what a layer shows; return the paths that were written.

    Raises
    ------
    ParameterError
        If the layer has no segmentation, or its output cannot be written to such a path.
    """
    segmentation = segmentation_of(meta)
    is_picture = path.lower().endswith(PICTURES)
    outputs = ["classes", "recolored"]
    if meta["metadata"].get(OUTPUT_KEY) == "regions":
        outputs.append("regions")
        _refuse_picture_of_regions(path, is_picture)
    _refuse_painted(data, meta)
    segmentation.export(path, outputs=outputs, overwrite=False)
    return [path, *([path + ".json"] if is_picture else [])]


def _refuse_picture_of_regions(path: str, is_picture: bool) -> None:
    if is_picture:
        raise ParameterError(
            f"{os.path.basename(path)} would be a picture, which cannot hold regions; save this "
            "layer as .ome.zarr, or the layer of the classes as a picture."
        )


def _refuse_painted(data: ArrayLike, meta: LayerState) -> None:
    """Refuse a layer that was painted on, because the output is computed from the image."""
    checksum = meta["metadata"].get(CHECKSUM_KEY)
    if checksum is None or checksum == checksum_of(data):
        return
    raise ParameterError(
        f"{meta.get('name', 'This layer')!r} was changed by hand, which an output of pixseg cannot "
        "hold; save it with a name that ends in .tif, which napari writes as it is seen, or undo "
        "the changes."
    )


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
