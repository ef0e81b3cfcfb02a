"""What is exported: a counted image, its parameters and its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import Counted
from napari_pixseg.execution.progress import Watch
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import Image


@dataclass(frozen=True)
class Job:
    """What is exported.

    Attributes
    ----------
    counted : Counted
    parameters : Parameters
    decide : callable
        Gives the classes; counts the colors first if need be.
    warnings : callable
        Gives what a user should know, once the classes are decided.
    """

    counted: Counted
    parameters: Parameters
    decide: Callable[[Watch], Classes]
    warnings: Callable[[], tuple[str, ...]]

    @property
    def image(self) -> Image:
        """The image that is segmented."""
        return self.counted.image
