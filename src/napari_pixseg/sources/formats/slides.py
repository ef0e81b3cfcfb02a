"""Reads whole slides with OpenSlide: MIRAX, Hamamatsu VMS and VMU, DICOM and others."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image as Pillow

from napari_pixseg.errors import NotAnImage
from napari_pixseg.slices import Samples, shape_of, split_key
from napari_pixseg.sources.formats.kinds import FileKind, refuse_missing
from napari_pixseg.sources.image_choice import Series, StoredImage, describe_choice, find_series
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import Source

try:
    import openslide
except ImportError:
    # The caller has checked that the library is installed.
    openslide = None

# OpenSlide's vendor for any TIFF with tiles; such files were refused for good reasons.
_NO_SLIDE = (None, "generic-tiff")

_WHITE = "FFFFFF"

# The part that is read at once if a slide does not state the size of its tiles.
_USUAL_TILE = 512


def is_slide(location: Location) -> bool:
    """Whether OpenSlide knows the vendor of a file."""
    return openslide.OpenSlide.detect_format(location.address) not in _NO_SLIDE


def open_slide(location: Location, kind: FileKind, series: Series | None) -> Source:
    """Open a slide at full resolution, or one of the pictures that belong to it.

    Parameters
    ----------
    location : Location
        A file on a disk.
    kind : FileKind
    series : int or str, optional
        0 is the slide itself; its label and others have numbers and names.

    Returns
    -------
    Source
        Areas that were not scanned have the background color stated in the slide.
    """
    identity = location.identity()
    try:
        slide = openslide.OpenSlide(location.address)
    except openslide.OpenSlideError as error:
        raise _unreadable_slide(location, kind, error) from None
    with slide:
        images = _list_pictures(slide)
        names = [image.name for image in images]
        number = 0 if series is None else find_series(series, names, location.shown)
        notes = () if series is not None else describe_choice(images, 0, "slide itself")
        version = tuple(sorted(identity.items()))
        name = images[number].name
        place = (name, 0)
        array = SlideArray(location, images[number].shape, np.dtype(np.uint8), version, place)
        source = Source(
            array,
            axes="yxc",
            scale=images[number].scale,
            units=images[number].units,
            chunks=None if name else (*_tile_of(slide, 0), 3),
            uri=location.uri,
            identity=identity,
            series=number,
            list_images=partial(list_pictures, location),
            kind="slide",
            name=location.name,
            fingerprint=location.fingerprint,
            notes=notes,
            is_in_memory=bool(name),
        )
        sizes = () if name else slide.level_dimensions[1:]
        levels = partial(_coarser_slides, source, sizes) if sizes else None
        return replace(source, open_coarser=levels)


def list_pictures(location: Location) -> list[StoredImage]:
    """Return the slide and the pictures that belong to it."""
    with openslide.OpenSlide(location.address) as slide:
        return _list_pictures(slide)


class SlideArray(FileArray["openslide.OpenSlide"]):
    """A level of a slide, or one of its associated pictures.

    `details` are the name of the picture, empty for the slide itself, and the level.
    """

    def at_level(self, level: int, shape: tuple[int, int, int]) -> SlideArray:
        """Return a coarser level of the same slide."""
        return SlideArray(self._location, shape, self.dtype, self._version, ("", level))

    def _open_file(self) -> openslide.OpenSlide:
        refuse_missing(openslide, "openslide-python", self._location)
        slide = openslide.OpenSlide(self._location.address)
        weakref.finalize(self, slide.close)
        return slide

    def _read_pixels(self, opened: openslide.OpenSlide, key: Key) -> Samples:
        name, level = self._details
        if name:
            picture = opened.associated_images[name]
            return _over_background(picture, opened)[key]
        box, rest = split_key(key, self.shape)
        rows, columns, members = box
        ratio = opened.level_downsamples[level]
        corner = (round(columns.start * ratio), round(rows.start * ratio))
        height, width, _ = shape_of(box)
        pixels = _over_background(opened.read_region(corner, level, (width, height)), opened)
        part: Samples = pixels[..., members][rest]
        return part


def _coarser_slides(source: Source, sizes: Sequence[tuple[int, int]]) -> list[Source]:
    array: SlideArray = source.array
    levels = []
    for number, (width, height) in enumerate(sizes, 1):
        coarse = array.at_level(number, (height, width, 3))
        levels.append(replace(source, array=coarse, chunks=None, notes=(), open_coarser=None))
    return levels


def _over_background(picture: Pillow.Image, slide: openslide.OpenSlide) -> Samples:
    color = slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, _WHITE)
    background = Pillow.new("RGBA", picture.size, f"#{color}")
    return np.asarray(Pillow.alpha_composite(background, picture).convert("RGB"))


def _list_pictures(slide: openslide.OpenSlide) -> list[StoredImage]:
    width, height = slide.dimensions
    sizes = {axis: _float_of(slide, f"openslide.mpp-{axis}") for axis in "yx"}
    scale = {axis: size for axis, size in sizes.items() if math.isfinite(size) and size > 0}
    images = [StoredImage("", "yxc", (height, width, 3), scale, dict.fromkeys(scale, "micrometer"))]
    for name, picture in slide.associated_images.items():
        images.append(StoredImage(name, "yxc", (picture.height, picture.width, 3)))
    return images


def _tile_of(slide: openslide.OpenSlide, level: int) -> tuple[int, int]:
    sides = [
        _float_of(slide, f"openslide.level[{level}].tile-{side}") for side in ("height", "width")
    ]
    height, width = (int(side) if side > 0 else _USUAL_TILE for side in sides)
    return height, width


def _float_of(slide: openslide.OpenSlide, name: str) -> float:
    try:
        return float(slide.properties.get(name, "nan"))
    except ValueError:
        return math.nan


def _unreadable_slide(location: Location, kind: FileKind, error: Exception) -> NotAnImage:
    return NotAnImage(
        f"{location.shown} is a {kind.name} file that OpenSlide cannot read: "
        f"{location.describe_cause(error)}."
    )
