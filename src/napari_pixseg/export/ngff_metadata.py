"""OME-Zarr 0.5 metadata: multiscales, channels, label colors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.export.manifest import JsonObject
from napari_pixseg.parameters import AXES
from napari_pixseg.sources.image import Image

VERSION = "0.5"
_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_CHANNEL_COLORS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}


def with_channels(axes: str) -> str:
    """Insert the channel axis where OME-Zarr requires it."""
    return "".join(axis for axis in AXES if axis in axes or axis == "c")


def multiscale_metadata(name: str, axes: str, levels: int, image: Image) -> JsonObject:
    """Return ``multiscales`` metadata of a pyramid in the input's physical space."""
    datasets = [
        {"path": str(level), "coordinateTransformations": _level_transforms(axes, level, image)}
        for level in range(levels)
    ]
    return {
        "name": name,
        "axes": [_axis_metadata(axis, image) for axis in axes],
        "datasets": datasets,
    }


def _axis_metadata(axis: str, image: Image) -> dict[str, str]:
    described = {"name": axis, "type": _AXIS_TYPES[axis]}
    unit = image.source.units.get(axis)
    return {**described, "unit": unit} if unit and axis != "c" else described


def _level_transforms(axes: str, level: int, image: Image) -> list[JsonObject]:
    scale = []
    translation = []
    for axis in axes:
        size = float(image.source.scale.get(axis, 1.0)) if axis != "c" else 1.0
        start = float(image.source.translation.get(axis, 0.0)) if axis != "c" else 0.0
        factor = 2**level if axis in "yx" else 1
        scale.append(size * factor)
        # A coarse pixel covers a block of the finest level and lies at the block's center.
        translation.append(start + size * (factor - 1) / 2)
    return [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": translation},
    ]


def omero_metadata(channel_names: Sequence[str]) -> JsonObject:
    """Return ``omero`` metadata, which tells viewers how to show the channels."""
    window = {"start": 0, "end": 255, "min": 0, "max": 255}
    channels = [
        {
            "label": name,
            "color": _CHANNEL_COLORS.get(name, "FFFFFF"),
            "window": window,
            "active": name != "alpha",
        }
        for name in channel_names
    ]
    # OMERO spells it "greyscale".
    model = "color" if len(channel_names) > 2 else "greyscale"
    return {"channels": channels, "rdefs": {"model": model}}


def label_colors(palette: NDArray[np.uint8]) -> list[JsonObject]:
    """Return the color of every class in the form of ``image-label`` metadata."""
    numbered = list(enumerate(palette.tolist()))[1:]
    return [{"label-value": number, "rgba": [*color, 255]} for number, color in numbered]


def image_label_metadata(colors: list[JsonObject], has_image: bool) -> JsonObject:
    """Return ``image-label`` metadata: colors, and the image that the labels belong to."""
    described: JsonObject = {"version": VERSION}
    if colors:
        described["colors"] = colors
    if has_image:
        # Relative to labels/NAME, this is the picture at the root.
        described["source"] = {"image": "../../"}
    return described
