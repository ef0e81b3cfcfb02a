"""Between napari's layers and the engine, with layers that no window shows."""

import shutil
import warnings

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as PillowImage
from pydantic.warnings import PydanticDeprecatedSince20

from napari_pixseg import segment
from napari_pixseg.errors import InputNotFound, NotAnImage, ParameterError
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers import strided_image
from napari_pixseg.plugin.layers.image_layers import (
    LayerSnapshot,
    axes_of_layer,
    image_layer_of_path,
    images_of_layer,
    levels_of,
    placement_of,
    preview_levels,
)
from napari_pixseg.plugin.layers.preview_level import PreviewPixels
from napari_pixseg.sources.image import open_image

with warnings.catch_warnings():
    # npe2 and napari use what pydantic deprecates.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from napari.layers import Image, Labels, Layer

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
)


def random(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


LAYERS = {
    "RGB": (random((20, 30, 3)), {"rgb": True}, "yxc"),
    "RGBA": (random((20, 30, 4)), {"rgb": True}, "yxc"),
    "gray": (random((20, 30)), {}, "yx"),
    "stack": (random((4, 20, 30)), {}, "zyx"),
    "labeled stack": (random((4, 20, 30)), {"axis_labels": ("Z", "Y", "X")}, "zyx"),
    "film": (random((4, 20, 30)), {"axis_labels": ("time", "y", "x")}, "tyx"),
    "color stack": (random((4, 20, 30, 3)), {"rgb": True}, "zyxc"),
    "four": (random((2, 4, 20, 30)), {}, "tzyx"),
    "other order": (random((20, 30, 4)), {"axis_labels": ("x", "y", "z")}, "xyz"),
    "strange labels": (random((4, 20, 30)), {"axis_labels": ("q", "row", "col")}, "zyx"),
    "labeled twice": (random((4, 20, 30)), {"axis_labels": ("x", "y", "x2")}, "zyx"),
    "float": (random((20, 30), np.float32), {}, "yx"),
    "16 bits": (random((20, 30), np.uint16), {}, "yx"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_says_what_its_dimensions_are(name):
    data, options, axes = LAYERS[name]
    view = LayerSnapshot.of(Image(data, **options))
    assert axes_of_layer(view) == axes
    (image,) = images_of_layer(view, Parameters())
    assert image.axes == axes
    assert image.dtype == data.dtype
    wanted = segment(data, axes=axes)
    order = [image.own_axes.index(axis) for axis in image.label_axes]
    classes = np.asarray(wanted.classes).transpose(order)
    assert image.shape == classes.shape


def test_chosen_axes_and_channels_come_first():
    view = LayerSnapshot.of(Image(random((3, 20, 30)), name="stack"))
    (image,) = images_of_layer(view, Parameters(axes="cyx", channels=(2, 0)))
    assert (image.axes, image.channels) == ("cyx", (2, 0))
    with pytest.raises(ParameterError):
        images_of_layer(view, Parameters(axes="yx"))


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 8, 8)])
def test_other_numbers_of_dimensions_are_refused_by_the_layers_name(shape):
    view = LayerSnapshot.of(Image(random((8, 8)), name="odd"))
    odd = LayerSnapshot(**{**view.__dict__, "ndim": len(shape), "axis_labels": ()})
    with pytest.raises(NotAnImage, match="odd"):
        images_of_layer(odd, Parameters())


def test_scale_translation_and_units_come_along():
    layer = Image(
        random((4, 20, 30)), scale=(3, 0.5, 0.25), translate=(1, 2, 3),
        units=("um", "um", "um"), axis_labels=("z", "y", "x"),
    )  # fmt: skip
    (image,) = images_of_layer(LayerSnapshot.of(layer), Parameters())
    assert image.source.scale == {"z": 3.0, "y": 0.5, "x": 0.25}
    assert image.source.translation == {"z": 1.0, "y": 2.0, "x": 3.0}
    assert image.source.units == dict.fromkeys("zyx", "micrometer")


def test_unknown_units_are_none():
    (image,) = images_of_layer(LayerSnapshot.of(Image(random((20, 30)))), Parameters())
    assert image.source.units == {}


def test_a_multiscale_layer_gives_all_its_levels():
    data = [random((40, 40, 3)), random((20, 20, 3)), random((10, 10, 3))]
    view = LayerSnapshot.of(Image(data, rgb=True, multiscale=True))
    images = images_of_layer(view, Parameters())
    assert [image.shape for image in images] == [(40, 40), (20, 20), (10, 10)]
    assert [level.stride for level in levels_of(images)] == [1, 1, 1]


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "other order"])
def test_a_preview_is_put_where_the_layer_is(name):
    data, options, _ = LAYERS[name]
    ndim = data.ndim - bool(options.get("rgb"))
    location = {
        "scale": np.linspace(0.5, 2, ndim),
        "translate": np.arange(ndim),
        "units": ("um",) * ndim,
    }
    layer = Image(data, **options, **location)
    (image,) = images_of_layer(LayerSnapshot.of(layer), Parameters())
    labels = Labels(np.zeros(image.shape, np.uint16), **placement_of(layer))
    np.testing.assert_allclose(labels.extent.world, layer.extent.world)
    assert labels.units == layer.units
    assert labels.axis_labels == layer.axis_labels


