"""The controller: counts once, decides often, drops what is stale; without a window and Qt."""

import sys
import threading
import time
from concurrent.futures import Executor, Future

import dask.base
import numpy as np
import pytest
from executor_tools import AtOnce

from napari_pixseg import Manifest, segment
from napari_pixseg.errors import PixsegError
from napari_pixseg.execution import tiling
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin import controller as module
from napari_pixseg.plugin import decision as deciding
from napari_pixseg.plugin.controller import Controller
from napari_pixseg.sources.image import open_image

LONG = 20
KNOBS = {"ct": 3.0, "cs": "Lab", "st": 4.0}
RECOUNTS = {
    "denoise": {"denoise": 1},
    "window": {"window": (0, 100)},
    "channels": {"channels": (2, 0)},
    "one channel": {"channels": 1},
    "axes": {"axes": "zyx"},
}


class OnDemand(Executor):
    """Keeps what is submitted until it is told to run."""

    def __init__(self):
        self.waiting = []

    def submit(self, function, /, *args, **kwargs):
        self.waiting.append(lambda: function(*args, **kwargs))
        return Future()

    def run(self):
        while self.waiting:
            self.waiting.pop(0)()


class Pixels:
    """An array that counts what is read of it, and can be held up."""

    def __init__(self, array):
        self.array, self.reads = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self._lock = threading.Lock()

    def __getitem__(self, key):
        part = self.array[key]
        if part.size:
            with self._lock:
                self.reads += 1
            self.asked.set()
            assert self.gate.wait(LONG)
        return part


class Heard:
    """All that a controller says, in order."""

    def __init__(self, controller):
        self.decisions, self.sentences, self.manifests = [], [], []
        self.parameters, self.steps, self.busy = [], [], []
        controller.decided.connect(self.decisions.append)
        controller.failed.connect(self.sentences.append)
        controller.exported.connect(self.manifests.append)
        controller.parameters_changed.connect(self.parameters.append)
        controller.progressed.connect(self.steps.append)
        controller.busy.connect(self.busy.append)

    @property
    def sentence(self):
        (sentence,) = self.sentences
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert "Traceback" not in sentence
        return sentence


@pytest.fixture
def _small(monkeypatch):
    """Many tiles for images of some 40 pixels."""
    monkeypatch.setattr(tiling, "_SMALLEST_UNIT", 4)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 64)


@pytest.fixture
def prompt():
    """A controller that answers before it returns."""
    controller = Controller(AtOnce(), AtOnce())
    yield controller
    controller.close()


@pytest.fixture
def threaded():
    """A controller with threads of its own."""
    controller = Controller()
    yield controller
    controller.close()


