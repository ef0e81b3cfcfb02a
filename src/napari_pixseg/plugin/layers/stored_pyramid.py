"""Pyramids on disk as napari's layers see them: read from the store when sliced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.plugin.layers.image_layers import known_unit
from napari_pixseg.slices import expand_key

# Of outputs that have a single level, as their planes are small.
_READ_AT_ONCE = 1 << 24


_ENDINGS = (".ome.zarr", ".zarr")


@dataclass(frozen=True)
class StoredPyramid:
    """A stored pyramid and what its metadata say."""

    arrays: tuple[Any, ...]
    axes: str
    units: tuple[str | None, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @classmethod
    def open(cls, place: OutputLocation, path: str) -> StoredPyramid:
        """Open the pyramid of a group; its form is that of :mod:`napari_pixseg.export.pyramid`."""
        import zarr

        group = zarr.open_group(place.open_store(), path=path or None, mode="r")
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

    def options(self, place: OutputLocation, output: str, manifest: Manifest) -> dict[str, Any]:
        """Return what all layers of an output have in common."""
        spatial = [index for index, axis in enumerate(self.axes) if axis != "c"]
        return {
            "name": f"{_stem(place.name)} {output}",
            "multiscale": len(self.arrays) > 1,
            "scale": [self.scale[index] for index in spatial],
            "translate": [self.translation[index] for index in spatial],
            "units": [known_unit(self.units[index]) for index in spatial],
            "axis_labels": [self.axes[index] for index in spatial],
            "metadata": {"pixseg_manifest": manifest},
        }


def _stem(name: str) -> str:
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending) or name


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
        items = key if isinstance(key, tuple) else (key,)
        free = [i for i, part in enumerate(self.parts) if isinstance(part, range)]
        is_plain = all(item is Ellipsis or _is_plain(item) for item in items)
        keys = expand_key(key, self.ndim) if is_plain else ()
        if not is_plain or any(k != slice(None) for k in keys[len(free) :]):
            result: NDArray[Any] = np.asarray(self)[key]
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
