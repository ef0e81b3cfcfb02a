"""A finished output as layers: read from disk as it is looked at, in its physical place."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import InputNotFound, NotAnImage, PixsegError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.place import MANIFEST_NAME, RECORD_NAME, Place
from napari_pixseg.export.table import TABLE_NAME
from napari_pixseg.plugin.samples import LayerData

if TYPE_CHECKING:
    import pandas as pd

# More rows than this make napari slow and take about half a gigabyte.
MOST_FEATURES = 2_000_000
# Of outputs that have a single level, as their planes are small.
_READ_AT_ONCE = 1 << 24
_ENDINGS = (".ome.zarr", ".zarr")
# Which channels of the stored picture napari is to show as red, green, blue (and alpha).
_SHOWN = {1: None, 2: (0, 0, 0, 1), 3: (0, 1, 2), 4: (0, 1, 2, 3)}

_log = logging.getLogger(__name__)


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a reader if the path is a finished output of this package, else None.

    Parameters
    ----------
    path : str or sequence of str
        Folder or URL; a stack of several is none of ours.

    Returns
    -------
    callable or None
    """
    if not isinstance(path, str):
        return None
    place = Place(path)
    try:
        if _is_ours(place):
            return layers_of_output
        reason = _why_unfinished(place)
    except Exception as error:  # noqa: BLE001 - whatever a server or a foreign file does, it is not ours
        _log.debug("%s is no output of napari-pixseg: %s", path, error)
        return None
    if reason:
        from napari.utils.notifications import show_warning

        show_warning(reason)
    return None


def _is_ours(place: Place) -> bool:
    content = place.child(MANIFEST_NAME).read_bytes()
    if content is None:
        return False
    try:
        manifest = Manifest.from_json(content)
    except PixsegError:
        return False
    return manifest.status == 200 and "parameters" in manifest.details


def _why_unfinished(place: Place) -> str | None:
    """Return a sentence about an output without a manifest; None if it is not ours at all."""
    if place.child(MANIFEST_NAME).read_bytes() is not None:
        return None
    content = place.child(RECORD_NAME).read_bytes()
    if content is None:
        return None
    record = json.loads(content)
    ends = {"failed": f"its run failed: {record.get('error')}", "cancelled": "it was cancelled"}
    reason = ends.get(record.get("state"), "its run is going on, or was killed")
    return (
        f"{place.name} is an unfinished output of napari-pixseg and is not shown ({reason}); "
        "run the export again, with resume or overwrite."
    )


def layers_of_output(path: str) -> list[LayerData]:
    """Return the layers of a finished output: picture, classes, regions, as far as there are any.

    Parameters
    ----------
    path : str
        Folder or URL of an OME-Zarr written by this package.

    Returns
    -------
    list of LayerData
        Multiscale, read from disk when sliced.

    Raises
    ------
    InputNotFound
        If there is nothing, or the output is unfinished.
    NotAnImage
        If what is there was written by something else.
    """
    place = Place(path)
    if not _is_ours(place):
        reason = _why_unfinished(place)
        if reason or not place.exists():
            raise InputNotFound(reason or f"There is nothing at {path}.")
        raise NotAnImage(
            f"{path} is no OME-Zarr written by napari-pixseg; open it with another reader."
        )
    manifest = Manifest.load(path)
    makers = {"recolored": _picture, "classes": _classes, "regions": _regions}
    outputs = manifest.details["outputs"]
    return [make(place, manifest) for name, make in makers.items() if name in outputs]


def _picture(place: Place, manifest: Manifest) -> LayerData:
    pyramid = _Pyramid.open(place, "")
    members = _SHOWN[pyramid.channels]
    options = pyramid.options(place, "recolored", manifest)
    shown = {"rgb": True} if members else {"rgb": False, "contrast_limits": (0, 255)}
    return pyramid.data(members), {**options, **shown}, "image"


