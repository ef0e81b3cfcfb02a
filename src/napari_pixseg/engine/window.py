"""Which samples become 0 and 255, for images that are not uint8.

ALGORITHM specification, section 8, "Input that is not uint8".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_pixseg.engine.image import Image
from napari_pixseg.engine.run import Feed, Watch
from napari_pixseg.parameters import Interval, Window


def resolve_window(
    image: Image, window: Window, feed: Callable[[], Feed], watch: Watch | None = None
) -> tuple[Interval, ...] | None:
    """Turn what was asked for into numbers; reads pixels only where these decide.

    Parameters
    ----------
    image : Image
    window : see Parameters
    feed : callable
        Makes a feed of (..., c) sample blocks, anew for each pass.
    watch : Watch, optional

    Returns
    -------
    tuple of (low, high) or None
        Per channel; None for bytes taken as they are.

    Raises
    ------
    NotAnImage
        If floats are infinite somewhere.
    """
    dtype = image.dtype
    if isinstance(window, tuple):
        return window
    if dtype == np.uint8 and window != "minmax":
        return None
    if dtype.kind == "b":
        return ((0.0, 1.0),)
    if window == "dtype":
        limits = np.iinfo(dtype)
        return ((float(limits.min), float(limits.max)),)
    # Most images are of bytes, and need no pass.
    from napari_pixseg.engine.ranges import extent_window, quantile_window

    if dtype.kind == "f" or window == "minmax":
        return extent_window(feed, watch)
    return quantile_window(feed, dtype, image.color_channels, watch)