def preview_of(layer, parameters):
    """A preview as the widget makes it, and the classes it is to show."""
    view = LayerSnapshot.of(layer)
    images = images_of_layer(view, parameters)
    result = segment(images[0].source, **parameters.to_dict())
    pixels = PreviewPixels()
    pixels.encode_with(result.color_count.pixels().encoding, 0)
    pixels.lookup.set_decision(result.decision, result.color_table)
    data = preview_levels(view, images, pixels)
    preview = Labels(data if len(data) > 1 else data[0], **placement_of(layer))
    return preview, np.asarray(result.classes)


@pytest.mark.parametrize("axes", ["xy", "yxt", "xzty", "tzyx"])
def test_a_preview_has_the_order_of_the_layer(axes):
    shape = tuple({"t": 2, "z": 3, "y": 20, "x": 30}[axis] for axis in axes)
    layer = Image(random(shape), axis_labels=tuple(axes), scale=np.arange(1, len(axes) + 1))
    preview, wanted = preview_of(layer, Parameters(ct=0, st=0.5))
    np.testing.assert_array_equal(preview.data, wanted)
    np.testing.assert_allclose(preview.extent.world, layer.extent.world)


@pytest.mark.parametrize("labels", [("x", "y"), ("y", "z", "x"), ("x", "t", "z", "y")])
def test_a_preview_of_colors_has_the_order_of_the_layer(labels):
    shape = tuple({"t": 2, "z": 3, "y": 20, "x": 30}[axis] for axis in labels)
    layer = Image(random((*shape, 3)), rgb=True, axis_labels=labels)
    preview, wanted = preview_of(layer, Parameters(ct=0, st=0.5))
    np.testing.assert_array_equal(preview.data, wanted)
    np.testing.assert_allclose(preview.extent.world, layer.extent.world)


@pytest.mark.parametrize("axes", ["cyx", "zcyx", "yxc"])
def test_a_preview_shows_the_same_for_all_channels_of_a_layer_that_is_not_rgb(axes):
    shape = tuple({"c": 3, "z": 4, "y": 20, "x": 30}[axis] for axis in axes)
    layer = Image(random(shape), rgb=False, scale=np.arange(1, len(axes) + 1))
    preview, wanted = preview_of(layer, Parameters(ct=0, st=0.5, axes=axes))
    assert preview.data.shape == shape
    for channel in range(3):
        part = tuple(channel if axis == "c" else slice(None) for axis in axes)
        np.testing.assert_array_equal(preview.data[part], wanted)
    np.testing.assert_allclose(preview.extent.world, layer.extent.world)


def test_rotated_sheared_and_moved_layers_are_followed():
    affine = np.array([[0.9, 0.2, 4], [-0.1, 1.1, 5], [0, 0, 1]])
    layer = Image(random((20, 30)), rotate=20, shear=[0.3], affine=affine, scale=(2, 3))
    labels = Labels(np.zeros((20, 30), np.uint16), **placement_of(layer))
    for point in ((0, 0), (19, 29), (3, 17)):
        np.testing.assert_allclose(labels.data_to_world(point), layer.data_to_world(point))


# Paths -----------------------------------------------------------------------------


def opened(path):
    layer = Layer.create(*image_layer_of_path(str(path)))
    assert isinstance(layer, Image)
    return layer


def level_0(layer):
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_a_png_is_opened(tmp_path, shape):
    array = random(shape)
    PillowImage.fromarray(array).save(tmp_path / "in.png")
    layer = opened(tmp_path / "in.png")
    np.testing.assert_array_equal(level_0(layer), array[..., :3] if len(shape) == 3 else array)
    assert layer.rgb == (len(shape) == 3)
    assert layer.name == "in.png"
    (image,) = images_of_layer(LayerSnapshot.of(layer), Parameters())
    assert image.source.uri.endswith("in.png")


def test_a_tiff_brings_its_axes_and_sizes(tmp_path):
    array = random((4, 20, 30), np.uint16)
    tifffile.imwrite(
        tmp_path / "in.ome.tif", array, photometric="minisblack",
        metadata={
            "axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2,
            "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm", "PhysicalSizeZUnit": "µm",
        },
    )  # fmt: skip
    layer = opened(tmp_path / "in.ome.tif")
    np.testing.assert_array_equal(level_0(layer), array)
    np.testing.assert_allclose(layer.scale, (2, 0.25, 0.5))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert layer.contrast_limits == [0, 65535]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint32, bool])
def test_a_zarr_array_of_any_type_is_opened(tmp_path, dtype):
    array = random((40, 30)).astype(dtype)
    zarr.create_array(str(tmp_path / "in.zarr"), data=array, chunks=(16, 16))
    np.testing.assert_array_equal(level_0(opened(tmp_path / "in.zarr")), array)


