"""Checks that as many pixels of each class were written as were counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.classification.input_changed_errors import input_changed


def count_classes(classes: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Count the pixels of each class 0..length - 1 of any part of a class map."""
    counts = np.zeros(length, np.int64)
    # The kernel takes one contiguous line, so classes are copied only if need be.
    flat = np.require(classes, requirements=["C", "W"]).reshape(-1)
    kernels.count_numbers(flat, counts)
    return counts


def refuse_other_counts(counts: NDArray[np.int64], classes: Classes) -> None:
    """Before the commit, raise an error if the written pixels differ from the counted ones.

    Raises
    ------
    InputChanged
    """
    if not np.array_equal(counts[1:], classes.table["count"]):
        raise input_changed()
