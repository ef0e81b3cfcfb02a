"""What is exported: a counted image, its parameters and its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import Image


@dataclass(frozen=True)
class ExportJob:
    """What is exported.

    Attributes
    ----------
    color_count : ColorCount
    parameters : Parameters
    decide : callable
        Gives the classes; counts the colors first if need be.
    warnings : callable
        Gives what a user should know, once the classes are decided.
    """

    color_count: ColorCount
    parameters: Parameters
    decide: Callable[[RunMonitor], Classes]
    warnings: Callable[[], tuple[str, ...]]

    @property
    def image(self) -> Image:
        """The image that is segmented."""
        return self.color_count.image