def test_a_file_of_another_order_keeps_it(tmp_path):
    array = random((30, 4, 20))
    store = zarr.create_array(
        str(tmp_path / "in.zarr"), data=array, chunks=(16, 4, 16), dimension_names=("x", "z", "y")
    )
    layer = opened(tmp_path / "in.zarr")
    assert layer.axis_labels == ("x", "z", "y")
    np.testing.assert_array_equal(layer.data, store[:])
    preview, wanted = preview_of(layer, Parameters(ct=0, st=0.5))
    np.testing.assert_array_equal(preview.data, wanted)


def test_a_large_zarr_array_gets_levels(tmp_path, monkeypatch):
    monkeypatch.setattr(strided_image, "LARGEST_PLANE", 1000)
    monkeypatch.setattr(strided_image, "_COARSEST_SIDE", 16)
    array = random((60, 50, 3))
    zarr.create_array(str(tmp_path / "in.zarr"), data=array, chunks=(16, 16, 3))
    layer = opened(tmp_path / "in.zarr")
    assert layer.multiscale
    assert [level.shape[:2] for level in layer.data] == [(60, 50), (30, 25), (15, 13)]
    np.testing.assert_array_equal(layer.data[2], array[::4, ::4])


def ngff(path, arrays, axes, version, names=None, unit="micrometer"):
    """Write an OME-Zarr pyramid as others do."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    names = names or [str(number) for number in range(len(arrays))]
    datasets = []
    for number, (name, array) in enumerate(zip(names, arrays, strict=True)):
        extra = {} if version == "0.4" else {"dimension_names": list(axes)}
        group.create_array(name, data=array, chunks=tuple(min(n, 16) for n in array.shape), **extra)
        scale = [1.0 if axis == "c" else 0.5 * 2**number for axis in axes]
        transform = {"type": "scale", "scale": scale}
        datasets.append({"path": name, "coordinateTransformations": [transform]})
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": a, "type": kinds.get(a, "space"), **({} if a in "ct" else {"unit": unit})}
        for a in axes
    ]
    content = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}]}
    if version == "0.4":
        group.attrs.update(content)
    else:
        group.attrs["ome"] = {"version": version, **content}
    return str(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "czyx"])
def test_an_ome_zarr_is_opened_with_all_its_levels(tmp_path, version, axes):
    shape = tuple({"c": 3, "z": 4, "y": 40, "x": 32}[axis] for axis in axes)
    array = random(shape)
    arrays = [array, array[..., ::2, ::2], array[..., ::4, ::4]]
    layer = opened(ngff(tmp_path / "in.ome.zarr", arrays, axes, version))
    assert layer.multiscale
    own = axes.replace("c", "")
    assert layer.axis_labels == tuple(own)
    np.testing.assert_allclose(layer.scale, [0.5] * len(own))
    assert layer.rgb == ("c" in axes)
    for level, stored in zip(layer.data, arrays, strict=True):
        wanted = np.moveaxis(stored, 0, -1) if "c" in axes else stored
        np.testing.assert_array_equal(level, wanted)
    images = images_of_layer(LayerSnapshot.of(layer), Parameters())
    assert [image.axes for image in images] == [axes] * 3


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("names", [("s0", "s1"), ("full", "half"), ("scale/0", "scale/1")])
def test_levels_are_found_by_the_paths_that_the_metadata_give(tmp_path, version, names):
    array = random((40, 32))
    path = ngff(tmp_path / "in.zarr", [array, array[::2, ::2]], "yx", version, names)
    zarr.open_group(path)["1"] = random((3, 3))
    layer = opened(path)
    assert len(layer.data) == 2
    np.testing.assert_array_equal(layer.data[1], array[::2, ::2])
    fine, coarse = images_of_layer(LayerSnapshot.of(layer), Parameters())
    assert coarse.source.scale == {"y": 1.0, "x": 1.0}
    assert coarse.source.uri == f"{fine.source.uri}/{names[1]}"
    np.testing.assert_array_equal(open_image(coarse.source.uri).source.array, array[::2, ::2])


def test_a_missing_level_and_those_behind_it_are_left_out(tmp_path):
    array = random((40, 32))
    path = ngff(tmp_path / "in.zarr", [array, array[::2, ::2], array[::4, ::4]], "yx", "0.5")
    shutil.rmtree(f"{path}/1")
    layer = opened(path)
    assert not layer.multiscale
    np.testing.assert_array_equal(layer.data, array)


def test_two_channels_are_red_and_green(tmp_path):
    array = random((2, 40, 32))
    layer = opened(ngff(tmp_path / "in.zarr", [array], "cyx", "0.5"))
    assert layer.rgb
    np.testing.assert_array_equal(layer.data[..., :2], np.moveaxis(array, 0, -1))
    assert not np.asarray(layer.data[..., 2]).any()


def test_an_unknown_unit_is_no_obstacle(tmp_path):
    layer = opened(ngff(tmp_path / "in.zarr", [random((40, 32))], "yx", "0.5", unit="voxel_edge"))
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]


def test_what_cannot_be_opened_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputNotFound):
        image_layer_of_path(str(tmp_path / "nothing.zarr"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotAnImage):
        image_layer_of_path(str(tmp_path / "notes.txt"))
