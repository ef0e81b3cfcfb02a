"""Saving from napari: the segmentation behind a Labels layer, with its manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from napari_pixseg.errors import ParameterError, PixsegError
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.segmentation import Segmentation

KEY = "pixseg"
_OUTPUTS = ("classes", "recolored")


def write_store(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the segmentation of a Labels layer as OME-Zarr, or as what the path ends in.

    Parameters
    ----------
    path : str
        Without an ending it gets ``.ome.zarr``.
    data : array-like
        Not looked at: a layer may show a preview of what is exported.
    meta : mapping
        State of the layer; ``meta["metadata"]["pixseg"]`` is its :class:`Segmentation`.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    ParameterError
        If the layer has no segmentation.
    OutputConflict, TooLarge, ClassError, NoSpace
        As :meth:`Segmentation.export` does.
    """
    return export_layer(_with_ending(path, ".ome.zarr"), meta)


def write_picture(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the recolored picture of a Labels layer's segmentation, and its manifest.

    Parameters
    ----------
    path : str
        Without an ending it gets ``.png``.
    data, meta
        See :func:`write_store`.

    Returns
    -------
    list of str
        What was written.
    """
    return export_layer(_with_ending(path, ".png"), meta)


def _with_ending(path: str, ending: str) -> str:
    return path if os.path.splitext(path)[1] else path + ending


def export_layer(path: str, meta: Mapping[str, Any]) -> list[str]:
    """Export the segmentation that the state of a layer holds; return what was written."""
    segmentation_of(meta).export(path, outputs=_OUTPUTS, overwrite=False)
    manifests = [path + ".json"] if path.lower().endswith(PICTURES) else []
    return [path, *manifests]


def segmentation_of(meta: Mapping[str, Any]) -> Segmentation:
    """Return the segmentation that the state of a layer holds.

    Raises
    ------
    ParameterError
        If there is none.
    """
    metadata = meta.get("metadata") or {}
    segmentation = metadata.get(KEY)
    if isinstance(segmentation, Segmentation):
        return segmentation
    name = repr(meta.get("name", "This layer"))
    if "pixseg_manifest" in metadata:
        raise ParameterError(
            f"{name} was read from a finished output, {metadata['pixseg_manifest'].link}; "
            "copy that folder, or segment the image again with the manifest's parameters."
        )
    raise ParameterError(
        f"{name} holds no segmentation; open Segment (pixseg), choose an image, and save the "
        "Labels layer that it makes."
    )


def export_dialog() -> None:
    """Ask where to write the chosen segmentation, and write it in the background."""
    from magicgui.widgets import show_file_dialog
    from napari import current_viewer
    from napari.utils.notifications import show_warning

    try:
        meta = _chosen_layer(current_viewer())
    except ParameterError as error:
        show_warning(str(error))
        return
    endings = " ".join(f"*{ending}" for ending in (".ome.zarr", *PICTURES))
    path = show_file_dialog("w", "Export segmentation", filter=f"Segmentation ({endings})")
    if path:
        _export_in_background(_with_ending(os.fspath(path), ".ome.zarr"), meta)


def _chosen_layer(viewer: Any) -> dict[str, Any]:
    """Return the state of the selected layer with a segmentation, or of the only one there is."""
    layers = [] if viewer is None else list(viewer.layers)
    able = [layer for layer in layers if isinstance(layer.metadata.get(KEY), Segmentation)]
    active = None if viewer is None else viewer.layers.selection.active
    if active in able:
        able = [active]
    if len(able) != 1:
        found = "There are several segmentations" if able else "There is no segmentation"
        remedy = "select its layer" if able else "open Segment (pixseg) and choose an image"
        raise ParameterError(f"{found} to export; {remedy} first.")
    return {"name": able[0].name, "metadata": dict(able[0].metadata)}


def _export_in_background(path: str, meta: Mapping[str, Any]) -> None:
    from napari.qt.threading import create_worker
    from napari.utils.notifications import show_error, show_info

    def tell(result: tuple[list[str], str | None]) -> None:
        written, error = result
        if error is None:
            show_info(f"Written: {', '.join(written)}")
        else:
            show_error(error)

    worker = create_worker(_export_or_error, path, meta, _progress={"desc": "Exporting"})
    worker.returned.connect(tell)
    worker.start()


def _export_or_error(path: str, meta: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """Return what was written, and what went wrong as a sentence.

    A worker that raises, or returns an exception, makes napari 0.9 itself fail.
    """
    try:
        return export_layer(path, meta), None
    except PixsegError as error:
        return [], str(error)
    except Exception as error:  # noqa: BLE001
        return [], f"Something unforeseen went wrong ({error!r})."
