"""Results that were computed in memory, as layers like those of an output on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.plugin.layers.styles import class_colormap, class_features, refuse_long_table
from napari_pixseg.plugin.sample_data import LayerData
from napari_pixseg.segmentation import Segmentation


@dataclass(frozen=True)
class Computed:
    """Outputs in memory.

    Attributes
    ----------
    segmentation : Segmentation
        What they were computed of.
    outputs : dict of str to ndarray
    region_table : structured ndarray or None
        One row per region, if there are regions.
    """

    segmentation: Segmentation
    outputs: dict[str, NDArray[Any]] = field(repr=False)
    region_table: NDArray[np.void] | None = field(repr=False)


def layers_of_results(computed: Computed, name: str, placement: dict[str, Any]) -> list[LayerData]:
    """Return the layers of results: picture, classes, regions, as far as there are any.

    Parameters
    ----------
    computed : Computed
    name : str
        Of the image, with which the layers' names begin.
    placement : dict
        What puts the layers in the image's place.
    """
    makers = {"recolored": _picture, "classes": _classes, "regions": _regions}
    layers = []
    for output, make in makers.items():
        if output in computed.outputs:
            options, kind = make(computed, name)
            named = {"name": f"{name} {output}", **placement, **options}
            layers.append((computed.outputs[output], named, kind))
    return layers


def _picture(_computed: Computed, _name: str) -> tuple[dict[str, Any], str]:
    return {"rgb": True}, "image"


def _classes(computed: Computed, _name: str) -> tuple[dict[str, Any], str]:
    rows = computed.segmentation.table
    columns = rows.dtype.names or ()
    described = [{column: row[column].tolist() for column in columns} for row in rows]
    return {
        "colormap": class_colormap(computed.segmentation.palette),
        "features": class_features(described),
        "metadata": {"pixseg": computed.segmentation},
    }, "labels"


def _regions(computed: Computed, name: str) -> tuple[dict[str, Any], str]:
    import pandas as pd

    table = computed.region_table
    options = {"visible": False, "metadata": {"pixseg": computed.segmentation}}
    remedy = "take it from segment(...).region_table"
    if table is None or refuse_long_table(name, len(table), remedy):
        return options, "labels"
    features = pd.DataFrame(table).rename(columns={"number": "index"})
    return {**options, "features": features}, "labels"
