"""Reads CZI files part by part, with Zeiss's own library.

bioio-czi would decode whole planes, and its lazily read colors repeat the first channel three
times.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from operator import add
from xml.etree import ElementTree

import numpy as np

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.slices import Samples, shape_of, split_key
from napari_pixseg.sources.formats.kinds import FileKind, refuse_missing
from napari_pixseg.sources.image_choice import (
    Series,
    StoredImage,
    describe_choice,
    find_series,
    note_channel_names,
)
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import Source

try:
    from pylibCZIrw import czi
except ImportError:
    # The caller has checked that the library is installed.
    czi = None

# The library's names of sample types; it returns colors in the order blue, green, red.
_TYPES = {"Gray8": "u1", "Gray16": "u2", "Gray32Float": "f4"}
_COLOR_TYPES = {"Bgr24": "u1", "Bgr48": "u2", "Bgr96Float": "f4"}

_MICROMETERS = 1e6

# The coarsest level has no side longer than this.
_COARSEST_SIDE = 1024

# How many decoded parts of a file the library keeps.
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class ScenePlace:
    """The place of a scene in a file.

    Attributes
    ----------
    scene : int or None
        None in files without scenes.
    corner : tuple of int
        Position (x, y) of its first pixel.
    outer : str
        Letters of the axes before y and x, in their order.
    starts : tuple of int
        Number of the first plane along each of them.
    has_colors : bool
    level : int
        Every side is divided by two so often.
    """

    scene: int | None
    corner: tuple[int, int]
    outer: str
    starts: tuple[int, ...]
    has_colors: bool
    level: int = 0

    @property
    def zoom(self) -> float:
        """The length of a side relative to level 0."""
        return float(0.5**self.level)

    def region_of(self, rows: slice, columns: slice) -> tuple[int, int, int, int]:
        """Return x, y, width and height in the file of a part of a plane."""
        ratio = 1 << self.level
        x = self.corner[0] + columns.start * ratio
        y = self.corner[1] + rows.start * ratio
        return x, y, (columns.stop - columns.start) * ratio, (rows.stop - rows.start) * ratio


def open_czi(location: Location, kind: FileKind, series: Series | None) -> Source:
    """Open a scene of a CZI file at full resolution.

    Parameters
    ----------
    location : Location
        A file on a disk.
    kind : FileKind
    series : int or str, optional
        Number or name of a scene; by default the largest.

    Returns
    -------
    Source
        Areas without pixels are 0.
    """
    try:
        with czi.open_czi(location.address) as document:
            scenes = _describe_scenes(document)
            names = [scene.name for scene in scenes]
            number = (
                max(range(len(scenes)), key=lambda i: (scenes[i].plane_size, -i))
                if series is None
                else find_series(series, names, location.shown)
            )
            choice = describe_choice(scenes, number, "largest") if series is None else ()
            place = _place_of_scene(document, number, location)
            notes = (*choice, *_note_channels(document, scenes[number].axes))
            sample = _sample_type(document, location)
    except PixsegError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises what C++ does
        raise NotAnImage(
            f"{location.shown} is a {kind.name} file that pylibCZIrw cannot read: "
            f"{location.describe_cause(error)}."
        ) from None
    identity = location.identity()
    version = tuple(sorted(identity.items()))
    scene = scenes[number]
    array = CziArray(location, scene.shape, np.dtype(sample), version, (place,))
    source = Source(
        array,
        axes=scene.axes,
        scale=scene.scale,
        units=scene.units,
        uri=location.uri,
        identity=identity,
        series=number,
        list_images=partial(list_scenes, location),
        kind="czi",
        name=location.name,
        fingerprint=location.fingerprint,
        notes=notes,
    )
    return replace(source, open_coarser=partial(_coarser_scenes, source))


def list_scenes(location: Location) -> list[StoredImage]:
    """Return all scenes of a file."""
    with czi.open_czi(location.address) as document:
        return _describe_scenes(document)


class CziArray(FileArray["czi.CziReader"]):
    """A scene of a CZI file; `details` are its :class:`ScenePlace`."""

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Lengths of y and x."""
        (place,) = self._details
        count = len(place.outer)
        return self.shape[count : count + 2]

    def halved(self) -> CziArray:
        """Return the next coarser level."""
        (place,) = self._details
        count = len(place.outer)
        sides = (side // 2 for side in self.plane_shape)
        shape = (*self.shape[:count], *sides, *self.shape[count + 2 :])
        coarser = replace(place, level=place.level + 1)
        return CziArray(self._location, shape, self.dtype, self._version, (coarser,))

    def _open_file(self) -> czi.CziReader:
        refuse_missing(czi, "pylibCZIrw", self._location)
        cache = czi.CacheOptions(max_memory_usage=_KEPT_BYTES)
        document = czi.CziReader(self._location.address, cache_options=cache)
        weakref.finalize(self, document.close)
        # The library does not say whether it is safe with threads.
        self._reading = threading.Lock()
        return document

    def _read_pixels(self, opened: czi.CziReader, key: Key) -> Samples:
        (place,) = self._details
        box, rest = split_key(key, self.shape)
        pixels = np.empty(shape_of(box), self.dtype)
        count = len(place.outer)
        for index in product(*(range(part.start, part.stop) for part in box[:count])):
            plane = dict(zip(place.outer.upper(), map(add, index, place.starts), strict=True))
            with self._reading:
                part = opened.read(
                    place.region_of(*box[count : count + 2]), plane, place.scene, place.zoom
                )
            there = tuple(i - side.start for i, side in zip(index, box, strict=False))
            pixels[there] = part[..., ::-1][..., box[-1]] if place.has_colors else part[..., 0]
        wanted: Samples = pixels[rest]
        return wanted


def _coarser_scenes(source: Source) -> list[Source]:
    """Return the coarser levels of a scene, which the library makes from those in the file."""
    array: CziArray = source.array
    levels: list[Source] = []
    while max(array.plane_shape) > _COARSEST_SIDE:
        array = array.halved()
        levels.append(replace(source, array=array, notes=(), open_coarser=None))
    return levels


def _bounds(document: czi.CziReader) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = document.total_bounding_box_no_pyramid
    return found


def _describe_scenes(document: czi.CziReader) -> list[StoredImage]:
    root = ElementTree.fromstring(document.raw_metadata)
    scale = _scale_of(root)
    bounds = _bounds(document)
    has_colors = document.pixel_types[0] in _COLOR_TYPES
    lengths = {axis: stop - start for axis, (start, stop) in bounds.items()}
    outer = _outer_axes(document)
    titles = {scene.get("Index"): scene.get("Name", "") for scene in root.iter("Scene")}
    images = []
    rectangles = document.scenes_bounding_rectangle_no_pyramid
    sides = {number: (box.h, box.w) for number, box in rectangles.items()}
    for number, side in (sides or {0: (lengths["Y"], lengths["X"])}).items():
        shape = (*(lengths[axis.upper()] for axis in outer), *side, *((3,) if has_colors else ()))
        axes = f"{outer}yx" + "c" * has_colors
        known = {axis: size for axis, size in scale.items() if axis in axes}
        units = dict.fromkeys(known, "micrometer")
        images.append(StoredImage(titles.get(str(number), ""), axes, shape, known, units))
    return images


def _outer_axes(document: czi.CziReader) -> str:
    bounds = _bounds(document)
    return "".join(
        axis.lower() for axis in "TCZ" if axis in bounds and bounds[axis][1] - bounds[axis][0] > 1
    )


def _place_of_scene(document: czi.CziReader, number: int, location: Location) -> ScenePlace:
    outer = _outer_axes(document)
    has_colors = document.pixel_types[0] in _COLOR_TYPES
    if has_colors and "c" in outer:
        raise NotAnImage(
            f"{location.shown} has several channels of three colors each: save one of them as "
            "OME-TIFF or OME-Zarr."
        )
    rectangles = document.scenes_bounding_rectangle_no_pyramid
    bounds = _bounds(document)
    starts = tuple(bounds[axis][0] for axis in outer.upper())
    if not rectangles:
        return ScenePlace(None, (bounds["X"][0], bounds["Y"][0]), outer, starts, has_colors)
    scene = list(rectangles)[number]
    box = rectangles[scene]
    return ScenePlace(scene, (box.x, box.y), outer, starts, has_colors)


def _sample_type(document: czi.CziReader, location: Location) -> str:
    types = set(document.pixel_types.values())
    known = {**_TYPES, **_COLOR_TYPES}
    if len(types) > 1 or not types <= set(known):
        raise NotAnImage(
            f"{location.shown} has samples of the types {', '.join(sorted(types))}, which are not "
            "read here: save its channels one by one as OME-TIFF."
        )
    return known[types.pop()]


def _scale_of(root: ElementTree.Element) -> dict[str, float]:
    sizes = {}
    for distance in root.iter("Distance"):
        axis = (distance.get("Id") or "").lower()
        meters = float(distance.findtext("Value") or "nan")
        if axis in ("x", "y", "z") and meters > 0:
            sizes[axis] = meters * _MICROMETERS
    return sizes


def _note_channels(document: czi.CziReader, axes: str) -> tuple[str, ...]:
    root = ElementTree.fromstring(document.raw_metadata)
    found = [channel.get("Name") for channel in root.iterfind(".//Dimensions/Channels/Channel")]
    return note_channel_names([name or "?" for name in found] if "c" in axes else [])