def _classes(place: Place, manifest: Manifest) -> LayerData:
    from napari.utils.colormaps import DirectLabelColormap

    rows = manifest.details["classes"]
    colors: dict[int | None, Any] = {None: np.zeros(4), 0: np.zeros(4)}
    for row in rows:
        colors[row["number"]] = np.array([*row["color"], 255]) / 255
    options = {"colormap": DirectLabelColormap(color_dict=colors), "features": class_features(rows)}
    return _labels(place, "classes", manifest, options)


def _regions(place: Place, manifest: Manifest) -> LayerData:
    features = region_features(place, manifest.details["regions"]["count"])
    options = {"visible": False, **({} if features is None else {"features": features})}
    return _labels(place, "regions", manifest, options)


def _labels(place: Place, name: str, manifest: Manifest, options: dict[str, Any]) -> LayerData:
    pyramid = _Pyramid.open(place, f"labels/{name}")
    return pyramid.data(None), {**pyramid.options(place, name, manifest), **options}, "labels"


# Tables ------------------------------------------------------------------------


def class_features(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the class table of a manifest as napari takes it: a row is found by ``index``."""
    import pandas as pd

    columns = ("count", "percentage", "box_count", "box_percentage")
    return pd.DataFrame(
        {
            "index": [row["number"] for row in rows],
            "color": ["#{:02x}{:02x}{:02x}".format(*row["color"]) for row in rows],
            **{name: [row[name] for row in rows] for name in columns},
            "box": [", ".join(f"{low}-{high}" for low, high in row["box"]) for row in rows],
        }
    )


def region_features(place: Place, count: int) -> pd.DataFrame | None:
    """Return the region table as napari takes it, or None if it is too long for that.

    Parameters
    ----------
    place : Place
        Of the output.
    count : int
        Number of regions, from the manifest.
    """
    if count > MOST_FEATURES:
        from napari.utils.notifications import show_info

        show_info(
            f"{place.name} has {count:,} regions: their table is not loaded into the layer, "
            f"read {TABLE_NAME} with pandas or pyarrow instead."
        )
        return None
    content = place.child(TABLE_NAME).read_bytes()
    if content is None:
        raise InputNotFound(f"{place.name} lacks its table of regions, {TABLE_NAME}.")
    import pyarrow as pa
    import pyarrow.parquet as pq

    features: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas()
    return features.rename(columns={"number": "index"})


# Pyramids ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Pyramid:
    """A stored pyramid and what its metadata say."""

    arrays: tuple[Any, ...]
    axes: str
    units: tuple[str | None, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @classmethod
    def open(cls, place: Place, path: str) -> _Pyramid:
        """Open the pyramid of a group; its form is that of :mod:`napari_pixseg.export.ngff`."""
        import zarr

        group = zarr.open_group(place.store(), path=path or None, mode="r")
        ome: Any = group.attrs["ome"]
        described = ome["multiscales"][0]
        scale, translation = described["datasets"][0]["coordinateTransformations"]
        return cls(
            arrays=tuple(group[level["path"]] for level in described["datasets"]),
            axes="".join(axis["name"] for axis in described["axes"]),
            units=tuple(axis.get("unit") for axis in described["axes"]),
            scale=tuple(scale["scale"]),
            translation=tuple(translation["translation"]),
        )

    @property
    def channels(self) -> int:
        """Number of channels of a picture."""
        return int(self.arrays[0].shape[self.axes.index("c")]) if "c" in self.axes else 1

    def data(self, members: tuple[int, ...] | None) -> Any:
        """Return the levels, or the only one: napari 0.9 refuses lists of a single label image.

        What is small is read at once, so that it behaves like any other layer, for painting too.
        """
        levels = [StoredLevel.of(array, self.axes, members) for array in self.arrays]
        if len(levels) > 1:
            return levels
        return np.asarray(levels[0]) if levels[0].size <= _READ_AT_ONCE else levels[0]

    def options(self, place: Place, output: str, manifest: Manifest) -> dict[str, Any]:
        """Return what all layers of an output have in common."""
        spatial = [index for index, axis in enumerate(self.axes) if axis != "c"]
        return {
            "name": f"{_stem(place.name)} {output}",
            "multiscale": len(self.arrays) > 1,
            "scale": [self.scale[index] for index in spatial],
            "translate": [self.translation[index] for index in spatial],
            "units": [_napari_unit(self.units[index]) for index in spatial],
            "axis_labels": [self.axes[index] for index in spatial],
            "metadata": {"pixseg_manifest": manifest},
        }


def _stem(name: str) -> str:
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending) or name


def _napari_unit(name: str | None) -> str:
    """Return a unit if napari knows it: others would keep the layer from being shown."""
    if name is None:
        return "pixel"
    import pint

    try:
        pint.Unit(name)
    except Exception:  # noqa: BLE001 - pint raises what its parser meets
        return "pixel"
    return name


@dataclass(frozen=True, eq=False)
class StoredLevel:
    """A view of a zarr array with channels last, read when it is made a NumPy array.

    napari slices the two displayed axes of a level first and picks the plane of
    the others afterwards: a zarr array would read the whole stack for every
    view, and a Dask array would fill napari's cache.

    Attributes
    ----------
    array : zarr.Array
    axes : str
        Of the array, one letter for each dimension.
    parts : tuple of range or int
        What is seen of each axis but c.
    members : tuple of int or None
        Channels of the array that become the last axis.
    """

    array: Any
    axes: str
    parts: tuple[range | int, ...]
    members: tuple[int, ...] | None = None

    @classmethod
    def of(cls, array: Any, axes: str, members: tuple[int, ...] | None = None) -> StoredLevel:
        """View a whole array."""
        lengths = (n for axis, n in zip(axes, array.shape, strict=True) if axis != "c")
        return cls(array, axes, tuple(range(n) for n in lengths), members)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, channels last."""
        channels = () if self.members is None else (len(self.members),)
        return (*(len(part) for part in self.parts if isinstance(part, range)), *channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Length of the stored chunks: napari reads whole ones and keeps them."""
        stored = dict(zip(self.axes, self.array.chunks, strict=True))
        own = zip(self.axes.replace("c", ""), self.parts, strict=True)
        channels = () if self.members is None else (len(self.members),)
        return (*(stored[axis] for axis, part in own if isinstance(part, range)), *channels)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> StoredLevel | NDArray[Any]:
        """Narrow the view; keys that are no plain slices and integers read."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        free = [i for i, part in enumerate(self.parts) if isinstance(part, range)]
        plain = all(_is_plain(k) for k in keys[: len(free)])
        if not plain or any(k != slice(None) for k in keys[len(free) :]):
            result: NDArray[Any] = np.asarray(self)[tuple(keys)]
            return result
        parts: list[Any] = list(self.parts)
        for index, k in zip(free, keys, strict=False):
            parts[index] = parts[index][k if isinstance(k, slice) else int(k)]
        return StoredLevel(self.array, self.axes, tuple(parts), self.members)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        wanted = dict(zip(self.axes.replace("c", ""), map(_selection, self.parts), strict=True))
        block = np.asarray(self.array[tuple(wanted.get(axis, slice(None)) for axis in self.axes)])
        if self.members is not None:
            before = self.axes[: self.axes.index("c")]
            position = sum(isinstance(wanted[axis], slice) for axis in before)
            # Interleaved once here: graphics cards take no planes.
            block = np.stack([block.take(m, position) for m in self.members], axis=-1)
        return np.asarray(block, dtype)


def _is_plain(key: Any) -> bool:
    if isinstance(key, slice):
        return key.step is None or key.step > 0
    return isinstance(key, int | np.integer) and not isinstance(key, bool)


def _selection(part: range | int) -> int | slice:
    return part if isinstance(part, int) else slice(part.start, part.stop, part.step)
