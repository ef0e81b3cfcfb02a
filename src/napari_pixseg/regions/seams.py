"""Summarizes the seams of a tile, and matches components of two tiles that touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.kernels.arrays import AnyArray
from napari_pixseg.algorithm.kernels.dispatch import compiled
from napari_pixseg.regions.tile_components import TileComponents
from napari_pixseg.regions.tile_layout import Direction, Longs


@dataclass(frozen=True)
class TileSeams:
    """The summary of one tile's seams, for its neighbors and for the central step.

    Attributes
    ----------
    firsts : (lines,) ndarray of int32
        Kept components that begin on each line of the tile.
    lines, ranks : (m,) ndarray of int32
        Where each seam component begins: its line, and its place among the line's components.
    sizes, classes : (m,) ndarray of int64
    faces : dict of (axis, side) to ndarray of int32
        Seam components 1..m on each side, 0 for background.
    class_counts : (c,) ndarray of int64, optional
        Pixels of each class, if they are counted.
    """

    firsts: NDArray[np.int32]
    lines: NDArray[np.int32]
    ranks: NDArray[np.int32]
    sizes: Longs
    classes: Longs
    faces: dict[tuple[int, int], NDArray[np.int32]] = field(repr=False)
    class_counts: Longs | None = None


@compiled
def _rank_in_lines(
    lines: NDArray[np.int32],
    large_enough: NDArray[np.bool_],
    firsts: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> None:
    for number in range(1, lines.size):
        if large_enough[number]:
            ranks[number] = firsts[lines[number]]
            firsts[lines[number]] += 1


def sum_up(
    classes: AnyArray,
    tile: TileComponents,
    sides: Sequence[tuple[int, int]],
    class_counts: Longs | None = None,
) -> TileSeams:
    """Reduce a tile to a summary of its seams; ``classes`` are the tile's classes."""
    components = tile.components
    seam = tile.seam
    firsts = np.zeros(len(components.first_runs) - 1, np.int32)
    ranks = np.zeros(len(components) + 1, np.int32)
    _rank_in_lines(components.lines, tile.large_enough, firsts, ranks)
    compact = np.zeros(len(components) + 1, np.int32)
    compact[seam] = np.arange(1, len(seam) + 1)
    seam_classes = np.zeros(len(seam) + 1, np.int64)
    faces = {}
    for axis, side in sides:
        face = compact[components.face(axis, side)]
        faces[axis, side] = face
        seam_classes[face] = _take_face(classes, axis, side)
    return TileSeams(
        firsts,
        components.lines[seam],
        ranks[seam],
        components.sizes[seam],
        seam_classes[1:],
        faces,
        class_counts,
    )


def match_components(
    here: TileSeams, there: TileSeams, direction: Direction, connectivity: int
) -> Longs:
    """Return the pairs (k, 2) of seam components of two tiles that touch, each once.

    Every step from ``here`` to ``there`` moves along the axes of the direction. It may also move
    along other axes, as far as the connectivity allows.
    """
    face = _take_edge(here, direction, 1)
    other = _take_edge(there, direction, -1)
    spare = connectivity - sum(map(abs, direction))
    free = [(0,) if d else (-1, 0, 1) for d in direction]
    pairs = [
        _find_touching(face, other, shift, here.classes, there.classes)
        for shift in product(*free)
        if sum(map(abs, shift)) <= spare
    ]
    touching = np.unique(np.concatenate(pairs))
    return np.stack([touching >> 32, touching & 0xFFFFFFFF], axis=1)


def _take_edge(tile: TileSeams, direction: Direction, sign: int) -> NDArray[np.int32]:
    """Return the part of a tile's faces that lies at its side, edge or corner in a direction."""
    moves = [(axis, d * sign > 0) for axis, d in enumerate(direction, start=1) if d]
    edge = tile.faces[moves[0][0], int(moves[0][1])]
    for axis, last in moves[1:]:
        edge = _take_face(edge, axis, int(last))
    return edge


def _take_face(array: AnyArray, axis: int, side: int) -> AnyArray:
    index = [slice(None)] * array.ndim
    index[axis] = slice(-1, None) if side else slice(0, 1)
    return array[tuple(index)]


def _find_touching(
    face: NDArray[np.int32],
    other: NDArray[np.int32],
    shift: tuple[int, ...],
    classes: Longs,
    other_classes: Longs,
) -> Longs:
    pairs = list(zip((0, *shift), face.shape, strict=True))
    index = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in pairs)
    shifted = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in pairs)
    ours = face[index].reshape(-1)
    theirs = other[shifted].reshape(-1)
    both = (ours > 0) & (theirs > 0)
    ours = ours[both]
    theirs = theirs[both]
    same = classes[ours - 1] == other_classes[theirs - 1]
    # Sorting one number for each pair is faster than sorting two.
    touching: Longs = ours[same].astype(np.int64) << 32 | theirs[same]
    return touching
