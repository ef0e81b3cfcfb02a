"""The outputs of a segmentation as napari layers, whether they are in memory or on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.plugin.layer_types import (
    CHECKSUM_KEY,
    OUTPUT_KEY,
    SEGMENTATION_KEY,
    ArrayLike,
    LayerData,
    LayerOptions,
)
from napari_pixseg.plugin.layers.styles import class_colormap, class_features, refuse_long_table
from napari_pixseg.plugin.map_checksum import checksum_of
from napari_pixseg.segmentation import Segmentation
from napari_pixseg.slices import Samples

if TYPE_CHECKING:
    import pandas as pd


class ResultLayers(ABC):
    """Makes the layers of a segmentation: picture, classes and regions, if there are any.

    The layers look the same wherever the outputs are stored; subclasses read them.
    """

    @abstractmethod
    def _output_names(self) -> Collection[str]:
        """Return the names of the existing outputs."""

    @abstractmethod
    def _open_output(self, output: str) -> tuple[ArrayLike, LayerOptions]:
        """Return an output's data, and the name, place and metadata of its layer."""

    @abstractmethod
    def _class_rows(self) -> Sequence[dict[str, Any]]:
        """Return the class table, row by row as in a manifest."""

    @abstractmethod
    def _region_table(self) -> pd.DataFrame | None:
        """Return the region table; None if it is missing, or too long for a layer."""

    def make_layers(self) -> list[LayerData]:
        """Return the data of all layers, the lowest one first."""
        makers = {
            "recolored": self._make_picture,
            "classes": self._make_classes,
            "regions": self._make_regions,
        }
        outputs = self._output_names()
        return [make() for output, make in makers.items() if output in outputs]

    def _make_picture(self) -> LayerData:
        data, options = self._open_output("recolored")
        return data, options, "image"

    def _make_classes(self) -> LayerData:
        data, options = self._open_output("classes")
        rows = self._class_rows()
        palette = np.array([[0, 0, 0], *(row["color"] for row in rows)], np.uint8)
        looks = {"colormap": class_colormap(palette), "features": class_features(rows)}
        return data, {**options, **looks}, "labels"

    def _make_regions(self) -> LayerData:
        data, options = self._open_output("regions")
        # Thousands of random colors would hide the classes below.
        looks: LayerOptions = {"visible": False}
        table = self._region_table()
        if table is not None:
            # napari finds the row of a label by this name.
            looks["features"] = table.rename(columns={"number": "index"})
        return data, {**options, **looks}, "labels"


@dataclass(frozen=True)
class ComputedOutputs:
    """Outputs in memory.

    Attributes
    ----------
    segmentation : Segmentation
        The segmentation that was computed.
    outputs : dict of str to ndarray
    region_table : structured ndarray or None
        One row per region, if there are regions.
    """

    segmentation: Segmentation
    outputs: dict[str, Samples] = field(repr=False)
    region_table: NDArray[np.void] | None = field(repr=False)


class ComputedLayers(ResultLayers):
    """Layers of outputs in memory.

    Parameters
    ----------
    computed : ComputedOutputs
    name : str
        Name of the image; the names of the layers begin with it.
    placement : dict
        Attributes that place the layers where the image is.
    """

    def __init__(self, computed: ComputedOutputs, name: str, placement: LayerOptions) -> None:
        self._computed = computed
        self._name = name
        self._placement = placement

    def _output_names(self) -> Collection[str]:
        return self._computed.outputs.keys()

    def _open_output(self, output: str) -> tuple[ArrayLike, LayerOptions]:
        options = {"name": f"{self._name} {output}", **self._placement}
        if output == "recolored":
            options["rgb"] = True
        else:
            options["metadata"] = {
                SEGMENTATION_KEY: self._computed.segmentation,
                OUTPUT_KEY: output,
                CHECKSUM_KEY: checksum_of(self._computed.outputs[output]),
            }
        return self._computed.outputs[output], options

    def _class_rows(self) -> Sequence[dict[str, Any]]:
        rows = self._computed.segmentation.table
        columns = rows.dtype.names or ()
        return [{column: row[column].tolist() for column in columns} for row in rows]

    def _region_table(self) -> pd.DataFrame | None:
        table = self._computed.region_table
        remedy = "take it from segment(...).region_table"
        if table is None or refuse_long_table(self._name, len(table), remedy):
            return None
        # pandas is slow to load, and only results need it.
        import pandas as pd

        return pd.DataFrame(table)
