"""Random and real pictures against the original programs themselves, pixel for pixel.

New pictures and parameters in every run; ``PIXSEG_SOAK=1`` tries forty times as many.
ImageMagick's time grows with pixels times classes squared, which keeps the pictures small.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import skimage.data
from hypothesis import assume, given
from hypothesis import strategies as some
from numpy.typing import NDArray
from reference_tools import (
    TooManyClusters,
    graphicsmagick_available,
    graphicsmagick_segment,
    imagemagick_available,
    imagemagick_segment,
    imagemagick_version,
)

from napari_pixseg import Segmentation, segment
from napari_pixseg.algorithm.scale_space import analyze_histogram
from napari_pixseg.errors import ClassError
from napari_pixseg.parameters import ColorSpace

needs_imagemagick = pytest.mark.skipif(
    not imagemagick_available(),
    reason="NOT COMPARED WITH IMAGEMAGICK: its library (6.x, Q16) is missing; try `make tools`",
)
needs_graphicsmagick = pytest.mark.skipif(
    not graphicsmagick_available(),
    reason="NOT COMPARED WITH GRAPHICSMAGICK: there is no `gm` here; try `make tools`",
)
PHOTOGRAPHS = {
    "astronaut": cache(skimage.data.astronaut),
    "coffee": cache(skimage.data.coffee),
    "cat": cache(skimage.data.chelsea),
    "tissue": cache(skimage.data.immunohistochemistry),
}
SYNTHETIC = ("noise", "blobs", "ramp", "few colors", "flat")


@dataclass(frozen=True)
class Picture:
    """A picture by its recipe, which is what a failing example shows."""

    kind: str
    mode: str
    dtype: str
    height: int
    width: int
    seed: int

    def pixels(self) -> NDArray[np.uint8 | np.uint16]:
        rng = np.random.default_rng(self.seed)
        make = self._crop if self.kind in PHOTOGRAPHS else self._synthetic
        wide = make(rng).astype(np.float64) * 257
        if self.dtype == "uint8":
            image = np.clip(np.round(wide / 257), 0, 255).astype(np.uint8)
        else:
            fine = wide + rng.integers(-128, 129, wide.shape)
            image = np.clip(np.round(fine), 0, 65535).astype(np.uint16)
        if self.mode == "gray":
            return np.ascontiguousarray(image[..., 1])
        if self.mode == "rgba":
            alpha = rng.integers(0, np.iinfo(image.dtype).max, image.shape[:2], image.dtype)
            return np.concatenate([image, alpha[..., np.newaxis]], axis=-1)
        return image

    def _crop(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        photograph = PHOTOGRAPHS[self.kind]()
        step = int(rng.integers(1, 4))
        top = rng.integers(0, photograph.shape[0] - step * self.height)
        left = rng.integers(0, photograph.shape[1] - step * self.width)
        return photograph[top::step, left::step][: self.height, : self.width]

    def _synthetic(self, rng: np.random.Generator) -> NDArray[np.float64]:
        shape = (self.height, self.width)
        if self.kind == "noise":
            return rng.integers(0, 256, (*shape, 3))
        if self.kind == "ramp":
            start, end = rng.uniform(0, 255, (2, 3))
            steps = np.linspace(0, 1, self.width)[:, np.newaxis]
            return np.broadcast_to(start + steps * (end - start), (*shape, 3))
        colors = rng.integers(0, 256, (1 if self.kind == "flat" else rng.integers(2, 9), 3))
        flat = colors[rng.integers(0, len(colors), shape)]
        return flat + rng.normal(0, rng.uniform(1, 12), (*shape, 3)) * (self.kind == "blobs")


def pictures(modes: tuple[str, ...], dtypes: tuple[str, ...]) -> some.SearchStrategy[Picture]:
    return some.builds(
        Picture,
        kind=some.sampled_from([*PHOTOGRAPHS, *SYNTHETIC]),
        mode=some.sampled_from(modes),
        dtype=some.sampled_from(dtypes),
        height=some.integers(1, 64),
        width=some.integers(8, 64),
        seed=some.integers(0, 2**32 - 1),
    )


every_picture = pictures(("rgb", "gray", "rgba"), ("uint8", "uint16"))
byte_pictures = pictures(("rgb",), ("uint8",))
cluster_thresholds = some.just(0.0) | some.floats(0, 100) | some.floats(100, 10_000)
smoothing_thresholds = some.just(0.0) | some.floats(0.25, 8) | some.floats(8, 255)


def grid_of_a_thousand_colors() -> NDArray[np.uint8]:
    """A picture for which both programs find more than 256 classes."""
    levels = np.arange(10, 250, 24)
    triples = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    repeated = np.repeat(triples, 40, axis=0).reshape(40, 1000, 3)
    noise = np.random.default_rng().normal(0, 2.5, repeated.shape)
    return np.clip(repeated + noise, 0, 255).astype(np.uint8)


def assert_like_imagemagick(
    image: NDArray[np.uint8 | np.uint16], cs: ColorSpace, ct: float, st: float
) -> None:
    ours = segment(image, ct, cs, st, semantics="imagemagick6")
    try:
        theirs = imagemagick_segment(image, cs, ct, st)
    except TooManyClusters:
        with pytest.raises(ClassError, match="more than the 256"):
            ours.decide()
        return
    class_map = ours.classes.compute()
    shades = ours.decision.palette16[class_map].astype(np.int64)
    error = np.abs(shades - theirs.palette[theirs.labels])
    # One XYZ palette color in 262,000 is known to differ by a quantum in the way back to sRGB.
    allowed = 1 if cs == ColorSpace.XYZ else 0
    assert error.max() <= allowed, f"differs from {imagemagick_version()}"
    # Every class has one of their colors; several classes may share one.
    pairs = np.unique(class_map.astype(np.int64) << 32 | theirs.labels)
    assert len(pairs) == len(np.unique(class_map))


@needs_imagemagick
@pytest.mark.parametrize("cs", list(ColorSpace), ids=lambda cs: cs.name)
@given(picture=every_picture, ct=cluster_thresholds, st=smoothing_thresholds)
def test_every_pixel_gets_the_color_that_imagemagick_gives_it(cs, picture, ct, st):
    assert_like_imagemagick(picture.pixels(), cs, ct, st)


@needs_imagemagick
def test_what_has_too_many_classes_for_imagemagick_is_refused():
    image = grid_of_a_thousand_colors()
    with pytest.raises(TooManyClusters):
        imagemagick_segment(image, ColorSpace.sRGB, 0, 1)
    assert_like_imagemagick(image, ColorSpace.sRGB, 0, 1)


def is_comparable(image: NDArray[np.uint8], absolute_st: float) -> bool:
    """Whether `documented` and GraphicsMagick mean the same for every pixel of an sRGB picture.

    They differ on purpose where a channel has no interval (docs/algorithm.md, section 8). And where
    the margins of two boxes overlap, GraphicsMagick's choice depends on the order of the
    pixels; ours, as ImageMagick's, is the first box.
    """
    holders = np.ones(image.shape[:2], np.int64)
    for channel in np.moveaxis(image, -1, 0):
        histogram = np.bincount(channel.ravel(), minlength=256)
        intervals = analyze_histogram(histogram, absolute_st).intervals
        left, right = intervals[:, 0] - 3, intervals[:, 1] + 3
        values = channel[..., np.newaxis].astype(np.int64)
        holders *= ((values >= left) & (values <= right)).sum(axis=-1)
        if not len(intervals):
            return False
    return bool(holders.max() <= 1)


@needs_graphicsmagick
@given(
    picture=byte_pictures,
    ct=some.just(0.0) | some.floats(0.001, 10) | some.floats(10, 100),
    st=some.floats(0.1, 10) | some.floats(10, 255),
)
def test_documented_semantics_make_the_classes_of_graphicsmagick(picture, ct, st):
    image = picture.pixels()
    absolute_st = st * image[..., 0].size / 2**20
    assume(is_comparable(image, absolute_st))
    ours = segment(image, ct, ColorSpace.sRGB, st)
    try:
        theirs = graphicsmagick_segment(image, ct, absolute_st)
    except TooManyClusters:  # which it also says when no class reaches ct
        assert class_count(ours) == 0 or class_count(ours) > 256
        return
    painted = ours.decision.partition.centers[ours.classes.compute().astype(np.intp) - 1]
    np.testing.assert_array_equal(painted, theirs.palette8[theirs.labels])


def class_count(segmentation: Segmentation) -> int:
    """Number of classes, 0 where none reaches ct."""
    try:
        return len(segmentation.decision)
    except ClassError:
        return 0


@needs_graphicsmagick
def test_documented_semantics_answer_where_graphicsmagick_has_too_many_classes():
    image = grid_of_a_thousand_colors()
    with pytest.raises(TooManyClusters):
        graphicsmagick_segment(image, 0, 1)
    assert class_count(segment(image, 0, ColorSpace.sRGB, 2**20 / 40_000)) > 256
