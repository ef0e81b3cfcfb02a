"""Refuse parameters that do not fit an image, before any pixel is read."""

from __future__ import annotations

import numpy as np

from napari_pixseg.errors import ParameterError
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import Image


def converts_first(image: Image, parameters: Parameters) -> bool:
    """Whether 16-bit samples are converted to the color space before they become bytes."""
    return parameters.semantics == "imagemagick6" and image.dtype == np.uint16


def check_parameters(image: Image, parameters: Parameters) -> None:
    """Refuse parameters that do not fit an image; reads no pixel.

    Raises
    ------
    ParameterError
    """
    refuse_connectivity(image.label_axes, parameters.connectivity)
    _check_window(image, parameters)
    if parameters.semantics == "imagemagick6":
        _check_exact(image, parameters)


def refuse_connectivity(label_axes: str, connectivity: int) -> None:
    """Refuse more connectivity than there are spatial axes."""
    spatial = len(label_axes.replace("t", ""))
    if connectivity > spatial:
        raise ParameterError(
            f"connectivity = {connectivity} is above the {spatial} spatial axes of this image "
            f"(axes {label_axes!r}); it must be 1 to {spatial}."
        )


def _check_window(image: Image, parameters: Parameters) -> None:
    window = parameters.window
    if isinstance(window, tuple) and len(window) not in (1, image.color_channels):
        raise ParameterError(
            f"window has {len(window)} pairs, but the image has {image.color_channels} color "
            "channels; give one (low, high), or one for each channel."
        )
    if window == "dtype" and image.dtype.kind == "f":
        raise ParameterError(
            f"window = 'dtype' has no meaning for {image.dtype} samples, whose range is not that "
            "of a picture; give 'minmax' or (low, high)."
        )


def _check_exact(image: Image, parameters: Parameters) -> None:
    if image.dtype not in (np.uint8, np.uint16):
        raise ParameterError(
            f"semantics = 'imagemagick6' takes uint8 and uint16 images, not {image.dtype}; "
            "use semantics='documented'."
        )
    if image.dtype == np.uint16 and (parameters.denoise or parameters.window is not None):
        raise ParameterError(
            "semantics = 'imagemagick6' takes uint16 samples whole: denoise must be 0 and window "
            "must be None; use semantics='documented' for either."
        )
