"""zarr arrays and groups, format 2 and 3, and the OME metadata in them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from dataclasses import replace
from typing import Any

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.file_state import FilesState
from napari_pixseg.sources.location import Location, locate
from napari_pixseg.sources.source import Source, axes_of_names
from napari_pixseg.sources.urls import public_uri

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


_TYPES = {"channel": "c", "time": "t"}


def is_store(location: Location) -> bool:
    """Whether zarr metadata lies at the location."""
    if not location.remote:
        return any(os.path.isfile(os.path.join(location.address, name)) for name in _DOCUMENTS)
    if "?" in location.address:
        return False  # A document's name would become part of the query.
    try:
        filesystem, path = location.filesystem()
    except Exception as error:  # noqa: BLE001 - every protocol has its own
        raise location.unreachable(error) from None
    return any(_is_document(filesystem, f"{path.rstrip('/')}/{name}") for name in _DOCUMENTS)


def open_store(location: Location) -> Source:
    """Open the zarr array or group at a location.

    Parameters
    ----------
    location : Location
        Where `is_store` holds.

    Returns
    -------
    Source
        Of a multiscale image its level 0, of other groups their only array.
    """
    node = _open_node(location)
    opened = from_node(node, location.name)
    if _is_array(node):
        opened = _as_level(opened, location)
    return replace(opened, uri=location.uri, name=location.name)


def coarser_levels(location: Location) -> list[Source]:
    """Open the levels below level 0 of the OME-Zarr image at a location.

    Returns
    -------
    list of Source
        Fine to coarse, up to the first that is missing; empty where there is no pyramid.
    """
    node = _open_node(location)
    image = None if _is_array(node) else _image_group(node)
    multiscale = None if image is None else _multiscale(image)
    if image is None or multiscale is None:
        return []
    sources: list[Source] = []
    for level in multiscale.get("datasets", [])[1:]:
        try:
            array = image[level["path"]]
        except (KeyError, TypeError):
            break
        if not _is_array(array):
            break
        uri = f"{location.uri}/{array.path}"
        opened = replace(_from_array(array, location.name, uri), kind="ome-zarr")
        sources.append(_with_metadata(opened, multiscale, level))
    return sources


def from_node(node: Any, name: str | None = None) -> Source:
    """Return the source that an open zarr array or group is.

    Parameters
    ----------
    node : zarr.Array or zarr.Group
    name : str, optional
        Name for messages; by default that of the node or its store.
    """
    uri = _uri_of(node)
    name = name or node.basename or (locate(uri).name if uri else "array")
    if _is_array(node):
        return _from_array(node, name, uri)
    image = _image_group(node)
    if image is not None:
        return _from_image(node, image, name, uri)
    array = _only_array(node, name)
    return replace(_from_array(array, name, uri), identity=_identity(node, array))


def _is_document(filesystem: Any, path: str) -> bool:
    try:
        return isinstance(json.loads(filesystem.cat_file(path)), dict)
    except Exception:  # noqa: BLE001 - not there, forbidden, or a page that says so
        return False


def _open_node(location: Location) -> Any:
    import zarr
    from zarr.storage import FsspecStore, LocalStore

    try:
        if location.remote:
            store: Any = FsspecStore.from_url(location.address, read_only=True)
        else:
            store = LocalStore(location.address, read_only=True)
        return zarr.open(store, mode="r")
    except Exception as error:  # noqa: BLE001 - and JSON can be wrong in any way
        reason = type(error).__name__ if location.remote else error
        message = f"{location.shown} has zarr metadata that cannot be read: {reason}."
        raise NotAnImage(message) from None


def _is_array(node: Any) -> bool:
    import zarr

    return isinstance(node, zarr.Array)


def _uri_of(node: Any) -> str | None:
    from zarr.storage import FsspecStore, LocalStore

    store, path = node.store_path.store, node.store_path.path
    if isinstance(store, LocalStore):
        return locate(os.path.join(store.root, path)).uri
    if isinstance(store, FsspecStore):
        url = store.fs.unstrip_protocol(f"{store.path.rstrip('/')}/{path}".rstrip("/"))
        return public_uri(url)
    return None


def _identity(*nodes: Any) -> dict[str, Any]:
    """Hash the metadata documents of nodes; their pixels are not looked at."""
    from zarr.core.buffer import default_buffer_prototype

    digest = hashlib.sha256()
    for node in nodes:
        documents = node.metadata.to_buffer_dict(default_buffer_prototype())
        for key, document in sorted(documents.items()):
            digest.update(key.encode() + b"\0" + document.to_bytes() + b"\0")
    return {"metadata_sha256": digest.hexdigest()}


def _from_array(array: Any, name: str, uri: str | None) -> Source:
    from napari_pixseg.sources.zarr_chunks import with_fast_local_io

    names = getattr(array.metadata, "dimension_names", None)
    return Source(
        with_fast_local_io(array),
        axes=axes_of_names(names or array.attrs.get("_ARRAY_DIMENSIONS"), array.ndim),
        chunks=tuple(array.shards or array.chunks),
        uri=uri,
        identity=_identity(array),
        kind="zarr",
        name=name,
        state=_state(array.store_path),
    )


def _state(place: Any) -> FilesState | None:
    """Return what tells whether chunks were written; servers may not list theirs, or slowly."""
    from zarr.storage import LocalStore

    is_local = type(place.store) is LocalStore
    return FilesState(os.path.join(place.store.root, place.path)) if is_local else None


def _from_image(root: Any, image: Any, name: str, uri: str | None) -> Source:
    multiscale = _multiscale(image)
    try:
        level = multiscale["datasets"][0]
        array = image[level["path"]]
    except (KeyError, IndexError, TypeError):
        array = None
    if array is None or not _is_array(array):
        raise NotAnImage(f"{name} is an OME-Zarr image whose level 0 is missing.")
    nodes = (root, array) if image is root else (root, image, array)
    opened = replace(_from_array(array, name, uri), identity=_identity(*nodes), kind="ome-zarr")
    return _with_metadata(opened, multiscale, level)


def _multiscale(group: Any) -> Any:
    """Return the first multiscale of a group: OME-Zarr 0.5 keeps it under "ome", 0.4 does not."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome")
    found = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None


