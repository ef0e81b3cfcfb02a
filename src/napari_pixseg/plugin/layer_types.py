"""Type names for napari's values; napari itself has no type information."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

# Type of the values of an array.
ValueType: TypeAlias = np.dtype[Any]

# The type of ``layer.data``: anything that has a shape and can be sliced.
ArrayLike: TypeAlias = Any

# A layer before it exists: its data, its attributes, and its kind ("image" or "labels").
LayerOptions: TypeAlias = dict[str, Any]
LayerData: TypeAlias = tuple[ArrayLike, LayerOptions, str]

# The state of a layer, as napari hands it to writers.
LayerState: TypeAlias = Mapping[str, Any]
Reader: TypeAlias = Callable[[str], list[LayerData]]

# Keys in the metadata of layers. They show which layers are ours and where they come from: the
# Segmentation that is written when the layer is saved,
SEGMENTATION_KEY = "pixseg"
# which of its outputs the layer shows, and a checksum of it as it was computed,
OUTPUT_KEY = "pixseg_output"
CHECKSUM_KEY = "pixseg_checksum"
# the Manifest of the finished output that the layer shows,
MANIFEST_KEY = "pixseg_manifest"
# the open levels of an image, so that its file is not opened a second time,
IMAGES_KEY = "pixseg_images"
# and the path or URL that they were opened from, as it was given.
PATH_KEY = "pixseg_path"
