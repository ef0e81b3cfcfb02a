"""How results look in napari: the colors of classes, and tables as features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from napari.utils.colormaps import DirectLabelColormap
    from numpy.typing import NDArray


# More rows than this make napari slow and take about half a gigabyte.
MOST_FEATURES = 2_000_000


def class_colormap(palette: NDArray[np.uint8]) -> DirectLabelColormap:
    """Return the colors of classes for a Labels layer.

    Parameters
    ----------
    palette : (n + 1, 3) ndarray of uint8
        Row 0, no data, is transparent.
    """
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Any] = {None: np.zeros(4), 0: np.zeros(4)}
    for number, color in enumerate(palette[1:].tolist(), start=1):
        colors[number] = np.array([*color, 255]) / 255
    return DirectLabelColormap(color_dict=colors)


def class_features(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the class table of a manifest as napari takes it: a row is found by ``index``."""
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
    """Tell, in one sentence, of a region table that is too long for a layer."""
    if count <= MOST_FEATURES:
        return False
    from napari.utils.notifications import show_info

    show_info(
        f"{name} has {count:,} regions: their table is not loaded into the layer, {remedy} instead."
    )
    return True
