"""Makes a small picture of an input, to see whether it is the right one.

Imported only when such a picture is wanted, so that Pillow slows nothing else down.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_pixseg.classification.encoding import to_window
from napari_pixseg.errors import NoSpace, OutputConflict, ParameterError
from napari_pixseg.slices import Samples
from napari_pixseg.sources.image import Image
from napari_pixseg.sources.source import is_masked

# Pixels of the longer side.
_LENGTH = 512


def save_thumbnail(image: Image, path: str) -> None:
    """Write a PNG of the middle plane of an image; reads a few hundred of its lines.

    Parameters
    ----------
    image : Image
    path : str
        A path that ends in .png and does not exist.

    Raises
    ------
    ParameterError, OutputConflict, NoSpace
        If the file cannot be written; unless the disk is full, no pixel was read then.
    """
    if not path.lower().endswith(".png"):
        raise ParameterError(f"--thumbnail {path} does not end in .png; give a name that does.")
    if os.path.lexists(path):
        raise OutputConflict(f"{path} exists; give another name, or remove it first.")
    colors = _to_bytes(_sample_plane(image))
    try:
        Pillow.fromarray(colors[..., 0] if colors.shape[-1] == 1 else colors).save(path)
    except OSError as error:
        raise NoSpace(f"{path} cannot be written ({error.strerror or error}).") from None


def _sample_plane(image: Image) -> Samples:
    """Return regularly spaced pixels of the middle plane, (y, x, c)."""
    height, width = image.shape[-2:]
    step = -(-max(height, width) // _LENGTH)
    middle = tuple(slice(length // 2, length // 2 + 1) for length in image.shape[:-2])
    lines = []
    for y in range(0, height, step):
        line = image.read((*middle, slice(y, y + 1), slice(0, width)))
        lines.append(line.reshape(width, -1)[::step])
    stack = np.ma.stack if any(is_masked(line) for line in lines) else np.stack
    samples: Samples = stack(lines)
    return samples


def _to_bytes(samples: Samples) -> NDArray[np.uint8]:
    """Return one or three channels of bytes; other samples are stretched to 0..255."""
    samples = np.ma.filled(samples, 0)
    if samples.dtype != np.uint8:
        finite = samples[np.isfinite(samples)]
        ends = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        samples = to_window(samples, *ends)
    missing = 3 - samples.shape[-1]
    if missing == 1:
        samples = np.concatenate([samples, np.zeros_like(samples[..., :1])], axis=-1)
    return samples
