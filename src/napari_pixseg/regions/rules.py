"""The rules for regions, from the parameters and resolved to class numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.parameters import Background, Parameters


@dataclass(frozen=True)
class Rules:
    """The rules for regions.

    Attributes
    ----------
    connectivity : int
        Pixels connect when they differ by one along at most this many spatial axes.
    background : tuple of int
        Classes that do not form regions, besides 0.
    min_size : int
        Regions of fewer pixels are dropped.
    """

    connectivity: int
    background: tuple[int, ...]
    min_size: int


def resolve_rules(parameters: Parameters, classes: Classes) -> Rules:
    """Return the rules of a segmentation; its largest class may be the background."""
    background = resolve_background(
        parameters.background, lambda: int(np.argmax(classes.table["count"])) + 1
    )
    return Rules(parameters.connectivity, background, parameters.min_size)


def resolve_background(background: Background, largest: Callable[[], int]) -> tuple[int, ...]:
    """Return the background's class numbers; calls ``largest`` only if it is needed."""
    if background is None:
        return ()
    return (largest(),) if background == "largest" else tuple(background)
