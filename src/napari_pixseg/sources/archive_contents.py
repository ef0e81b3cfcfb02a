"""Lists what can be opened in an archive, for the error about a path that cannot be opened."""

from __future__ import annotations

from napari_pixseg.sources.image_choice import list_names
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.urls import ARCHIVES, path_of_link, split_links

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".svs")


def suggest_inside(location: Location) -> str | None:
    """Return a sentence with the URLs of images in an archive; None if there are none."""
    first, *rest = split_links(location.address)
    if not rest or not first.startswith(tuple(f"{protocol}://" for protocol in ARCHIVES)):
        return None
    try:
        filesystem, _ = location.filesystem()
        names = [name.lstrip("/") for name in filesystem.find("")]
    except Exception:  # noqa: BLE001 - every protocol has its own
        return None
    top = path_of_link(first).strip("/")
    inside = [name for name in names if not top or name.startswith(f"{top}/")]
    found = _topmost_stores(inside) or [name for name in inside if name.endswith(_PICTURES)]
    if not found:
        return None
    behind = location.uri.partition("::")[2]
    urls = [f"{first.partition('://')[0]}://{name}::{behind}" for name in found]
    return (
        f"{location.shown} is neither a store nor an image, but there are such in the archive: "
        f"give {list_names(urls)}."
    )


def _topmost_stores(names: list[str]) -> list[str]:
    """Return the folders with zarr metadata that are not inside another such folder."""
    parts = (name.rpartition("/") for name in names)
    folders = sorted({folder for folder, _, name in parts if name in _DOCUMENTS and folder})
    stores: list[str] = []
    for folder in folders:
        if not (stores and folder.startswith(f"{stores[-1]}/")):
            stores.append(folder)
    return stores
