"""Running a job at an endpoint from the plugin, without a window."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from endpoint_tools import encoded, scene, serving, until

from napari_pixseg import Endpoint, Parameters, segment
from napari_pixseg.errors import NotAnImage, ParameterError, TooLarge
from napari_pixseg.sources.image import open_image

pytest.importorskip("magicgui")
pytest.importorskip("psygnal")

from napari_pixseg.plugin.remote_job import RemoteJob, segment_remotely


@dataclass
class Heard:
    """What a remote job says."""

    done: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    busy: list = field(default_factory=list)
    stopped: list = field(default_factory=list)

    def ended(self):
        return self.busy[-1:] == [False]


@pytest.fixture
def job():
    """A job, and what is heard of it."""
    running, heard = RemoteJob(), Heard()
    # psygnal keeps plain functions; bound methods of a list it would drop.
    running.done.connect(lambda value: heard.done.append(value))
    running.failed.connect(lambda value: heard.failed.append(value))
    running.busy.connect(lambda value: heard.busy.append(value))
    running.stopped.connect(lambda value: heard.stopped.append(value))
    yield running, heard
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(storage=str(tmp_path_factory.mktemp("remote")), keys=("k",)) as running:
        yield running


@pytest.mark.parametrize(
    "pixels", [scene(1), scene(2, channels=1), scene(3).astype(np.uint16) * 99]
)
def test_the_picture_of_an_endpoint_becomes_a_layer_in_the_images_place(server, job, pixels):
    running, heard = job
    parameters = Parameters(ct=0.5, cs=13, st=3)
    running.run(Endpoint(server.url, "k"), lambda: open_image(pixels), parameters, "cells",
                {"scale": (2.0, 3.0)})  # fmt: skip
    until(heard.ended)
    assert heard.failed == []
    data, options, kind = heard.done[0].make_layer()
    wanted = segment(pixels, ct=0.5, cs=13, st=3).recolored.compute()
    assert np.array_equal(data, wanted if pixels.ndim == 3 else wanted[..., 0])
    assert options == {"scale": (2.0, 3.0), "name": "cells recolored", "rgb": pixels.ndim == 3}
    assert kind == "image"
    assert heard.busy == [True, False]


def test_what_an_endpoint_refuses_is_one_sentence(server, job):
    running, heard = job
    running.run(Endpoint(server.url, "wrong"), lambda: open_image(scene(1)), Parameters(), "a", {})
    until(heard.ended)
    assert heard.done == []
    assert heard.failed == ["The key is not known here; check it, or ask whoever runs this server."]


def test_a_cancelled_job_is_heard_no_more_of(job, monkeypatch):
    running, heard = job
    began = threading.Event()

    def segment_there(self, *_arguments, cancel, **_values):
        from napari_pixseg.errors import Cancelled

        began.set()
        assert cancel.wait(20)
        raise Cancelled("Cancelled.")

    monkeypatch.setattr(Endpoint, "segment", segment_there)
    running.run(Endpoint("http://h"), lambda: open_image(scene(1)), Parameters(), "a", {})
    assert began.wait(20)
    running.cancel()
    until(heard.ended)
    assert (heard.done, heard.failed) == ([], [])
    assert heard.stopped == ["Cancelled."]


@pytest.mark.parametrize(
    "changes",
    [{"denoise": 2}, {"semantics": "imagemagick6"}, {"window": "dtype"}, {"min_size": 3},
     {"background": (1,)}, {"connectivity": 2}],
)  # fmt: skip
def test_parameters_that_no_endpoint_knows_are_refused_before_anything_is_sent(changes):
    with pytest.raises(ParameterError, match=f"not {next(iter(changes))}"):
        segment_remotely(
            Endpoint("http://127.0.0.1:9"), open_image(scene(1)), Parameters(**changes)
        )


def test_images_that_no_answer_can_hold_are_refused_before_anything_is_sent():
    nowhere = Endpoint("http://127.0.0.1:9")
    with pytest.raises(TooLarge, match="planes"):
        segment_remotely(nowhere, open_image(np.zeros((3, 4, 5), np.uint8)), Parameters())
    huge = np.broadcast_to(np.uint8(0), (10_000, 10_000))
    with pytest.raises(TooLarge, match="megapixels"):
        segment_remotely(nowhere, open_image(huge), Parameters())


@pytest.mark.parametrize("content", [b"", b"<html>", encoded(scene(1, (9, 9)))])
def test_an_endpoint_that_gives_back_something_else_is_found_out(monkeypatch, content):
    monkeypatch.setattr(Endpoint, "segment", lambda *_arguments, **_values: content)
    with pytest.raises(NotAnImage, match="gave back"):
        segment_remotely(Endpoint("http://h"), open_image(scene(1)), Parameters())


def test_chosen_channels_are_what_is_sent(monkeypatch):
    pixels, seen = scene(1), []

    def segment_there(self, img, **_values):
        seen.append(img)
        return encoded(np.asarray(img, np.uint8))

    monkeypatch.setattr(Endpoint, "segment", segment_there)
    segment_remotely(
        Endpoint("http://h"), open_image(pixels, "yxc", (2,)), Parameters(channels=(2,))
    )
    assert np.array_equal(seen[0], pixels[..., 2])
