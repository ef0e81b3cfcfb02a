"""Decides how to read a picture without loss: its shape, its mode and its decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.picture_choice import ONLY_PICTURE, PictureChoice

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

# Mode of a file -> mode in which it is read. A palette becomes its colors, and CMYK becomes RGB
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


ANIMATED_FORMATS = ("GIF", "PNG", "WEBP")


# Raw mode of PNGs that Pillow would reduce to 8 bits -> number of channels.
_DEEP_PNG = {"LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}


# Functions of imagecodecs.
_DEEP_DECODERS = {"JPEG2000": "jpeg2k_decode", "AVIF": "avif_decode"}


# How many bytes of a file are searched for its header.
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class PictureLayout:
    """How to read a picture: with Pillow, or with a decoder that keeps the bits Pillow would drop.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
    mode : str
        Mode that the pixels have, as Pillow names it.
    decoder : str
        "pillow", "netpbm" for samples stored without compression, a function of imagecodecs, or
        "none" if nothing decodes the picture without loss.
    offset : int
        Position of the samples in the file, for "netpbm".
    frame : int
        Number of the frame to read, which is not 0 only in an animation.
    choice : PictureChoice
        Which picture is shown first, of a file with several.
    """

    shape: tuple[int, ...]
    dtype: str
    mode: str
    decoder: str = "pillow"
    offset: int = 0
    frame: int = 0
    choice: PictureChoice = ONLY_PICTURE

    @property
    def frames(self) -> int | None:
        """Number of frames of an animation; None for a still picture."""
        return self.shape[0] if len(self.shape) == 4 else None

    def take_frame(self, number: int) -> PictureLayout:
        """Return the layout of one frame of an animation."""
        return replace(self, shape=self.shape[1:], frame=number)


def axes_of_layout(layout: PictureLayout) -> str:
    """Return one letter for each dimension of a picture."""
    return ("t" if layout.frames else "") + "yx" + ("c" if len(layout.shape) > 2 else "")


def choose_layout(image: ImageFile, file: IO[bytes], location: Location) -> PictureLayout:
    """Return the layout of a picture file that Pillow has opened.

    Raises
    ------
    NotAnImage
        If nothing decodes it without loss.
    """
    deep = _deep_layout(image, file)
    if deep is None:
        return _netpbm_layout(image) or pillow_layout(image, location.shown)
    if deep.decoder == "none":
        raise NotAnImage(
            f"{location.shown} has more than 8 bits per color channel, which cannot be read "
            f"from {image.format} without loss: save it as TIFF."
        )
    return deep


def pillow_layout(image: PillowImage, shown: str) -> PictureLayout:
    """Return the layout of a picture that Pillow decodes."""
    mode = _READ_AS.get(image.mode)
    if mode is None:
        raise NotAnImage(f"{shown} stores {image.mode} colors: convert it to RGB first.")
    palette_mode = image.palette.mode if image.palette is not None else ""
    if image.mode == "P" and ("transparency" in image.info or palette_mode == "RGBA"):
        mode = "RGBA"
    frames = getattr(image, "n_frames", 1) if image.format in ANIMATED_FORMATS else 1
    if frames > 1:
        # Frames may differ in mode: the first frame of a GIF may be gray and the next one in color.
        mode = "RGBA" if mode.endswith("A") else "RGB"
    dtype = _DTYPE_OF_MODE.get(mode, "u1")
    if mode == "I" and image.format in ("PNG", "PPM"):
        # These pictures have 16 bits, which Pillow reads into 32.
        dtype = "u2"
    channels = (_CHANNELS_OF_MODE[mode],) if mode in _CHANNELS_OF_MODE else ()
    planes = (frames,) if frames > 1 else ()
    return PictureLayout((*planes, image.height, image.width, *channels), dtype, mode)


def _netpbm_layout(image: ImageFile) -> PictureLayout | None:
    """Return the layout of a picture of 8 bits whose samples are stored without compression."""
    if image.format != "PPM" or image.mode not in ("L", "RGB") or image.tile[0][0] != "raw":
        return None
    channels = (3,) if image.mode == "RGB" else ()
    shape = (image.height, image.width, *channels)
    return PictureLayout(shape, "u1", image.mode, "netpbm", image.tile[0][2])


def _deep_layout(image: ImageFile, file: IO[bytes]) -> PictureLayout | None:
    """Return the layout of a color picture of more than 8 bits, which Pillow would reduce to 8."""
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
    return PictureLayout(shape, "u2", {2: "LA", 4: "RGBA"}.get(channels, "RGB"), decoder, tile[2])


def _is_deep(image_format: str, file: IO[bytes]) -> bool:
    """Whether the header of a JPEG 2000 or AVIF file says more than 8 bits per sample."""
    file.seek(0)
    header = file.read(_HEADER_BYTES)
    if image_format == "AVIF":
        # The bit high_bitdepth of the AV1 configuration, two bytes after its name.
        at = header.find(b"av1C")
        return at >= 0 and bool(header[at + 6 : at + 7]) and bool(header[at + 6] & 0x40)
    at = header.find(b"\xff\x4f\xff\x51")
    # Ssiz of the first component follows 4 bytes of markers and 38 bytes of the SIZ segment.
    depth = header[at + 42 : at + 43] if at >= 0 else b""
    return bool(depth) and (depth[0] & 0x7F) + 1 > 8
