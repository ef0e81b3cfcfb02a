"""The request for an export, and the interface of a segmentation that an export uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.export.preconditions import ExistingOutputPolicy, OnError
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import Image


@dataclass(frozen=True, eq=False)
class ExportRequest:
    """The outputs that a caller wants, and how to write them.

    Attributes
    ----------
    outputs : tuple of str
        Names from :data:`~napari_pixseg.export.preconditions.OUTPUTS`.
    policy : ExistingOutputPolicy
        What may happen to an output that exists.
    monitor : RunMonitor
    on_error : {"raise", "skip"}
        What to do about damaged chunks of the input.
    blob : bool
        Whether to write a picture without its manifest.
    """

    outputs: tuple[str, ...]
    policy: ExistingOutputPolicy
    monitor: RunMonitor
    on_error: OnError = "raise"
    blob: bool = False


class ExportableSegmentation(Protocol):
    """The part of :class:`~napari_pixseg.segmentation.Segmentation` that an export uses.

    It is a protocol because ``segmentation`` imports this package, not the other way round.
    """

    @property
    def image(self) -> Image:
        """The image that is segmented."""

    @property
    def color_count(self) -> ColorCount:
        """The counts of its colors, which may not have been made yet."""

    @property
    def parameters(self) -> Parameters:
        """The parameters of the segmentation."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user; computes the classes."""

    def decide(self, monitor: RunMonitor | None = None) -> Classes:
        """Return the classes; counts the colors first if necessary."""

    def without_damaged_chunks(self, monitor: RunMonitor) -> ExportableSegmentation:
        """Return the same segmentation with damaged chunks of the input as no data."""