def picture(shape=(40, 48, 3), dtype=np.uint8, seed=0):
    """Patches of a few colors and some noise, so that there are classes."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 6, (-(-shape[0] // 8), -(-shape[1] // 8), *shape[2:])) * 40
    full = np.kron(base, np.ones((8, 8, *(1 for _ in shape[2:])), int))[: shape[0], : shape[1]]
    noisy = full + rng.integers(0, 12, shape)
    return (noisy * (1 if dtype == np.uint8 else 16)).astype(dtype)


def opener(*levels):
    return lambda p: [open_image(level, p.axes, p.channels) for level in levels]


def eventually(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def same(decision, source, **parameters):
    """Whether a decision is what segment() decides."""
    wanted = segment(source, **parameters)
    np.testing.assert_array_equal(decision.classes.table, wanted.table)
    np.testing.assert_array_equal(decision.classes.palette, wanted.palette)
    return decision.table.hash() == wanted.color_table.hash()


# Choosing and turning knobs -----------------------------------------------------


def test_the_controller_needs_neither_napari_nor_qt():
    code = (
        "import sys, napari_pixseg.plugin.controller\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('napari', 'qtpy', 'PySide6')]\n"
        "assert not bad, bad"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)


def test_choosing_an_image_counts_it_once_and_decides(prompt):
    heard, source = Heard(prompt), Pixels(picture())
    prompt.choose(opener(source))
    (decision,) = heard.decisions
    assert same(decision, source.array)
    assert not decision.provisional
    assert prompt.decision is decision
    assert source.reads == 1
    assert heard.busy == [True, False]
    assert heard.steps[-1].done == heard.steps[-1].total == 1
    assert not heard.sentences


@pytest.mark.parametrize("name", KNOBS)
def test_a_knob_decides_anew_without_reading_a_pixel(prompt, name):
    source = Pixels(picture())
    prompt.choose(opener(source))
    heard, source.reads = Heard(prompt), 0
    prompt.set(**{name: KNOBS[name]})
    assert source.reads == 0
    assert len(heard.decisions) == len(heard.parameters) == 1
    assert same(heard.decisions[0], source.array, **{name: KNOBS[name]})
    assert heard.busy == []


def test_setting_what_is_set_already_does_nothing(prompt):
    prompt.choose(opener(picture()))
    heard = Heard(prompt)
    prompt.set(ct=prompt.parameters.ct, cs="YUV")
    assert not heard.decisions
    assert not heard.parameters


def test_knobs_turned_before_an_image_is_chosen_are_used_for_it(prompt):
    heard, array = Heard(prompt), picture()
    prompt.set(**KNOBS)
    assert not heard.decisions
    prompt.choose(opener(array))
    assert same(heard.decisions[0], array, **KNOBS)


def test_of_many_wishes_only_the_last_is_answered():
    decider = OnDemand()
    controller = Controller(AtOnce(), decider)
    heard, array = Heard(controller), picture()
    controller.choose(opener(array))
    for value in (2.0, 3.0, 4.0, 5.0):
        controller.set(st=value)
    decider.run()
    (decision,) = heard.decisions
    assert same(decision, array, st=5.0)


def test_a_decision_overtaken_by_other_wishes_is_dropped(threaded, monkeypatch):
    heard, array = Heard(threaded), picture()
    threaded.choose(opener(array))
    eventually(lambda: heard.decisions)
    started, go = threading.Event(), threading.Event()

    def slowly(table, parameters, **options):
        started.set()
        assert go.wait(LONG)
        asked.append(parameters.st)
        return original(table, parameters, **options)

    original, asked = deciding.decide, []
    monkeypatch.setattr(deciding, "decide", slowly)
    threaded.set(st=2.0)
    assert started.wait(LONG)
    for value in np.linspace(3, 9, 50):
        threaded.set(st=float(value))
    go.set()
    eventually(lambda: len(heard.decisions) == 2)
    assert asked == [2.0, 9.0]
    assert same(heard.decisions[-1], array, st=9.0)
    assert threaded.decision is heard.decisions[-1]


# First looks ----------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_a_coarse_level_gives_a_provisional_answer_and_level_0_the_final_one(prompt):
    heard, array = Heard(prompt), picture()
    fine, coarse = Pixels(array), Pixels(array[::4, ::4].copy())
    prompt.choose(opener(fine, coarse))
    first, last = heard.decisions
    assert first.provisional
    assert same(first, coarse.array)
    assert not last.provisional
    assert same(last, array)


@pytest.mark.usefixtures("_small")
def test_some_tiles_give_a_provisional_answer_where_there_is_one_level(prompt):
    heard, array = Heard(prompt), picture()
    prompt.choose(opener(array))
    first, last = heard.decisions
    assert first.provisional
    assert 0 < first.table.pixels < last.table.pixels == 40 * 48
    assert not last.provisional
    assert same(last, array)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_samples_whose_range_must_be_measured_are_not_judged_by_some_tiles(prompt, dtype):
    heard, array = Heard(prompt), picture(dtype=dtype)
    prompt.choose(opener(array))
    (decision,) = heard.decisions
    assert not decision.provisional
    assert same(decision, array)


@pytest.mark.usefixtures("_small")
def test_a_coarse_level_of_16_bits_comes_with_its_own_window(prompt):
    heard, array = Heard(prompt), picture(dtype=np.uint16)
    prompt.choose(opener(array, array[::2, ::2]))
    first, last = heard.decisions
    assert same(first, array[::2, ::2])
    assert same(last, array)
    assert first.encoding.window is not None


def test_an_image_of_few_tiles_is_counted_at_once(prompt):
    heard, array = Heard(prompt), picture()
    prompt.choose(opener(array, array[::2, ::2]))
    assert [decision.provisional for decision in heard.decisions] == [False]


@pytest.mark.usefixtures("_small")
def test_knobs_turned_while_level_0_is_counted_are_answered_provisionally(threaded):
    heard, array = Heard(threaded), picture()
    fine, coarse = Pixels(array), Pixels(array[::4, ::4].copy())
    fine.gate.clear()
    threaded.choose(opener(fine, coarse))
    eventually(lambda: len(heard.decisions) == 1)
    threaded.set(st=5.0)
    eventually(lambda: len(heard.decisions) == 2)
    assert heard.decisions[-1].provisional
    assert same(heard.decisions[-1], coarse.array, st=5.0)
    fine.gate.set()
    eventually(lambda: len(heard.decisions) == 3)
    assert same(heard.decisions[-1], array, st=5.0)
    assert not heard.decisions[-1].provisional


# Other images ---------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_another_image_cancels_the_first_and_never_shows_it(threaded):
    heard, first, second = Heard(threaded), Pixels(picture()), picture((24, 16, 3), seed=1)
    first.gate.clear()
    threaded.choose(opener(first))
    assert first.asked.wait(LONG)
    threaded.choose(opener(second))
    first.gate.set()
    eventually(lambda: heard.decisions and not heard.decisions[-1].provisional)
    assert {d.table.pixels for d in heard.decisions if not d.provisional} == {24 * 16}
    assert all(d.table.pixels <= 24 * 16 for d in heard.decisions)
    assert same(heard.decisions[-1], second)
    # Tiles that had begun may finish; of 30 most have not.
    assert first.reads < 15
    assert not heard.sentences


def test_a_forgotten_image_is_not_decided(prompt):
    prompt.choose(opener(picture()))
    prompt.forget()
    heard = Heard(prompt)
    prompt.set(ct=7)
    assert not heard.decisions
    assert prompt.segmentation is None
    assert prompt.decision is None


def test_an_image_that_cannot_be_opened_gives_one_sentence(prompt):
    heard = Heard(prompt)
    prompt.choose(opener("/nothing/here.png"))
    assert "/nothing/here.png" in heard.sentence
    assert not heard.decisions
    assert heard.busy == [True, False]


def test_an_image_that_cannot_be_read_gives_one_sentence(prompt):
    class Broken(Pixels):
        def __getitem__(self, key):
            raise OSError("the disk is gone")

    heard = Heard(prompt)
    prompt.choose(opener(Broken(picture())))
    assert "the disk is gone" in heard.sentence
    assert heard.busy == [True, False]


def test_an_image_without_data_gives_one_sentence(prompt):
    heard = Heard(prompt)
    prompt.choose(opener(np.full((8, 8), np.nan, np.float32)))
    assert "No pixel has data" in heard.sentence


@pytest.mark.usefixtures("_small")
def test_counting_can_be_cancelled(threaded):
    heard, source = Heard(threaded), Pixels(picture(dtype=np.uint16))
    source.gate.clear()
    threaded.choose(opener(source))
    assert source.asked.wait(LONG)
    threaded.cancel()
    source.gate.set()
    eventually(lambda: heard.busy == [True, False])
    assert not heard.decisions
    assert not heard.sentences
    assert source.reads < 15


@pytest.mark.usefixtures("_small")
def test_counting_can_be_cancelled_while_an_export_waits_behind_it(threaded, tmp_path):
    heard, source = Heard(threaded), Pixels(picture(dtype=np.uint16))
    source.gate.clear()
    threaded.choose(opener(source))
    assert source.asked.wait(LONG)
    threaded.export(str(tmp_path / "out.ome.zarr"), ("classes",))
    threaded.cancel()
    source.gate.set()
    eventually(lambda: len(heard.busy) == 4)
    assert not heard.decisions
    assert not heard.manifests


@pytest.mark.usefixtures("_small")
def test_a_knob_turned_after_a_cancel_counts_again(threaded):
    heard, source = Heard(threaded), Pixels(picture(dtype=np.uint16))
    source.gate.clear()
    threaded.choose(opener(source))
    assert source.asked.wait(LONG)
    threaded.cancel()
    source.gate.set()
    eventually(lambda: heard.busy == [True, False])
    threaded.set(st=3.0)
    time.sleep(0.5)
    assert heard.busy[2:3] == [True]
    eventually(lambda: heard.decisions)


@pytest.mark.usefixtures("_small")
def test_what_was_known_at_a_cancel_stays_and_is_provisional(threaded):
    heard, array = Heard(threaded), picture()
    fine, coarse = Pixels(array), Pixels(array[::4, ::4].copy())
    fine.gate.clear()
    threaded.choose(opener(fine, coarse))
    eventually(lambda: len(heard.decisions) == 1 and fine.asked.is_set())
    assert threaded.is_counting
    threaded.cancel()
    assert not threaded.is_counting
    fine.gate.set()
    eventually(lambda: heard.busy == [True, False])
    reads = fine.reads
    threaded.set(st=5.0)
    eventually(lambda: len(heard.decisions) == 2)
    assert threaded.decision is heard.decisions[-1]
    assert heard.decisions[-1].provisional
    assert same(heard.decisions[-1], coarse.array, st=5.0)
    assert fine.reads == reads


# What needs the pixels again ---------------------------------------------------------


@pytest.mark.parametrize("changes", RECOUNTS.values(), ids=RECOUNTS)
def test_what_changes_the_colors_counts_again(prompt, changes):
    source = Pixels(picture(dtype=np.uint16))
    prompt.choose(opener(source))
    heard, source.reads = Heard(prompt), 0
    prompt.set(**changes)
    assert source.reads
    assert same(heard.decisions[-1], source.array, **changes)
    assert not heard.decisions[-1].provisional


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_imagemagick6_counts_16_bits_again_for_another_space_and_bytes_not(prompt, dtype):
    source = Pixels(picture(dtype=dtype))
    prompt.choose(opener(source))
    heard, source.reads = Heard(prompt), 0
    prompt.set(semantics="imagemagick6")
    assert bool(source.reads) == (dtype == np.uint16)
    source.reads = 0
    prompt.set(cs="Lab")
    assert bool(source.reads) == (dtype == np.uint16)
    source.reads = 0
    prompt.set(st=3.0)
    assert source.reads == 0
    assert same(heard.decisions[-1], source.array, semantics="imagemagick6", cs="Lab", st=3.0)
    prompt.set(semantics="documented")
    assert bool(source.reads) == (dtype == np.uint16)
    assert same(heard.decisions[-1], source.array, cs="Lab", st=3.0)


# Refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"ct": 101}, {"st": 0}, {"cs": 23}, {"denoise": -1}, {"window": (2, 1)}, {"what": 1}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_bad_value_gives_one_sentence_and_changes_nothing(prompt, changes):
    prompt.choose(opener(picture()))
    before, decision, heard = prompt.parameters, prompt.decision, Heard(prompt)
    prompt.set(**changes)
    assert next(iter(changes)) in heard.sentence
    assert prompt.parameters == before
    assert prompt.decision is decision
    assert not heard.decisions
    assert not heard.parameters


@pytest.mark.parametrize(
    "changes", [{"connectivity": 3}, {"channels": (0, 9)}, {"window": ((0, 1), (0, 2))}], ids=str
)
def test_a_value_that_does_not_fit_the_image_gives_one_sentence_and_can_be_mended(prompt, changes):
    array = picture()
    prompt.choose(opener(array))
    heard = Heard(prompt)
    prompt.set(**changes)
    assert heard.sentence
    assert not heard.decisions
    prompt.set(**dict.fromkeys(changes) if "connectivity" not in changes else {"connectivity": 1})
    assert same(heard.decisions[-1], array)
    assert len(heard.sentences) == 1


def test_knobs_without_a_class_give_one_sentence_and_the_next_is_answered(prompt):
    array = picture()
    prompt.choose(opener(array))
    heard = Heard(prompt)
    prompt.set(ct=99.0)
    assert "No class reaches" in heard.sentence
    prompt.set(ct=1.5)
    assert same(heard.decisions[-1], array, ct=1.5)


def test_what_goes_wrong_while_deciding_is_told_in_one_sentence(threaded, monkeypatch):
    threaded.choose(opener(picture()))
    eventually(lambda: threaded.decision)

    def broken(*_args, **_options):
        raise MemoryError("no memory")

    monkeypatch.setattr(deciding, "decide", broken)
    heard = Heard(threaded)
    threaded.set(st=3.0)
    time.sleep(0.3)
    assert "no memory" in heard.sentence


# Manifests ---------------------------------------------------------------------------


def test_a_manifest_restores_all_parameters(prompt, tmp_path):
    array = picture((6, 40, 48), np.uint16)
    wanted = {
        "ct": 0.5, "cs": "OHTA", "st": 2.5, "denoise": 2, "window": ((3.0, 3000.0),), "axes": "tyx",
        "connectivity": 2, "background": (1,), "min_size": 5,
    }  # fmt: skip
    segment(array, **wanted).export(tmp_path / "out.ome.zarr")
    prompt.choose(opener(array))
    heard = Heard(prompt)
    prompt.load(str(tmp_path / "out.ome.zarr"))
    assert prompt.parameters == Parameters(**wanted)
    assert heard.parameters == [Parameters(**wanted)]
    assert same(heard.decisions[-1], array, **wanted)
    assert not heard.sentences


def test_parameters_alone_restore_without_an_image(prompt):
    heard = Heard(prompt)
    prompt.restore(Parameters(ct=9, cs=3))
    assert prompt.parameters.ct == 9
    assert len(heard.parameters) == 1


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"status": 200, "id": "1"}'])
def test_what_is_no_manifest_gives_one_sentence(prompt, tmp_path, content):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    heard, before = Heard(prompt), prompt.parameters
    prompt.load(str(path))
    assert heard.sentence
    assert prompt.parameters == before


# Running -----------------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_an_export_writes_and_tells_its_manifest(prompt, tmp_path):
    source = Pixels(picture())
    prompt.set(**KNOBS)
    prompt.choose(opener(source))
    heard, path = Heard(prompt), tmp_path / "out.ome.zarr"
    prompt.export(str(path), ("classes", "regions", "recolored"))
    (manifest,) = heard.manifests
    assert manifest == Manifest.load(path)
    assert manifest.parameters == Parameters(**KNOBS)
    assert manifest.details["outputs"] == ["classes", "regions", "recolored"]
    assert heard.steps[-1].done == heard.steps[-1].total > 1
    assert heard.busy == [True, False]
    assert not heard.sentences


def test_an_export_before_an_image_is_chosen_gives_one_sentence(prompt, tmp_path):
    heard = Heard(prompt)
    prompt.export(str(tmp_path / "out.ome.zarr"), ("classes",))
    assert "no image" in heard.sentence
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_refused_in_one_sentence_and_replaced_on_request(prompt, tmp_path):
    prompt.choose(opener(picture()))
    heard, path = Heard(prompt), str(tmp_path / "out.ome.zarr")
    prompt.export(path, ("classes",))
    prompt.export(path, ("classes",))
    assert "exists already" in heard.sentence
    prompt.export(path, ("classes",), overwrite=True)
    assert len(heard.manifests) == 2
    assert heard.manifests[1] == Manifest.load(path)


@pytest.mark.usefixtures("_small")
def test_a_cancelled_export_stops_at_a_tile_and_leaves_no_manifest(threaded, tmp_path):
    threaded.choose(opener(picture()))
    eventually(lambda: threaded.decision and not threaded.decision.provisional)
    heard, path = Heard(threaded), tmp_path / "out.ome.zarr"

    def stop(step):
        if step.done == 3:
            threaded.cancel()

    threaded.progressed.connect(stop)
    threaded.export(str(path), ("classes",))
    eventually(lambda: heard.busy == [True, False])
    assert not heard.manifests
    assert not heard.sentences
    assert heard.steps[-1].done < heard.steps[-1].total
    with pytest.raises(PixsegError):
        Manifest.load(path)
    threaded.progressed.disconnect(stop)
    threaded.export(str(path), ("classes",), overwrite=True)
    eventually(lambda: heard.manifests)


def test_an_export_that_fails_unforeseen_gives_one_sentence(prompt, tmp_path, monkeypatch):
    prompt.choose(opener(picture()))

    def broken(*_args, **_options):
        raise RuntimeError("the moon is blue")

    monkeypatch.setattr(module.Segmentation, "export", broken)
    heard = Heard(prompt)
    prompt.export(str(tmp_path / "out.ome.zarr"), ("classes",))
    assert "the moon is blue" in heard.sentence
    assert heard.busy == [True, False]


@pytest.mark.parametrize("blob", [True, False])
def test_a_blob_is_the_picture_file_alone(prompt, tmp_path, blob):
    array = picture()
    prompt.choose(opener(array))
    heard, path = Heard(prompt), tmp_path / "out.png"
    prompt.export(str(path), ("classes", "regions", "recolored"), blob=blob)
    assert len(heard.manifests) == 1
    assert (len(list(tmp_path.iterdir())) == 1) == blob
    from PIL import Image

    written = Image.open(path).convert("RGB")
    np.testing.assert_array_equal(written, segment(array).recolored.compute())


def test_a_blob_that_is_no_picture_gives_one_sentence(prompt, tmp_path):
    prompt.choose(opener(picture()))
    heard = Heard(prompt)
    prompt.export(str(tmp_path / "out.ome.zarr"), ("recolored",), blob=True)
    assert "blob" in heard.sentence
    assert not list(tmp_path.iterdir())


def test_results_are_computed_in_memory(prompt):
    array, results = picture(), []
    prompt.choose(opener(array))
    prompt.set(st=3.0)
    prompt.computed.connect(results.append)
    prompt.compute(("classes", "regions", "recolored"))
    (made,) = results
    wanted = segment(array, st=3.0)
    for name, data in made.outputs.items():
        np.testing.assert_array_equal(data, getattr(wanted, name).compute())


# Schedulers --------------------------------------------------------------------------


@pytest.fixture
def distributed():
    """Dask's distributed; whatever clients a test leaves behind are put out of the way."""
    package = pytest.importorskip("distributed")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        yield package
    package.client._global_clients.clear()
    dask.config.set(scheduler=None)


