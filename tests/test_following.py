"""What a user chose stays with what it was chosen for: a background with its pixels, a result with
its layer's scale."""

from dataclasses import replace

import numpy as np
import pytest
from executor_tools import AtOnce
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.algorithm.classes import decide
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.controller import Controller
from napari_pixseg.plugin.decision import Decision
from napari_pixseg.sources.image import open_image

RANDOM = np.random.default_rng(3)
# Four gray levels with some noise, of very different numbers of pixels.
LEVELS = np.repeat([10, 80, 150, 230], [900, 300, 180, 120]) + RANDOM.integers(0, 12, 1500)
PICTURE = np.stack([LEVELS.reshape(30, 50)] * 3, -1).astype(np.uint8)


class Counted:
    """An array that counts how often it is read."""

    def __init__(self, array):
        self.array, self.reads = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        part = self.array[key]
        self.reads += bool(part.size)
        return part


@pytest.fixture
def controller():
    controller = Controller(AtOnce(), AtOnce())
    controller.sentences = []
    controller.failed.connect(controller.sentences.append)
    yield controller
    controller.close()


def choose(controller, pixels):
    controller.choose(lambda _parameters: [open_image(pixels, "yxc")])


def pixels_of(controller, picture, numbers):
    """Which pixels of a picture have a class of these numbers."""
    classes = np.asarray(controller.segmentation.classes)
    assert classes.shape == picture.shape[:2]
    return np.isin(classes, numbers)


# A background ------------------------------------------------------------------


def decision_of(picture, **parameters):
    segmentation = segment(picture, **parameters)
    table = segmentation.color_table
    return Decision(segmentation.decision, table, Encoding(), False)


@given(seed=st.integers(0, 999), ct=st.sampled_from([0, 1, 2]), smooth=st.sampled_from([0.5, 2, 8]))
def test_a_background_goes_to_the_classes_that_hold_most_of_its_pixels(seed, ct, smooth):
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (6, 6, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    before = decision_of(picture, ct=0, st=0.1, cs="sRGB", background=(1, 2))
    after = decision_of(picture, ct=ct, st=smooth, cs="YUV", background=(1, 2))
    found = after.with_background_of(before).classes.parameters.background
    old = np.asarray(segment(picture, ct=0, st=0.1, cs="sRGB").classes)
    new = np.asarray(segment(picture, ct=ct, st=smooth, cs="YUV").classes)
    expected = {np.bincount(new[old == number]).argmax() for number in (1, 2)}
    assert found == tuple(sorted(expected))


def test_a_background_stays_with_its_pixels_while_st_changes(controller):
    choose(controller, PICTURE)
    dark = int(np.asarray(controller.segmentation.classes)[0, 0])
    controller.set(background=(dark,))
    for smooth in (0.2, 1.0, 6.0):
        controller.set(st=smooth, ct=0)
        assert pixels_of(controller, PICTURE, controller.parameters.background)[0, 0]
    assert controller.sentences == []


def test_a_background_stays_with_its_colors_in_another_image(controller):
    choose(controller, PICTURE)
    controller.set(st=0.5, ct=0)
    number = int(np.asarray(controller.segmentation.classes)[-1, -1])
    controller.set(background=(number,))
    brighter = np.concatenate([PICTURE, np.full((40, 50, 3), 235, np.uint8)])
    choose(controller, brighter)
    is_background = pixels_of(controller, brighter, controller.parameters.background)
    assert is_background[-1, -1]
    assert not is_background[0, 0]
    choose(controller, PICTURE[:3])
    assert controller.parameters.background is None


def test_a_number_that_is_no_class_is_refused_with_those_there_are(controller):
    choose(controller, PICTURE)
    count = len(controller.decision.classes)
    controller.set(background=(count + 1,))
    (sentence,) = controller.sentences
    assert f"background = {count + 1}" in sentence
    assert f"1 to {count}" in sentence
    assert controller.parameters.background is None


def test_a_background_that_is_chosen_with_other_classes_is_theirs(controller):
    choose(controller, PICTURE)
    controller.set(background=(1,))
    controller.restore(controller.parameters.replace(st=0.5, ct=0, background=(2,)))
    assert controller.parameters.background == (2,)


def test_classes_do_not_depend_on_the_background():
    table = segment(PICTURE).color_table
    one, other = (decide(table, Parameters(background=chosen)) for chosen in (None, (1,)))
    assert np.array_equal(one.color_classes, other.color_classes)


# A scale -----------------------------------------------------------------------


def test_another_scale_changes_areas_and_reads_no_pixel_again(controller):
    pixels = Counted(PICTURE)

    def opened(scale):
        image = open_image(pixels, "yxc")
        return replace(
            image, source=replace(image.source, scale=dict(zip("yx", scale, strict=True)))
        )

    controller.choose(lambda _parameters: [opened((1.0, 1.0))])
    before = controller.segmentation
    reads = pixels.reads
    controller.place(lambda _parameters: [opened((2.0, 2.0))], lambda _image: opened((2.0, 2.0)))
    after = controller.segmentation
    assert pixels.reads == reads
    assert after.image.source.scale == {"y": 2.0, "x": 2.0}
    for segmentation, factor in ((before, 1), (after, 4)):
        rows = segmentation.region_table
        assert np.array_equal(rows["physical_area"], factor * rows["area"])
