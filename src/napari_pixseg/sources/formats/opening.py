"""Opens a file with another library, or says what to install if it is missing."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.formats.kinds import CZI_LIBRARY, SLIDE_LIBRARY, FileKind
from napari_pixseg.sources.image_choice import Series
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import Source

_BIOIO = "bioio"

# First bytes of a ZIP.
_ARCHIVE = b"PK"


def open_kind(location: Location, kind: FileKind, series: Series | None) -> Source:
    """Open a file with the library for its kind.

    Raises
    ------
    NotAnImage
        If the library is missing, or cannot read the file.
    """
    if location.local_path is None:
        raise NotAnImage(
            f"{location.shown} is a {kind.name} file, which can be read from a disk only: copy it "
            "to one."
        )
    is_single = kind.library in (CZI_LIBRARY, SLIDE_LIBRARY)
    if not _has_libraries(*(() if is_single else (_BIOIO,)), kind.library):
        raise NotAnImage(
            f"{location.shown} is a {kind.name} file, which needs a package that is not installed: "
            f"{kind.remedy}."
        )
    if kind.library == SLIDE_LIBRARY:
        source: Source = _load_module("slides").open_slide(location, kind, series)
    elif kind.library == CZI_LIBRARY:
        source = _load_module("zeiss").open_czi(location, kind, series)
    else:
        source = _load_module("microscopes").open_scene(location, kind, series)
    return source


def open_otherwise(
    location: Location, head: bytes, series: Series | None, error: NotAnImage
) -> Source:
    """Open a file that this package cannot read itself, if an installed library can.

    Parameters
    ----------
    location : Location
    head : bytes
        Its first bytes.
    series : int or str, optional
    error : NotAnImage
        Why this package cannot read it; raised if nothing else can.
    """
    kind = None if location.local_path is None else _find_kind(location, head)
    if kind is None:
        raise error
    try:
        return open_kind(location, kind, series)
    except NotAnImage:
        raise error from None


def _find_kind(location: Location, head: bytes) -> FileKind | None:
    if _has_libraries(SLIDE_LIBRARY) and _load_module("slides").is_slide(location):
        return FileKind("slide", SLIDE_LIBRARY)
    if _is_for_others(location, head) and _has_libraries(_BIOIO):
        reader: str | None = _load_module("microscopes").find_reader(location)
        return FileKind("microscope's", reader) if reader else None
    return None


def _is_for_others(location: Location, head: bytes) -> bool:
    """Whether to try bioio's readers, all of which take seconds to load.

    The refusal of a picture or TIFF stands.
    """
    is_text = head.isascii() and b"\0" not in head and not head.startswith(b"<?xml")
    pillow = sys.modules.get("PIL.Image")
    endings = {".tif", ".tiff", *getattr(pillow, "EXTENSION", ())}
    ending = os.path.splitext(location.name)[1].lower()
    return not is_text and not head.startswith(_ARCHIVE) and ending not in ("", *endings)


def _load_module(name: str) -> ModuleType:
    """Load a module beside this one, which loads a library that may be missing."""
    return import_module(f"{__package__}.{name}")


def _has_libraries(*names: str) -> bool:
    return all(find_spec(name) is not None for name in names)
