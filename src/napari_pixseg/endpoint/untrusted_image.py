"""Opens an image from a client after checking its first bytes and its header."""

from __future__ import annotations

import hashlib
import io
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import tifffile

from napari_pixseg.errors import NotAnImage, ParameterError, TooLarge
from napari_pixseg.sources import picture_reader, tiff
from napari_pixseg.sources.image import Image, open_image
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.open import is_tiff
from napari_pixseg.sources.source import Source, check_source

_NAME = "the-image"
# Formats that state their size in the header, with decoders that respect it.
_PICTURE_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"BM": ".bmp",
}
_ACCEPTED = "PNG, JPEG, TIFF, WebP, GIF and BMP are accepted"
# None, LZW and deflate. Other codecs store a size of their own, which may exceed the file's.
_TIFF_CODECS = (1, 5, 8, 32946)
_MAX_PAGES = 64
_ADVICE_OF_LIBRARY = re.compile(r"\baxes\b|\bchannels?\b|\barrays?\b|zarr|install|folder")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Received(Location):
    """A file on the server whose path the client must not learn."""

    @property
    def local_path(self) -> None:
        """None: a TIFF may refer to files beside itself, so no library gets the path."""
        return None

    @property
    def is_confidential(self) -> bool:
        """True, because a quoted error could contain the path."""
        return True

    @property
    def shown(self) -> str:
        """The name in error messages; never the path."""
        return "The image"

    def identity(self) -> dict[str, Any]:
        """Return size and hash of the content."""
        digest = hashlib.sha256()
        size = 0
        with open(self.address, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        return {"size": size, "sha256": digest.hexdigest()}

    def open(self) -> IO[bytes]:
        """Open the content in memory.

        A TIFF may refer to files beside itself; without a folder it has none.
        """
        return io.BytesIO(Path(self.address).read_bytes())

    def head(self, size: int = 512) -> bytes:
        """Return the first bytes."""
        with open(self.address, "rb") as file:
            return file.read(size)


def open_received(path: Path, uri: str | None, max_pixels: int) -> Source:
    """Open a file that came from a client; nothing is decoded yet.

    Parameters
    ----------
    path : Path
    uri : str or None
        Address that it came from, without secrets.
    max_pixels : int
        Size limit of the decoded image.

    Returns
    -------
    Source

    Raises
    ------
    NotAnImage
        If its format is not accepted, or it cannot be read.
    TooLarge
        If it would decode to too many pixels, or to more than one plane.
    """
    location = Received(str(path), _NAME)
    head = location.head()
    try:
        source = _open_accepted(location, head, max_pixels)
        source = check_source(replace(source, uri=uri, name="the image"))
        image = open_image(source)
    except (NotAnImage, ParameterError) as error:
        raise NotAnImage(_without_advice(str(error))) from error
    _refuse_large(image, max_pixels)
    return source


def suffix_of(path: Path) -> str:
    """Return the usual ending of an image's name, by its first bytes.

    Raises
    ------
    NotAnImage
        If its format is not accepted.
    """
    return _suffix_of_head(Received(str(path), _NAME).head())


def _suffix_of_head(head: bytes) -> str:
    if is_tiff(head):
        return ".tif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    for signature, suffix in _PICTURE_SIGNATURES.items():
        if head.startswith(signature):
            return suffix
    raise NotAnImage(f"The format of the image is not accepted; {_ACCEPTED}.")


def _open_accepted(location: Received, head: bytes, max_pixels: int) -> Source:
    if _suffix_of_head(head) == ".tif":
        _refuse_tiff(location, max_pixels)
        return tiff.open_tiff(location)
    return picture_reader.open_picture(location, head)


def _without_advice(sentence: str) -> str:
    """Return a sentence whose remedy makes sense to a client of HTTP.

    A user of the library may name axes and channels, or give an array.
    """
    if not _ADVICE_OF_LIBRARY.search(sentence):
        return sentence
    told = re.split(r"[:;?]\s", sentence, maxsplit=1)[0]
    told = told.replace("What are the dimensions of", "It is not clear what the dimensions are of")
    return f"{told[:1].upper()}{told[1:]}; save it as one plane of gray, RGB or RGBA, such as PNG."


def _refuse_large(image: Image, max_pixels: int) -> None:
    planes = math.prod(image.shape[:-2])
    pixels = math.prod(image.shape)
    if pixels > max_pixels:
        raise TooLarge(
            f"The image has {pixels / 1e6:.1f} megapixels, but this server takes "
            f"{max_pixels / 1e6:g}; send a smaller one."
        )
    if planes > 1:
        raise TooLarge(f"The image has {planes} planes, but the answer holds one; send one plane.")


def _refuse_tiff(location: Received, max_pixels: int) -> None:
    """Refuse TIFFs with other files, codecs that store their own size, and huge tiles or strips."""
    try:
        with location.open() as file, tifffile.TiffFile(file, name=location.name) as opened:
            pages = [page for page, _ in zip(opened.pages, range(_MAX_PAGES + 1), strict=False)]
            codecs = {int(getattr(page, "compression", 1)) for page in pages}
            scattered = opened.is_mmstack or opened.is_ndtiff
            decoded = max(map(_decoded_pixels, pages), default=0)
    except Exception:  # noqa: BLE001 - a damaged file may raise anything
        raise NotAnImage("The image is a damaged TIFF; save it again.") from None
    if len(pages) > _MAX_PAGES or scattered:
        raise TooLarge("The image is a TIFF of many pages, but the answer holds one; send one.")
    if not codecs <= set(_TIFF_CODECS):
        raise NotAnImage(
            "The image is a TIFF with a compression that is not accepted here; save it with none, "
            "LZW or deflate, or as PNG."
        )
    if decoded > max_pixels:
        raise TooLarge(
            f"The tiles or strips of the image hold {decoded / 1e6:.1f} megapixels, but this "
            f"server takes {max_pixels / 1e6:g}; save it with smaller ones."
        )


def _decoded_pixels(page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """Return how many pixels the tiles or strips of a page have, even beyond its edges."""
    page = page.aspage()
    samples = math.prod(page.chunked) * math.prod(page.chunks)
    return samples // max(page.samplesperpixel, 1)
