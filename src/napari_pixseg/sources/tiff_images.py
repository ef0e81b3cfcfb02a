"""Lists the images of a TIFF file, and chooses one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tifffile import TiffFile, TiffPageSeries

from napari_pixseg.errors import NotAnImage, ParameterError
from napari_pixseg.sources.image_choice import Series, find_series
from napari_pixseg.sources.location import Location

# Bit of the tag NewSubfileType, and value of PhotometricInterpretation, of transparency masks.
_MASK_BIT = 4
_MASK = 4

_PAGE = re.compile(r"page (\d{1,9})")


@dataclass(frozen=True)
class ImagePlace:
    """Where an image is in a TIFF file.

    Attributes
    ----------
    series, level : int
        Numbers that tifffile gives.
    page : int or None
        Number of a page, if it was requested as an image of its own.
    """

    series: int = 0
    level: int = 0
    page: int | None = None

    @property
    def label(self) -> Series:
        """The value of ``series`` that chooses this image."""
        return self.series if self.page is None else f"page {self.page}"

    def find_in(self, tiff: TiffFile) -> TiffPageSeries:
        """Return the image in a file that is open."""
        if self.page is not None:
            return _series_of_page(tiff, self.page)
        return list_series(tiff)[self.series].levels[self.level]


def list_series(tiff: TiffFile) -> list[TiffPageSeries]:
    """Return the series, or images, that tifffile finds in a file."""
    try:
        return tiff.series
    except RuntimeError:
        # tifffile looks at only some pages before it assumes that all are alike.
        tiff.is_uniform = False
        return tiff.series


def choose_place(tiff: TiffFile, wanted: Series | None, location: Location) -> ImagePlace:
    """Return the place of the requested image, or of the one with the largest planes.

    Thumbnails, labels of slides and coarser levels may come first in the file.

    Raises
    ------
    ParameterError, NotAnImage
    """
    if isinstance(wanted, str) and (page := _PAGE.fullmatch(wanted)):
        return _place_of_page(tiff, int(page[1]), location)
    series = list_series(tiff)
    if not series:
        raise NotAnImage(f"{location.shown} is a TIFF without an image: give another file.")
    if wanted is None:
        number = max(range(len(series)), key=lambda i: (*_rank(series[i]), -i))
    else:
        number = find_series(wanted, [one.name for one in series], location.shown)
    return place_of_series(tiff, number)


def place_of_series(tiff: TiffFile, number: int) -> ImagePlace:
    """Return the place of one of the images that tifffile lists, at full resolution."""
    # That is level 0 in all but strange files.
    sizes = [_plane_size(level) for level in list_series(tiff)[number].levels]
    return ImagePlace(number, sizes.index(max(sizes)))


def coarser_places(tiff: TiffFile, finest: ImagePlace) -> list[ImagePlace]:
    """Return the places of the coarser levels of an image, fine to coarse."""
    levels = list_series(tiff)[finest.series].levels
    sizes = {number: _plane_size(level) for number, level in enumerate(levels)}
    numbers = [number for number in sizes if sizes[number] < sizes[finest.level]]
    return [replace(finest, level=number) for number in sorted(numbers, key=lambda n: -sizes[n])]


def _place_of_page(tiff: TiffFile, number: int, location: Location) -> ImagePlace:
    count = len(tiff.pages)
    if number >= count:
        raise ParameterError(
            f"series = 'page {number}' is not a page of {location.shown}; give page 0 to "
            f"page {count - 1}."
        )
    return ImagePlace(page=number)


def _series_of_page(tiff: TiffFile, number: int) -> TiffPageSeries:
    page = tiff.pages.get(number, aspage=True)
    return TiffPageSeries([page], page.shape, page.dtype, page.axes, parent=tiff, kind="page")


def _rank(series: TiffPageSeries) -> Sequence[int]:
    page = series.keyframe
    is_mask = bool(page.subfiletype & _MASK_BIT) or page.photometric == _MASK
    size = max(_plane_size(level) for level in series.levels)
    return (not is_mask, size, not page.is_reduced)


def _plane_size(series: TiffPageSeries) -> int:
    page = series.keyframe
    return int(page.imagewidth) * int(page.imagelength)
