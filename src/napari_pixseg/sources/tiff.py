"""TIFF files, read lazily through tifffile: OME-TIFF, BigTIFF, ImageJ, whole slides.

Imported only when a TIFF is opened, so that tifffile does not slow down other images.
"""

from __future__ import annotations

import weakref
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPageSeries

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.slices import Samples
from napari_pixseg.sources.file_view import FileView
from napari_pixseg.sources.image_choice import Series, StoredImage, describe_choice
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.library_warnings import (
    gathered_logs,
    note_orientation,
    note_remarks,
)
from napari_pixseg.sources.location import Identity, Location
from napari_pixseg.sources.source import Source
from napari_pixseg.sources.tiff_images import (
    ImagePlace,
    choose_place,
    coarser_places,
    list_series,
    place_of_series,
)
from napari_pixseg.sources.tiff_metadata import (
    axis_letters,
    describe_missing_planes,
    kept_dimensions,
    name_axes,
    read_calibration,
)
from napari_pixseg.sources.tiff_presence import EmptyTiff, count_absent, note_absent
from napari_pixseg.sources.tiff_samples import (
    SampleConversion,
    describe_pixels,
    read_palette,
    uses_palette,
)
from napari_pixseg.sources.tiff_unsupported import refuse_unreadable

if TYPE_CHECKING:
    from napari_pixseg.sources.zarr_chunks import ZarrArray

    # Stored pixels, and the color map if it is applied.
    _View: TypeAlias = tuple[FileView | ZarrArray, NDArray[np.uint8] | None]

_LOGGER = "tifffile"

# The beginning of its message about missing planes, which a note of our own replaces.
_MISSING_PLANES = "OME series is missing"

# The image that is taken by default.
_WHY = "largest"


def open_tiff(location: Location, wanted: Series | None = None) -> Source:
    """Open one image of a TIFF file at full resolution.

    Parameters
    ----------
    location : Location
        A file for which :func:`~napari_pixseg.sources.open.is_tiff` is true.
    wanted : int or str, optional
        Number or name of an image; by default the largest.

    Returns
    -------
    Source
        Its pixels are as other programs show them: 0 may be white, color maps are applied (except
        those of ImageJ and OME, which are for display), and samples of few bits become bytes.
    """
    identity = location.identity()
    try:
        with gathered_logs(_LOGGER) as remarks, closing(_open_with_tifffile(location)) as tiff:
            source = _source_of_tiff(location, identity, tiff, wanted)
            unsaid = [remark for remark in remarks if _MISSING_PLANES not in remark]
            return replace(source, notes=(*source.notes, *note_remarks(unsaid, "tifffile")))
    except PixsegError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        raise _no_tiff(location, error) from None


def list_tiff_images(location: Location) -> list[StoredImage]:
    """Return the images of a TIFF file, in the order of their numbers."""
    try:
        with gathered_logs(_LOGGER), closing(_open_with_tifffile(location)) as tiff:
            return _describe_all(tiff)
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        raise _no_tiff(location, error) from None


def open_tiff_levels(location: Location, place: ImagePlace) -> list[Source]:
    """Open the coarser levels of an image, fine to coarse; they may be whatever a file says.

    Parameters
    ----------
    location : Location
    place : ImagePlace
        Where full resolution is.
    """
    identity = location.identity()
    try:
        with gathered_logs(_LOGGER), closing(_open_with_tifffile(location)) as tiff:
            finest = _source_of_place(location, identity, tiff, place)
            places = coarser_places(tiff, place)
            sources = [_source_of_place(location, identity, tiff, one) for one in places]
    except Exception:  # noqa: BLE001 - damaged files raise anything
        # The image can be read all the same, and be shown without them.
        return []
    return [source for source in sources if _has_same_samples(source, finest)]


def _has_same_samples(level: Source, finest: Source) -> bool:
    """Whether a level differs from the finest only in how many pixels a plane has."""
    if level.array.dtype != finest.array.dtype or level.axes != finest.axes or not level.axes:
        return False
    pairs = zip(level.axes, level.array.shape, finest.array.shape, strict=True)
    return all(axis in "yx" or length == full for axis, length, full in pairs)


def _no_tiff(location: Location, error: Exception) -> NotAnImage:
    return NotAnImage(
        f"{location.shown} cannot be read as a TIFF: {location.describe_cause(error)}; "
        "copy it again, or save it anew."
    )


class TiffArray(FileArray["_View"]):
    """One image of a TIFF file.

    `details` are its place in the file, the stored dimensions that are kept, and how samples are
    converted.
    """

    def _open_file(self) -> _View:
        place: ImagePlace
        conversion: SampleConversion | None
        place, _, conversion = self._details
        with gathered_logs(_LOGGER):
            return self._open_view(place, conversion)

    def _open_view(self, place: ImagePlace, conversion: SampleConversion | None) -> _View:
        tiff = _open_with_tifffile(self._location)
        try:
            series = place.find_in(tiff)
            has_palette = conversion is not None and conversion.has_palette
            palette = read_palette(series.keyframe) if has_palette else None
            if _is_contiguous(series, self._location):
                view = _view_series(tiff, series, self._location.shown)
                tiff.close()
                return view, palette
            # Loads zarr, which an uncompressed file does not need.
            from napari_pixseg.sources.tiff_blocks import open_blocks

            blocks = open_blocks(series)
        except BaseException:
            tiff.close()
            raise
        weakref.finalize(self, tiff.close)
        return blocks, palette

    def _read_pixels(self, opened: _View, key: Key) -> Samples:
        stored, palette = opened
        _, kept, conversion = self._details
        if conversion is None:
            return _read_stored(stored, kept, key)
        read = partial(_read_stored, stored, kept)
        pixels: Samples = conversion.read_pixels(read, key, self.shape, palette)
        return pixels


