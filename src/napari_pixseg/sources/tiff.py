"""TIFF files, read lazily through tifffile: OME-TIFF, BigTIFF, ImageJ, whole slides.

Imported when a TIFF is opened, so tifffile does not slow down other images.
"""

from __future__ import annotations

import weakref
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage, TiffPageSeries

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.slices import Samples
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.location import Identity, Location
from napari_pixseg.sources.source import Source
from napari_pixseg.sources.tiff_metadata import (
    describe_missing_planes,
    has_alpha,
    kept_dimensions,
    read_calibration,
    read_palette,
)

if TYPE_CHECKING:
    from napari_pixseg.sources.zarr_chunks import ZarrArray

    # Pixels as they are stored, and the color map if it is applied.
    _View: TypeAlias = tuple[Samples | ZarrArray, NDArray[np.uint8] | None]

# Values of the tag PhotometricInterpretation.
_PALETTE = 3
_CMYK = 5
_YCBCR = 6
_LAB = 8

_REFUSED_COLORS = {_CMYK: "CMYK", _LAB: "CIE L*a*b*"}

# Compressions whose decoder turns YCbCr into RGB.
_JPEG_COMPRESSIONS = (6, 7, 33007, 34892)


def open_tiff(location: Location) -> Source:
    """Open level 0 of the first series of a TIFF file.

    Parameters
    ----------
    location : Location
        Where :func:`~napari_pixseg.sources.open.is_tiff` holds.

    Returns
    -------
    Source
        Color maps are applied, except those of ImageJ and OME, which are for display.
    """
    identity = location.identity()
    try:
        with closing(_open_with_tifffile(location)) as tiff:
            return _source_of_tiff(location, identity, tiff)
    except PixsegError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        raise NotAnImage(
            f"{location.shown} is no TIFF that can be read: {location.describe_cause(error)}; "
            "copy or save it anew."
        ) from None


class TiffArray(FileArray["_View"]):
    """Level 0 of the first series of a TIFF file.

    `details` are the stored dimensions that are kept, and whether the color map is applied.
    """

    def _open_file(self) -> _View:
        _, is_mapped_to_colors = self._details
        tiff = _open_with_tifffile(self._location)
        try:
            series = tiff.series[0]
            palette = read_palette(series.keyframe) if is_mapped_to_colors else None
            if _is_contiguous(series, self._location):
                view = _map_series(tiff, series)
                tiff.close()
                return view, palette
            # Loads zarr, which a file that can be mapped does without.
            from napari_pixseg.sources.tiff_blocks import open_blocks

            blocks = open_blocks(series)
        except BaseException:
            tiff.close()
            raise
        weakref.finalize(self, tiff.close)
        return blocks, palette

    def _read_pixels(self, opened: _View, key: Key) -> Samples:
        pixels, palette = opened
        kept, _ = self._details
        # Dimensions that are not kept have a length of one.
        stored: list[int | slice] = [0] * len(pixels.shape)
        for dimension, part in zip(kept, key, strict=False):
            stored[dimension] = part
        part = np.array(pixels[tuple(stored)])
        return part if palette is None else palette[part][..., key[-1]]


def _open_with_tifffile(location: Location) -> TiffFile:
    if location.local_path is not None:
        return tifffile.TiffFile(location.local_path)
    file = location.open()
    tiff = tifffile.TiffFile(file, name=location.name)
    # tifffile does not close a file object that it was given.
    weakref.finalize(tiff, file.close)
    return tiff


def _source_of_tiff(location: Location, identity: Identity, tiff: TiffFile) -> Source:
    series = tiff.series[0]
    page = series.keyframe
    notes = describe_missing_planes(tiff, series, location)
    _refuse_unreadable(page, location)
    kept, letters = kept_dimensions(series, location)
    is_mapped_to_colors = page.photometric == _PALETTE and not (tiff.is_imagej or tiff.is_ome)
    colors = (3,) if is_mapped_to_colors else ()
    shape = (*(series.shape[i] for i in kept), *colors)
    axes = letters + "c" * len(colors)
    dtype = np.dtype(np.uint8) if is_mapped_to_colors else np.dtype(series.dtype)
    version = tuple(sorted(identity.items()))
    scale, units = read_calibration(tiff, axes)
    chunks = None if _is_contiguous(series, location) else (*_block_shape(series, kept), *colors)
    return Source(
        TiffArray(location, shape, dtype, version, (kept, is_mapped_to_colors)),
        axes=None if "?" in axes or len(set(axes)) < len(axes) else axes,
        scale=scale,
        units=units,
        chunks=chunks,
        uri=location.uri,
        identity=identity,
        alpha_last=has_alpha(series),
        kind="tiff",
        name=location.name,
        fingerprint=location.fingerprint,
        notes=notes,
    )


def _refuse_unreadable(page: TiffPage, location: Location) -> None:
    colors = _REFUSED_COLORS.get(int(page.photometric))
    if page.photometric == _YCBCR and page.compression not in _JPEG_COMPRESSIONS:
        colors = "YCbCr"
    if colors:
        raise NotAnImage(f"{location.shown} stores {colors} colors: convert it to RGB first.")
    try:
        # Decoding nothing fails early where a codec is missing.
        page.decode(None, 0)
    except Exception as error:
        remedy = (
            "install the package imagecodecs"
            if "imagecodecs" in str(error)
            else "save it with another compression"
        )
        codec = getattr(page.compression, "name", page.compression)
        raise NotAnImage(
            f"{location.shown} is stored in a way that cannot be decoded here ({codec}): {remedy}."
        ) from error


def _is_contiguous(series: TiffPageSeries, location: Location) -> bool:
    """Whether all pixels lie one after the other in one local file, which can be mapped."""
    if location.local_path is None or series.dataoffset is None or series.is_multifile:
        return False
    # A file that was cut off has fewer pixels than its metadata say.
    size: int = series.keyframe.parent.filehandle.size
    return bool(series.dataoffset + series.nbytes <= size)


def _map_series(tiff: TiffFile, series: TiffPageSeries) -> Samples:
    dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    path = tiff.filehandle.path
    samples: Samples = np.memmap(path, dtype, "r", series.dataoffset or 0, tuple(series.shape))
    return samples


def _block_shape(series: TiffPageSeries, kept: tuple[int, ...]) -> tuple[int, ...]:
    page = series.keyframe
    block = (1,) * (len(series.shape) - len(page.chunks)) + tuple(page.chunks)
    return tuple(block[i] for i in kept)
