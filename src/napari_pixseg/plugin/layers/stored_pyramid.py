"""Pyramids on disk for napari's layers, read from the store when they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.plugin.layer_types import (
    MANIFEST_KEY,
    ArrayLike,
    LayerOptions,
    ValueType,
)
from napari_pixseg.plugin.layers.image_layers import known_unit
from napari_pixseg.plugin.layers.lazy_level import LazyLevel, Part
from napari_pixseg.slices import Samples

if TYPE_CHECKING:
    import zarr

# An output with a single level of at most this many values is read at once.
_READ_AT_ONCE = 1 << 24

_ENDINGS = (".ome.zarr", ".zarr")


@dataclass(frozen=True)
class StoredPyramid:
    """A stored pyramid and its metadata, with one entry for each axis of the arrays.

    Attributes
    ----------
    arrays : tuple of zarr.Array
        Fine to coarse.
    axes : str
    units : tuple of str or None
    scale, translation : tuple of float
        Pixel size and position of the finest level, in those units.
    """

    arrays: tuple[zarr.Array[Any], ...]
    axes: str
    units: tuple[str | None, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @classmethod
    def open(cls, location: OutputLocation, path: str) -> StoredPyramid:
        """Open the pyramid of a group, as :mod:`napari_pixseg.export.pyramid` writes it."""
        # zarr is slow to load, and napari asks this plugin about every path that is opened.
        import zarr

        group = zarr.open_group(location.open_store(), path=path or None, mode="r")
        ome: Any = group.attrs["ome"]
        described = ome["multiscales"][0]
        scale, translation = described["datasets"][0]["coordinateTransformations"]
        arrays: Any = [group[level["path"]] for level in described["datasets"]]
        return cls(
            arrays=tuple(arrays),
            axes="".join(axis["name"] for axis in described["axes"]),
            units=tuple(axis.get("unit") for axis in described["axes"]),
            scale=tuple(scale["scale"]),
            translation=tuple(translation["translation"]),
        )

    @property
    def channels(self) -> int:
        """Number of channels of a picture."""
        return int(self.arrays[0].shape[self.axes.index("c")]) if "c" in self.axes else 1

    def layer_data(self, members: tuple[int, ...] | None) -> ArrayLike:
        """Return the levels, or the level itself if there is one: napari 0.9 refuses such lists.

        A small output is read at once, so that its layer can be painted on like any other.

        Parameters
        ----------
        members : tuple of int or None
            See :class:`StoredLevel`.
        """
        levels = [StoredLevel(array, self.axes, members) for array in self.arrays]
        if len(levels) > 1:
            return levels
        # At most 64 MiB with 4 bytes for each value, which is read in a moment.
        return np.asarray(levels[0]) if levels[0].size <= _READ_AT_ONCE else levels[0]

    def layer_options(
        self, location: OutputLocation, output: str, manifest: Manifest
    ) -> LayerOptions:
        """Return the attributes that the layers of all outputs have in common."""
        spatial = [index for index, axis in enumerate(self.axes) if axis != "c"]
        return {
            "name": f"{_strip_ending(location.name)} {output}",
            "multiscale": len(self.arrays) > 1,
            "scale": [self.scale[index] for index in spatial],
            "translate": [self.translation[index] for index in spatial],
            "units": [known_unit(self.units[index]) for index in spatial],
            "axis_labels": [self.axes[index] for index in spatial],
            "metadata": {MANIFEST_KEY: manifest},
        }


def _strip_ending(name: str) -> str:
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending) or name


class StoredLevel(LazyLevel):
    """One level of a stored pyramid, with channels last.

    Parameters
    ----------
    array : zarr.Array
    axes : str
        Axes of the array, one letter for each dimension.
    members : tuple of int or None
        Channels of the array that become the last axis; a channel may be named twice.
    """

    def __init__(
        self, array: zarr.Array[Any], axes: str, members: tuple[int, ...] | None = None
    ) -> None:
        self._array = array
        self._axes = axes
        self._members = members
        lengths = dict(zip(axes, array.shape, strict=True))
        channels = () if members is None else (len(members),)
        super().__init__((*(lengths[axis] for axis in self._spatial_axes), *channels))

    @property
    def _spatial_axes(self) -> str:
        return self._axes.replace("c", "")

    @property
    def dtype(self) -> ValueType:
        """Type of the values."""
        dtype: ValueType = self._array.dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of the stored chunks: napari's histogram reads along them."""
        stored = dict(zip(self._axes, self._array.chunks, strict=True))
        lengths = [stored[axis] for axis in self._spatial_axes]
        if self._members is not None:
            lengths.append(len(self._members))
        shown = zip(lengths, self._parts, strict=True)
        return tuple(length for length, part in shown if isinstance(part, range))

    def _read_parts(self, parts: tuple[Part, ...]) -> Samples:
        spatial = self._spatial_axes
        wanted = dict(zip(spatial, map(_to_selection, parts), strict=False))
        selection = tuple(wanted.get(axis, slice(None)) for axis in self._axes)
        block: Samples = np.asarray(self._array[selection])
        if self._members is None:
            return block
        before = self._axes[: self._axes.index("c")]
        position = sum(isinstance(wanted[axis], slice) for axis in before)
        return _take_channels(block, position, self._members, parts[len(spatial)])


def _take_channels(block: Samples, position: int, members: Sequence[int], part: Part) -> Samples:
    if isinstance(part, int):
        channel: Samples = block.take(members[part], position)
        return channel
    if not part:
        return np.moveaxis(block, position, -1)[..., :0]
    # Graphics cards need the colors of a pixel side by side, so they are rearranged once, here.
    return np.stack([block.take(members[index], position) for index in part], axis=-1)


def _to_selection(part: Part) -> int | slice:
    return part if isinstance(part, int) else slice(part.start, part.stop, part.step)