def _read_stored(pixels: FileView | ZarrArray, kept: tuple[int, ...], key: Key) -> Samples:
    # Dimensions that are not kept have a length of one.
    stored: list[int | slice] = [0] * len(pixels.shape)
    for dimension, part in zip(kept, key, strict=True):
        stored[dimension] = part
    samples = pixels[tuple(stored)]
    # A view returns a fresh array, so no copy is needed.
    return np.asarray(samples) if isinstance(pixels, FileView) else np.array(samples)


def _open_with_tifffile(location: Location) -> TiffFile:
    if location.local_path is not None:
        return tifffile.TiffFile(location.local_path)
    file = location.open()
    tiff = tifffile.TiffFile(file, name=location.name)
    # tifffile does not close a file object that it was given.
    weakref.finalize(tiff, file.close)
    return tiff


def _source_of_tiff(
    location: Location, identity: Identity, tiff: TiffFile, wanted: Series | None
) -> Source:
    place = choose_place(tiff, wanted, location)
    source = _source_of_place(location, identity, tiff, place)
    others = [] if wanted is not None else _describe_all(tiff, with_sizes=False)
    has_levels = place.page is None and len(list_series(tiff)[place.series].levels) > 1
    return replace(
        source,
        list_images=partial(list_tiff_images, location),
        open_coarser=partial(open_tiff_levels, location, place) if has_levels else None,
        notes=(*describe_choice(others, place.series, _WHY), *source.notes),
    )


def _source_of_place(
    location: Location, identity: Identity, tiff: TiffFile, place: ImagePlace
) -> Source:
    series = place.find_in(tiff)
    page = series.keyframe
    missing = describe_missing_planes(tiff, series, location)
    has_palette = uses_palette(page, tiff.is_imagej or tiff.is_ome)
    refuse_unreadable(series, location, has_palette=has_palette)
    kept, letters = kept_dimensions(series, location)
    lengths = tuple(series.shape[i] for i in kept)
    names = "".join(series.axes[i] for i in kept)
    pixels = describe_pixels(page, names, letters, lengths, has_palette=has_palette)
    version = tuple(sorted(identity.items()))
    scale, units = read_calibration(tiff, place, pixels.axes)
    array = TiffArray(
        location, pixels.shape, pixels.dtype, version, (place, kept, pixels.conversion)
    )
    orientation = note_orientation(page.tags.valueof("Orientation"))
    absent, total = count_absent(series)
    kind = EmptyTiff if absent == total else Source
    return kind(
        array,
        axes=name_axes(pixels.axes),
        scale=scale,
        units=units,
        chunks=None if _is_contiguous(series, location) else pixels.chunks(_blocks(series, kept)),
        uri=location.uri,
        identity=identity,
        alpha_last=pixels.alpha_last,
        colors=pixels.colors,
        used_bits=pixels.used_bits,
        series=place.label,
        kind="tiff",
        name=location.name,
        fingerprint=location.fingerprint,
        notes=(
            *missing,
            *note_absent(absent, total),
            *pixels.notes,
            *_note_pages(series),
            *orientation,
        ),
    )


def _note_pages(series: TiffPageSeries) -> tuple[str, ...]:
    count = len(series.pages)
    if count < 2 or series.kind not in ("generic", "uniform"):
        return ()
    return (
        f"Its {count} pages of one size are taken for one stack; series = 'page 0' and so on takes "
        "one of them.",
    )


def _describe_all(tiff: TiffFile, with_sizes: bool = True) -> list[StoredImage]:
    """Describe all images; the size of a pixel may take long to find, for each of them."""
    count = len(list_series(tiff))
    return [_describe_series(tiff, number, with_sizes) for number in range(count)]


def _describe_series(tiff: TiffFile, number: int, with_sizes: bool) -> StoredImage:
    place = place_of_series(tiff, number)
    series = place.find_in(tiff)
    letters = axis_letters(series)
    image = StoredImage(series.name or "", letters, tuple(series.shape))
    if not with_sizes:
        return image
    scale, units = read_calibration(tiff, place, letters)
    return replace(image, scale=scale, units=units)


def _is_contiguous(series: TiffPageSeries, location: Location) -> bool:
    """Whether all pixels lie one after the other in one local file."""
    if location.local_path is None or series.dataoffset is None or series.is_multifile:
        return False
    # A file that was cut off has fewer pixels than its metadata say.
    size: int = series.keyframe.parent.filehandle.size
    return bool(series.dataoffset + series.nbytes <= size)


def _view_series(tiff: TiffFile, series: TiffPageSeries, shown: str) -> FileView:
    dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    path = tiff.filehandle.path
    return FileView(path, shown, dtype, series.dataoffset or 0, tuple(series.shape))


def _blocks(series: TiffPageSeries, kept: tuple[int, ...]) -> tuple[int, ...]:
    page = series.keyframe
    block = (1,) * (len(series.shape) - len(page.chunks)) + tuple(page.chunks)
    return tuple(block[i] for i in kept)
