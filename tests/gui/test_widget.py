"""The widget in a real window of napari, as a user meets it."""

import ctypes
import functools
import gc
import json
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if "pytestqt.plugin" not in sys.modules:
    pytest.skip("needs pytest-qt and napari's fixtures: see `make test`", allow_module_level=True)
if sys.platform.startswith("linux"):
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        pytest.skip("there is no screen: run under xvfb-run", allow_module_level=True)
    if os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "minimal"):
        pytest.skip("Qt's offscreen platform cannot draw napari's canvas", allow_module_level=True)

if sys.version_info < (3, 12):
    # PySide6 6.12.0 drops a reference to None with every call that returns None: after some
    # 100,000 calls Python aborts ("deallocating None"). From 3.12 on None cannot die.
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40

import dask.array as da
import zarr
from PIL import Image as PillowImage
from pydantic.warnings import PydanticDeprecatedSince20

with warnings.catch_warnings():
    # npe2 and napari use what pydantic deprecates.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from napari.layers import Labels
    from napari.utils.notifications import notification_manager

from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox
from skimage.data import coffee

from napari_pixseg import Manifest, segment
from napari_pixseg.execution import tiling
from napari_pixseg.export import heartbeat
from napari_pixseg.export.output_location import LOCK_NAME
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers import strided_image
from napari_pixseg.plugin.sample_data import make_nuclei
from napari_pixseg.plugin.widget.segment_widget import SegmentWidget

# Nothing takes so long, but a machine may have much else to do.
LONG = 30_000
PICTURE = coffee()[100:300, 150:390].copy()
GRAY = PICTURE[..., 0].copy()
STACK = make_nuclei((4, 64, 72), 12)
FILM = np.stack([GRAY[:64, :72], GRAY[64:128, :72], GRAY[:64, 100:172]])


def rgba(picture):
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def stored(array):
    return zarr.create_array({}, data=array, chunks=tuple(min(64, n) for n in array.shape))


# data, options of the layer, axes of the data for segment()
KINDS = {
    "NumPy RGB": (lambda: PICTURE, {"rgb": True}, "yxc"),
    "NumPy gray": (lambda: GRAY, {"scale": (2, 2), "translate": (5, 7)}, "yx"),
    "float": (lambda: GRAY.astype(np.float32) / 7, {}, "yx"),
    "lazy Dask": (lambda: da.from_array(PICTURE, (64, 64, 3)), {"rgb": True}, "yxc"),
    "zarr": (lambda: stored(GRAY), {"contrast_limits": (0, 255)}, "yx"),
    "multiscale": (
        lambda: [PICTURE, PICTURE[::2, ::2], PICTURE[::4, ::4]],
        {"rgb": True, "multiscale": True, "scale": (0.5, 0.5), "units": ("um", "um")},
        "yxc",
    ),
    "3-D stack": (
        lambda: STACK,
        {"scale": (3, 1, 1), "units": ("um",) * 3, "axis_labels": ("z", "y", "x")},
        "zyx",
    ),
    "time": (lambda: FILM, {"axis_labels": ("t", "y", "x")}, "tyx"),
    "RGBA": (lambda: rgba(PICTURE), {"rgb": True}, "yxc"),
    "affine": (lambda: PICTURE, {"rgb": True, "rotate": 30, "shear": [0.2]}, "yxc"),
}


@pytest.fixture
def viewer(make_napari_viewer_proxy, qtbot, monkeypatch, request):
    kept, make = [], SegmentWidget.__init__

    @functools.wraps(make)
    def keeping(self, *args, **options):
        kept.append(self)
        make(self, *args, **options)

    monkeypatch.setattr(SegmentWidget, "__init__", keeping)
    yield make_napari_viewer_proxy(show=getattr(request, "param", False))
    # A widget outlives its threads, so that it dies in this one.
    for widget in kept:
        widget._stop_work()
    qtbot.waitUntil(lambda: not pixseg_threads(), timeout=LONG)
    qtbot.wait(20)


@pytest.fixture
def told():
    """What users are told meanwhile."""
    before = list(notification_manager.records)
    notification_manager.records.clear()
    yield notification_manager.records
    notification_manager.records[:] = before


@pytest.fixture
def _small(monkeypatch):
    """Many tiles for small images."""
    monkeypatch.setattr(tiling, "_SMALLEST_UNIT", 16)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 32)
    monkeypatch.setattr(tiling, "TILE_SIDE", 32)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 1024)


@pytest.fixture
def opened(viewer, qtbot):
    """A function that docks the widget for a new layer and waits for the final answer."""

    def opened(data=PICTURE, **options):
        layer = viewer.add_image(data, name="picture", **options)
        widget = SegmentWidget(viewer)
        widget.dock = viewer.window.add_dock_widget(widget, name="Segment (pixseg)")
        widget.img.value = layer
        settle(widget, qtbot)
        return widget

    return opened


def settle(widget, qtbot, **wanted):
    """Wait until what is decided finally, with these parameters, is shown."""

    def settled():
        decision = widget.controller.decision
        assert decision is not None, widget.status.value
        assert not decision.provisional
        assert decision.classes.parameters == widget.controller.parameters
        for name, value in wanted.items():
            assert getattr(decision.classes.parameters, name) == value
        assert widget._preview.pixels.lookup._classes is decision.classes

    qtbot.waitUntil(settled, timeout=LONG)


def sentences(told):
    found = [str(n.message) for n in told if n.severity.value in ("error", "warning")]
    for sentence in found:
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert "Traceback" not in sentence
    return found


def finest(layer):
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


def alphas(widget):
    colors = widget.preview.colormap.color_dict
    count = len(widget.controller.decision.classes)
    return [round(float(colors[n][3]), 2) for n in range(1, count + 1)]


def click(widget, position):
    """Click into the picture, as napari tells its layers."""
    ndim = len(position)
    event = SimpleNamespace(
        position=position, view_direction=None, dims_displayed=[ndim - 2, ndim - 1]
    )
    for callback in widget.preview.mouse_drag_callbacks:
        callback(widget.preview, event)


def check(widget, row, column, checked):
    state = Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked
    widget.panel._table.item(row, column).setCheckState(state)


SHOW, BACKGROUND = 4, 5


