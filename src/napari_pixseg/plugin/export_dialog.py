"""Asks where to write the selected segmentation, and writes it in the background."""

from __future__ import annotations

import os

from magicgui.widgets import show_file_dialog
from napari import Viewer, current_viewer
from napari.layers import Labels
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info, show_warning

from napari_pixseg.errors import ParameterError
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.plugin.background import describe_error
from napari_pixseg.plugin.layer_types import SEGMENTATION_KEY, ArrayLike, LayerState
from napari_pixseg.plugin.writer import add_ending, export_layer
from napari_pixseg.segmentation import Segmentation


def export_dialog() -> None:
    """Ask where to write the selected segmentation, and write it in the background."""
    try:
        layer = _selected_layer(current_viewer())
    except ParameterError as error:
        show_warning(str(error))
        return
    endings = " ".join(f"*{ending}" for ending in (".ome.zarr", *PICTURES))
    path = show_file_dialog("w", "Export segmentation", filter=f"Segmentation ({endings})")
    if path:
        meta = {"name": layer.name, "metadata": dict(layer.metadata)}
        _export_in_background(add_ending(os.fspath(path), ".ome.zarr"), layer.data, meta)


def _selected_layer(viewer: Viewer | None) -> Labels:
    """Return the layer of the selected segmentation, or of the only one."""
    layers = [] if viewer is None else list(viewer.layers)
    found = [
        layer for layer in layers if isinstance(layer.metadata.get(SEGMENTATION_KEY), Segmentation)
    ]
    # A selected layer takes precedence over others.
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
    return found[0]


def _export_in_background(path: str, data: ArrayLike, meta: LayerState) -> None:
    def show_result(result: tuple[list[str], str | None]) -> None:
        written, error = result
        if error is None:
            show_info(f"Written: {', '.join(written)}")
        else:
            show_error(error)

    worker = create_worker(_export_or_error, path, data, meta, _progress={"desc": "Exporting"})
    worker.returned.connect(show_result)
    worker.start()


def _export_or_error(path: str, data: ArrayLike, meta: LayerState) -> tuple[list[str], str | None]:
    """Return the written paths, and a sentence if something went wrong.

    napari 0.9 itself fails if a worker raises, or returns an exception.
    """
    try:
        return export_layer(path, data, meta), None
    except Exception as error:  # noqa: BLE001
        return [], describe_error(error)
