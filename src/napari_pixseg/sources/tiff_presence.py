"""Which tiles and strips of a TIFF exist: pixels of the others are read as zeros."""

from __future__ import annotations

from dataclasses import dataclass

from tifffile import TiffPageSeries

from napari_pixseg.errors import InputNotFound
from napari_pixseg.sources.source import Source


@dataclass(frozen=True)
class EmptyTiff(Source):
    """An image of a TIFF of which no tile or strip exists."""

    def refuse_absence(self) -> None:
        """Refuse the image, as a zarr array without any chunk is refused."""
        raise InputNotFound(
            f"No tile or strip of this image exists at {self.uri or self.name}, so all its pixels "
            "would be 0; save it anew, or, if that is meant, use allow_missing=True "
            "(--allow-missing)."
        )


def count_absent(series: TiffPageSeries) -> tuple[int, int]:
    """Return how many tiles or strips of an image do not exist, and how many there should be.

    A tile that a program left out has an offset or a byte count of 0.
    """
    absent = 0
    total = 0
    for page in series.pages:
        if page is None:
            continue
        total += len(page.dataoffsets)
        # tuple.count is much faster than a loop, and a slide has a million tiles.
        absent += max(page.databytecounts.count(0), page.dataoffsets.count(0))
    return absent, total


def note_absent(absent: int, total: int) -> tuple[str, ...]:
    """Return what the result says about tiles or strips that do not exist."""
    if not 0 < absent < total:
        return ()
    return (f"{absent} of its {total} tiles or strips do not exist; their pixels are read as 0.",)
