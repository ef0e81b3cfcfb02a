"""Every stored result of the original programs, computed again: by the model and by `segment`.

The files come from ImageMagick 6.9.11-60 (`imagemagick6` semantics) and GraphicsMagick
(`documented` semantics), so that these comparisons need neither program installed.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from reference_tools import GoldenCase, golden_cases

from napari_pixseg import segment
from napari_pixseg.algorithm.classes import Classes, decide
from napari_pixseg.algorithm.color_table import ColorTable, pack_colors
from napari_pixseg.algorithm.colorspaces.convert import forward, to_byte
from napari_pixseg.parameters import ColorSpace, Parameters

IMAGEMAGICK = golden_cases("imagemagick")
GRAPHICSMAGICK = golden_cases("graphicsmagick")
CASES = {case.id: case for case in IMAGEMAGICK + GRAPHICSMAGICK}
SEMANTICS = {"imagemagick": "imagemagick6", "graphicsmagick": "documented"}


@dataclass(frozen=True)
class Answer:
    """Our result for a golden case: the decision, and the class of every pixel (from 1)."""

    decision: Classes
    class_map: NDArray[np.integer]


@cache
def by_model(name: str) -> Answer:
    """The class map from a color table of the whole image, without any engine."""
    case = CASES[name]
    samples = case.image[..., np.newaxis] if case.image.ndim == 2 else case.image[..., :3]
    parameters = Parameters(
        ct=case.ct, cs=ColorSpace(case.cs), st=case.st, semantics=SEMANTICS[case.kind]
    )
    space = None
    if samples.dtype == np.uint16:
        space = parameters.cs
        rgb = np.broadcast_to(samples, (*samples.shape[:2], 3)).reshape(-1, 3)
        samples = to_byte(forward(space, rgb)).reshape(*samples.shape[:2], 3)
    packed = pack_colors(samples)
    table = ColorTable.from_packed(packed, space)
    decision = decide(table, parameters, gray=case.image.ndim == 2)
    return Answer(decision, decision.lookup(table)[packed])


@cache
def by_segment(name: str) -> Answer:
    """The same through the public function."""
    case = CASES[name]
    segmentation = segment(case.image, case.ct, case.cs, case.st, semantics=SEMANTICS[case.kind])
    decision = segmentation.decision
    assert segmentation.palette is decision.palette
    assert segmentation.table is decision.table
    return Answer(decision, segmentation.classes.compute())


def cases(given: list[GoldenCase]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", given, ids=lambda case: case.id)


way = pytest.mark.parametrize("answer", [by_model, by_segment], ids=["model", "segment"])


def test_there_are_golden_cases_of_both_programs_for_every_color_space():
    assert {case.cs for case in IMAGEMAGICK} == {int(space) for space in ColorSpace}
    assert {case.cs for case in GRAPHICSMAGICK} == {ColorSpace.sRGB}
    assert {case.image.dtype.name for case in IMAGEMAGICK} == {"uint8", "uint16"}
    assert {case.image.shape[2:] for case in IMAGEMAGICK} == {(), (3,), (4,)}
    # Refusals are compared live (test_reference_live.py); a stored one would need a test here.
    assert not any(case.error for case in CASES.values())


@way
@cases(IMAGEMAGICK)
def test_every_pixel_has_the_color_that_imagemagick_gave_it(case, answer):
    ours = answer(case.id)
    assert ours.class_map.shape == case.labels.shape
    shades = ours.decision.palette16[ours.class_map]
    np.testing.assert_array_equal(shades, case.palette[case.labels])
    bytes_ = ours.decision.palette[ours.class_map]
    np.testing.assert_array_equal(bytes_, case.palette8[case.labels])


@way
@cases([case for case in IMAGEMAGICK if case.classes is not None])
def test_every_pixel_has_the_class_number_of_imagemagick_plus_one(case, answer):
    np.testing.assert_array_equal(answer(case.id).class_map, case.classes + 1)


@way
@cases([case for case in IMAGEMAGICK if case.centres is not None])
def test_every_class_has_the_center_that_imagemagick_found(case, answer):
    np.testing.assert_array_equal(answer(case.id).decision.table["center"], case.centres)


@way
@cases(GRAPHICSMAGICK)
def test_every_pixel_lies_in_the_class_whose_center_graphicsmagick_painted(case, answer):
    ours = answer(case.id)
    centers = ours.decision.partition.centers[ours.class_map.astype(np.intp) - 1]
    np.testing.assert_array_equal(centers, case.palette8[case.labels])


@way
@cases(GRAPHICSMAGICK)
def test_the_partition_of_every_pixel_is_that_of_graphicsmagick(case, answer):
    """The same equivalence relation, where no two of our classes share a center."""
    ours = answer(case.id)
    assert len(np.unique(ours.decision.partition.centers, axis=0)) == len(ours.decision)
    pairs = np.unique(np.stack([ours.class_map, case.labels], axis=-1).reshape(-1, 2), axis=0)
    assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))
