"""The connected components of one tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.components import Components, find_components, sum_samples
from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.classification.tile import Part, as_kernel_input
from napari_pixseg.regions.rules import Rules
from napari_pixseg.regions.tile_layout import to_tzyx


@dataclass(frozen=True)
class TileComponents:
    """The components of a tile, found the same way in every pass.

    Attributes
    ----------
    components : Components
    seam : (m,) ndarray of intp
        Components that touch a seam, ascending.
    large_enough : (n + 1,) ndarray of bool
        False for components that are too small, no matter what other tiles contain.
    """

    components: Components
    seam: NDArray[np.intp]
    large_enough: NDArray[np.bool_]

    @classmethod
    def find(
        cls, classes: AnyArray, sides: Sequence[tuple[int, int]], rules: Rules
    ) -> TileComponents:
        """Find the components of (t, z, y, x) classes."""
        components = find_components(classes, rules.connectivity, rules.background)
        return cls.from_components(components, sides, rules)

    @classmethod
    def from_components(
        cls, components: Components, sides: Sequence[tuple[int, int]], rules: Rules
    ) -> TileComponents:
        """Find the components of a tile that touch a seam."""
        touches = np.zeros(len(components) + 1, np.bool_)
        for axis, side in sides:
            touches[components.face(axis, side)] = True
        touches[0] = False
        large_enough = touches | (components.sizes >= rules.min_size)
        large_enough[0] = False
        return cls(components, np.flatnonzero(touches), large_enough)


def sum_parts(components: Components, parts: Sequence[Part], axes: str) -> AnyArray:
    """Add up the samples of each component of a tile; see :func:`sum_samples`."""
    placed = []
    for there, samples in parts:
        origin = to_tzyx([part.start for part in there], axes, 0)
        shape = to_tzyx(samples.shape[:-1], axes, 1)
        usable = as_kernel_input(samples)
        placed.append((origin, usable.reshape(*shape, samples.shape[-1])))
    return sum_samples(components, placed)
