"""Samples, reader and writers, as napari uses them, without a window."""

import json
import pickle
import socket
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pydantic.warnings import PydanticDeprecatedSince20

from napari_pixseg import Manifest, segment
from napari_pixseg.errors import InputNotFound, NotAnImage, OutputConflict, ParameterError, TooLarge
from napari_pixseg.execution import tiling
from napari_pixseg.export import pyramid
from napari_pixseg.plugin import export_dialog, writer
from napari_pixseg.plugin import sample_data as samples
from napari_pixseg.plugin.layers import styles
from napari_pixseg.plugin.layers.result_layers import ComputedLayers, ComputedOutputs
from napari_pixseg.plugin.layers.stored_pyramid import StoredLevel
from napari_pixseg.plugin.reader import get_reader, layers_of_output
from napari_pixseg.sources.source import Source

with warnings.catch_warnings():
    # npe2 and napari use what pydantic deprecates.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.notifications import notification_manager
    from npe2 import PluginManager, PluginManifest

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
)

ALL = ("classes", "regions", "recolored")
CASES = {
    "color": ((41, 30, 3), "yxc"),
    "gray": ((41, 30), "yx"),
    "alpha": ((41, 30, 4), "yxc"),
    "stack": ((3, 30, 41, 3), "zyxc"),
    "film": ((2, 41, 30), "tyx"),
    "everything": ((2, 3, 2, 30, 21), "tczyx"),
    "odd order": ((21, 30, 3, 2), "xyzt"),
}


@pytest.fixture
def _small(monkeypatch):
    """Several tiles and several pyramid levels for images of some 40 pixels."""
    monkeypatch.setattr(tiling, "_SMALLEST_UNIT", 4)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 64)
    monkeypatch.setattr(pyramid, "COARSEST_SIDE", 7)


@pytest.fixture
def plugins(monkeypatch):
    """A plugin manager that knows this plugin alone."""
    manager = PluginManager()
    manager.register(PluginManifest.from_file(Path(str(files("napari_pixseg") / "napari.yaml"))))
    monkeypatch.setattr(PluginManager, "instance", lambda: manager)
    return manager


@pytest.fixture
def told():
    """What users are told meanwhile."""
    before = list(notification_manager.records)
    notification_manager.records.clear()
    yield notification_manager.records
    notification_manager.records[:] = before


def random_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def exported(path, case, outputs=ALL, **options):
    shape, axes = CASES[case]
    result = segment(random_image(shape), axes=axes, **{"ct": 0, "st": 0.1, **options})
    result.export(path, outputs)
    return result


def in_ngff_order(array, axes):
    order = [axes.index(axis) for axis in "tzyx" if axis in axes]
    return np.asarray(array).transpose([*order, *range(len(order), array.ndim)])


def shown(path):
    layers = [Layer.create(*data) for data in layers_of_output(str(path))]
    return {layer.name.rsplit(" ", 1)[1]: layer for layer in layers}


# Samples ----------------------------------------------------------------------

