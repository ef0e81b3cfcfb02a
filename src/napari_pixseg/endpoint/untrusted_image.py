"""An image that a stranger sent: judged by its first bytes and its header, then opened."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from napari_pixseg.errors import NotAnImage, TooLarge
from napari_pixseg.sources import raster, tiff
from napari_pixseg.sources.image import Image, open_image
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.open import is_tiff
from napari_pixseg.sources.source import Source, checked

_NAME = "the-image"


# Formats whose size is in their header, and whose decoders hold to it.
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")


_KNOWN = "PNG, JPEG, TIFF, WebP, GIF and BMP are accepted"


# Others bring a size of their own, which may be another than the file's: none, LZW, deflate.
_TIFF_CODECS = (1, 5, 8, 32946)


_MOST_PAGES = 64


_BLOCK = 1 << 20


@dataclass(frozen=True)
class Received(Location):
    """A file of the server that has no place for whoever sent it."""

    @property
    def shown(self) -> str:
        """What an error message calls it: never its path."""
        return "The image"

    def identity(self) -> dict[str, Any]:
        """Return its size and its hash."""
        digest, size = hashlib.sha256(), 0
        with open(self.address, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
        return {"size": size, "sha256": digest.hexdigest()}

    def open(self) -> IO[bytes]:
        """Open the content, which is no file: a TIFF may name other files beside itself."""
        return io.BytesIO(Path(self.address).read_bytes())

    def head(self, size: int = 512) -> bytes:
        """Return the first bytes."""
        with open(self.address, "rb") as file:
            return file.read(size)


def open_received(path: Path, uri: str | None, max_pixels: int) -> Source:
    """Open a file that came from outside; nothing is decoded.

    Parameters
    ----------
    path : Path
    uri : str or None
        Where it came from, without secrets.
    max_pixels : int
        Largest decoded image.

    Returns
    -------
    Source

    Raises
    ------
    NotAnImage
        If it is of no format that is accepted, or cannot be read.
    TooLarge
        If it would decode to too many pixels, or to more than one plane.
    """
    location = Received(str(path), _NAME, remote=True)
    head = location.head()
    if is_tiff(head):
        _refuse_tiff(location)
        source = tiff.open_tiff(location)
    elif head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        source = raster.open_picture(location, head)
    else:
        raise NotAnImage(f"The image is of a format that is not accepted; {_KNOWN}.")
    source = checked(replace(source, uri=uri, name="the image"))
    _refuse_large(open_image(source), max_pixels)
    return source


def _refuse_large(image: Image, max_pixels: int) -> None:
    planes, pixels = math.prod(image.shape[:-2]), math.prod(image.shape)
    if pixels > max_pixels:
        raise TooLarge(
            f"The image has {pixels / 1e6:.1f} megapixels, but this server takes "
            f"{max_pixels / 1e6:g}; send a smaller one."
        )
    if planes > 1:
        raise TooLarge(f"The image has {planes} planes, but the answer holds one; send one plane.")


def _refuse_tiff(location: Received) -> None:
    """Refuse what TIFF allows and a server cannot: other files, and sizes in two places."""
    import tifffile

    try:
        with location.open() as file, tifffile.TiffFile(file, name=location.name) as opened:
            pages = [page for page, _ in zip(opened.pages, range(_MOST_PAGES + 1), strict=False)]
            codecs = {int(getattr(page, "compression", 1)) for page in pages}
            scattered = opened.is_mmstack or opened.is_ndtiff
    except Exception:  # noqa: BLE001 - damaged files raise anything
        raise NotAnImage("The image is a damaged TIFF; save it anew.") from None
    if len(pages) > _MOST_PAGES or scattered:
        raise TooLarge("The image is a TIFF of many pages, but the answer holds one; send one.")
    if not codecs <= set(_TIFF_CODECS):
        raise NotAnImage(
            "The image is a TIFF of a compression that is not accepted here; save it with none, "
            "LZW or deflate, or as PNG."
        )
