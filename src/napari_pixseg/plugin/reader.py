"""Opens a finished output as layers in its physical place; pixels are read when shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from napari_pixseg.errors import InputNotFound, NotAnImage, PixsegError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import (
    MANIFEST_NAME,
    RECORD_NAME,
    TABLE_NAME,
    OutputLocation,
)
from napari_pixseg.plugin.layer_types import ArrayLike, LayerData, LayerOptions, Reader
from napari_pixseg.plugin.layers.result_layers import ResultLayers
from napari_pixseg.plugin.layers.stored_pyramid import StoredPyramid
from napari_pixseg.plugin.layers.styles import refuse_long_table
from napari_pixseg.plugin.notices import tell_user

if TYPE_CHECKING:
    import pandas as pd

# By number of stored channels: the channels shown as red, green, blue (and alpha).
_COLOR_MEMBERS = {1: None, 2: (0, 0, 0, 1), 3: (0, 1, 2), 4: (0, 1, 2, 3)}

_log = logging.getLogger(__name__)


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader if the path is a finished output of this package, else None.

    Parameters
    ----------
    path : str or sequence of str
        Folder or URL. A sequence, which napari would stack, is left to other readers.

    Returns
    -------
    callable or None
    """
    if not isinstance(path, str):
        return None
    location = OutputLocation(path)
    try:
        if _is_ours(location):
            return layers_of_output
        reason = _why_unfinished(location)
    # Whatever error a server or a foreign file causes, the path is not ours.
    except Exception as error:  # noqa: BLE001
        _log.debug("%s was not written by napari-pixseg: %s", path, error)
        return None
    if reason:
        tell_user(reason, "warning")
    return None


def _is_ours(location: OutputLocation) -> bool:
    content = location.child(MANIFEST_NAME).read_bytes()
    if content is None:
        return False
    try:
        manifest = Manifest.from_json(content)
    except PixsegError:
        return False
    return manifest.status == 200 and "parameters" in manifest.details


def _why_unfinished(location: OutputLocation) -> str | None:
    """Return a sentence about an output without a manifest; None if we did not write it."""
    if location.child(MANIFEST_NAME).read_bytes() is not None:
        return None
    # Our runs write a record first of all, which distinguishes our outputs from others.
    content = location.child(RECORD_NAME).read_bytes()
    if content is None:
        return None
    record = json.loads(content)
    ends = {"failed": f"its run failed: {record.get('error')}", "cancelled": "it was cancelled"}
    reason = ends.get(record.get("state"), "its run is still going on, or was killed")
    return (
        f"{location.name} is an unfinished output of napari-pixseg and cannot be shown ({reason}); "
        "run the export again, with resume or overwrite."
    )


def layers_of_output(path: str) -> list[LayerData]:
    """Return the layers of a finished output: picture, classes and regions, if there are any.

    Parameters
    ----------
    path : str
        Folder or URL of an OME-Zarr written by this package.

    Returns
    -------
    list of LayerData
        Their pixels are read from disk when they are shown.

    Raises
    ------
    InputNotFound
        If there is nothing, or the output is unfinished.
    NotAnImage
        If the output was written by another program.
    """
    location = OutputLocation(path)
    if not _is_ours(location):
        reason = _why_unfinished(location)
        if reason or not location.exists():
            raise InputNotFound(reason or f"There is nothing at {path}.")
        raise NotAnImage(f"{path} was not written by napari-pixseg; open it with another reader.")
    return StoredLayers(location, Manifest.load(path)).make_layers()


class StoredLayers(ResultLayers):
    """Layers of an output on disk.

    Parameters
    ----------
    location : OutputLocation
    manifest : Manifest
    """

    def __init__(self, location: OutputLocation, manifest: Manifest) -> None:
        self._location = location
        self._manifest = manifest

    def _output_names(self) -> Collection[str]:
        outputs: Collection[str] = self._manifest.details["outputs"]
        return outputs

    def _open_output(self, output: str) -> tuple[ArrayLike, LayerOptions]:
        is_picture = output == "recolored"
        pyramid = StoredPyramid.open(self._location, "" if is_picture else f"labels/{output}")
        options = pyramid.layer_options(self._location, output, self._manifest)
        if not is_picture:
            return pyramid.layer_data(None), options
        members = _COLOR_MEMBERS[pyramid.channels]
        if members is None:
            options.update(rgb=False, contrast_limits=(0, 255))
        else:
            options["rgb"] = True
        return pyramid.layer_data(members), options

    def _class_rows(self) -> Sequence[dict[str, Any]]:
        rows: Sequence[dict[str, Any]] = self._manifest.details["classes"]
        return rows

    def _region_table(self) -> pd.DataFrame | None:
        name = self._location.name
        count = self._manifest.details["regions"]["count"]
        if refuse_long_table(name, count, f"read {TABLE_NAME} with pandas or pyarrow"):
            return None
        content = self._location.child(TABLE_NAME).read_bytes()
        if content is None:
            raise InputNotFound(
                f"{name} has lost its region table, {TABLE_NAME}; run the export again."
            )
        # Loaded here, because napari imports this module for every path that is opened.
        import pyarrow.parquet

        stream = pyarrow.BufferReader(content)
        table: pd.DataFrame = pyarrow.parquet.read_table(stream).to_pandas()
        return table
