"""Axes, pixel sizes and units from OME-Zarr metadata."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from napari_pixseg.sources.source import Source, axes_of_names

JsonDocument: TypeAlias = Mapping[str, Any]

_LETTER_OF_TYPE = {"channel": "c", "time": "t"}


def with_ome_metadata(opened: Source, multiscale: JsonDocument, level: JsonDocument) -> Source:
    """Return a source with the metadata of a multiscale and of one of its levels."""
    ndim = opened.array.ndim
    described = _described_axes(multiscale, ndim)
    axes = axes_of_names([_letter_of_axis(axis) for axis in described], ndim) or opened.axes
    if axes is None or len(described) != ndim:
        return replace(opened, axes=axes)
    # NGFF applies the transformations of a level before those of the whole image.
    given = [*_list_transforms(level), *_list_transforms(multiscale)]
    place = _combine_transforms(given, ndim)
    measured = [(i, axis) for i, axis in enumerate(axes) if axis != "c"]
    units = {axis: str(described[i]["unit"]) for i, axis in measured if described[i].get("unit")}
    # If the size of a pixel is unknown, the unit says nothing.
    unsized = {axis for i, axis in measured if place.scale[i] is None}
    return replace(
        opened,
        axes=axes,
        scale=_known_lengths(place.scale, measured) if place.is_scaled else {},
        translation=_known_lengths(place.translation, measured) if place.is_moved else {},
        units={axis: unit for axis, unit in units.items() if axis not in unsized},
        notes=(*opened.notes, *place.notes),
    )


def _described_axes(multiscale: JsonDocument, ndim: int) -> list[JsonDocument]:
    systems = multiscale.get("coordinateSystems")
    # OME-Zarr 0.6 describes axes for each system of coordinates; the first is the image's own.
    if isinstance(systems, list) and systems and isinstance(systems[0], dict):
        multiscale = systems[0]
    # Before OME-Zarr 0.3 all images had five dimensions in this order, and no list of axes.
    described = multiscale.get("axes") or (["t", "c", "z", "y", "x"] if ndim == 5 else [])
    return [axis if isinstance(axis, dict) else {"name": axis} for axis in described]


def _letter_of_axis(axis: JsonDocument) -> object:
    return _LETTER_OF_TYPE.get(str(axis.get("type")), axis.get("name"))


def _list_transforms(part: JsonDocument) -> list[JsonDocument]:
    """Return the transformations of a part, those of sequences in their order."""
    found = part.get("coordinateTransformations")
    transforms: list[JsonDocument] = []
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict):
            inside = one.get("transformations")
            nested = {"coordinateTransformations": inside}
            transforms += [one] if inside is None else _list_transforms(nested)
    return transforms


def _known_lengths(
    values: Sequence[float | None], measured: Sequence[tuple[int, str]]
) -> dict[str, float]:
    found = {axis: values[i] for i, axis in measured}
    return {axis: value for axis, value in found.items() if value is not None}


@dataclass
class _Placement:
    """Positions and sizes of pixels, and notes about metadata that could not be understood."""

    scale: list[float | None]
    translation: list[float | None]
    is_scaled: bool = False
    is_moved: bool = False
    notes: tuple[str, ...] = ()


def _combine_transforms(transforms: Sequence[JsonDocument], ndim: int) -> _Placement:
    """Apply transforms in order; None stands for an axis whose value is lost."""
    place = _Placement([1.0] * ndim, [0.0] * ndim)
    for transform in transforms:
        factors, shifts = transform.get("scale"), transform.get("translation")
        if factors is not None:
            known = _check_numbers(factors, ndim, "scale", place, least=0.0)
            place.scale = _pairwise(operator.mul, place.scale, known)
            place.translation = _pairwise(operator.mul, place.translation, known)
            place.is_scaled = place.is_scaled or any(factor is not None for factor in known)
        elif shifts is not None:
            known = _check_numbers(shifts, ndim, "translation", place, least=-math.inf)
            place.translation = _pairwise(operator.add, place.translation, known)
            place.is_moved = place.is_moved or any(shift is not None for shift in known)
    return place


def _pairwise(
    operation: Callable[[float, float], float],
    first: Sequence[float | None],
    second: Sequence[float | None],
) -> list[float | None]:
    pairs = zip(first, second, strict=True)
    return [None if a is None or b is None else operation(a, b) for a, b in pairs]


def _check_numbers(
    given: object, ndim: int, what: str, place: _Placement, least: float
) -> list[float | None]:
    """Return the usable part of a vector, and note the rest."""
    values = given if isinstance(given, list) else []
    if len(values) != ndim:
        place.notes += (
            f"The {what} {json.dumps(given)} of the OME-Zarr metadata has not one number for each "
            f"of the {ndim} axes, and is not used.",
        )
        return [None] * ndim
    known = [float(value) if _is_above(value, least) else None for value in values]
    if None in known:
        place.notes += (
            f"The {what} {json.dumps(given)} of the OME-Zarr metadata is used only where it is a "
            f"{'positive ' if least == 0 else ''}number.",
        )
    return known


def _is_above(value: object, least: float) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > least  # type: ignore[arg-type,operator]
