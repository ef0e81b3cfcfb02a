"""What crosses the sides of a tile, and which components of two tiles touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.regions.layout import Direction, Longs
from napari_pixseg.regions.tile_components import TileComponents


def _face(array: NDArray[Any], axis: int, side: int) -> NDArray[Any]:
    index = [slice(None)] * array.ndim
    index[axis] = slice(-1, None) if side else slice(0, 1)
    return array[tuple(index)]


@dataclass(frozen=True)
class TileSeams:
    """What the other tiles and the central step need of a tile.

    Attributes
    ----------
    firsts : (lines,) ndarray of int32
        Kept components that begin on each line of the tile.
    lines, ranks : (m,) ndarray of int32
        Where each seam component begins: line, and place among those of the line.
    sizes, classes : (m,) ndarray of int64
    faces : dict of (axis, side) to ndarray of int32
        Seam components 1..m on each side, 0 for background.
    written
        What came along, see :func:`number_regions`.
    """

    firsts: NDArray[np.int32]
    lines: NDArray[np.int32]
    ranks: NDArray[np.int32]
    sizes: Longs
    classes: Longs
    faces: dict[tuple[int, int], NDArray[np.int32]] = field(repr=False)
    written: Any = None


@compiled
def _rank(
    lines: NDArray[np.int32], kept: NDArray[np.bool_], firsts: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> None:  # fmt: skip
    for number in range(1, lines.size):
        if kept[number]:
            ranks[number] = firsts[lines[number]]
            firsts[lines[number]] += 1


def sum_up(
    classes: NDArray[Any], tile: TileComponents, sides: Sequence[tuple[int, int]]
) -> TileSeams:
    """Reduce a tile to its seams; ``classes`` are those it was made of."""
    components, seam = tile.components, tile.seam
    firsts = np.zeros(len(components.first_runs) - 1, np.int32)
    ranks = np.zeros(len(components) + 1, np.int32)
    _rank(components.lines, tile.kept, firsts, ranks)
    compact = np.zeros(len(components) + 1, np.int32)
    compact[seam] = np.arange(1, len(seam) + 1)
    of_seam = np.zeros(len(seam) + 1, np.int64)
    faces = {}
    for axis, side in sides:
        face = compact[components.face(axis, side)]
        faces[axis, side] = face
        of_seam[face] = _face(classes, axis, side)
    return TileSeams(
        firsts, components.lines[seam], ranks[seam], components.sizes[seam], of_seam[1:], faces
    )


def match(here: TileSeams, there: TileSeams, direction: Direction, connectivity: int) -> Longs:
    """Return the pairs (k, 2) of seam components of two tiles that touch, each once.

    Every step from ``here`` to ``there`` moves along the axes of the direction;
    along the others it may move too, as far as the connectivity goes.
    """
    face, other = _edge(here, direction, 1), _edge(there, direction, -1)
    spare = connectivity - sum(map(abs, direction))
    free = [(0,) if d else (-1, 0, 1) for d in direction]
    pairs = [
        _touching(face, other, shift, here.classes, there.classes)
        for shift in product(*free)
        if sum(map(abs, shift)) <= spare
    ]
    touching = np.unique(np.concatenate(pairs))
    return np.stack([touching >> 32, touching & 0xFFFFFFFF], axis=1)


def _edge(tile: TileSeams, direction: Direction, sign: int) -> NDArray[np.int32]:
    """The part of a tile's faces that lies at its side, edge or corner in a direction."""
    moves = [(axis, d * sign > 0) for axis, d in enumerate(direction, start=1) if d]
    edge = tile.faces[moves[0][0], int(moves[0][1])]
    for axis, last in moves[1:]:
        edge = _face(edge, axis, int(last))
    return edge


def _touching(
    face: NDArray[np.int32], other: NDArray[np.int32], shift: tuple[int, ...],
    classes: Longs, other_classes: Longs,
) -> Longs:  # fmt: skip
    pairs = zip((0, *shift), face.shape, strict=True)
    index = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in pairs)
    pairs = zip((0, *shift), face.shape, strict=True)
    shifted = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in pairs)
    a, b = face[index].reshape(-1), other[shifted].reshape(-1)
    both = (a > 0) & (b > 0)
    a, b = a[both], b[both]
    same = classes[a - 1] == other_classes[b - 1]
    # As one number, which is sorted faster than two.
    touching: Longs = a[same].astype(np.int64) << 32 | b[same]
    return touching