@pytest.mark.parametrize("way", ["array", "path"])
def test_the_preview_and_the_areas_follow_the_layer(opened, viewer, qtbot, tmp_path, way):
    if way == "array":
        widget = opened(PICTURE, rgb=True)
    else:
        PillowImage.fromarray(PICTURE).save(tmp_path / "in.png")
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget)
        widget.path.value = str(tmp_path / "in.png")
        QTest.keyClick(widget.path.native, Qt.Key.Key_Return)
        settle(widget, qtbot)
    layer, preview = widget.img.value, widget.preview
    layer.scale, layer.translate, layer.rotate = (2, 2), (5, 7), 20
    qtbot.waitUntil(lambda: widget.controller.segmentation.image.source.scale == {"y": 2, "x": 2})
    assert widget.preview is preview
    np.testing.assert_allclose(preview.extent.world, layer.extent.world)
    rows = widget.controller.segmentation.region_table
    assert (rows["physical_area"] == 4 * rows["area"]).all()
    assert widget.controller.segmentation.image.source.translation == {"y": 5, "x": 7}


def test_pixels_that_replace_a_layers_own_are_counted(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    other = np.ascontiguousarray(255 - PICTURE[:150])
    before = widget.controller.decision
    widget.img.value.data = other
    qtbot.waitUntil(lambda: widget.controller.decision not in (None, before), timeout=LONG)
    settle(widget, qtbot)
    np.testing.assert_array_equal(finest(widget.preview), np.asarray(segment(other).classes))


@pytest.mark.parametrize(("typed", "meant"), [("2,5", 2.5), ("2.5", 2.5), ("0.25", 0.25)])
def test_a_number_counts_when_typing_ends_with_comma_or_point(opened, qtbot, typed, meant):
    widget = opened(PICTURE, rgb=True)
    box = widget.fields.st._box.native
    seen = []
    widget.controller.parameters_changed.connect(lambda parameters: seen.append(parameters.st))
    box.selectAll()
    QTest.keyClicks(box, typed)
    QTest.keyClick(box, Qt.Key.Key_Return)
    settle(widget, qtbot, st=meant)
    assert seen == [meant]


def test_a_number_out_of_range_is_told_with_the_range(opened, qtbot, told):
    widget = opened(PICTURE, rgb=True)
    box = widget.fields.ct._box.native
    box.selectAll()
    QTest.keyClicks(box, "1000")
    QTest.keyClick(box, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: "1000" in widget.status.value, timeout=LONG)
    assert "100" in widget.status.value.replace("1000", "")
    assert widget.controller.parameters.ct == Parameters().ct


# Choosing ------------------------------------------------------------------------


def test_the_plugin_opens_the_widget_for_the_selected_layer(viewer, qtbot, npe2pm):
    from npe2 import PluginManifest

    plugin = PluginManifest.from_file(Path(str(files("napari_pixseg") / "napari.yaml")))
    npe2pm.register(plugin)
    name = plugin.contributions.widgets[0].display_name
    viewer.add_image(PICTURE, rgb=True)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-pixseg", name)
    assert isinstance(widget, SegmentWidget)
    assert widget.img.value is not None
    settle(widget, qtbot)
    assert dock.windowTitle().startswith(name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_preview_shows_the_classes_of_every_kind_of_layer_in_its_place(opened, kind):
    make, options, axes = KINDS[kind]
    data = make()
    widget = opened(data, **options)
    layer, preview = widget.img.value, widget.preview
    array = np.asarray(data[0] if isinstance(data, list) else data)
    wanted = np.asarray(segment(array, axes=axes).classes)
    assert isinstance(preview, Labels)
    np.testing.assert_array_equal(finest(preview), wanted)
    for name in ("scale", "translate", "rotate", "shear"):
        np.testing.assert_allclose(getattr(preview, name), getattr(layer, name))
    assert preview.units == layer.units
    assert preview.axis_labels == layer.axis_labels
    np.testing.assert_allclose(preview.extent.world, layer.extent.world)
    for point in ((0,) * wanted.ndim, tuple(n // 2 for n in wanted.shape)):
        location = layer.data_to_world(point)
        widget.viewer.dims.point = location
        value = preview.get_value(location, world=True)
        assert (value[1] if isinstance(value, tuple) else value) == wanted[point]
    colors = preview.colormap.color_dict
    for row in widget.controller.decision.classes.table:
        np.testing.assert_allclose(colors[row["number"]][:3], row["color"] / 255, atol=1e-6)


def test_a_layer_whose_axes_come_in_another_order_gets_its_preview_in_place(opened):
    widget = opened(GRAY.T.copy(), axis_labels=("x", "y"))
    wanted = np.asarray(segment(GRAY.T, axes="xy").classes)
    np.testing.assert_array_equal(finest(widget.preview), wanted)


def test_a_large_plane_gets_virtual_levels(opened, monkeypatch):
    monkeypatch.setattr(strided_image, "LARGEST_PLANE", 10_000)
    monkeypatch.setattr(strided_image, "_COARSEST_SIDE", 64)
    widget = opened(PICTURE, rgb=True)
    assert [level.shape for level in widget.preview.data] == [(200, 240), (100, 120), (50, 60)]
    wanted = np.asarray(segment(PICTURE).classes)
    np.testing.assert_array_equal(widget.preview.data[2], wanted[::4, ::4])
    np.testing.assert_allclose(
        widget.preview.extent.world, widget.img.value.extent.world, atol=1e-6
    )


@pytest.mark.parametrize("viewer", [True], indirect=True, ids=["shown"])
def test_the_coarsest_level_follows_the_knobs(opened, viewer, qtbot, monkeypatch):
    monkeypatch.setattr(strided_image, "LARGEST_PLANE", 10_000)
    monkeypatch.setattr(strided_image, "_COARSEST_SIDE", 64)
    widget = opened(PICTURE, rgb=True)
    getattr(viewer, "scene", viewer).camera.zoom = 0.1
    qtbot.waitUntil(lambda: widget.preview.data_level == 2, timeout=LONG)
    for ct in (15.0, 6.0):
        widget.fields.ct._box.value = ct
        settle(widget, qtbot, ct=ct)
        wanted = np.asarray(segment(PICTURE, ct=ct).classes)[::4, ::4]
        shown = [
            widget.preview.get_value((4 * y, 4 * x), world=True)[1]
            for y in range(0, 50, 7)
            for x in range(0, 60, 7)
        ]
        np.testing.assert_array_equal(shown, wanted[::7, ::7].ravel())


def test_paths_can_be_chosen_with_the_mouse(viewer, qtbot, tmp_path, monkeypatch):
    path = str(tmp_path / "in.png")
    PillowImage.fromarray(PICTURE).save(path)
    asked = []
    monkeypatch.setattr(
        "napari_pixseg.plugin.widget.path_buttons.ask_for_path",
        lambda field, kind: asked.append((field.name, kind)) or path,
    )
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    for field in (widget.path, widget.run_panel.fields.path):
        field.native.actions()[-1].trigger()
        assert field.value == path
    assert asked == [("img_path", "file"), ("path", "save")]
    settle(widget, qtbot)


@pytest.mark.parametrize("viewer", [True], indirect=True, ids=["shown"])
def test_nothing_is_cut_and_a_low_screen_is_enough(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.status.value = "A sentence, long enough for two lines of any widget that is docked. " * 2
    qtbot.wait(50)
    for container in (widget, widget.fields.advanced, widget.run_panel.fields):
        labels = [
            f._labeled_widget()._label_widget.native for f in container if f._labeled_widget()
        ]
        assert len({label.minimumWidth() for label in labels}) == 1
        assert all(label.minimumWidth() >= label.sizeHint().width() for label in labels)
    label = widget.status.native
    assert label.height() >= label.heightForWidth(label.width())
    table = widget.panel._table
    box = table.fontMetrics().horizontalAdvance("128-136 174-182 186-255")
    assert table.columnWidth(3) > box + 6
    assert not table.item(0, 0).flags() & Qt.ItemFlag.ItemIsSelectable
    assert widget.native.minimumSizeHint().height() < 400


@pytest.mark.parametrize("suffix", ["png", "ome.zarr", "tif"])
def test_a_path_is_opened_lazily_and_segmented(viewer, qtbot, tmp_path, suffix):
    path = str(tmp_path / f"in.{suffix}")
    if suffix == "ome.zarr":
        segment(PICTURE, ct=0, st=0.5).export(path, ("recolored",))
        array = np.asarray(zarr.open(path)["0"])
        array = array if array.shape[-1] == 3 else np.moveaxis(array, 0, -1)
    elif suffix == "tif":
        import tifffile

        tifffile.imwrite(path, STACK, photometric="minisblack", metadata={"axes": "ZYX"})
        array = STACK
    else:
        PillowImage.fromarray(PICTURE).save(path)
        array = PICTURE
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.path.value = path
    qtbot.keyClick(widget.path.native, Qt.Key.Key_Return)
    settle(widget, qtbot)
    assert widget.img.value in viewer.layers
    np.testing.assert_array_equal(finest(widget.preview), np.asarray(segment(array).classes))


@pytest.fixture
def several(tmp_path):
    """A TIFF of a macro, a slide and a part of it."""
    import tifffile

    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as writer:
        for name, picture in SEVERAL.items():
            writer.write(picture, photometric="rgb", metadata={"axes": "YXS", "Name": name})
    return tmp_path / "slide.ome.tif"


SEVERAL = {"Macro": PICTURE[::5, ::5], "Slide": PICTURE, "Part": PICTURE[50:130, 40:160]}


def open_path(viewer, qtbot, path):
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.path.value = str(path)
    qtbot.keyClick(widget.path.native, Qt.Key.Key_Return)
    settle(widget, qtbot)
    return widget


@pytest.mark.parametrize("viewer", [True], indirect=True, ids=["shown"])
def test_another_image_of_a_file_can_be_chosen(viewer, qtbot, several, tmp_path, told):
    widget = open_path(viewer, qtbot, several)
    field, notes = widget.series.field, widget.series.notes
    qtbot.waitUntil(lambda: field.visible, timeout=LONG)
    assert field.choices == (0, 1, 2)
    assert field.value == 1
    assert field.current_choice == "1: Slide, 200 x 240 x 3 (yxc)"
    assert "the largest is taken: 1 ('Slide', 200 x 240 x 3)" in notes.text()
    assert notes.isVisible()
    first = widget.img.value
    name = first.name
    field.value = 0
    settle(widget, qtbot)
    assert first not in viewer.layers
    assert widget.img.value.name == name
    assert len([layer for layer in viewer.layers if isinstance(layer, Labels)]) == 1
    wanted = np.asarray(segment(SEVERAL["Macro"]).classes)
    np.testing.assert_array_equal(finest(widget.preview), wanted)
    qtbot.waitUntil(lambda: field.visible and field.value == 0, timeout=LONG)
    assert not notes.isVisible()
    written = []
    widget.controller.exported.connect(lambda manifest: written.append(manifest))
    widget.controller.export(str(tmp_path / "out.ome.zarr"), ("classes",))
    qtbot.waitUntil(lambda: bool(written), timeout=LONG)
    assert written[0].details["input"]["series"] == 0
    assert not sentences(told)


def test_a_manifest_restores_the_image_of_a_file(viewer, qtbot, several, tmp_path, told):
    segment(several, series="Part", st=2.5).export(tmp_path / "o.png")
    widget = open_path(viewer, qtbot, several)
    widget.controller.load(str(tmp_path / "o.png.json"))
    settle(widget, qtbot, st=2.5)
    wanted = np.asarray(segment(SEVERAL["Part"], st=2.5).classes)
    np.testing.assert_array_equal(finest(widget.preview), wanted)
    qtbot.waitUntil(lambda: widget.series.field.value == 2, timeout=LONG)
    # The file may have gone meanwhile.
    several.unlink()
    widget.series.field.value = 1
    assert len(sentences(told)) == 1
    assert widget.series.field.value == 2
    assert widget.img.value in viewer.layers


def test_of_a_file_that_napari_opened_the_right_image_can_be_chosen(viewer, qtbot, several):
    from napari.layers import Image
    from napari.layers._source import layer_source

    with layer_source(path=str(several)):
        layer = Image(SEVERAL["Macro"], rgb=True, name="slide")
    viewer.add_layer(layer)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    settle(widget, qtbot)
    field = widget.series.field
    qtbot.waitUntil(lambda: len(field.choices) == 4, timeout=LONG)
    assert field.value == "as napari opened it"
    field.value = 1
    settle(widget, qtbot)
    wanted = np.asarray(segment(PICTURE).classes)
    np.testing.assert_array_equal(finest(widget.preview), wanted)
    assert layer not in viewer.layers
    qtbot.waitUntil(lambda: field.choices == (0, 1, 2), timeout=LONG)


def test_a_layer_without_a_file_has_no_images_to_choose_from(viewer, qtbot, several):
    widget = open_path(viewer, qtbot, several)
    qtbot.waitUntil(lambda: len(widget.series.field.choices) == 3, timeout=LONG)
    widget.img.value = viewer.add_image(GRAY, name="gray")
    settle(widget, qtbot)
    assert not widget.series.field.visible
    assert not widget.series.notes.text()


@pytest.mark.parametrize("path", ["/nothing/here.png", "", "not a path"])
def test_a_path_that_cannot_be_opened_gives_one_sentence(viewer, qtbot, told, path):
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.path.value = path
    qtbot.keyClick(widget.path.native, Qt.Key.Key_Return)
    assert len(sentences(told)) == 1
    assert not viewer.layers
    assert widget.status.value == sentences(told)[0]


def test_another_layer_replaces_the_first(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    first = widget.preview
    layer = viewer.add_image(GRAY, name="gray")
    assert layer in widget.img.choices
    widget.img.value = layer
    settle(widget, qtbot)
    assert widget.preview is not first
    np.testing.assert_array_equal(finest(widget.preview), np.asarray(segment(GRAY).classes))


def test_no_preview_stays_that_is_not_kept_up_to_date(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.img.value = viewer.add_image(GRAY, name="gray")
    settle(widget, qtbot)
    assert len([layer for layer in viewer.layers if isinstance(layer, Labels)]) == 1


def test_a_chosen_layer_may_get_another_name(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    layer, preview, said = widget.img.value, widget.preview, widget.status.value
    layer.name = "another"
    qtbot.wait(50)
    assert widget.img.value is layer
    assert widget.img.current_choice == "another"
    assert widget.preview is preview
    assert preview in viewer.layers
    assert widget.status.value == said


def test_five_dimensions_are_refused_in_one_sentence(viewer, qtbot, told):
    viewer.add_image(np.zeros((2, 2, 2, 8, 8), np.uint8))
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    qtbot.waitUntil(lambda: bool(told), timeout=LONG)
    assert "5 dimensions" in sentences(told)[0]


# Knobs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("ct", 6.0), ("st", 8.0), ("cs", 5)], ids=lambda value: str(value)
)
def test_a_knob_changes_the_preview_in_place(opened, qtbot, name, value):
    widget = opened(PICTURE, rgb=True)
    preview = widget.preview
    field = getattr(widget.fields, name)
    if name == "cs":
        field.value = value
    else:
        field._box.value = value
    settle(widget, qtbot, **{name: value})
    assert widget.preview is preview
    wanted = segment(PICTURE, **{name: value})
    np.testing.assert_array_equal(finest(preview), np.asarray(wanted.classes))
    assert str(len(wanted.table)) in widget.status.value
    assert widget.panel._table.rowCount() == len(wanted.table)


def test_the_slider_and_its_box_go_together(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.fields.st._slider.value = 700
    assert widget.fields.st.number == widget.fields.st._box.value > 1.5
    settle(widget, qtbot, st=widget.fields.st.number)
    widget.fields.st._box.value = 255
    assert widget.fields.st._slider.value == 1000
    settle(widget, qtbot, st=255.0)


def test_many_moves_of_a_slider_end_at_the_last_and_never_block(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    longest = 0.0
    for step in range(300, 800, 5):
        # Work on the window's own thread, whatever else the machine does.
        start = time.thread_time()
        widget.fields.st._slider.value = step
        longest = max(longest, time.thread_time() - start)
    settle(widget, qtbot, st=widget.fields.st.number)
    wanted = segment(PICTURE, st=widget.fields.st.number).classes
    np.testing.assert_array_equal(finest(widget.preview), np.asarray(wanted))
    assert longest < 0.5


def test_a_knob_without_a_class_tells_one_sentence(opened, qtbot, told):
    widget = opened(PICTURE, rgb=True)
    widget.fields.ct._box.value = 99
    qtbot.waitUntil(lambda: bool(told), timeout=LONG)
    assert "No class reaches" in sentences(told)[0]
    assert len(told) == 1
    widget.fields.ct._box.value = 2
    settle(widget, qtbot, ct=2.0)


def test_a_slider_dragged_too_far_is_told_once(opened, qtbot, told):
    widget = opened(PICTURE, rgb=True)
    for value in (97, 98, 99):
        widget.fields.ct._box.value = value
        qtbot.waitUntil(lambda v=value: f"ct = {v}" in widget.status.value, timeout=LONG)
    assert len(sentences(told)) == 1


def test_an_impossible_value_tells_one_sentence(opened, told):
    widget = opened(PICTURE, rgb=True)
    widget.fields.st._box.value = 0
    assert "st" in sentences(told)[0]
    assert widget.controller.parameters.st == 1.5


def test_denoising_counts_again(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.fields.denoise.value = 2
    settle(widget, qtbot, denoise=2)
    np.testing.assert_array_equal(
        finest(widget.preview), np.asarray(segment(PICTURE, denoise=2).classes)
    )


def test_other_channels_are_shown_too(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.fields.channels.value = "2,0"
    settle(widget, qtbot, channels=(2, 0))
    np.testing.assert_array_equal(
        finest(widget.preview), np.asarray(segment(PICTURE, channels=(2, 0)).classes)
    )


def test_the_contrast_limits_of_the_layer_can_be_the_window(opened, qtbot):
    widget = opened(STACK, contrast_limits=(300, 5000))
    widget.fields.window.value = "contrast limits"
    settle(widget, qtbot, window=((300.0, 5000.0),))
    wanted = segment(STACK, window=(300, 5000)).classes
    np.testing.assert_array_equal(finest(widget.preview), np.asarray(wanted))


def test_contrast_limits_are_those_of_the_layer_that_is_chosen(opened, viewer, qtbot):
    widget = opened(STACK, contrast_limits=(300, 5000))
    widget.fields.window.value = "contrast limits"
    settle(widget, qtbot, window=((300.0, 5000.0),))
    widget.img.value = viewer.add_image(STACK, contrast_limits=(100, 900))
    settle(widget, qtbot, window=((100.0, 900.0),))
    # A color image has none.
    widget.img.value = viewer.add_image(PICTURE, rgb=True)
    settle(widget, qtbot, window=None)
    assert widget.fields.window.value == "automatic"
    np.testing.assert_array_equal(finest(widget.preview), np.asarray(segment(PICTURE).classes))


def test_another_layer_is_chosen_also_while_a_field_means_nothing(opened, viewer, qtbot, told):
    widget = opened(STACK, contrast_limits=(300, 5000))
    widget.fields.window.value = "contrast limits"
    settle(widget, qtbot, window=((300.0, 5000.0),))
    widget.fields.channels.value = "x"
    layer = viewer.add_image(STACK[0], contrast_limits=(100, 900))
    widget.img.value = layer
    settle(widget, qtbot, window=((100.0, 900.0),))
    assert widget.controller.segmentation.image.shape == STACK[0].shape


def test_a_window_of_numbers_is_asked_for_when_it_is_run(opened, qtbot, told, tmp_path):
    widget = opened(GRAY)
    widget.fields.window.value = "low, high"
    assert sentences(told) == []
    assert not widget.fields.window_numbers.native.isHidden()
    widget.run_panel.fields.path.value = str(tmp_path / "out.ome.zarr")
    widget.run_panel.run_button.native.click()
    assert "two numbers" in sentences(told)[0]
    widget.fields.window_numbers.value = "100,900"
    settle(widget, qtbot, window=((100.0, 900.0),))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "text"), [("channels", "0,1"), ("background", "largest")])
def test_typing_into_a_field_does_not_tell_errors_on_the_way(opened, qtbot, told, name, text):
    widget = opened(PICTURE, rgb=True)
    field = getattr(widget.fields, name)
    for letter in text:
        field.value = str(field.value) + letter
    assert sentences(told) == []


# Seeing why ------------------------------------------------------------------------


def test_a_click_in_the_table_highlights_a_class(opened):
    widget = opened(PICTURE, rgb=True)
    table = widget.panel._table
    table.selectRow(1)
    assert [n for n, alpha in enumerate(alphas(widget), 1) if alpha == 1] == [2]
    table.clearSelection()
    assert set(alphas(widget)) == {1.0}


def test_a_click_in_the_picture_selects_its_class(opened):
    widget = opened(PICTURE, rgb=True, scale=(2, 2))
    click(widget, (200.0, 100.0))
    number = finest(widget.preview)[100, 50]
    (row,) = widget.panel._table.selectionModel().selectedRows()
    assert row.row() + 1 == number
    assert [n for n, alpha in enumerate(alphas(widget), 1) if alpha == 1] == [number]


@pytest.mark.parametrize("kind", ["multiscale", "3-D stack"])
def test_a_click_selects_in_pyramids_and_stacks_too(opened, kind):
    make, options, _ = KINDS[kind]
    widget = opened(make(), **options)
    layer = widget.img.value
    position = layer.data_to_world((2,) * (layer.ndim - 2) + (40, 40))
    if layer.ndim > 2:
        widget.viewer.dims.set_point(0, position[0])
    click(widget, tuple(position))
    assert widget._preview.selected in np.unique(finest(widget.preview))
    assert widget._preview.selected


def test_a_click_beside_the_picture_selects_nothing(opened):
    widget = opened(PICTURE, rgb=True)
    widget.panel._table.selectRow(0)
    click(widget, (-50.0, -50.0))
    assert not widget.panel._table.selectionModel().selectedRows()
    assert set(alphas(widget)) == {1.0}


def test_a_class_can_be_hidden(opened):
    widget = opened(PICTURE, rgb=True)
    check(widget, 0, SHOW, False)
    assert alphas(widget)[0] == 0
    assert set(alphas(widget)[1:]) == {1.0}
    check(widget, 0, SHOW, True)
    assert set(alphas(widget)) == {1.0}


def test_a_class_can_be_made_background(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    check(widget, 1, BACKGROUND, True)
    settle(widget, qtbot, background=(2,))
    assert widget.fields.background.value == "2"
    item = widget.panel._table.item(1, BACKGROUND)
    assert item.checkState() == Qt.CheckState.Checked
    check(widget, 1, BACKGROUND, False)
    settle(widget, qtbot, background=None)


def test_what_is_hidden_is_said_in_the_table_after_another_decision(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    check(widget, 0, SHOW, False)
    widget.fields.st._box.value = 2.0
    settle(widget, qtbot, st=2.0)
    hidden = alphas(widget)[0] == 0
    checked = widget.panel._table.item(0, SHOW).checkState() == Qt.CheckState.Checked
    assert hidden != checked


def test_a_selected_class_that_is_gone_is_forgotten(opened, qtbot):
    widget = opened(PICTURE, rgb=True)
    rows = widget.panel._table.rowCount()
    widget.panel._table.selectRow(rows - 1)
    widget.fields.ct._box.value = 15.0
    settle(widget, qtbot, ct=15.0)
    assert widget.panel._table.rowCount() < rows
    assert max(alphas(widget)) == 1


# Manifests -------------------------------------------------------------------------

RESTORED = {
    "ct": 0.5, "cs": 4, "st": 2.5, "denoise": 1, "channels": (0, 1, 2), "connectivity": 2,
    "background": (1,), "min_size": 5,
}  # fmt: skip


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "made.ome.zarr"
    segment(PICTURE, **RESTORED).export(path, ("classes",))
    return path / "manifest.json"


def drop(widget, path):
    """Drag a file over a widget and let it go."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    action, button, no_key = (
        Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )  # fmt: skip
    enter = QDragEnterEvent(QPointF(5, 5), action, data, button, no_key)
    QApplication.sendEvent(widget.native, enter)
    assert enter.isAccepted()
    let_go = QDropEvent(QPointF(5, 5), action, data, button, no_key)
    QApplication.sendEvent(widget.native, let_go)


@pytest.mark.parametrize("dropped", [True, False])
def test_a_manifest_restores_every_field(opened, qtbot, manifest, dropped, told):
    widget = opened(PICTURE, rgb=True)
    if dropped:
        drop(widget, manifest)
    else:
        widget.controller.load(str(manifest))
    wanted = Parameters(**RESTORED)
    assert widget.controller.parameters == wanted
    assert widget.fields.parameters(wanted, None) == wanted
    assert widget.fields.st._slider.value != 0
    settle(widget, qtbot)
    np.testing.assert_array_equal(
        finest(widget.preview), np.asarray(segment(PICTURE, **RESTORED).classes)
    )
    assert not sentences(told)


def test_a_manifest_can_be_chosen_with_the_button(opened, manifest, monkeypatch):
    widget = opened(PICTURE, rgb=True)
    monkeypatch.setattr(
        "napari_pixseg.plugin.widget.segment_widget.QFileDialog.getOpenFileName",
        lambda *_: (str(manifest), ""),
    )
    widget.manifest_button.native.click()
    assert widget.controller.parameters == Parameters(**RESTORED)


def test_something_else_dropped_gives_one_sentence(opened, tmp_path, told):
    widget = opened(PICTURE, rgb=True)
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    drop(widget, path)
    assert len(sentences(told)) == 1
    assert widget.controller.parameters == Parameters()


EXTREMES = {
    "tiny thresholds": {"ct": 0.0004, "st": 0.00012},
    "exact ct": {"ct": 500.0, "semantics": "imagemagick6"},
    "many digits": {"ct": 1.23456789, "st": 2.3456789},
    "large min_size": {"min_size": 2**33},
}


@pytest.mark.parametrize(
    "changes",
    [pytest.param(v, id=k) for k, v in EXTREMES.items()],
)
def test_a_field_shows_any_value_without_changing_it(viewer, changes):
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    wanted = Parameters(**changes)
    widget.controller.restore(wanted)
    widget.fields.cs.value = 5
    assert widget.controller.parameters == wanted.replace(cs=5)


def test_a_window_of_numbers_survives_the_next_knob(opened, qtbot):
    widget = opened(STACK, contrast_limits=(300, 5000))
    widget.controller.restore(Parameters(window=((100, 900),)))
    settle(widget, qtbot)
    widget.fields.st._box.value = 3
    assert widget.controller.parameters.window == ((100.0, 900.0),)


# Running ---------------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_a_run_to_a_path_adds_the_finished_layers_from_disk(opened, viewer, qtbot, tmp_path, told):
    widget = opened(PICTURE, rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    path = tmp_path / "out.ome.zarr"
    widget.run_panel.fields.path.value = str(path)
    before = len(viewer.layers)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == before + 3, timeout=LONG)
    assert Manifest.load(path).parameters == Parameters()
    made = {layer.name.split()[-1]: layer for layer in list(viewer.layers)[before:]}
    assert set(made) == {"recolored", "classes", "regions"}
    wanted = segment(PICTURE)
    for name, layer in made.items():
        np.testing.assert_array_equal(finest(layer), np.asarray(getattr(wanted, name)))
        np.testing.assert_allclose(layer.scale[-2:], (0.5, 0.5))
    assert len(made["regions"].features) == len(wanted.region_table)
    assert not sentences(told)
    qtbot.waitUntil(lambda: not widget.run_panel.cancel_button.enabled, timeout=LONG)
    assert widget._status_line.progress_bar is None
    assert widget.status.value == f"Written: out.ome.zarr in {tmp_path}"
    assert widget.run_panel.run_button.enabled


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_the_lock_of_a_killed_writer_elsewhere_is_broken_only_if_asked_for(
    answer, opened, qtbot, tmp_path, told, monkeypatch
):
    widget = opened(PICTURE, rgb=True)
    path, asked = tmp_path / "out.ome.zarr", []
    path.mkdir()
    lock = path / LOCK_NAME
    writer = {**heartbeat.Writer.of_here().to_json(), "host": "elsewhere"}
    lock.write_text(json.dumps(writer))
    # Silent for so long that it may be dead.
    then = time.time() - (heartbeat.BREAK_SECONDS + heartbeat.DEAD_SECONDS) / 2
    os.utime(lock, (then, then))

    def ask(*arguments):
        asked.append(arguments)
        return getattr(QMessageBox.StandardButton, answer)

    monkeypatch.setattr(QMessageBox, "question", ask)
    widget.run_panel.fields.path.value = str(path)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: bool(asked) and widget.run_panel.run_button.enabled, timeout=LONG)
    qtbot.waitUntil(lambda: (path / "manifest.json").exists() == (answer == "Yes"), timeout=LONG)
    assert len(asked) == 1
    assert "no longer gives a sign of life" in asked[0][2]
    # A key that is pressed by chance breaks nothing.
    assert asked[0][4] == QMessageBox.StandardButton.No
    if answer == "No":
        assert "break its lock" in sentences(told)[0]


def test_a_second_click_does_not_run_a_second_time(opened, qtbot, tmp_path, told):
    widget = opened(PICTURE, rgb=True)
    widget.run_panel.fields.path.value = str(tmp_path / "out.ome.zarr")
    written = []
    widget.controller.exported.connect(lambda manifest: written.append(manifest))
    for _ in range(3):
        widget.run_panel.run_button.native.click()
    assert not widget.run_panel.run_button.enabled
    qtbot.waitUntil(lambda: bool(written) and widget.run_panel.run_button.enabled, timeout=LONG)
    qtbot.wait(50)
    assert len(written) == 1
    assert not sentences(told)


def test_a_field_that_means_nothing_is_not_run_with_what_it_said_before(opened, told, tmp_path):
    widget = opened(PICTURE, rgb=True)
    widget.run_panel.fields.path.value = str(tmp_path / "out.ome.zarr")
    widget.fields.background.value = "1;2"
    widget.run_panel.run_button.native.click()
    assert "'1;2'" in sentences(told)[0]
    assert widget.run_panel.run_button.enabled
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_gone_when_it_is_to_be_shown_gives_one_sentence(opened, told, tmp_path):
    widget = opened(PICTURE, rgb=True)
    gone = Manifest(200, "0" * 32, (tmp_path / "gone.ome.zarr").as_uri())
    widget.run_panel.show_exported(gone)
    assert len(sentences(told)) == 1


@pytest.mark.usefixtures("_small")
def test_a_run_goes_on_when_its_layer_is_removed(opened, viewer, qtbot, tmp_path, told):
    gate = Gate(GRAY)
    widget = opened(gate, contrast_limits=(0, 255))
    path = tmp_path / "out.ome.zarr"
    widget.run_panel.fields.path.value = str(path)
    gate.close()
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(gate.asked.is_set, timeout=LONG)
    viewer.layers.remove(widget.img.value)
    gate.open()
    qtbot.waitUntil(lambda: (path / "manifest.json").exists(), timeout=LONG)
    qtbot.waitUntil(lambda: widget.run_panel.run_button.enabled, timeout=LONG)
    assert not sentences(told)


@pytest.mark.parametrize("kind", ["NumPy RGB", "3-D stack", "multiscale", "time"])
def test_a_run_in_memory_adds_the_results(opened, viewer, qtbot, kind):
    make, options, axes = KINDS[kind]
    data = make()
    widget = opened(data, **options)
    before = len(viewer.layers)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == before + 3, timeout=LONG)
    array = np.asarray(data[0] if isinstance(data, list) else data)
    wanted = segment(array, axes=axes)
    made = {layer.name.split()[-1]: layer for layer in list(viewer.layers)[before:]}
    for name, layer in made.items():
        np.testing.assert_array_equal(finest(layer), np.asarray(getattr(wanted, name)))
        np.testing.assert_allclose(layer.scale, widget.img.value.scale)
        assert layer.units == widget.img.value.units


def test_results_in_memory_look_like_those_on_disk(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    before = len(viewer.layers)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == before + 3, timeout=LONG)
    made = {layer.name.split()[-1]: layer for layer in list(viewer.layers)[before:]}
    assert len(made["regions"].features) == len(segment(PICTURE).region_table)
    color = segment(PICTURE).table["color"][0] / 255
    np.testing.assert_allclose(made["classes"].get_color(1)[:3], color, atol=1e-5)


def test_too_much_for_memory_is_refused_in_one_sentence(opened, told, monkeypatch):
    monkeypatch.setattr("napari_pixseg.plugin.widget.run_panel._LARGEST_IN_MEMORY", 1000)
    widget = opened(PICTURE, rgb=True)
    widget.run_panel.run_button.native.click()
    assert "path" in sentences(told)[0]


def test_running_without_an_image_is_refused_in_one_sentence(viewer, told, tmp_path):
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.run_panel.run_button.native.click()
    widget.run_panel.fields.path.value = str(tmp_path / "out.ome.zarr")
    widget.run_panel.run_button.native.click()
    assert len(sentences(told)) == 2
    assert not list(tmp_path.iterdir())


def test_running_without_outputs_is_refused_in_one_sentence(opened, told, qtbot):
    widget = opened(PICTURE, rgb=True)
    for box in (
        widget.run_panel.fields.classes,
        widget.run_panel.fields.regions,
        widget.run_panel.fields.picture,
    ):
        box.value = False
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: bool(sentences(told)), timeout=2000)


def test_an_existing_output_is_refused_and_replaced_on_request(opened, qtbot, tmp_path, told):
    widget = opened(PICTURE, rgb=True)
    fields, path = widget.run_panel.fields, tmp_path / "out.ome.zarr"
    fields.path.value, fields.regions.value = str(path), False
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: widget.status.value.startswith("Written"), timeout=LONG)
    first = Manifest.load(path).id
    qtbot.waitUntil(lambda: widget.run_panel.run_button.enabled, timeout=LONG)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: bool(sentences(told)), timeout=LONG)
    assert "exists already" in sentences(told)[0]
    assert "check “replace an existing output”" in sentences(told)[0]
    assert Manifest.load(path).id == first
    fields.overwrite.value = True
    qtbot.waitUntil(lambda: widget.run_panel.run_button.enabled, timeout=LONG)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(
        lambda: (path / "manifest.json").exists() and Manifest.load(path).id != first, timeout=LONG
    )


def test_a_blob_is_written_alone(opened, qtbot, tmp_path):
    widget = opened(PICTURE, rgb=True)
    path = tmp_path / "out.png"
    widget.run_panel.fields.path.value, widget.run_panel.fields.blob.value = str(path), True
    written = []
    widget.controller.exported.connect(written.append)
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: bool(written), timeout=LONG)
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    picture = PillowImage.open(path).convert("RGB")
    np.testing.assert_array_equal(picture, np.asarray(segment(PICTURE).recolored))


@pytest.mark.usefixtures("_small")
def test_a_run_can_be_cancelled_and_leaves_no_manifest(opened, viewer, qtbot, tmp_path, told):
    gate = Gate(GRAY)
    widget = opened(gate, contrast_limits=(0, 255))
    before, path = len(viewer.layers), tmp_path / "out.ome.zarr"
    widget.run_panel.fields.path.value = str(path)
    gate.close()
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(
        lambda: gate.asked.is_set() and widget.run_panel.cancel_button.enabled, timeout=LONG
    )
    widget.run_panel.cancel_button.native.click()
    gate.open()
    qtbot.waitUntil(lambda: not widget.run_panel.cancel_button.enabled, timeout=LONG)
    assert path.exists()
    assert not (path / "manifest.json").exists()
    record = [json.loads(p.read_bytes()) for p in path.iterdir() if p.suffix == ".json"]
    assert any(values.get("state") == "cancelled" for values in record)
    assert len(viewer.layers) == before
    assert widget._status_line.progress_bar is None
    assert not sentences(told)
    qtbot.waitUntil(lambda: widget.run_panel.run_button.enabled, timeout=LONG)
    widget.run_panel.fields.resume.value = True
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == before + 3, timeout=LONG)
    made = next(layer for layer in viewer.layers if layer.name == "out classes")
    np.testing.assert_array_equal(finest(made), np.asarray(segment(GRAY).classes))


@pytest.mark.usefixtures("_small")
def test_a_run_in_memory_can_be_cancelled(opened, viewer, qtbot):
    gate = Gate(GRAY)
    widget = opened(gate, contrast_limits=(0, 255))
    before = len(viewer.layers)
    gate.close()
    widget.run_panel.run_button.native.click()
    qtbot.waitUntil(
        lambda: gate.asked.is_set() and widget.run_panel.cancel_button.enabled, timeout=LONG
    )
    widget.run_panel.cancel_button.native.click()
    gate.open()
    qtbot.waitUntil(lambda: not widget.run_panel.cancel_button.enabled, timeout=LONG)
    assert len(viewer.layers) == before


def test_a_run_at_an_endpoint_adds_the_picture_it_answers(opened, viewer, qtbot, tmp_path, told):
    from endpoint_tools import serving

    widget = opened(PICTURE, rgb=True, scale=(2, 2))
    widget.fields.ct._box.value = 6.0
    settle(widget, qtbot, ct=6.0)
    with serving(storage=str(tmp_path), keys=("hush-hush",)) as server:
        widget.run_panel.remote.where.value = "an endpoint"
        widget.run_panel.remote.url.value, widget.run_panel.remote.key.value = server.url, "wrong"
        widget.run_panel.run_button.native.click()
        qtbot.waitUntil(lambda: bool(sentences(told)), timeout=LONG)
        assert "key" in sentences(told)[0]
        widget.run_panel.remote.key.value = "hush-hush"
        before = len(viewer.layers)
        widget.run_panel.run_button.native.click()
        qtbot.waitUntil(lambda: len(viewer.layers) == before + 1, timeout=LONG)
        made = viewer.layers[-1]
        np.testing.assert_array_equal(made.data, np.asarray(segment(PICTURE, ct=6.0).recolored))
        np.testing.assert_allclose(made.scale[-2:], (2, 2))
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert b"hush-hush" not in kept


class Gate:
    """An array that can be held up, but not by the window's thread."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.ndim, self.size = array.ndim, array.size
        self.asked, self._go = threading.Event(), threading.Event()
        self._go.set()

    def close(self):
        self.asked.clear()
        self._go.clear()

    def open(self):
        self._go.set()

    def __getitem__(self, key):
        part = self.array[key]
        if part.size and threading.current_thread() is not threading.main_thread():
            self.asked.set()
            assert self._go.wait(LONG / 1000)
        return part

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


# Layers and widgets that go away ------------------------------------------------------


@pytest.mark.usefixtures("_small")
def test_a_layer_removed_while_it_is_counted_is_forgotten(viewer, qtbot, told):
    gate = Gate(GRAY.astype(np.uint16))
    layer = viewer.add_image(gate, contrast_limits=(0, 255))
    gate.close()
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    qtbot.waitUntil(gate.asked.is_set, timeout=LONG)
    viewer.layers.remove(layer)
    gate.open()
    qtbot.waitUntil(lambda: not widget.run_panel.cancel_button.enabled, timeout=LONG)
    qtbot.wait(100)
    assert widget.img.value is None
    assert widget.preview is None
    assert not viewer.layers
    assert not sentences(told)


def test_a_removed_preview_comes_back_with_the_next_knob(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    viewer.layers.remove(widget.preview)
    widget.fields.st._box.value = 4
    settle(widget, qtbot, st=4.0)
    assert widget.preview in viewer.layers


def test_a_late_decision_for_the_layer_before_does_no_harm(opened, viewer, monkeypatch):
    widget = opened(PICTURE, rgb=True)
    late = widget.controller.decision
    # As it is between choosing another layer and opening it in the worker.
    monkeypatch.setattr(widget.controller, "choose", lambda *_: None)
    monkeypatch.setattr(type(widget.controller), "segmentation", None)
    widget.img.value = viewer.add_image(GRAY, name="gray")
    widget._on_decided(late)
    assert [layer.name for layer in viewer.layers] == ["picture", "gray"]


def test_the_layer_may_go_while_a_result_is_computed(opened, viewer, qtbot, told):
    widget = opened(PICTURE, rgb=True)
    results = {"classes": np.asarray(segment(PICTURE).classes)}
    viewer.layers.remove(widget.img.value)
    widget.run_panel.show_computed(results)
    assert not sentences(told)


def pixseg_threads():
    return [t for t in threading.enumerate() if t.name.startswith("pixseg")]


@pytest.mark.usefixtures("_small")
def test_a_widget_closed_while_counting_leaves_nothing(viewer, qtbot):
    gate = Gate(GRAY.astype(np.uint16))
    viewer.add_image(gate, contrast_limits=(0, 255))
    gate.close()
    widget = SegmentWidget(viewer)
    dock = viewer.window.add_dock_widget(widget)
    qtbot.waitUntil(gate.asked.is_set, timeout=LONG)
    dock.destroyOnClose()
    gate.open()
    qtbot.waitUntil(lambda: not pixseg_threads(), timeout=2000)
    assert len(viewer.layers) == 1


def test_a_closed_widget_works_no_more(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.dock.destroyOnClose()
    qtbot.waitUntil(lambda: not pixseg_threads(), timeout=2000)
    assert widget.controller.segmentation is None


def test_the_viewer_goes_on_after_a_widget_was_closed(opened, viewer, qtbot):
    widget = opened(PICTURE, rgb=True)
    widget.dock.destroyOnClose()
    qtbot.wait(50)
    viewer.add_image(GRAY)
    if widget.preview in viewer.layers:
        click(widget, (9.0, 9.0))
    viewer.layers.clear()
    qtbot.wait(50)


def test_a_widget_never_dies_in_a_thread_of_its_controller(
    make_napari_viewer_proxy, qtbot, monkeypatch
):
    held, go, died_in = threading.Event(), threading.Event(), []

    def on_busy(_widget, _busy):
        if threading.current_thread() is not threading.main_thread():
            held.set()
            go.wait(LONG / 1000)

    monkeypatch.setattr(SegmentWidget, "_on_busy", on_busy)
    viewer = make_napari_viewer_proxy()
    widget = SegmentWidget(viewer)
    controller = widget.controller
    weakref.finalize(widget, lambda: died_in.append(threading.current_thread()))
    widget.img.value = viewer.add_image(GRAY)
    try:
        in_worker = held.wait(1)
        del widget
        gc.collect()
    finally:
        go.set()
        controller.close()
    qtbot.waitUntil(lambda: not pixseg_threads(), timeout=LONG)
    assert not in_worker
    assert set(died_in) <= {threading.main_thread()}


def test_two_widgets_do_not_disturb_each_other(opened, viewer, qtbot):
    first = opened(PICTURE, rgb=True)
    second = SegmentWidget(viewer)
    viewer.window.add_dock_widget(second, name="second")
    second.img.value = viewer.add_image(GRAY, name="gray")
    settle(second, qtbot)
    second.fields.st._box.value = 6
    settle(second, qtbot, st=6.0)
    assert first.controller.parameters.st == 1.5
    assert first.preview is not second.preview
    np.testing.assert_array_equal(finest(first.preview), np.asarray(segment(PICTURE).classes))
    np.testing.assert_array_equal(finest(second.preview), np.asarray(segment(GRAY, st=6).classes))


def test_the_window_can_be_closed_with_the_widget_open(opened, viewer, qtbot):
    opened(PICTURE, rgb=True)
    viewer.close()
    qtbot.waitUntil(lambda: not pixseg_threads(), timeout=2000)


SLOW = """
import sys, threading, time
import numpy as np
import napari
from qtpy.QtCore import QTimer
from napari_pixseg.plugin.widget.segment_widget import SegmentWidget

class Slow:
    shape, dtype, ndim = (40_000, 40_000), np.dtype(np.uint8), 2
    size = 1_600_000_000
    def __getitem__(self, key):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.3)
        return np.zeros(tuple(len(range(*k.indices(40_000))) for k in key), np.uint8)

viewer = napari.Viewer()
widget = SegmentWidget(viewer)
viewer.window.add_dock_widget(widget)
controller = widget.controller
viewer.add_image(np.zeros((8, 8), np.uint8))
from napari_pixseg.sources.image import open_image
controller.choose(lambda p: [open_image(Slow())])
QTimer.singleShot(1500, viewer.close)
napari.run()
print("closed", flush=True)
"""


def test_napari_can_be_left_while_it_counts():
    command = [sys.executable, "-W", "ignore", "-c", SLOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().strip() == "closed"
            assert process.wait(8) == 0
        finally:
            process.kill()
