"""Reads PNG, JPEG and whatever else Pillow reads: the header when opened, pixels when sliced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import IO, TYPE_CHECKING

import numpy as np

from napari_pixseg.errors import NotAnImage, TooLarge
from napari_pixseg.slices import Samples
from napari_pixseg.sources.image_choice import Series, StoredImage, find_series, refuse_series
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.library_warnings import (
    gathered_warnings,
    note_orientation,
    note_remarks,
)
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.picture_choice import (
    ONLY_PICTURE,
    choose_picture,
    describe_pictures,
)
from napari_pixseg.sources.picture_layouts import (
    ANIMATED_FORMATS,
    PictureLayout,
    axes_of_layout,
    choose_layout,
    pillow_layout,
)
from napari_pixseg.sources.size_limits import extent_of_gif
from napari_pixseg.sources.source import ACCEPTED, Source

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

# Pillow leaves these formats to other programs, or knows only their names.
_NO_PICTURE = ("EPS", "WMF", "EMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF")


# Limit for all texts, profiles and other metadata in a PNG, in bytes.
_LARGEST_TEXT = 64 << 20

# Pictures inside a picture may be larger than promised, up to this size.
_HARMLESS_PIXELS = 1 << 26

# The tag of the orientation in EXIF and TIFF.
_ORIENTATION = 274


# Pillow's limit holds for the whole process, so only one thread at a time may lift it.
_limit_lock = threading.RLock()


def open_picture(location: Location, head: bytes, series: Series | None = None) -> Source:
    """Open a picture; animations get a time axis.

    Parameters
    ----------
    location : Location
        An existing file.
    head : bytes
        Its first bytes.
    series : int or str, optional
        Number of a frame of an animation that is taken as a still picture, or of one of several
        pictures.

    Returns
    -------
    Source
    """
    if not head:
        raise NotAnImage(f"{location.shown} is empty: {ACCEPTED}.")
    identity = location.identity()
    remarks: list[str] = []
    with closing(location.open()) as file, _unlimited_pillow(remarks) as pillow:
        image = _open_with_pillow(pillow, file, location, head)
        is_animation = image.format in ANIMATED_FORMATS
        choice = ONLY_PICTURE if is_animation else choose_picture(image, series, location)
        layout = replace(choose_layout(image, file, location), choice=choice)
        if image.format == "GIF" and layout.frames:
            _refuse_frames_outside(extent_of_gif(file), layout, location)
        orientation = _read_orientation(image)
    notes = choice.notes
    if is_animation:
        layout, notes = _choose_frame(layout, series, location)
    version = tuple(sorted(identity.items()))
    array = PictureArray(location, layout.shape, np.dtype(layout.dtype), version, (layout,))
    return Source(
        array,
        axes=axes_of_layout(layout),
        uri=location.uri,
        identity=identity,
        alpha_last=layout.shape[-1] in (2, 4) and layout.mode.endswith("A"),
        series=choice.number if series is None or not is_animation else layout.frame,
        list_images=None if choice.number is None else partial(list_stored_pictures, location),
        kind="picture",
        name=location.name,
        fingerprint=location.fingerprint,
        notes=(*notes, *note_orientation(orientation), *note_remarks(remarks, "Pillow")),
        is_in_memory=True,
    )


def list_stored_pictures(location: Location) -> list[StoredImage]:
    """Return the pictures of a file with several, in the order of their numbers."""
    try:
        with closing(location.open()) as file, _unlimited_pillow() as pillow:
            return describe_pictures(pillow.open(file))
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise anything
        raise NotAnImage(
            f"{location.shown} has pictures that cannot be read: {location.describe_cause(error)}."
        ) from None


def _choose_frame(
    layout: PictureLayout, series: Series | None, location: Location
) -> tuple[PictureLayout, tuple[str, ...]]:
    frames = layout.frames
    if frames is None:
        refuse_series(series, "a picture")
        return layout, ()
    if series is not None:
        return layout.take_frame(find_series(series, [""] * frames, location.shown)), ()
    note = (
        f"It is an animation of {frames} frames, which are taken for times (axis t); series takes "
        f"one of them, by a number from 0 to {frames - 1}."
    )
    return layout, (note,)


def _read_orientation(image: PillowImage) -> object:
    # Reading EXIF loads Pillow's TIFF reader, so it is done only if there is EXIF.
    if not {"exif", "Raw profile type exif"} & image.info.keys():
        return None
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything, and says nothing of pixels
        return None


def _refuse_frames_outside(
    extent: tuple[int, int], layout: PictureLayout, location: Location
) -> None:
    height, width = layout.shape[1:3]
    if extent[0] > height or extent[1] > width:
        raise TooLarge(
            f"{location.shown} has frames that cover {extent[1]} x {extent[0]} pixels, but its "
            f"canvas has {width} x {height}; save it again."
        )


def source_of_image(image: PillowImage) -> Source:
    """Return the source of a Pillow image in memory."""
    layout = pillow_layout(image, "the image")
    return Source(
        _convert_image(image, layout),
        axes=axes_of_layout(layout),
        alpha_last=layout.mode.endswith("A"),
        kind="numpy",
        is_in_memory=True,
    )


class PictureArray(FileArray[Samples]):
    """A picture that is decoded as a whole when it is first sliced, and then kept."""

    def _open_file(self) -> Samples:
        (layout,) = self._details
        with closing(self._location.open()) as file:
            pixels = _decode_picture(file, layout)
        if pixels.shape != self.shape:
            raise NotAnImage(
                f"{self._location.shown} decodes to {pixels.shape} where its header says "
                f"{self.shape}: has it changed since it was opened?"
            )
        pixels.setflags(write=False)
        return pixels

    def _read_pixels(self, opened: Samples, key: Key) -> Samples:
        return np.asarray(opened[key])


@contextmanager
def _unlimited_pillow(
    remarks: list[str] | None = None, most: int | None = None
) -> Iterator[ModuleType]:
    """Yield Pillow's module without its limit of pixels, which protects servers from uploads.

    Here the user chose the file. The endpoint, which takes uploads, has a limit of its own. The
    limit for texts in a PNG is raised, too, but not removed.

    Parameters
    ----------
    remarks : list of str, optional
        Collects Pillow's warnings; None drops them.
    most : int, optional
        Pixels that the header promised. Pictures inside a picture, as in icons, may have more.
    """
    # Arrays, zarr stores and TIFFs do not need Pillow.
    from PIL import Image, PngImagePlugin

    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        text_limits = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
        Image.MAX_IMAGE_PIXELS = most
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _LARGEST_TEXT
        try:
            with gathered_warnings() as messages:
                yield Image
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            PngImagePlugin.MAX_TEXT_CHUNK = text_limits[0]
            PngImagePlugin.MAX_TEXT_MEMORY = text_limits[1]
    if remarks is not None:
        remarks += messages


def _open_with_pillow(
    pillow: ModuleType, file: IO[bytes], location: Location, head: bytes
) -> ImageFile:
    try:
        image: ImageFile | None = pillow.open(file)
    except Exception:  # noqa: BLE001 - Pillow's readers raise anything on damaged files
        image = None
    if image is not None and image.format not in _NO_PICTURE:
        return image
    is_text = head.isascii() and b"\0" not in head
    found = "a text file" if is_text else "no image that can be read"
    if image is not None:
        found = f"{image.format} and no picture made of pixels"
    raise NotAnImage(f"{location.shown} is {found}: {_suggest_remedy(location, head)}.")


def _suggest_remedy(location: Location, head: bytes) -> str:
    if head.startswith(b"PK"):
        where = location.shown
        return (
            f"to read an archive, give a zarr store as zip://::{where}, and a file in it as "
            f"zip://NAME::{where}"
        )
    if head.startswith(b"\x93NUMPY"):
        return "load the array with numpy.load, and give that"
    return ACCEPTED


def _decode_picture(file: IO[bytes], layout: PictureLayout) -> Samples:
    if layout.decoder.endswith("_decode"):
        # Few pictures have more than 8 bits.
        import imagecodecs

        return np.asarray(getattr(imagecodecs, layout.decoder)(file.read()), layout.dtype)
    if layout.decoder == "netpbm":
        file.seek(layout.offset)
        stored = np.dtype(layout.dtype).newbyteorder(">")
        samples = np.frombuffer(file.read(), stored, count=int(np.prod(layout.shape)))
        return samples.reshape(layout.shape).astype(layout.dtype, copy=False)
    height, width = layout.shape[1:3] if layout.frames else layout.shape[:2]
    most = max(height * width, _HARMLESS_PIXELS)
    with _unlimited_pillow(most=most) as pillow, pillow.open(file) as image:
        return _convert_image(image, layout)


def _convert_image(image: PillowImage, layout: PictureLayout) -> Samples:
    layout.choice.show_in(image)
    if layout.frames is None:
        if layout.frame:
            image.seek(layout.frame)
        return _convert_frame(image, layout)
    pixels = np.empty(layout.shape, layout.dtype)
    for index in range(layout.frames):
        image.seek(index)
        pixels[index] = _convert_frame(image, layout)
    return pixels


def _convert_frame(image: PillowImage, layout: PictureLayout) -> Samples:
    # An icon's mode is that of the picture in it, which is known then.
    image.load()
    # Pillow cannot convert the byte orders of I;16 into each other, but NumPy can.
    is_same = image.mode == layout.mode or layout.mode == "I;16"
    pixels = np.asarray(image if is_same else image.convert(layout.mode))
    return pixels.astype(layout.dtype, copy=False)
