"""PNG, JPEG and what else Pillow reads: the header when opened, the pixels when sliced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import ACCEPTED, Source

# Pillow's mode -> the mode read. A palette becomes its colors; CMYK never passes for RGBA.
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


_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}


_DTYPES = {"I": "i4", "I;16": "u2", "F": "f4"}


_ANIMATED = ("GIF", "PNG", "WEBP")


# Pillow hands these to other programs, or only knows their names.
_NO_PICTURE = ("EPS", "WMF", "EMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF")


_DEEP_PNG = {"LA;16B": 2, "RGB;16B": 3, "RGBA;16B": 4}


_DEEP_DECODERS = {"JPEG2000": "jpeg2k_decode", "AVIF": "avif_decode"}


_HEADER = 1 << 16


_limit_lifted = threading.RLock()


@dataclass(frozen=True)
class _Layout:
    """How a picture is read: by Pillow in a mode; what that would cut or copy, by another."""

    shape: tuple[int, ...]
    dtype: str
    mode: str
    decoder: str = "pillow"
    offset: int = 0

    @property
    def frames(self) -> int | None:
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
    with closing(location.open()) as file, _any_size():
        layout = _layout(_image(file, location, head), file, location)
    version = tuple(sorted(identity.items()))
    array = PictureArray(location, layout.shape, np.dtype(layout.dtype), version, (layout,))
    return Source(
        array,
        axes=_axes(layout),
        uri=location.uri,
        identity=identity,
        alpha_last=layout.shape[-1] in (2, 4) and layout.mode.endswith("A"),
        kind="picture",
        name=location.name,
        state=location.state,
    )


def from_image(image: Any) -> Source:
    """Return the source that a Pillow image in memory is."""
    layout = _plain_layout(image, "the image")
    pixels = _converted(image, layout)
    return Source(pixels, axes=_axes(layout), alpha_last=layout.mode.endswith("A"), kind="numpy")


class PictureArray(FileArray):
    """A picture, decoded as a whole when first sliced and kept."""

    def _open(self) -> NDArray[Any]:
        (layout,) = self._details
        with closing(self._location.open()) as file:
            pixels = _decoded(file, layout)
        if pixels.shape != self.shape:
            raise NotAnImage(
                f"{self._location.shown} decodes to {pixels.shape} where its header says "
                f"{self.shape}: has it changed since it was opened?"
            )
        pixels.setflags(write=False)
        return pixels

    def _read(self, opened: Any, key: Key) -> NDArray[Any]:
        return np.asarray(opened[key])


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of pixels, which is for uploads, from a file the user chose."""
    from PIL import Image

    with _limit_lifted:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _image(file: IO[bytes], location: Location, head: bytes) -> Any:
    from PIL import Image

    try:
        image = Image.open(file)
    except Exception:  # noqa: BLE001 - Pillow's readers raise anything on damaged files
        image = None
    if image is None or image.format in _NO_PICTURE:
        text = head.isascii() and b"\0" not in head
        kind = "a text file" if text else "no image that can be read"
        if image is not None:
            kind = f"{image.format} and no picture made of pixels"
        raise NotAnImage(f"{location.shown} is {kind}: {_remedy(location, head)}.") from None
    return image


def _remedy(location: Location, head: bytes) -> str:
    if head.startswith(b"PK"):
        where = location.shown
        return (
            f"of an archive, give a zarr store as zip://::{where}, and a file in it as "
            f"zip://NAME::{where}"
        )
    if head.startswith(b"\x93NUMPY"):
        return "load the array with numpy.load, and give that"
    return ACCEPTED


def _axes(layout: _Layout) -> str:
    return ("t" if layout.frames else "") + "yx" + ("c" if len(layout.shape) > 2 else "")


def _layout(image: Any, file: IO[bytes], location: Location) -> _Layout:
    deep = _deep_layout(image, file)
    if deep is None:
        return _stored_layout(image) or _plain_layout(image, location.shown)
    if deep.decoder == "none":
        raise NotAnImage(
            f"{location.shown} has more than 8 bits per color channel, which cannot be read "
            f"from {image.format} without loss: save it as TIFF."
        )
    return deep


