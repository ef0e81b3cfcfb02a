"""From napari layers to images that can be segmented, and from images to layer data."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layer_types import (
    IMAGES_KEY,
    PATH_KEY,
    ArrayLike,
    LayerData,
    LayerOptions,
)
from napari_pixseg.plugin.layers.image_level import ImageLevel
from napari_pixseg.plugin.layers.preview_level import PreviewLevel, PreviewPixels
from napari_pixseg.plugin.layers.strided_image import StridedImage, virtual_levels
from napari_pixseg.sources.image import Image, open_image
from napari_pixseg.sources.image_choice import Series, StoredImage
from napari_pixseg.sources.open import open_source
from napari_pixseg.sources.read_options import ReadOptions
from napari_pixseg.sources.source import Source

if TYPE_CHECKING:
    from napari.layers import Image as NapariImage
    from napari.layers import Layer

# Attributes and events of a layer that say where its pixels are, and how large.
PLACEMENT = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")

# pint and OME-Zarr name units alike. These names of napari's mean that the unit is unknown.
_NO_UNITS = ("pixel", "dimensionless", "")


@dataclass(frozen=True)
class LayerSnapshot:
    """Facts about an Image layer that segmenting needs, read once on the window's thread."""

    name: str
    data: tuple[ArrayLike, ...]
    ndim: int
    rgb: bool
    axis_labels: tuple[str, ...]
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]
    images: tuple[Image, ...]

    @classmethod
    def of(cls, layer: NapariImage) -> LayerSnapshot:
        """Read a napari Image layer."""
        return cls(
            name=layer.name,
            data=tuple(layer.data) if layer.multiscale else (layer.data,),
            ndim=layer.ndim,
            rgb=layer.rgb,
            axis_labels=tuple(str(label) for label in getattr(layer, "axis_labels", ())),
            scale=tuple(float(size) for size in layer.scale),
            translate=tuple(float(start) for start in layer.translate),
            units=tuple(_unit_names(layer)),
            images=_opened_images(layer),
        )

    def place(self, image: Image) -> Image:
        """Return an image of this layer with the layer's own scale, position and units."""
        source = image.source
        axes = image.own_axes
        scale = dict(zip(axes, self.scale, strict=False))
        start = dict(zip(axes, self.translate, strict=False))
        # "pixel" may stand for a unit that napari does not know: the file's own is kept.
        units = {axis: name for axis, name in zip(axes, self.units, strict=False) if name}
        placed = replace(
            source,
            scale={**source.scale, **scale},
            translation={**source.translation, **start},
            units={**source.units, **units},
        )
        return replace(image, source=placed)


@dataclass(frozen=True)
class ImageListing:
    """The images of a file or store.

    Attributes
    ----------
    layer : napari.layers.Image
        Which was opened from it.
    taken : int, str or None
        What chooses the image that the layer shows; None where napari opened the file.
    images : sequence of StoredImage
        All of them, as far as they are listed.
    """

    layer: NapariImage
    taken: Series | None
    images: Sequence[StoredImage]

    @classmethod
    def of(cls, layer: NapariImage) -> ImageListing | None:
        """Find out what the file of a layer holds; None where there is no file, or one image."""
        source = source_of_layer(layer)
        taken = None if source is None else source.series
        path = path_of_layer(layer)
        try:
            if source is None and path is not None and os.path.exists(path):
                source = open_source(path)
            images = [] if source is None or source.list_images is None else source.list_images()
        # Other readers of napari know more formats.
        except PixsegError:
            return None
        return cls(layer, taken, images) if len(images) > 1 else None


def source_of_layer(layer: NapariImage | None) -> Source | None:
    """Return the source at full resolution of a layer that was opened here; None for others."""
    images = () if layer is None else layer.metadata.get(IMAGES_KEY, ())
    return images[0].source if images else None


def path_of_layer(layer: NapariImage) -> str | None:
    """Return the path or URL that a layer was opened from, here or by another reader."""
    path = layer.metadata.get(PATH_KEY) or layer.source.path
    return str(path) if path else None


def images_of_layer(layer: LayerSnapshot, parameters: Parameters) -> list[Image]:
    """Open the data of a napari Image layer, with all its levels.

    Parameters
    ----------
    layer : LayerSnapshot
    parameters : Parameters
        Only axes and channels matter here, if the user has chosen them.

    Returns
    -------
    list of Image
        Fine to coarse.

    Raises
    ------
    NotAnImage, ParameterError
    """
    # Images that were opened for this layer have more than its data: addresses and notes.
    if layer.images:
        opened = list(layer.images)
        if parameters.axes is not None or parameters.channels is not None:
            sources = [image.source for image in layer.images]
            chosen = parameters.axes, parameters.channels
            opened = [open_image(source, *chosen) for source in sources]
        # The user may have given the layer another pixel size than the file has.
        return [layer.place(opened[0]), *opened[1:]]
    axes = parameters.axes or axes_of_layer(layer)
    sources = [_make_source(layer, level, axes) for level in layer.data]
    return [open_image(source, axes, parameters.channels) for source in sources]


def _opened_images(layer: NapariImage) -> tuple[Image, ...]:
    """Return the images that a layer was opened with, unless its data was replaced since."""
    data = list(layer.data) if layer.multiscale else [layer.data]
    if not all(isinstance(level, ImageLevel) for level in data):
        return ()
    return tuple(layer.metadata.get(IMAGES_KEY, ()))