@pytest.mark.parametrize("address", ["localhost", "nowhere://x:1", "tcp://127.0.0.1:1"])
@pytest.mark.usefixtures("distributed")
def test_an_address_where_no_scheduler_answers_gives_one_sentence(prompt, tmp_path, address):
    prompt.choose(opener(picture()))
    heard = Heard(prompt)
    prompt.export(str(tmp_path / "out.ome.zarr"), ("classes",), scheduler=address)
    assert address in heard.sentence
    assert not heard.manifests
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("distributed")
def test_after_a_bad_address_this_machine_works_on(prompt, tmp_path):
    prompt.choose(opener(picture()))
    prompt.export(str(tmp_path / "out.ome.zarr"), ("classes",), scheduler="nowhere://x:1")
    assert dask.base.get_scheduler() is None


@pytest.fixture
def cluster(distributed):
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(processes=False, **options) as cluster:
        yield cluster


@pytest.mark.filterwarnings("ignore:Sending large graph")
def test_a_scheduler_of_dask_does_the_work(prompt, tmp_path, cluster):
    heard, array = Heard(prompt), picture()
    prompt.choose(opener(array))
    path = str(tmp_path / "out.ome.zarr")
    prompt.export(path, ("classes",), scheduler=cluster.scheduler_address)
    assert not heard.sentences
    assert heard.manifests[0] == Manifest.load(path)


