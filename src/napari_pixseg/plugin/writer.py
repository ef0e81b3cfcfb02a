"""Saves the segmentation behind a Labels layer, with its manifest, from napari's menus."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_pixseg.errors import ParameterError
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.plugin.background import describe_error
from napari_pixseg.plugin.layer_types import (
    MANIFEST_KEY,
    SEGMENTATION_KEY,
    ArrayLike,
    LayerState,
)
from napari_pixseg.segmentation import Segmentation

if TYPE_CHECKING:
    from napari import Viewer

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
    return export_layer(_add_ending(path, ".ome.zarr"), meta)


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
    return export_layer(_add_ending(path, ".png"), meta)


def _add_ending(path: str, ending: str) -> str:
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


def export_dialog() -> None:
    """Ask where to write the selected segmentation, and write it in the background."""
    from magicgui.widgets import show_file_dialog
    from napari import current_viewer
    from napari.utils.notifications import show_warning

    try:
        meta = _selected_layer(current_viewer())
    except ParameterError as error:
        show_warning(str(error))
        return
    endings = " ".join(f"*{ending}" for ending in (".ome.zarr", *PICTURES))
    path = show_file_dialog("w", "Export segmentation", filter=f"Segmentation ({endings})")
    if path:
        _export_in_background(_add_ending(os.fspath(path), ".ome.zarr"), meta)


def _selected_layer(viewer: Viewer | None) -> LayerState:
    """Return the state of the selected segmentation, or of the only one there is."""
    layers = [] if viewer is None else list(viewer.layers)
    found = [
        layer for layer in layers if isinstance(layer.metadata.get(SEGMENTATION_KEY), Segmentation)
    ]
    # A selected layer is meant, even if there are others.
    active = None if viewer is None else viewer.layers.selection.active
    if active in found:
        found = [active]
    if not found:
        raise ParameterError(
            "There is no segmentation to export; open Segment (pixseg) and choose an image first."
        )
    if len(found) > 1:
        raise ParameterError(
            "There are several segmentations to export; select the layer of one of them first."
        )
    return {"name": found[0].name, "metadata": dict(found[0].metadata)}


def _export_in_background(path: str, meta: LayerState) -> None:
    from napari.qt.threading import create_worker
    from napari.utils.notifications import show_error, show_info

    def show_result(result: tuple[list[str], str | None]) -> None:
        written, error = result
        if error is None:
            show_info(f"Written: {', '.join(written)}")
        else:
            show_error(error)

    worker = create_worker(_export_or_error, path, meta, _progress={"desc": "Exporting"})
    worker.returned.connect(show_result)
    worker.start()


def _export_or_error(path: str, meta: LayerState) -> tuple[list[str], str | None]:
    """Return what was written, and what went wrong as a sentence.

    napari 0.9 itself fails if a worker raises, or returns an exception.
    """
    try:
        return export_layer(path, meta), None
    except Exception as error:  # noqa: BLE001
        return [], describe_error(error)
