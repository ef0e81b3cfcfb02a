"""The connected components of one tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.components import Components, find_components, sum_samples
from napari_pixseg.classification.tile_colors import ClassifiedTile, Part
from napari_pixseg.regions.layout import Rules, to_tzyx


@dataclass(frozen=True)
class TileComponents:
    """The components of a tile, found the same way in every pass.

    Attributes
    ----------
    components : Components
    seam : (m,) ndarray of intp
        Components that touch a seam, ascending.
    kept : (n + 1,) ndarray of bool
        False for those known to be too small without looking at other tiles.
    """

    components: Components
    seam: NDArray[np.intp]
    kept: NDArray[np.bool_]

    @classmethod
    def of(
        cls, classes: NDArray[Any], sides: Sequence[tuple[int, int]], rules: Rules
    ) -> TileComponents:
        """Find the components of (t, z, y, x) classes."""
        components = find_components(classes, rules.connectivity, rules.background)
        return cls.made_of(components, sides, rules)

    @classmethod
    def made_of(
        cls, components: Components, sides: Sequence[tuple[int, int]], rules: Rules
    ) -> TileComponents:
        """Look which of the components of a tile touch a seam."""
        touches = np.zeros(len(components) + 1, np.bool_)
        for axis, side in sides:
            touches[components.face(axis, side)] = True
        touches[0] = False
        kept = touches | (components.sizes >= rules.min_size)
        kept[0] = False
        return cls(components, np.flatnonzero(touches), kept)


@dataclass(frozen=True)
class KeptTile:
    """What the pass that finds the components of a tile knows of them, for that which writes them.

    Attributes
    ----------
    components : Components
    totals : (n + 1, c) ndarray or None
        Sums of their samples, if these came along.
    """

    components: Components
    totals: NDArray[Any] | None


# A tile as a feed gives it.
Block: TypeAlias = NDArray[Any] | ClassifiedTile | KeptTile


Keep: TypeAlias = Callable[[KeptTile, int], Any]


def sum_parts(components: Components, parts: Sequence[Part], axes: str) -> NDArray[Any]:
    """Add up the samples of each component of a tile; see :func:`sum_samples`."""
    placed = []
    for there, samples in parts:
        origin = to_tzyx([part.start for part in there], axes, 0)
        shape = to_tzyx(samples.shape[:-1], axes, 1)
        placed.append((origin, samples.reshape(*shape, samples.shape[-1])))
    return sum_samples(components, placed)
