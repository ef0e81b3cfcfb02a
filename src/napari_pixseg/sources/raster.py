"""PNG, JPEG and what else Pillow reads: the header when opened, the pixels when sliced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import IO, TYPE_CHECKING

import numpy as np

from napari_pixseg.errors import NotAnImage, TooLarge
from napari_pixseg.slices import Samples
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.size_limits import extent_of_gif
from napari_pixseg.sources.source import ACCEPTED, Source

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

# Mode of a file -> mode that it is read as. A palette becomes its colors, and CMYK becomes RGB
# because its four channels would be taken for RGBA.
_READ_AS = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "I": "I",
    "I;16": "I;16",
    "I;16L": "I;16",
    "I;16B": "I;16",
    "I;16N": "I;16",
    "F": "F",
}


_CHANNELS_OF_MODE = {"LA": 2, "RGB": 3, "RGBA": 4}


_DTYPE_OF_MODE = {"I": "i4", "I;16": "u2", "F": "f4"}


_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP")


# Pillow leaves these to other programs, or knows only their names.
_NO_PICTURE = ("EPS", "WMF", "EMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF")


# Raw mode of PNGs that Pillow would cut to 8 bits -> number of channels.
_DEEP_PNG = {"LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}


# Functions of imagecodecs.
_DEEP_DECODERS = {"JPEG2000": "jpeg2k_decode", "AVIF": "avif_decode"}


# Bytes of a file that are searched for its header.
_HEADER_BYTES = 1 << 16


# Pillow's limit belongs to the whole process: one thread at a time may lift it.
_limit_lock = threading.RLock()


@dataclass(frozen=True)
class _Layout:
    """How a picture is read: by Pillow in a mode, or by a decoder that keeps what Pillow cuts.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
    mode : str
        Mode that the pixels have, as Pillow names it.
    decoder : str
        "pillow", "netpbm" for samples as they are in the file, a function of imagecodecs, or
        "none" where nothing decodes it without loss.
    offset : int
        Position of the samples in the file, for "netpbm".
    """

    shape: tuple[int, ...]
    dtype: str
    mode: str
    decoder: str = "pillow"
    offset: int = 0

    @property
    def frames(self) -> int | None:
        """Number of frames of an animation; None for a still picture."""
        return self.shape[0] if len(self.shape) == 4 else None


def open_picture(location: Location, head: bytes) -> Source:
    """Open a picture; animations get a time axis.

    Parameters
    ----------
    location : Location
        An existing file.
    head : bytes
        Its first bytes.

    Returns
    -------
    Source
    """
    if not head:
        raise NotAnImage(f"{location.shown} is empty: {ACCEPTED}.")
    identity = location.identity()
    with closing(location.open()) as file, _unlimited_pillow() as pillow:
        image = _open_with_pillow(pillow, file, location, head)
        layout = _choose_layout(image, file, location)
        if image.format == "GIF" and layout.frames:
            _refuse_frames_outside(extent_of_gif(file), layout, location)
    version = tuple(sorted(identity.items()))
    array = PictureArray(location, layout.shape, np.dtype(layout.dtype), version, (layout,))
    return Source(
        array,
        axes=_axes_of_layout(layout),
        uri=location.uri,
        identity=identity,
        alpha_last=layout.shape[-1] in (2, 4) and layout.mode.endswith("A"),
        kind="picture",
        name=location.name,
        fingerprint=location.fingerprint,
        is_in_memory=True,
    )


def _refuse_frames_outside(extent: tuple[int, int], layout: _Layout, location: Location) -> None:
    height, width = layout.shape[1:3]
    if extent[0] > height or extent[1] > width:
        raise TooLarge(
            f"{location.shown} has frames that cover {extent[1]} x {extent[0]} pixels, but its "
            f"canvas has {width} x {height}; save it again."
        )


def source_of_image(image: PillowImage) -> Source:
    """Return the source of a Pillow image in memory."""
    layout = _pillow_layout(image, "the image")
    return Source(
        _convert_image(image, layout),
        axes=_axes_of_layout(layout),
        alpha_last=layout.mode.endswith("A"),
        kind="numpy",
        is_in_memory=True,
    )


class PictureArray(FileArray[Samples]):
    """A picture that is decoded as a whole when first sliced, and then kept."""

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
def _unlimited_pillow() -> Iterator[ModuleType]:
    """Give Pillow's module without its limit of pixels, which protects servers from uploads.

    Here the user chose the file. The endpoint, which takes uploads, has a limit of its own.
    """
    # Arrays, zarr stores and TIFFs do not need Pillow.
    from PIL import Image

    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield Image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


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


def _axes_of_layout(layout: _Layout) -> str:
    return ("t" if layout.frames else "") + "yx" + ("c" if len(layout.shape) > 2 else "")


def _choose_layout(image: ImageFile, file: IO[bytes], location: Location) -> _Layout:
    deep = _deep_layout(image, file)
    if deep is None:
        return _netpbm_layout(image) or _pillow_layout(image, location.shown)
    if deep.decoder == "none":
        raise NotAnImage(
            f"{location.shown} has more than 8 bits per color channel, which cannot be read "
            f"from {image.format} without loss: save it as TIFF."
        )
    return deep


def _pillow_layout(image: PillowImage, shown: str) -> _Layout:
    mode = _READ_AS.get(image.mode)
    if mode is None:
        raise NotAnImage(f"{shown} stores {image.mode} colors: convert it to RGB first.")
    palette_mode = image.palette.mode if image.palette is not None else ""
    if image.mode == "P" and ("transparency" in image.info or palette_mode == "RGBA"):
        mode = "RGBA"
    frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED_FORMATS else 1
    if frames > 1:
        # Frames may differ in mode: the first of a GIF may be gray, and the next one colored.
        mode = "RGBA" if mode.endswith("A") else "RGB"
    dtype = _DTYPE_OF_MODE.get(mode, "u1")
    if mode == "I" and image.format in ("PNG", "PPM"):
        # They have 16 bits, which Pillow reads into 32.
        dtype = "u2"
    channels = (_CHANNELS_OF_MODE[mode],) if mode in _CHANNELS_OF_MODE else ()
    planes = (frames,) if frames > 1 else ()
    return _Layout((*planes, image.height, image.width, *channels), dtype, mode)


def _netpbm_layout(image: ImageFile) -> _Layout | None:
    """Return the layout of a picture of 8 bits whose samples are in the file without coding."""
    if image.format != "PPM" or image.mode not in ("L", "RGB") or image.tile[0][0] != "raw":
        return None
    channels = (3,) if image.mode == "RGB" else ()
    shape = (image.height, image.width, *channels)
    return _Layout(shape, "u1", image.mode, "netpbm", image.tile[0][2])


def _deep_layout(image: ImageFile, file: IO[bytes]) -> _Layout | None:
    """Return the layout of a color picture of more than 8 bits, which Pillow would cut to 8."""
    tile = image.tile[0] if image.tile else ("", None, 0, "")
    channels = _CHANNELS_OF_MODE.get(image.mode, 1)
    decoder = "none"
    if image.mode.startswith("I"):
        return None
    if image.format == "PNG" and tile[3] in _DEEP_PNG:
        channels = _DEEP_PNG[tile[3]]
        if channels == 3 and "transparency" in image.info:
            channels = 4
        decoder = "none" if getattr(image, "is_animated", False) else "png_decode"
    elif image.format == "PPM" and isinstance(tile[3], tuple) and tile[3][1] > 255:
        decoder = "netpbm" if tile[0] == "ppm" else "none"
    elif image.format in _DEEP_DECODERS and _is_deep(image.format, file):
        decoder = _DEEP_DECODERS[image.format]
    elif tile[0] != "SGI16":
        return None
    shape = (image.height, image.width, *((channels,) if channels > 1 else ()))
    return _Layout(shape, "u2", {2: "LA", 4: "RGBA"}.get(channels, "RGB"), decoder, tile[2])


def _is_deep(image_format: str, file: IO[bytes]) -> bool:
    """Whether the header of a JPEG 2000 or AVIF file says more than 8 bits per sample."""
    file.seek(0)
    header = file.read(_HEADER_BYTES)
    if image_format == "AVIF":
        # The bit high_bitdepth of the AV1 configuration, two bytes behind its name.
        at = header.find(b"av1C")
        return at >= 0 and bool(header[at + 6 : at + 7]) and bool(header[at + 6] & 0x40)
    at = header.find(b"\xff\x4f\xff\x51")
    # Ssiz of the first component follows 4 bytes of markers and 38 bytes of the SIZ segment.
    depth = header[at + 42 : at + 43] if at >= 0 else b""
    return bool(depth) and (depth[0] & 0x7F) + 1 > 8


def _decode_picture(file: IO[bytes], layout: _Layout) -> Samples:
    if layout.decoder.endswith("_decode"):
        # Few pictures have more than 8 bits.
        import imagecodecs

        return np.asarray(getattr(imagecodecs, layout.decoder)(file.read()), layout.dtype)
    if layout.decoder == "netpbm":
        file.seek(layout.offset)
        stored = np.dtype(layout.dtype).newbyteorder(">")
        samples = np.frombuffer(file.read(), stored, count=int(np.prod(layout.shape)))
        return samples.reshape(layout.shape).astype(layout.dtype, copy=False)
    with _unlimited_pillow() as pillow, pillow.open(file) as image:
        return _convert_image(image, layout)


def _convert_image(image: PillowImage, layout: _Layout) -> Samples:
    if layout.frames is None:
        return _convert_frame(image, layout)
    pixels = np.empty(layout.shape, layout.dtype)
    for index in range(layout.frames):
        image.seek(index)
        pixels[index] = _convert_frame(image, layout)
    return pixels


def _convert_frame(image: PillowImage, layout: _Layout) -> Samples:
    # Pillow cannot convert the byte orders of I;16 into each other, but NumPy can.
    is_same = image.mode == layout.mode or layout.mode == "I;16"
    pixels = np.asarray(image if is_same else image.convert(layout.mode))
    return pixels.astype(layout.dtype, copy=False)