def _image_group(group: Any) -> Any:
    """Return the group that has the multiscale: itself, or "0" of a bioformats2raw container."""
    if _multiscale(group) is not None:
        return group
    try:
        first = group["0"]
    except KeyError:
        return None
    return first if not _is_array(first) and _multiscale(first) is not None else None


def _only_array(group: Any, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            # Our own manifest and run record, for example, lie in groups.
            warnings.filterwarnings("ignore", message=".*not recognized as a component of a Zarr")
            members = dict(group.members())
    except Exception:  # noqa: BLE001 - plain http servers cannot list
        raise NotAnImage(
            f"{name} is a zarr group without image metadata whose members cannot be listed: "
            "give the address of one array in it."
        ) from None
    arrays = [key for key, member in members.items() if _is_array(member)]
    if len(arrays) == 1:
        return members[arrays[0]]
    found = f"the arrays {_listed(arrays)}" if arrays else "no array"
    others = f" (it has the groups {_listed(members)})" if members and not arrays else ""
    raise NotAnImage(
        f"{name} is a zarr group without image metadata and has {found}{others}: "
        "give the path of one array or image in it."
    )


def _listed(keys: Any) -> str:
    ordered = sorted(keys)
    return ", ".join(ordered[:20]) + (", ..." if len(ordered) > 20 else "")


def _as_level(opened: Source, location: Location) -> Source:
    """Give an array opened by its own path the metadata of the image it is a level of."""
    parent = location.parent
    if not is_store(parent):
        return opened
    group = _open_node(parent)
    multiscale = None if _is_array(group) else _multiscale(group)
    for level in (multiscale or {}).get("datasets", []):
        if level.get("path") == location.name:
            return _with_metadata(opened, multiscale, level)
    return opened


def _with_metadata(opened: Source, multiscale: Any, level: Any) -> Source:
    ndim = opened.array.ndim
    described = multiscale.get("axes") or (["t", "c", "z", "y", "x"] if ndim == 5 else [])
    described = [axis if isinstance(axis, dict) else {"name": axis} for axis in described]
    axes = axes_of_names([_letter(axis) for axis in described], ndim) or opened.axes
    if axes is None or len(described) != ndim:
        return replace(opened, axes=axes)
    transforms = [
        *level.get("coordinateTransformations", []),
        *multiscale.get("coordinateTransformations", []),
    ]
    scale, translation = _combined(transforms, ndim)
    measured = [(i, axis) for i, axis in enumerate(axes) if axis != "c"]
    return replace(
        opened,
        axes=axes,
        scale={axis: scale[i] for i, axis in measured} if scale else {},
        translation={axis: translation[i] for i, axis in measured} if translation else {},
        units={axis: str(described[i]["unit"]) for i, axis in measured if described[i].get("unit")},
    )


def _letter(axis: dict[str, Any]) -> Any:
    return _TYPES.get(str(axis.get("type")), axis.get("name"))


def _combined(transforms: list[Any], ndim: int) -> tuple[list[float], list[float]]:
    """Apply transforms in order, dataset before multiscale; both empty where none is usable."""
    scale, translation = [1.0] * ndim, [0.0] * ndim
    scaled = moved = False
    for transform in transforms:
        factors, shifts = transform.get("scale"), transform.get("translation")
        if _usable(factors, ndim) and all(factor > 0 for factor in factors):
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            translation = [a * b for a, b in zip(translation, factors, strict=True)]
            scaled = True
        elif _usable(shifts, ndim):
            translation = [a + b for a, b in zip(translation, shifts, strict=True)]
            moved = True
    return scale if scaled else [], translation if moved else []


def _usable(values: Any, ndim: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == ndim
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )
