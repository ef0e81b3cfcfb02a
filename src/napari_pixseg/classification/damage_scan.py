"""Finds all damaged chunks of an image, after a first one has been found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.slices import ChunkIndex, PixelSlices
from napari_pixseg.sources.damaged_chunks import damaged_chunks
from napari_pixseg.sources.image import Image

STAGE = "damage"

ChunkSet: TypeAlias = frozenset[ChunkIndex]


def without_damage(image: Image, tiling: Tiling, monitor: RunMonitor) -> Image:
    """Read an image once, and return it with its undecodable chunks left out."""
    tiles = TileSource.from_slices(_DamageScan(image), tiling)
    return image.without(run_tiles(tiles, _pass_chunks, STAGE, monitor, _merge_chunks))


@dataclass(frozen=True)
class _DamageScan:
    """Finds the damaged chunks of a box."""

    image: Image

    def __call__(self, slices: PixelSlices) -> ChunkSet:
        parts = self.image.source_parts(slices)
        return frozenset(
            index for part in parts for index in damaged_chunks(self.image.source, part)
        )


def _pass_chunks(chunks: ChunkSet, _number: int) -> ChunkSet:
    return chunks


def _merge_chunks(parts: list[ChunkSet]) -> ChunkSet:
    return frozenset().union(*parts)
