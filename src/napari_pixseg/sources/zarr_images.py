"""Finds the images in an OME-Zarr: bioformats2raw, plates and wells, several multiscales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import zarr

from napari_pixseg.errors import ParameterError
from napari_pixseg.sources.image_choice import Series, find_series, list_names
from napari_pixseg.sources.ome_metadata import JsonDocument

# Plates may have thousands of images, each with a metadata document of its own.
_MOST_LISTED = 100


@dataclass(frozen=True)
class ImageGroup:
    """A multiscale image within a group.

    Attributes
    ----------
    group : zarr.Group
        The group with the multiscale among its attributes.
    multiscale : dict
    label : int or str
        Its name for ``series``: the path in the opened group, or the number among the multiscales
        of one group.
    notes : tuple of str
        A sentence about the other images.
    """

    group: zarr.Group
    multiscale: JsonDocument
    label: Series
    notes: tuple[str, ...] = ()


def ome_attributes(group: zarr.Group) -> JsonDocument:
    """Return OME's metadata of a group: version 0.5 keeps them under "ome", 0.4 does not."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def multiscales_of(group: zarr.Group) -> list[JsonDocument]:
    """Return the multiscale images of a group."""
    return _list_of_objects(ome_attributes(group).get("multiscales"))


def find_image(root: zarr.Group, wanted: Series | None, shown: str) -> ImageGroup | None:
    """Return the requested image, or else the first one; None if there is none.

    Parameters
    ----------
    root : zarr.Group
        The group that was opened.
    wanted : int or str, optional
        Number of an image, its path in the group, or its name.
    shown : str
        The input, as an error may name it.

    Raises
    ------
    ParameterError
    """
    own = multiscales_of(root)
    if isinstance(wanted, str) and (found := _image_at(root, wanted)):
        return found
    if own:
        return _choose_multiscale(root, own, wanted, shown)
    return _choose_path(root, wanted, shown)


def list_images(root: zarr.Group) -> list[ImageGroup]:
    """Return the images of a group, at most the first hundred."""
    own = multiscales_of(root)
    if own:
        return [ImageGroup(root, one, number) for number, one in enumerate(own)]
    found = (_image_at(root, path) for path in _image_paths(root))
    return list(islice(filter(None, found), _MOST_LISTED))


def _choose_multiscale(
    root: zarr.Group, own: Sequence[JsonDocument], wanted: Series | None, shown: str
) -> ImageGroup:
    names = [str(one.get("name") or "") for one in own]
    number = 0 if wanted is None else find_series(wanted, names, shown)
    if wanted is not None or len(own) == 1:
        return ImageGroup(root, own[number], number)
    others = [f"{i} ({name})" if name else str(i) for i, name in enumerate(names)][1:]
    note = (
        f"There are {len(own)} images in it, of which the first is taken. The others are "
        f"{list_names(others)}; choose one with series."
    )
    return ImageGroup(root, own[0], 0, (note,))


def _choose_path(root: zarr.Group, wanted: Series | None, shown: str) -> ImageGroup | None:
    position = 0
    if wanted is not None:
        text = str(wanted)
        position = int(text) if text.isdecimal() and len(text) < 10 else -1
    found = None
    if position >= 0:
        images = filter(None, (_image_at(root, path) for path in _image_paths(root)))
        found = next(islice(images, position, None), None)
    if wanted is None:
        return None if found is None else _with_note(root, found)
    if found is None:
        paths = list(islice(_image_paths(root), 50))
        remedy = f"give a number, or a path: {list_names(paths)}" if paths else "leave it out"
        raise ParameterError(f"series = {wanted!r} is not an image of {shown}; {remedy}.")
    return found


def _with_note(root: zarr.Group, first: ImageGroup) -> ImageGroup:
    wells = _well_paths(root)
    if len(wells) > 1:
        names = list_names([path for path in wells if path != str(first.label).rpartition("/")[0]])
        what = f"It is a plate of {len(wells)} wells, of which the first image, {first.label}, "
        note = f"{what}is taken. Other wells are {names}; choose an image by its path with series."
        return replace(first, notes=(note,))
    paths = [path for path in islice(_image_paths(root), _MOST_LISTED) if path != first.label]
    if not paths:
        return first
    note = (
        f"There are several images in it, of which the first, {first.label}, is taken. The others "
        f"are {list_names(paths)}; choose one with series."
    )
    return replace(first, notes=(note,))


def _image_at(root: zarr.Group, path: str) -> ImageGroup | None:
    """Return the image at a path; for the path of a well, its first image."""
    path = path.strip("/")
    group = _group_at(root, path)
    if not path or group is None:
        return None
    own = multiscales_of(group)
    if own:
        return ImageGroup(group, own[0], path)
    fields = _field_paths(group)
    return _image_at(root, f"{path}/{fields[0]}") if fields else None


def _group_at(root: zarr.Group, path: str) -> zarr.Group | None:
    try:
        node = root[path]
    # The path comes from the user, and zarr refuses some paths.
    except (KeyError, ValueError):
        return None
    return node if isinstance(node, zarr.Group) else None


def _image_paths(root: zarr.Group) -> Iterator[str]:
    """Yield the paths of images that metadata name, or else the numbers of bioformats2raw."""
    if wells := _well_paths(root):
        for well in wells:
            group = _group_at(root, well)
            yield from (
                f"{well}/{field}" for field in (() if group is None else _field_paths(group))
            )
    elif fields := _field_paths(root):
        yield from fields
    elif listed := _listed_series(root):
        yield from listed
    else:
        for number in count():
            group = _group_at(root, str(number))
            if group is None or not multiscales_of(group):
                return
            yield str(number)


def _well_paths(group: zarr.Group) -> list[str]:
    plate = ome_attributes(group).get("plate")
    return _paths_of(plate.get("wells")) if isinstance(plate, dict) else []


def _field_paths(group: zarr.Group) -> list[str]:
    well = ome_attributes(group).get("well")
    return _paths_of(well.get("images")) if isinstance(well, dict) else []


def _listed_series(group: zarr.Group) -> list[str]:
    """Return the paths that a bioformats2raw container lists in its group of metadata."""
    ome = _group_at(group, "OME")
    listed = None if ome is None else ome_attributes(ome).get("series")
    return [path for path in listed if isinstance(path, str)] if isinstance(listed, list) else []


def _paths_of(found: object) -> list[str]:
    paths = (one.get("path") for one in _list_of_objects(found))
    return [path.strip("/") for path in paths if isinstance(path, str) and path.strip("/")]


def _list_of_objects(found: object) -> list[JsonDocument]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
