"""Recognizes files that another library reads, and names its package; imports no library."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.location import Location

SLIDE_LIBRARY = "openslide"
CZI_LIBRARY = "pylibCZIrw"

_EXTRA = "pip install 'napari-pixseg[formats]'"


@dataclass(frozen=True)
class FileKind:
    """A kind of files that another library reads.

    Attributes
    ----------
    name : str
        Its name in messages.
    library : str
        Name of the module that reads it: OpenSlide, Zeiss's own, or a reader of bioio.
    remedy : str
        Command that installs it.
    """

    name: str
    library: str
    remedy: str = _EXTRA


def _of_bioio(name: str, library: str) -> FileKind:
    """Return a kind for a bioio reader that is in none of our extras."""
    return FileKind(name, library, f"pip install bioio {library.replace('_', '-')}")


_SLIDE_VMS = FileKind("Hamamatsu VMS or VMU", SLIDE_LIBRARY)
_JPEG_2000_HEAD = b"\0\0\0\x0cjP  "
_ND2 = FileKind("Nikon ND2", "bioio_nd2")

# Position in a file, bytes there, and the kind of a file with these bytes.
_CONTENTS = (
    (0, b"ZISRAWFILE", FileKind("Zeiss CZI", CZI_LIBRARY)),
    (0, b"\xda\xce\xbe\x0a", _ND2),
    (0, b"[Virtual Microscope Specimen]", _SLIDE_VMS),
    (0, b"[Uncompressed Virtual Microscope Specimen]", _SLIDE_VMS),
    (128, b"DICM", FileKind("DICOM", SLIDE_LIBRARY)),
    (0, b"OLYMPUSRAWFORMAT", _of_bioio("Olympus OIR", "bioio_bioformats")),
)
# The content of these files looks like other formats, or says little.
_ENDINGS = {
    ".lif": FileKind("Leica LIF", "bioio_lif"),
    ".dv": _of_bioio("DeltaVision", "bioio_dv"),
    ".r3d": _of_bioio("DeltaVision", "bioio_dv"),
    ".sldy": _of_bioio("SlideBook", "bioio_sldy"),
    ".ims": _of_bioio("Imaris", "bioio_bioformats"),
    ".oib": _of_bioio("Olympus OIB", "bioio_bioformats"),
    ".zvi": _of_bioio("Zeiss ZVI", "bioio_bioformats"),
    ".svslide": FileKind("Sakura SVSLIDE", SLIDE_LIBRARY),
}
# The file itself holds a small picture; its pixels are in a folder with a similar name.
_WITH_FOLDER = {
    ".mrxs": ("{}", FileKind("MIRAX", SLIDE_LIBRARY)),
    ".vsi": ("_{}_", _of_bioio("Olympus VSI", "bioio_vsi")),
}


def recognize_kind(location: Location, head: bytes) -> FileKind | None:
    """Return the kind of a file that other libraries read; None if this package reads it itself.

    Parameters
    ----------
    location : Location
    head : bytes
        Its first bytes.
    """
    for offset, content, kind in _CONTENTS:
        if head.startswith(content, offset):
            return kind
    stem, ending = os.path.splitext(location.name)
    ending = ending.lower()
    if ending in _WITH_FOLDER:
        pattern, kind = _WITH_FOLDER[ending]
        path = location.local_path or ""
        folder = os.path.join(os.path.dirname(path), pattern.format(stem))
        return kind if path and os.path.isdir(folder) else None
    # Old microscopes wrote JPEG 2000 with this ending, with all planes in one file.
    if ending == ".nd2" and head.startswith(_JPEG_2000_HEAD):
        return _ND2
    return _ENDINGS.get(ending)


def refuse_missing(library: object, name: str, location: Location) -> None:
    """Refuse to read where a library is missing, as it may be on a worker.

    Parameters
    ----------
    library : module or None
    name : str
    location : Location

    Raises
    ------
    NotAnImage
    """
    if library is None:
        raise NotAnImage(
            f"{location.shown} cannot be read on {platform.node()}, where {name} is not installed: "
            f"{_EXTRA}."
        )
