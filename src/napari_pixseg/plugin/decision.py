"""The decision about an image's classes, and the counted colors that it is based on."""

from __future__ import annotations

from dataclasses import dataclass

from napari_pixseg.algorithm.classes import Classes, decide
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.parameter_checks import check_parameters
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.sources.image import Image


@dataclass(frozen=True)
class Decision:
    """The classes to show, and how to find the class of a pixel.

    Attributes
    ----------
    classes : Classes
    table : ColorTable
    encoding : Encoding
        How samples became the colors of the table.
    provisional : bool
        True until every pixel of the finest level has been counted.
    overview : Overview or None
        A small copy of a huge image, filled while it is counted.
    """

    classes: Classes
    table: ColorTable
    encoding: Encoding
    provisional: bool
    overview: Overview | None = None


@dataclass(frozen=True)
class CountedColors:
    """Counted colors, on which any number of decisions can be made without reading pixels.

    Attributes
    ----------
    table : ColorTable
    encoding : Encoding
    image : Image
        The finest level, even if a coarser one was counted.
    overview : Overview or None
    provisional : bool
        Whether only a part of the image was counted.
    """

    table: ColorTable
    encoding: Encoding
    image: Image
    overview: Overview | None
    provisional: bool = False

    def decide(self, parameters: Parameters) -> Decision:
        """Decide which classes there are.

        Raises
        ------
        ParameterError, ClassError
        """
        check_parameters(self.image, parameters)
        classes = decide(self.table, parameters, gray=self.image.gray)
        return Decision(classes, self.table, self.encoding, self.provisional, self.overview)
