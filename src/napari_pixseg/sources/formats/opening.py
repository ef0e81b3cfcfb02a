"""Opens a file with another library, where that is installed, or says what to install."""

from __future__ import annotations

from importlib.util import find_spec

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.formats.kinds import CZI_LIBRARY, SLIDE_LIBRARY, FileKind
from napari_pixseg.sources.image_choice import Series
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import Source

_BIOIO = "bioio"


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
    needed = (
        (kind.library,)
        if kind.library in (CZI_LIBRARY, SLIDE_LIBRARY)
        else (
            _BIOIO,
            kind.library,
        )
    )
    if not _has_libraries(*needed):
        raise NotAnImage(
            f"{location.shown} is a {kind.name} file, which needs a package that is not installed: "
            f"{kind.remedy}."
        )
    # Each kind pays for loading its own library only.
    if kind.library == SLIDE_LIBRARY:
        from napari_pixseg.sources.formats import slides

        return slides.open_slide(location, kind, series)
    if kind.library == CZI_LIBRARY:
        from napari_pixseg.sources.formats import zeiss

        return zeiss.open_czi(location, kind, series)
    from napari_pixseg.sources.formats import microscopes

    return microscopes.open_scene(location, kind, series)


def open_otherwise(
    location: Location, series: Series | None, error: NotAnImage, *, is_tiff: bool
) -> Source:
    """Open a file that the engine cannot read, if a library that is installed can.

    Parameters
    ----------
    location : Location
    series : int or str, optional
    error : NotAnImage
        Why the engine cannot, which is raised if nothing else can.
    is_tiff : bool
        Then it is opened only if it is a slide: other TIFFs are refused for what they are.
    """
    kind = None if location.local_path is None else _find_kind(location, is_tiff)
    if kind is None:
        raise error
    try:
        return open_kind(location, kind, series)
    except NotAnImage:
        raise error from None


def _find_kind(location: Location, is_tiff: bool) -> FileKind | None:
    if _has_libraries(SLIDE_LIBRARY):
        from napari_pixseg.sources.formats import slides

        if slides.is_slide(location):
            return FileKind("slide", SLIDE_LIBRARY)
    if not is_tiff and _has_libraries(_BIOIO):
        from napari_pixseg.sources.formats import microscopes

        reader = microscopes.find_reader(location)
        return FileKind("microscope's", reader) if reader else None
    return None


def _has_libraries(*names: str) -> bool:
    return all(find_spec(name) is not None for name in names)