def axes_of_layer(layer: LayerSnapshot) -> str:
    """Return a layer's axes, from its axis labels or else from their number."""
    ndim = layer.ndim
    # The first letter suffices, so "time" and "Z" are understood, too.
    labels = [label.lower()[:1] for label in layer.axis_labels]
    known = len(labels) == ndim and set(labels) <= set("tzyx") and len(set(labels)) == ndim
    if known and {"y", "x"} <= set(labels):
        axes = "".join(labels)
    elif 2 <= ndim <= 4:
        axes = "tzyx"[-ndim:]
    else:
        raise NotAnImage(
            f"The layer {layer.name!r} has {ndim} dimensions, but only two to four (t, z, y, x) "
            "can be segmented; open its file by its path instead, or slice the layer first."
        )
    return axes + "c" if layer.rgb else axes


def _make_source(layer: LayerSnapshot, data: ArrayLike, axes: str) -> Source:
    opened = open_source(data)
    known = dict(zip(axes.replace("c", ""), range(layer.ndim), strict=False))
    return replace(
        opened,
        axes=axes,
        scale={axis: layer.scale[i] for axis, i in known.items()},
        translation={axis: layer.translate[i] for axis, i in known.items()},
        units={axis: name for axis, name in zip(known, layer.units, strict=False) if name},
        alpha_last=False,
        name=layer.name,
        notes=(),
    )


def _unit_names(layer: NapariImage) -> list[str]:
    names = [str(unit) for unit in getattr(layer, "units", None) or ()]
    return ["" if name in _NO_UNITS else name for name in names]


def placement_of(layer: Layer) -> LayerOptions:
    """Return the attributes that put another layer in the same place as this one."""
    return {name: getattr(layer, name) for name in PLACEMENT if hasattr(layer, name)}


def levels_of(images: Sequence[Image]) -> list[StridedImage]:
    """Return the levels to show: the stored ones, and virtual ones if the coarsest is large."""
    finest = math.prod(images[0].shape[-2:])
    sizes = [math.sqrt(finest / math.prod(image.shape[-2:])) for image in images]
    stored = zip(images[:-1], sizes[:-1], strict=True)
    levels = [StridedImage(image, reduction=size) for image, size in stored]
    return [*levels, *virtual_levels(images[-1], sizes[-1])]


def preview_levels(
    layer: LayerSnapshot, images: Sequence[Image], pixels: PreviewPixels
) -> list[PreviewLevel]:
    """Return the data of a preview, with the same dimensions in the same order as a layer.

    Parameters
    ----------
    layer : LayerSnapshot
    images : sequence of Image
        All levels, from :func:`images_of_layer`.
    pixels : PreviewPixels
    """
    # napari counts channels among the dimensions, unless the layer is RGB or was opened here.
    has_channels = not layer.rgb and not layer.images
    axes = images[0].axes if has_channels else images[0].own_axes
    return [PreviewLevel(level, pixels, axes) for level in levels_of(images)]


def image_layer_of_path(path: str, series: Series | None = None) -> LayerData:
    """Open a path or URL lazily as layer data for napari.

    Parameters
    ----------
    path : str
    series : int or str, optional
        Number or name of one of several images in it.

    Returns
    -------
    LayerData
        An image whose pixels are read when they are shown.

    Raises
    ------
    InputNotFound, NotAnImage, ParameterError
    """
    images = images_of_path(path, series)
    first = images[0]
    levels = [ImageLevel(level) for level in levels_of(images)]
    axes = first.own_axes
    source = first.source
    options: LayerOptions = {
        "name": source.name,
        "rgb": not first.gray,
        "multiscale": len(levels) > 1,
        "axis_labels": tuple(axes),
        "scale": [source.scale.get(axis, 1.0) for axis in axes],
        "translate": [source.translation.get(axis, 0.0) for axis in axes],
        "units": [known_unit(source.units.get(axis)) for axis in axes],
        "metadata": {IMAGES_KEY: images, PATH_KEY: path},
    }
    if first.dtype.kind in "ui" and first.dtype.itemsize <= 2:
        # Without limits napari would read the data to find some.
        limits = np.iinfo(first.dtype)
        options["contrast_limits"] = (int(limits.min), int(limits.max))
    return (levels if len(levels) > 1 else levels[0]), options, "image"


def images_of_path(path: str, series: Series | None = None) -> list[Image]:
    """Open an image and its stored coarser levels, fine to coarse.

    Raises
    ------
    InputNotFound, NotAnImage, ParameterError
    """
    first = open_image(path, options=ReadOptions(series=series))
    open_coarser = first.source.open_coarser
    sources = [] if open_coarser is None else open_coarser()
    return [first, *(open_image(source, first.axes) for source in sources)]


def known_unit(name: str | None) -> str:
    """Return a unit if napari knows it, else "pixel"; napari refuses unknown units."""
    if name is None:
        return "pixel"
    # pint is slow to load, and only layers from files need it.
    import pint

    try:
        pint.Unit(name)
    # pint's parser may raise any error.
    except Exception:  # noqa: BLE001
        return "pixel"
    return name