def _plain_layout(image: Any, shown: str) -> _Layout:
    mode = _READ_AS.get(image.mode)
    if mode is None:
        raise NotAnImage(f"{shown} stores {image.mode} colors: convert it to RGB first.")
    if image.mode == "P" and ("transparency" in image.info or image.palette.mode == "RGBA"):
        mode = "RGBA"
    frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    if frames > 1:
        # Frames may differ in mode, the first of a GIF being a palette or gray.
        mode = "RGBA" if mode.endswith("A") else "RGB"
    dtype = _DTYPES.get(mode, "u1")
    if mode == "I" and image.format in ("PNG", "PPM"):
        dtype = "u2"  # Pillow reads their 16 bits into 32.
    channels = (_CHANNELS[mode],) if mode in _CHANNELS else ()
    return _Layout(
        ((frames,) if frames > 1 else ()) + (image.height, image.width, *channels), dtype, mode
    )


def _stored_layout(image: Any) -> _Layout | None:
    """Return the layout of a picture whose bytes are in the file as they are wanted."""
    plain = image.format == "PPM" and image.mode in ("L", "RGB") and image.tile[0][0] == "raw"
    if not plain:
        return None
    channels = (3,) if image.mode == "RGB" else ()
    shape = (image.height, image.width, *channels)
    return _Layout(shape, "u1", image.mode, "netpbm", image.tile[0][2])


def _deep_layout(image: Any, file: IO[bytes]) -> _Layout | None:
    """Return the layout of a color picture of more than 8 bits, which Pillow would cut to 8."""
    tile = image.tile[0] if image.tile else ("", None, 0, "")
    channels, decoder = _CHANNELS.get(image.mode, 1), "none"
    if image.mode.startswith("I"):
        return None
    if image.format == "PNG" and tile[3] in _DEEP_PNG:
        channels = _DEEP_PNG[tile[3]]
        if channels == 3 and "transparency" in image.info:
            channels = 4
        decoder = "none" if image.is_animated else "png_decode"
    elif image.format == "PPM" and isinstance(tile[3], tuple) and tile[3][1] > 255:
        decoder = "netpbm" if tile[0] == "ppm" else "none"
    elif image.format in _DEEP_DECODERS and _says_deep(image.format, file):
        decoder = _DEEP_DECODERS[image.format]
    elif tile[0] != "SGI16":
        return None
    shape = (image.height, image.width, *((channels,) if channels > 1 else ()))
    return _Layout(shape, "u2", {2: "LA", 4: "RGBA"}.get(channels, "RGB"), decoder, tile[2])


def _says_deep(kind: str, file: IO[bytes]) -> bool:
    """Whether the header of a JPEG 2000 or AVIF file says more than 8 bits per sample."""
    file.seek(0)
    header = file.read(_HEADER)
    if kind == "AVIF":
        at = header.find(b"av1C")
        return at >= 0 and bool(header[at + 6 : at + 7]) and bool(header[at + 6] & 0x40)
    at = header.find(b"\xff\x4f\xff\x51")
    # Ssiz of the first component: 4 bytes of markers, then 38 of the SIZ segment.
    depth = header[at + 42 : at + 43] if at >= 0 else b""
    return bool(depth) and (depth[0] & 0x7F) + 1 > 8


def _decoded(file: IO[bytes], layout: _Layout) -> NDArray[Any]:
    if layout.decoder.endswith("_decode"):
        import imagecodecs

        return np.asarray(getattr(imagecodecs, layout.decoder)(file.read()), layout.dtype)
    if layout.decoder == "netpbm":
        file.seek(layout.offset)
        stored = np.dtype(layout.dtype).newbyteorder(">")
        samples = np.frombuffer(file.read(), stored, count=int(np.prod(layout.shape)))
        return samples.reshape(layout.shape).astype(layout.dtype, copy=False)
    from PIL import Image

    with _any_size(), Image.open(file) as image:
        return _converted(image, layout)


def _converted(image: Any, layout: _Layout) -> NDArray[Any]:
    if layout.frames is None:
        return _frame(image, layout)
    pixels = np.empty(layout.shape, layout.dtype)
    for index in range(layout.frames):
        image.seek(index)
        pixels[index] = _frame(image, layout)
    return pixels


def _frame(image: Any, layout: _Layout) -> NDArray[Any]:
    same = image.mode == layout.mode or layout.mode == "I;16"
    pixels = np.asarray(image if same else image.convert(layout.mode))
    return pixels.astype(layout.dtype, copy=False)