@pytest.mark.filterwarnings("ignore:Sending large graph")
def test_a_scheduler_is_left_alone_after_the_work(prompt, tmp_path, cluster):
    prompt.choose(opener(picture()))
    path = str(tmp_path / "out.ome.zarr")
    prompt.export(path, ("classes",), scheduler=cluster.scheduler_address)
    assert dask.base.get_scheduler() is None
    assert not [key for key in cluster.scheduler.clients if key != "fire-and-forget"]


# The end -----------------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_closing_stops_counting_and_all_threads():
    before = set(threading.enumerate())
    controller = Controller()
    heard, source = Heard(controller), Pixels(picture(dtype=np.uint16))
    source.gate.clear()
    controller.choose(opener(source))
    assert source.asked.wait(LONG)
    controller.close()
    source.gate.set()
    eventually(lambda: not [t for t in threads_since(before) if t.name.startswith("pixseg")])
    assert not heard.decisions
    assert not heard.sentences
    assert source.reads < 15


def test_a_closed_controller_ignores_wishes(tmp_path):
    controller = Controller()
    controller.choose(opener(picture()))
    eventually(lambda: controller.decision)
    controller.close()
    heard = Heard(controller)
    controller.set(st=4.0)
    controller.cancel()
    controller.close()
    assert not heard.decisions


def threads_since(before):
    return set(threading.enumerate()) - before


def test_small_tables_are_decided_before_the_call_returns():
    decider = OnDemand()
    controller = Controller(AtOnce(), decider, at_once=1_000_000)
    heard = Heard(controller)
    controller.choose(opener(picture()))
    controller.set(ct=3.0)
    assert [decision.classes.parameters.ct for decision in heard.decisions] == [1.0, 3.0]
    assert not decider.waiting


def test_large_tables_and_other_threads_leave_decisions_to_the_decider():
    decider = OnDemand()
    small = Controller(AtOnce(), decider, at_once=1)
    small.choose(opener(picture()))
    assert len(decider.waiting) == 1
    patient = Controller(AtOnce(), decider, at_once=1_000_000)
    thread = threading.Thread(target=patient.choose, args=(opener(picture()),))
    thread.start()
    thread.join(LONG)
    assert len(decider.waiting) == 2
