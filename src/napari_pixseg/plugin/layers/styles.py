"""How results look in napari: class colors, and tables as features of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pixseg.plugin.notices import tell_user

if TYPE_CHECKING:
    import pandas as pd
    from napari.utils.colormaps import DirectLabelColormap
    from numpy.typing import NDArray

# A longer table would make napari slow, and take more than half a gigabyte of memory.
MOST_FEATURES = 2_000_000


def class_colormap(palette: NDArray[np.uint8]) -> DirectLabelColormap:
    """Return the class colors for a Labels layer.

    Parameters
    ----------
    palette : (n + 1, 3) ndarray of uint8
        Row 0 stands for "no data" and becomes transparent.
    """
    # Describing outputs and looking for readers must not load napari.
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, NDArray[np.float64]] = {None: np.zeros(4), 0: np.zeros(4)}
    for number, color in enumerate(palette[1:].tolist(), start=1):
        colors[number] = np.array([*color, 255]) / 255
    return DirectLabelColormap(color_dict=colors)


def class_features(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the class table of a manifest as features; napari finds a row by its ``index``."""
    # pandas is slow to load, and only results need it.
    import pandas as pd

    columns = ("count", "percentage", "box_count", "box_percentage")
    return pd.DataFrame(
        {
            "index": [row["number"] for row in rows],
            "color": ["#{:02x}{:02x}{:02x}".format(*row["color"]) for row in rows],
            **{name: [row[name] for row in rows] for name in columns},
            "box": [", ".join(f"{low}-{high}" for low, high in row["box"]) for row in rows],
        }
    )


def refuse_long_table(name: str, count: int, remedy: str) -> bool:
    """Return whether a region table is too long for a layer; if so, tell the user.

    Parameters
    ----------
    name : str
        Name of the output or image.
    count : int
        Number of regions.
    remedy : str
        What the user can do instead, as part of a sentence.
    """
    if count <= MOST_FEATURES:
        return False
    tell_user(
        f"{name} has {count:,} regions, too many for a table in napari "
        f"(at most {MOST_FEATURES:,}); {remedy} instead."
    )
    return True