SAMPLES = {
    "histology": ((512, 512), np.uint8, True, "pixel"),
    "photograph": ((400, 600), np.uint8, True, "pixel"),
    "nuclei": ((24, 512, 512), np.uint16, False, "micrometer"),
    "slide": ((200_000, 200_000), np.uint8, True, "micrometer"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_opens_offline_as_what_it_is_announced(name, plugins, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    shape, dtype, rgb, unit = SAMPLES[name]
    (layer,) = ViewerModel().open_sample("napari-pixseg", name)
    first = layer.data[0] if layer.multiscale else layer.data
    assert tuple(first.shape) == (*shape, 3) if rgb else shape
    assert (first.dtype, layer.rgb, layer.ndim) == (dtype, rgb, len(shape))
    assert {str(u) for u in layer.units} == {unit}
    assert layer.axis_labels == ("z", "y", "x")[-layer.ndim :]
    assert all(layer.scale > 0)
    assert layer.name


@pytest.mark.parametrize("name", ["histology", "photograph", "nuclei"])
def test_a_sample_falls_into_several_classes_as_it_is(name):
    ((data, _, _),) = getattr(samples, name)()
    assert 2 < len(segment(data).table) < 20


def test_nuclei_are_bright_and_dim_in_haze_and_always_the_same():
    stack = samples.make_nuclei((6, 96, 96), 12)
    np.testing.assert_array_equal(stack, samples.make_nuclei((6, 96, 96), 12))
    assert (stack != samples.make_nuclei((6, 96, 96), 12, seed=1)).any()
    low, high = np.percentile(stack, [1, 99.5])
    assert low > 100
    assert high > 4000


def test_the_slide_is_larger_than_memory_and_halves_down_to_a_screen():
    ((levels, _, _),) = samples.slide()
    assert levels[0].nbytes == 120_000_000_000
    for finer, coarser in pairwise(levels):
        assert coarser.shape == (*(-(-n // 2) for n in finer.shape[:2]), 3)
        assert max(finer.chunksize) <= 2048
    assert max(levels[-1].shape) <= 512
    assert len(pickle.dumps(samples.SlideLevel(0))) < 200


@pytest.mark.parametrize("level", [0, 4, 9])
@given(st.integers(0, 380), st.integers(0, 380), st.integers(1, 150), st.integers(1, 11))
def test_a_pixel_of_the_slide_does_not_depend_on_what_is_read_with_it(level, y, x, n, part):
    slide = samples.SlideLevel(level)
    y, x = (start * slide.shape[0] // 391 for start in (y, x))
    wide = slide[y : y + n, x : x + n, 0:3]
    assert wide.dtype == slide.dtype
    small = slide[y + n // 2 : y + n // 2 + part, x : x + part, 1:3]
    expected = wide[n // 2 : n // 2 + part, :part, 1:]
    np.testing.assert_array_equal(small[: len(expected), : expected.shape[1]], expected)


def test_the_coarser_levels_of_the_slide_show_what_the_finer_ones_do():
    for level in (1, 3, 6):
        finer, coarser = samples.SlideLevel(level - 1), samples.SlideLevel(level)
        at = coarser.shape[0] // 3
        part = coarser[at : at + 256, at : at + 256, 0:3].astype(float)
        source = finer[2 * at : 2 * at + 512, 2 * at : 2 * at + 512, 0:3]
        mean = source.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
        assert np.abs(part - mean).mean() < 3


def test_the_slide_has_tissue_glass_and_nuclei():
    slide = samples.SlideLevel(9)
    colors = segment(slide[0:391, 0:391, 0:3]).table["color"].astype(int)
    assert len(colors) == 3
    assert (np.ptp(colors, axis=1) > 50).any()
    assert (colors.min(axis=1) > 230).any()
    near = samples.SlideLevel(0)[70_400:71_200, 70_400:71_200, 0:3]
    assert len(segment(near).table) >= 3


# Reader: what is shown --------------------------------------------------------


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("case", CASES)
def test_an_output_comes_back_as_it_was_computed(case, tmp_path):
    result = exported(tmp_path / "out.ome.zarr", case)
    own = CASES[case][1].replace("c", "")
    layers = shown(tmp_path / "out.ome.zarr")
    assert list(layers) == ["recolored", "classes", "regions"]
    for name in ("classes", "regions"):
        expected = in_ngff_order(getattr(result, name).compute(), own)
        np.testing.assert_array_equal(layers[name].data[0], expected)
    expected = in_ngff_order(result.recolored.compute(), own)
    picture = layers["recolored"]
    assert picture.rgb == (not result.image.gray)
    level = np.asarray(picture.data[0])
    np.testing.assert_array_equal(level[..., :3] if picture.rgb else level[..., np.newaxis],
                                  expected[..., : 3 if picture.rgb else 1])  # fmt: skip


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("case", ["color", "film"])
def test_all_levels_are_shown(case, tmp_path):
    exported(tmp_path / "out.ome.zarr", case)
    group = zarr.open_group(tmp_path / "out.ome.zarr/labels/classes", mode="r")
    data = shown(tmp_path / "out.ome.zarr")["classes"].data
    assert len(data) == len(list(group.arrays())) > 2
    for number, level in enumerate(data):
        np.testing.assert_array_equal(level, group[str(number)])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_shown(mode, tmp_path):
    pixels = random_image((41, 30, len(mode)))
    PillowImage.fromarray(pixels, mode=None).save(tmp_path / "in.png")
    result = segment(tmp_path / "in.png", ct=0, st=0.1)
    result.export(tmp_path / "out.ome.zarr")
    picture = shown(tmp_path / "out.ome.zarr")["recolored"]
    assert picture.rgb
    data = np.asarray(picture.data)
    np.testing.assert_array_equal(data[..., :3], result.recolored.compute())
    np.testing.assert_array_equal(data[..., 3], pixels[..., -1])


@pytest.mark.usefixtures("_small")
def test_scale_translation_units_and_axes_are_the_inputs(tmp_path):
    source = Source(
        random_image((2, 3, 3, 30, 21)), axes="tczyx",
        scale={"t": 2.0, "z": 3.0, "y": 0.5, "x": 0.25},
        translation={"z": 7.0, "y": 10.0, "x": 20.0},
        units={"t": "second", "z": "micrometer", "y": "micrometer", "x": "parrot"},
    )  # fmt: skip
    segment(source, ct=0, st=0.1).export(tmp_path / "out.ome.zarr", ALL)
    for layer in shown(tmp_path / "out.ome.zarr").values():
        np.testing.assert_array_equal(layer.scale, [2, 3, 0.5, 0.25])
        np.testing.assert_array_equal(layer.translate, [0, 7, 10, 20])
        # What napari does not know would keep the layer from being shown.
        assert [str(u) for u in layer.units] == ["second", "micrometer", "micrometer", "pixel"]
        assert layer.axis_labels == ("t", "z", "y", "x")


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("case", CASES)
def test_the_viewer_shows_every_plane_and_finds_the_class_under_the_pointer(case, tmp_path):
    result = exported(tmp_path / "out.ome.zarr", case)
    classes = in_ngff_order(result.classes.compute(), CASES[case][1].replace("c", ""))
    viewer = ViewerModel()
    for data in layers_of_output(str(tmp_path / "out.ome.zarr")):
        viewer.add_layer(Layer.create(*data))
    layer = viewer.layers["out classes"]
    for plane in np.ndindex(classes.shape[:-2]):
        for axis, index in enumerate(plane):
            viewer.dims.set_current_step(axis, index)
        raw = layer._slice.image.raw
        np.testing.assert_array_equal(raw, layer.data[-1][plane])
    # A viewer without a canvas shows the coarsest level.
    _, value = layer.get_value((*plane, 0, 0))
    assert value == classes[(*plane, 0, 0)]


def test_classes_have_their_colors_and_their_table(tmp_path):
    result = exported(tmp_path / "out.ome.zarr", "color", ct=1, st=20)
    layer = shown(tmp_path / "out.ome.zarr")["classes"]
    for number, color in enumerate(result.palette):
        expected = [*color / 255, 1] if number else [0, 0, 0, 0]
        np.testing.assert_allclose(layer.get_color(number) if number else np.zeros(4), expected)
    assert list(layer.features["index"]) == list(result.table["number"])
    np.testing.assert_array_equal(layer.features["count"], result.table["count"])
    first = result.table[0]
    assert layer.features["color"][0] == "#{:02x}{:02x}{:02x}".format(*first["color"])
    assert layer.features["box"][0].startswith("{}-{}, ".format(*first["box"][0]))


def test_regions_have_their_table_by_number(tmp_path):
    result = exported(tmp_path / "out.ome.zarr", "stack", st=20)
    layer = shown(tmp_path / "out.ome.zarr")["regions"]
    table = result.region_table
    assert list(layer.features["index"]) == list(range(1, len(table) + 1))
    for name in table.dtype.names[1:]:
        np.testing.assert_array_equal(layer.features[name], table[name])
    assert not layer.visible
    assert layer._label_index[len(table)] == len(table) - 1


def test_a_long_table_of_regions_is_left_on_disk_and_the_user_told(tmp_path, monkeypatch, told):
    result = exported(tmp_path / "out.ome.zarr", "color")
    monkeypatch.setattr(styles, "MOST_FEATURES", len(result.region_table) - 1)
    layer = shown(tmp_path / "out.ome.zarr")["regions"]
    assert layer.features.empty
    (message,) = [record.message for record in told]
    assert "regions.parquet" in message
    assert f"{len(result.region_table):,} regions" in message


@pytest.mark.parametrize("outputs", [("classes",), ("recolored",), ("regions", "recolored")])
def test_only_what_was_written_is_shown(outputs, tmp_path):
    exported(tmp_path / "out.ome.zarr", "gray", outputs)
    assert set(shown(tmp_path / "out.ome.zarr")) == set(outputs)


def test_layers_carry_the_manifest(tmp_path):
    result = exported(tmp_path / "out.ome.zarr", "color", cs="Lab")
    for layer in shown(tmp_path / "out.ome.zarr").values():
        manifest = layer.metadata["pixseg_manifest"]
        assert isinstance(manifest, Manifest)
        assert manifest.parameters == result.parameters


@pytest.mark.parametrize("form", [str, Path.as_uri, lambda path: f"{path}/"])
def test_paths_uris_and_a_trailing_slash_are_understood(form, tmp_path):
    exported(tmp_path / "out.zarr", "gray", ("classes",))
    ((_, options, kind),) = layers_of_output(form(tmp_path / "out.zarr"))
    assert (options["name"], kind) == ("out classes", "labels")


def test_napari_opens_an_output_with_this_reader(plugins, tmp_path):
    exported(tmp_path / "out.ome.zarr", "color")
    viewer = ViewerModel()
    viewer.open(str(tmp_path / "out.ome.zarr"), plugin="napari-pixseg")
    assert [layer.name for layer in viewer.layers] == [
        "out recolored",
        "out classes",
        "out regions",
    ]


@pytest.fixture
def address(tmp_path):
    """The test's folder, served over http."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_napari_opens_an_output_on_a_server(address, plugins, tmp_path):
    result = exported(tmp_path / "out.ome.zarr", "color")
    viewer = ViewerModel()
    viewer.open(f"{address}/out.ome.zarr", plugin="napari-pixseg")
    np.testing.assert_array_equal(viewer.layers["out classes"].data, result.classes.compute())
    assert len(viewer.layers["out regions"].features) == len(result.region_table)
    assert get_reader(f"{address}/missing.zarr") is None


# Reader: how it reads ---------------------------------------------------------


class Recorder:
    """An array that remembers what was read of it."""

    chunks = (1, 4, 4)

    def __init__(self, shape):
        self.values, self.keys = random_image(shape), []
        self.shape, self.dtype = shape, self.values.dtype

    def __getitem__(self, key):
        self.keys.append(key)
        return self.values[key]


def test_a_plane_of_a_stack_is_read_alone():
    array = Recorder((9, 20, 30))
    level = StoredLevel(array, "zyx")
    # napari slices what is displayed first, and picks the plane afterwards.
    part = level[:, 4:10, 5:6][7]
    assert part.shape == (6, 1)
    assert not array.keys
    np.testing.assert_array_equal(part, array.values[7, 4:10, 5:6])
    assert array.keys == [(7, slice(4, 10, 1), slice(5, 6, 1))]


def slices(n):
    bound = st.none() | st.integers(-n - 2, n + 2)
    step = st.none() | st.integers(-3, 3).filter(bool)
    return st.builds(slice, bound, bound, step)


def keys(shape):
    parts = st.tuples(*(slices(n) | st.integers(-n, n - 1) if n else slices(n) for n in shape))
    return parts.flatmap(lambda key: st.integers(0, len(key)).map(lambda n: key[:n]))


@pytest.mark.parametrize("members", [None, (0, 1, 2), (0, 0, 0, 1)])
@given(data=st.data())
def test_a_stored_level_is_sliced_as_numpy_slices(members, data):
    axes = "tzyx" if members is None else "tczyx"
    array = Recorder((2, 4, 5, 6) if members is None else (2, 3, 4, 5, 6))
    level = StoredLevel(array, axes, members)
    expected = array.values
    if members is not None:
        expected = np.moveaxis(expected[:, list(members)], 1, -1)
    for _ in range(2):
        assert (level.shape, level.ndim, level.size) == (
            expected.shape, expected.ndim, expected.size,
        )  # fmt: skip
        key = data.draw(keys(expected.shape))
        if data.draw(st.booleans()):
            key = (*key, Ellipsis) if len(key) % 2 else (Ellipsis, *key[len(key) :])
        level, expected = level[key], expected[key]
        np.testing.assert_array_equal(np.asarray(level), expected)
        assert np.asarray(level).dtype == expected.dtype


def test_other_keys_are_numpys_too():
    array = Recorder((4, 20, 30))
    level = StoredLevel(array, "zyx")
    np.testing.assert_array_equal(level[0, [1, 5], 3:6], array.values[0, [1, 5], 3:6])
    mask = array.values > 100
    np.testing.assert_array_equal(level[mask], array.values[mask])
    with pytest.raises(IndexError):
        level[4]
    assert np.asarray(level, np.uint32).dtype == np.uint32


def test_chunks_follow_the_view():
    array = Recorder((9, 20, 30))
    assert StoredLevel(array, "zyx").chunks == (1, 4, 4)
    assert StoredLevel(array, "zyx")[3].chunks == (4, 4)


# Reader: what is refused ------------------------------------------------------


def foreign(path):
    pyramid.create_group(zarr.storage.LocalStore(path), "", {"multiscales": []})
    return path


def test_what_others_wrote_is_left_to_others(tmp_path, told):
    foreign(tmp_path / "foreign.ome.zarr")
    (tmp_path / "empty.zarr").mkdir()
    for name, content in {
        "text": "[",
        "page": '{"name": "app"}',
        "failed": '{"status": 1}',
    }.items():
        (foreign(tmp_path / f"{name}.zarr") / "manifest.json").write_text(content)
    for path in tmp_path.iterdir():
        assert get_reader(str(path)) is None
        with pytest.raises(NotAnImage if path.name != "empty.zarr" else InputNotFound):
            layers_of_output(str(path))
    assert get_reader(str(tmp_path / "missing.zarr")) is None
    assert get_reader([str(tmp_path)]) is None
    assert get_reader("nothing://here.zarr") is None
    assert not told


def test_the_manifest_of_a_failure_is_no_output(tmp_path):
    manifest = Manifest.of_error(422, "No class.", {"parameters": {}})
    (foreign(tmp_path / "out.zarr") / "manifest.json").write_text(manifest.to_json())
    assert get_reader(str(tmp_path / "out.zarr")) is None


def test_a_picture_is_left_to_napari(tmp_path):
    exported(tmp_path / "out.png", "color", ("recolored",))
    assert get_reader(str(tmp_path / "out.png")) is None


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"state": "running"}, "was killed"),
        ({"state": "cancelled"}, "it was cancelled"),
        ({"state": "failed", "error": "No space is left."}, "No space is left."),
    ],
)
def test_an_unfinished_output_is_refused_and_the_user_told_why(state, why, tmp_path, told):
    path = tmp_path / "out.ome.zarr"
    exported(path, "gray")
    (path / "manifest.json").unlink()
    (path / "pixseg-run.json").write_text(json.dumps(state))
    assert get_reader(str(path)) is None
    (record,) = told
    assert record.severity.name == "WARNING"
    assert "unfinished" in record.message
    assert why in record.message
    with pytest.raises(InputNotFound, match="unfinished"):
        layers_of_output(str(path))


def test_an_output_that_lost_its_table_says_so(tmp_path):
    exported(tmp_path / "out.ome.zarr", "gray")
    (tmp_path / "out.ome.zarr/regions.parquet").unlink()
    with pytest.raises(InputNotFound, match=r"regions\.parquet"):
        layers_of_output(str(tmp_path / "out.ome.zarr"))


# Writers ----------------------------------------------------------------------


def preview(result, name="preview"):
    """A layer as the widget makes it."""
    viewer = ViewerModel()
    return viewer, viewer.add_labels(
        np.asarray(result.classes), name=name, metadata={"pixseg": result}
    )


@pytest.mark.parametrize(("name", "files"), [
    ("out.ome.zarr", ["out.ome.zarr"]),
    ("out.zarr", ["out.zarr"]),
    ("out", ["out.ome.zarr"]),
    ("out.png", ["out.png", "out.png.json"]),
    ("out.recolored.tif", ["out.recolored.tif", "out.recolored.tif.json"]),
    ("OUT.JPG", ["OUT.JPG", "OUT.JPG.json"]),
])  # fmt: skip
def test_napari_saves_the_segmentation_behind_a_layer(name, files, plugins, tmp_path):
    result = segment(random_image((41, 30, 3)), st=20)
    viewer, layer = preview(result)
    written = viewer.layers.save(str(tmp_path / name), plugin="napari-pixseg")
    assert written == [str(tmp_path / file) for file in files]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    manifest = Manifest.load(written[0])
    assert (manifest.status, manifest.parameters) == (200, result.parameters)
    if name.endswith("zarr"):
        again = shown(written[0])
        assert set(again) == {"classes", "recolored"}
        np.testing.assert_array_equal(again["classes"].data, layer.data)


@pytest.mark.parametrize("name", ["picture", "picture.png"])
def test_the_picture_writer_makes_a_picture_of_a_bare_name(name, tmp_path):
    result = segment(random_image((41, 30, 3)), st=20)
    meta = {"name": "x", "metadata": {"pixseg": result}}
    written = writer.write_picture(str(tmp_path / name), None, meta)
    assert written == [str(tmp_path / "picture.png"), str(tmp_path / "picture.png.json")]
    np.testing.assert_array_equal(
        PillowImage.open(written[0]).convert("RGB"), result.recolored.compute()
    )


def computed_layers(result):
    """The layers that a run in memory adds, by the output they show."""
    outputs = {name: np.asarray(getattr(result, name)) for name in ("classes", "regions")}
    computed = ComputedOutputs(result, outputs, result.region_table)
    viewer = ViewerModel()
    for data, options, kind in ComputedLayers(computed, "x", {}).make_layers():
        getattr(viewer, f"add_{kind}")(data, **options)
    return viewer, dict(zip(outputs, viewer.layers, strict=True))


def test_a_layer_of_regions_is_saved_as_regions_with_their_table(plugins, tmp_path):
    result = segment(random_image((41, 30, 3)), st=20)
    viewer, layers = computed_layers(result)
    viewer.layers.selection = {layers["regions"]}
    (written,) = viewer.layers.save(
        str(tmp_path / "out.ome.zarr"), selected=True, plugin="napari-pixseg"
    )
    again = shown(written)
    np.testing.assert_array_equal(again["regions"].data, layers["regions"].data)
    assert len(again["regions"].features) == len(result.region_table)
    meta = layers["regions"]._get_state()
    with pytest.raises(ParameterError, match=r"out\.png would be a picture, which cannot hold reg"):
        writer.write_picture(str(tmp_path / "out.png"), layers["regions"].data, meta)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ome.zarr"]


@pytest.mark.parametrize("output", ["classes", "regions"])
def test_a_layer_that_was_painted_on_is_not_saved_as_it_was_before(output, tmp_path):
    _, layers = computed_layers(segment(random_image((41, 30, 3)), st=20))
    layer = layers[output]
    before = int(layer.data[3, 4])
    path = str(tmp_path / "out.ome.zarr")
    layer.data[3, 4] = before + 1
    with pytest.raises(ParameterError, match=rf"'x {output}' was changed by hand, .* undo"):
        writer.write_store(path, layer.data, layer._get_state())
    assert not list(tmp_path.iterdir())
    layer.data[3, 4] = before
    assert writer.write_store(path, layer.data, layer._get_state()) == [path]


def test_nothing_is_overwritten(plugins, tmp_path):
    viewer, _ = preview(segment(random_image((41, 30, 3)), st=20))
    viewer.layers.save(str(tmp_path / "out.png"), plugin="napari-pixseg")
    before = (tmp_path / "out.png").stat().st_mtime_ns
    with pytest.raises(OutputConflict, match="exists already"):
        writer.write_store(str(tmp_path / "out.png"), None, viewer.layers[0]._get_state())
    assert (tmp_path / "out.png").stat().st_mtime_ns == before


def test_a_stack_is_refused_as_png(tmp_path):
    meta = {"metadata": {"pixseg": segment(random_image((3, 41, 30)), axes="zyx", st=20)}}
    with pytest.raises(TooLarge, match=r"\.tif or \.ome\.zarr"):
        writer.write_picture(str(tmp_path / "out.png"), None, meta)


@pytest.mark.parametrize("metadata", [{}, {"pixseg": None}, {"other": 1}])
def test_labels_without_a_segmentation_are_refused_with_what_to_do(metadata, tmp_path):
    meta = {"name": "drawn", "metadata": metadata}
    for write in (writer.write_store, writer.write_picture):
        with pytest.raises(ParameterError, match=r"'drawn' holds no segmentation; open Segment"):
            write(str(tmp_path / "out.ome.zarr"), None, meta)
    assert not list(tmp_path.iterdir())


def test_labels_read_from_an_output_are_refused_by_naming_it(tmp_path):
    exported(tmp_path / "one.ome.zarr", "gray")
    meta = shown(tmp_path / "one.ome.zarr")["classes"]._get_state()
    with pytest.raises(ParameterError, match=r"finished output, file://.*one\.ome\.zarr; copy"):
        writer.write_store(str(tmp_path / "two.ome.zarr"), None, meta)


# The export menu --------------------------------------------------------------


@pytest.fixture
def export(monkeypatch, tmp_path):
    """Choose the menu item in a viewer: what was written, as if in the background."""

    def choose(viewer, answer):
        done = []
        monkeypatch.setattr(export_dialog, "current_viewer", lambda: viewer)
        monkeypatch.setattr(export_dialog, "show_file_dialog", lambda *_, **__: answer)
        monkeypatch.setattr(
            export_dialog,
            "_export_in_background",
            lambda *given: done.append(export_dialog._export_or_error(*given)),
        )
        export_dialog.export_dialog()
        return done

    return choose


def test_the_menu_exports_the_selected_segmentation_or_the_only_one(export, tmp_path, told):
    viewer, layer = preview(segment(random_image((41, 30, 3)), st=20), "one")
    viewer.add_points(np.zeros((1, 2)))
    assert export(viewer, str(tmp_path / "only")) == [([str(tmp_path / "only.ome.zarr")], None)]
    other = segment(random_image((41, 30, 3)), st=30)
    viewer.add_labels(np.ones((4, 4), int), metadata={"pixseg": other})
    viewer.layers.selection.active = layer
    (((written, _), error),) = export(viewer, str(tmp_path / "selected.png"))
    assert error is None
    assert Manifest.load(written).parameters.st == 20
    assert not told


def test_the_menu_says_what_is_missing(export, tmp_path, told):
    viewer, _ = preview(segment(random_image((41, 30, 3)), st=20))
    assert export(viewer, None) == []
    viewer.add_labels(np.ones((4, 4), int), metadata=dict(viewer.layers[0].metadata))
    viewer.layers.selection.clear()
    assert export(viewer, "x") == export(None, "x") == export(ViewerModel(), "x") == []
    messages = [record.message for record in told]
    assert messages[0].startswith("There are several segmentations to export; select")
    assert len(messages) == 3
    assert all(text.startswith("There is no segmentation to export") for text in messages[1:])


def test_errors_in_the_background_come_back_as_one_sentence(export, tmp_path, monkeypatch):
    (tmp_path / "out.png").write_bytes(b"old")
    viewer, _ = preview(segment(random_image((41, 30, 3)), st=20))
    ((written, error),) = export(viewer, str(tmp_path / "out.png"))
    assert not written
    assert "exists already" in error
    monkeypatch.setattr(export_dialog, "export_layer", lambda *_: 1 / 0)
    ((_, error),) = export(viewer, "x")
    assert "unforeseen" in error
