"""Reads microscope files with bioio, if a reader for their kind is installed."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from importlib import import_module

import numpy as np

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.slices import Index, Samples
from napari_pixseg.sources.formats.decoded_blocks import DecodedBlocks
from napari_pixseg.sources.formats.kinds import FileKind, refuse_missing
from napari_pixseg.sources.image_choice import (
    Series,
    StoredImage,
    find_series,
    list_names,
    note_channel_names,
)
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.library_warnings import gathered_warnings
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import Source

try:
    import bioio
    import bioio.plugins
except ImportError:
    # The caller has checked that the library is installed.
    bioio = None

# bioio's names of dimensions.
_LETTERS = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x", "S": "c"}

# Warnings are gathered by one thread at a time.
_opening = threading.RLock()

# Each scene must be opened to find its size.
_MOST_LISTED = 100


def find_reader(location: Location) -> str | None:
    """Return the module of an installed reader that accepts files with this ending."""
    name = location.name.lower()
    for ending, plugins in bioio.plugins.get_plugins(use_cache=True).items():
        if ending and name.endswith(ending):
            return str(plugins[0].entrypoint.value)
    return None


def open_scene(location: Location, kind: FileKind, series: Series | None) -> Source:
    """Open one scene of a file.

    Parameters
    ----------
    location : Location
        A file on a disk.
    kind : FileKind
        Its library is the reader's module.
    series : int or str, optional
        Number or name of a scene; by default the first.

    Returns
    -------
    Source
        Planes are decoded when they are needed.
    """
    identity = location.identity()
    try:
        with _opening, gathered_warnings():
            image = _open_image(location, kind.library)
            number = 0 if series is None else find_series(series, image.scenes, location.shown)
            image.set_scene(number)
            kept, letters = _kept_dimensions(image, location)
            data = image.dask_data
            stored = _describe_scene(image, number)
            names = image.channel_names or [] if "c" in letters else []
    except PixsegError:
        raise
    except Exception as error:  # noqa: BLE001 - every reader has its own errors
        raise _unreadable_file(location, kind, error) from None
    version = tuple(sorted(identity.items()))
    array = SceneArray(
        location,
        tuple(data.shape[i] for i in kept),
        data.dtype,
        version,
        (kind.library, number, kept),
    )
    return Source(
        array,
        axes=letters,
        scale=stored.scale,
        units=stored.units,
        chunks=tuple(max(data.chunks[i]) for i in kept),
        uri=location.uri,
        identity=identity,
        series=number,
        list_images=partial(list_scenes, location, kind.library),
        kind="bioio",
        name=location.name,
        fingerprint=location.fingerprint,
        notes=(*_note_scenes(image.scenes if series is None else ()), *note_channel_names(names)),
    )


def list_scenes(location: Location, library: str) -> list[StoredImage]:
    """Return the scenes of a file, at most a hundred."""
    with _opening, gathered_warnings():
        image = _open_image(location, library)
        return [_describe_scene(image, i) for i in range(len(image.scenes[:_MOST_LISTED]))]


class SceneArray(FileArray[DecodedBlocks]):
    """One scene of a file.

    `details` are the reader's module, the number of the scene, and which dimensions are kept.
    """

    def _open_file(self) -> DecodedBlocks:
        refuse_missing(bioio, "bioio", self._location)
        library, number, _ = self._details
        with _opening, gathered_warnings():
            image = _open_image(self._location, library)
            image.set_scene(number)
            data = image.dask_data
        block = tuple(lengths[0] for lengths in data.chunks)

        def decode(index: Index) -> Samples:
            # The tasks of a run are threads already.
            return np.asarray(data.blocks[index].compute(scheduler="synchronous"))

        return DecodedBlocks(data.rechunk(block), block, decode)

    def _read_pixels(self, opened: DecodedBlocks, key: Key) -> Samples:
        _, _, kept = self._details
        # Dimensions that are not kept have a length of one.
        stored: list[int | slice] = [0] * opened.ndim
        for dimension, part in zip(kept, key, strict=True):
            stored[dimension] = part
        return opened.read(tuple(stored))


def _open_image(location: Location, library: str) -> bioio.BioImage:
    # The reader is given explicitly, because files may have any ending.
    return bioio.BioImage(location.address, reader=import_module(library).Reader)


def _kept_dimensions(image: bioio.BioImage, location: Location) -> tuple[tuple[int, ...], str]:
    long = _long_dimensions(image)
    unknown = [name for name in long if name not in _LETTERS]
    if unknown:
        raise NotAnImage(
            f"{location.shown} has a dimension {unknown[0]} of {long[unknown[0]]}, which the "
            "reader does not join to one image: save it as OME-TIFF or OME-Zarr."
        )
    if "C" in long and "S" in long:
        raise NotAnImage(
            f"{location.shown} has {long['C']} channels of {long['S']} colors each: save one "
            "of them as OME-TIFF or OME-Zarr."
        )
    kept = tuple(image.dims.order.index(name) for name in long)
    return kept, "".join(_LETTERS[name] for name in long)


def _long_dimensions(image: bioio.BioImage) -> dict[str, int]:
    lengths = zip(image.dims.order, image.shape, strict=True)
    return {name: length for name, length in lengths if length > 1 or name in "YX"}


def _describe_scene(image: bioio.BioImage, number: int) -> StoredImage:
    image.set_scene(number)
    sizes = image.physical_pixel_sizes
    found = {axis: getattr(sizes, axis.upper()) for axis in "zyx"}
    if isinstance(image.time_interval, timedelta):
        found["t"] = image.time_interval.total_seconds()
    lengths = _long_dimensions(image)
    letters = "".join(_LETTERS.get(name, "?") for name in lengths)
    scale = {axis: float(found[axis]) for axis in letters if found.get(axis)}
    units = {axis: "second" if axis == "t" else "micrometer" for axis in scale}
    return StoredImage(str(image.scenes[number]), letters, tuple(lengths.values()), scale, units)


def _note_scenes(scenes: tuple[str, ...]) -> tuple[str, ...]:
    if len(scenes) < 2:
        return ()
    return (
        f"There are {len(scenes)} images in it, of which the first, {scenes[0]}, is taken. The "
        f"others are {list_names(scenes[1:])}; choose one with series.",
    )


def _unreadable_file(location: Location, kind: FileKind, error: Exception) -> NotAnImage:
    return NotAnImage(
        f"{location.shown} is a {kind.name} file that {kind.library} cannot read: "
        f"{' '.join(location.describe_cause(error).split())}."
    )
