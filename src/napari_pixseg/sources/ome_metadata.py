"""Axes, pixel sizes and units from OME-Zarr metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeGuard

from napari_pixseg.sources.source import Source, axes_of_names

JsonDocument: TypeAlias = Mapping[str, Any]

_LETTER_OF_TYPE = {"channel": "c", "time": "t"}


def with_ome_metadata(opened: Source, multiscale: JsonDocument, level: JsonDocument) -> Source:
    """Return a source with what a multiscale and one of its levels say of it."""
    ndim = opened.array.ndim
    # Before OME-Zarr 0.3 all images had five dimensions in this order, and no list of axes.
    described = multiscale.get("axes") or (["t", "c", "z", "y", "x"] if ndim == 5 else [])
    described = [axis if isinstance(axis, dict) else {"name": axis} for axis in described]
    axes = axes_of_names([_letter_of_axis(axis) for axis in described], ndim) or opened.axes
    if axes is None or len(described) != ndim:
        return replace(opened, axes=axes)
    # NGFF applies the transformations of a level before those of the whole image.
    transforms = [
        *level.get("coordinateTransformations", []),
        *multiscale.get("coordinateTransformations", []),
    ]
    scale, translation = _combine_transforms(transforms, ndim)
    measured = [(i, axis) for i, axis in enumerate(axes) if axis != "c"]
    return replace(
        opened,
        axes=axes,
        scale={axis: scale[i] for i, axis in measured} if scale else {},
        translation={axis: translation[i] for i, axis in measured} if translation else {},
        units={axis: str(described[i]["unit"]) for i, axis in measured if described[i].get("unit")},
    )


def _letter_of_axis(axis: JsonDocument) -> object:
    return _LETTER_OF_TYPE.get(str(axis.get("type")), axis.get("name"))


def _combine_transforms(
    transforms: Sequence[JsonDocument], ndim: int
) -> tuple[list[float], list[float]]:
    """Apply transforms in order; scale and translation are empty where none is usable."""
    scale = [1.0] * ndim
    translation = [0.0] * ndim
    is_scaled = False
    is_moved = False
    for transform in transforms:
        factors = transform.get("scale")
        shifts = transform.get("translation")
        if _is_finite_vector(factors, ndim) and all(factor > 0 for factor in factors):
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            translation = [a * b for a, b in zip(translation, factors, strict=True)]
            is_scaled = True
        elif _is_finite_vector(shifts, ndim):
            translation = [a + b for a, b in zip(translation, shifts, strict=True)]
            is_moved = True
    return scale if is_scaled else [], translation if is_moved else []


def _is_finite_vector(values: object, ndim: int) -> TypeGuard[list[float]]:
    return (
        isinstance(values, list)
        and len(values) == ndim
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )
