"""Finding all chunks of an image that cannot be decoded, once one was met."""

from __future__ import annotations

from dataclasses import dataclass

from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.slices import ChunkIndex
from napari_pixseg.sources.damage import damaged_chunks
from napari_pixseg.sources.image import Image

STAGE = "damage"


Chunks = frozenset[ChunkIndex]


def without_damage(image: Image, tiling: Tiling, monitor: RunMonitor) -> Image:
    """Read an image once; return it without the chunks that cannot be decoded."""
    tile_source = TileSource.of_reader(_Scan(image, tiling), tiling)
    missing: Chunks = run_tiles(tile_source, _found, STAGE, monitor, _joined)
    return image.without(missing)


@dataclass(frozen=True)
class _Scan:
    image: Image
    tiling: Tiling

    def __call__(self, number: int) -> Chunks:
        parts = self.image.source_parts(self.tiling.slices(number))
        return frozenset(
            index for part in parts for index in damaged_chunks(self.image.source, part)
        )


def _found(chunks: Chunks, _number: int) -> Chunks:
    return chunks


def _joined(parts: list[Chunks]) -> Chunks:
    return frozenset().union(*parts)
