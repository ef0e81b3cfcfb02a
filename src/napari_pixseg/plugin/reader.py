"""A finished output as layers: read from disk as it is looked at, in its physical place."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pixseg.errors import InputNotFound, NotAnImage, PixsegError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME, OutputLocation
from napari_pixseg.export.parquet import TABLE_NAME
from napari_pixseg.plugin.layers.stored_pyramid import StoredPyramid
from napari_pixseg.plugin.layers.styles import class_colormap, class_features, refuse_long_table
from napari_pixseg.plugin.sample_data import LayerData

if TYPE_CHECKING:
    import pandas as pd

# Which channels of the stored picture napari is to show as red, green, blue (and alpha).
_SHOWN = {1: None, 2: (0, 0, 0, 1), 3: (0, 1, 2), 4: (0, 1, 2, 3)}

_log = logging.getLogger(__name__)


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a reader if the path is a finished output of this package, else None.

    Parameters
    ----------
    path : str or sequence of str
        Folder or URL; a stack of several is none of ours.

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
    except Exception as error:  # noqa: BLE001 - whatever a server or a foreign file does, it is not ours
        _log.debug("%s is no output of napari-pixseg: %s", path, error)
        return None
    if reason:
        from napari.utils.notifications import show_warning

        show_warning(reason)
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
    """Return a sentence about an output without a manifest; None if it is not ours at all."""
    if location.child(MANIFEST_NAME).read_bytes() is not None:
        return None
    content = location.child(RECORD_NAME).read_bytes()
    if content is None:
        return None
    record = json.loads(content)
    ends = {"failed": f"its run failed: {record.get('error')}", "cancelled": "it was cancelled"}
    reason = ends.get(record.get("state"), "its run is going on, or was killed")
    return (
        f"{location.name} is an unfinished output of napari-pixseg and is not shown ({reason}); "
        "run the export again, with resume or overwrite."
    )


def layers_of_output(path: str) -> list[LayerData]:
    """Return the layers of a finished output: picture, classes, regions, as far as there are any.

    Parameters
    ----------
    path : str
        Folder or URL of an OME-Zarr written by this package.

    Returns
    -------
    list of LayerData
        Multiscale, read from disk when sliced.

    Raises
    ------
    InputNotFound
        If there is nothing, or the output is unfinished.
    NotAnImage
        If what is there was written by something else.
    """
    location = OutputLocation(path)
    if not _is_ours(location):
        reason = _why_unfinished(location)
        if reason or not location.exists():
            raise InputNotFound(reason or f"There is nothing at {path}.")
        raise NotAnImage(
            f"{path} is no OME-Zarr written by napari-pixseg; open it with another reader."
        )
    manifest = Manifest.load(path)
    makers = {"recolored": _picture, "classes": _classes, "regions": _regions}
    outputs = manifest.details["outputs"]
    return [make(location, manifest) for name, make in makers.items() if name in outputs]


def _picture(location: OutputLocation, manifest: Manifest) -> LayerData:
    pyramid = StoredPyramid.open(location, "")
    members = _SHOWN[pyramid.channels]
    options = pyramid.options(location, "recolored", manifest)
    shown = {"rgb": True} if members else {"rgb": False, "contrast_limits": (0, 255)}
    return pyramid.data(members), {**options, **shown}, "image"


def _classes(location: OutputLocation, manifest: Manifest) -> LayerData:
    rows = manifest.details["classes"]
    palette = np.array([[0, 0, 0], *(row["color"] for row in rows)], np.uint8)
    options = {"colormap": class_colormap(palette), "features": class_features(rows)}
    return _labels(location, "classes", manifest, options)


def _regions(location: OutputLocation, manifest: Manifest) -> LayerData:
    features = region_features(location, manifest.details["regions"]["count"])
    options = {"visible": False, **({} if features is None else {"features": features})}
    return _labels(location, "regions", manifest, options)


def _labels(
    location: OutputLocation, name: str, manifest: Manifest, options: dict[str, Any]
) -> LayerData:
    pyramid = StoredPyramid.open(location, f"labels/{name}")
    return pyramid.data(None), {**pyramid.options(location, name, manifest), **options}, "labels"


def region_features(location: OutputLocation, count: int) -> pd.DataFrame | None:
    """Return the region table as napari takes it, or None if it is too long for that.

    Parameters
    ----------
    location : OutputLocation
        Of the output.
    count : int
        Number of regions, from the manifest.
    """
    if refuse_long_table(location.name, count, f"read {TABLE_NAME} with pandas or pyarrow"):
        return None
    content = location.child(TABLE_NAME).read_bytes()
    if content is None:
        raise InputNotFound(f"{location.name} lacks its table of regions, {TABLE_NAME}.")
    import pyarrow as pa
    import pyarrow.parquet as pq

    features: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas()
    return features.rename(columns={"number": "index"})
