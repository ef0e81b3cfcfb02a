"""The OME-Zarr that is written: read by others, exact at every level, in the input's space."""

import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.errors import NotAnImage
from napari_pixseg.execution import tiling
from napari_pixseg.export import downsample, pyramid
from napari_pixseg.sources.source import Source

with warnings.catch_warnings():
    # Importing them triggers deprecation warnings of pydantic. Later warnings still count.
    warnings.simplefilter("ignore")
    import napari.components
    import ome_zarr_models.v05 as models
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr.writer import write_image

CASES = {
    "color": ((41, 30, 3), "yxc"),
    "gray": ((41, 30), "yx"),
    "two channels": ((2, 41, 30), "cyx"),
    "alpha": ((41, 30, 4), "yxc"),
    "stack": ((3, 30, 41, 3), "zyxc"),
    "film": ((2, 41, 30), "tyx"),
    "everything": ((2, 3, 2, 30, 21), "tczyx"),
    "odd order": ((21, 30, 3, 2), "xyzt"),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Several tiles and several pyramid levels for images of some 40 pixels."""
    small_tiles(monkeypatch)


def small_tiles(patch, side=8):
    patch.setattr(tiling, "_SMALLEST_UNIT", 4)
    patch.setattr(tiling, "WRITE_SIDE", 8)
    patch.setattr(tiling, "TILE_SIDE", side)
    patch.setattr(tiling, "TILE_PIXELS", side * side)
    patch.setattr(pyramid, "COARSEST_SIDE", 7)


def random_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def exported(path, case, outputs=("classes", "recolored"), **options):
    shape, axes = CASES[case]
    result = segment(random_image(shape), axes=axes, **{"ct": 0, "st": 0.1, **options})
    result.export(path, outputs)
    return result


def levels(path):
    group = zarr.open_group(path, mode="r")
    count = len(group.attrs["ome"]["multiscales"][0]["datasets"])
    return [group[str(level)] for level in range(count)]


def in_ngff_order(array, axes):
    return array.transpose([axes.index(axis) for axis in "tczyx" if axis in axes])


# What is in it ----------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_level_0_holds_the_classes_and_the_picture(case, tmp_path):
    result = exported(tmp_path / "out.ome.zarr", case)
    own = CASES[case][1].replace("c", "")
    classes = levels(tmp_path / "out.ome.zarr/labels/classes")[0]
    np.testing.assert_array_equal(classes, in_ngff_order(result.classes.compute(), own))
    picture = levels(tmp_path / "out.ome.zarr")[0]
    expected = result.recolored.compute()
    if result.image.gray:
        assert (expected == expected[..., :1]).all()
        expected = in_ngff_order(expected[..., 0], own)
        assert "c" not in picture.metadata.dimension_names
    else:
        expected = in_ngff_order(expected, own + "c")
    channel = "".join(picture.metadata.dimension_names).find("c")
    shown = np.asarray(picture)
    np.testing.assert_array_equal(shown if channel < 0 else shown.take(range(3), channel), expected)


@pytest.mark.parametrize("semantics", ["documented", "imagemagick6"])
def test_alpha_is_kept_at_every_level_unless_imagemagick_would_lose_it(semantics, tmp_path):
    exported(tmp_path / "out.ome.zarr", "alpha", semantics=semantics)
    written = levels(tmp_path / "out.ome.zarr")
    assert {level.shape[0] for level in written} == {4 if semantics == "documented" else 3}
    if semantics == "documented":
        alpha = random_image(CASES["alpha"][0])[..., 3]
        for level in written:
            np.testing.assert_array_equal(level[3], alpha)
            alpha = halved(alpha)


def halved(plane):
    """The mean of each block of 2 x 2 pixels, as far as they exist, rounded half up."""
    height, width = ((n + 1) // 2 for n in plane.shape)
    result = np.zeros((height, width), np.uint8)
    for y, x in np.ndindex(height, width):
        block = plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(int)
        result[y, x] = (2 * block.sum() + block.size) // (2 * block.size)
    return result


@pytest.mark.parametrize("case", CASES)
def test_coarse_labels_are_nearest_neighbors_and_coarse_pictures_area_means(case, tmp_path):
    exported(tmp_path / "out.ome.zarr", case)
    labels = levels(tmp_path / "out.ome.zarr/labels/classes")
    assert len(labels) > 2
    for k, level in enumerate(labels):
        step = 2**k
        np.testing.assert_array_equal(level, labels[0][...][..., ::step, ::step])
        assert max(level.shape[-2:]) > 7 or level is labels[-1]
    finer = None
    for level in levels(tmp_path / "out.ome.zarr"):
        planes = level[...].reshape(-1, *level.shape[-2:])
        if finer is not None:
            np.testing.assert_array_equal(planes, [halved(plane) for plane in finer])
        finer = planes


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_area_mean_is_that_of_the_pixels_that_exist(height, width, seed):
    plane = random_image((height, width), seed)
    np.testing.assert_array_equal(downsample.area_mean(plane), halved(plane))
    np.testing.assert_array_equal(downsample.area_mean(np.full_like(plane, 255)), 255)


@pytest.mark.parametrize("case", CASES)
def test_many_tiles_write_the_bytes_that_one_tile_writes(case, tmp_path):
    written = []
    for side in (8, 2048):
        with pytest.MonkeyPatch.context() as patch:
            small_tiles(patch, side)
            result = exported(tmp_path / str(side) / "out.ome.zarr", case, denoise=1)
        assert (len(result.color_count.tiling) == np.prod(result.image.shape[:-2])) == (side > 8)
        folder = tmp_path / str(side)
        files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".json"]
        files += list(folder.rglob("zarr.json"))
        written.append({str(p.relative_to(folder)): p.read_bytes() for p in files})
    assert written[0] == written[1]
    assert len(written[0]) > 10


@pytest.mark.parametrize("outputs", [("classes",), ("recolored",)])
def test_only_what_is_asked_for_is_written(outputs, tmp_path):
    exported(tmp_path / "out.ome.zarr", "color", outputs)
    assert (tmp_path / "out.ome.zarr/labels").exists() == ("classes" in outputs)
    assert (tmp_path / "out.ome.zarr/0").exists() == ("recolored" in outputs)
    if outputs == ("classes",):
        group = zarr.open_group(tmp_path / "out.ome.zarr/labels/classes", mode="r")
        assert "source" not in group.attrs["ome"]["image-label"]
        with pytest.raises(NotAnImage, match="groups labels"):
            segment(tmp_path / "out.ome.zarr")


def test_class_numbers_above_255_are_written(tmp_path):
    result = segment(random_image((40, 40, 3)), 0, "sRGB", 0.01)
    result.export(tmp_path / "out.ome.zarr")
    written = levels(tmp_path / "out.ome.zarr/labels/classes")[0]
    assert written.dtype == np.uint16
    assert written[...].max() == len(result.table) > 255
    np.testing.assert_array_equal(written, result.classes)


# Read by others ---------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_ome_zarr_models_finds_it_valid(case, tmp_path):
    exported(tmp_path / "out.ome.zarr", case)
    image = models.Image.from_zarr(zarr.open_group(tmp_path / "out.ome.zarr", mode="r"))
    assert image.attributes.ome.multiscales[0].name == "out.ome.zarr"
    group = zarr.open_group(tmp_path / "out.ome.zarr/labels", mode="r")
    assert models.Labels.from_zarr(group).attributes.ome.labels == ["classes"]
    label = models.ImageLabel.from_zarr(group["classes"]).attributes.ome
    assert label.image_label.source.image == "../../"


def test_label_colors_are_the_palette(tmp_path):
    result = exported(tmp_path / "out.ome.zarr", "color")
    group = zarr.open_group(tmp_path / "out.ome.zarr/labels/classes", mode="r")
    colors = models.ImageLabel.from_zarr(group).attributes.ome.image_label.colors
    found = {color.label_value: color.rgba for color in colors}
    expected = {k: (*rgb, 255) for k, rgb in enumerate(result.palette.tolist()) if k}
    assert found == expected
    assert len(found) > 1


@pytest.mark.parametrize("case", CASES)
def test_ome_zarr_py_reads_image_labels_and_pyramids(case, tmp_path):
    exported(tmp_path / "out.ome.zarr", case)
    nodes = {node.zarr.basename(): node for node in Reader(parse_url(tmp_path / "out.ome.zarr"))()}
    image, label = nodes["out.ome.zarr"], nodes["classes"]
    for node, folder in ((image, "out.ome.zarr"), (label, "out.ome.zarr/labels/classes")):
        written = levels(tmp_path / folder)
        assert len(node.data) == len(written)
        for read, level in zip(node.data, written, strict=True):
            np.testing.assert_array_equal(read, level)
        names = "".join(axis["name"] for axis in node.metadata["axes"])
        assert names == "".join(written[0].metadata.dimension_names)


def test_ome_zarr_py_reads_the_colors(tmp_path):
    result = exported(tmp_path / "out.ome.zarr", "color")
    (label,) = (
        node
        for node in Reader(parse_url(tmp_path / "out.ome.zarr"))()
        if node.zarr.basename() == "classes"
    )
    read = [label.metadata["color"][number] for number in range(1, len(result.table) + 1)]
    np.testing.assert_allclose(np.array(read)[:, :3] * 255, result.palette[1:], atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:(napari|vispy|pydantic).*")
@pytest.mark.parametrize("case", ["color", "gray", "stack", "film", "everything"])
def test_napari_shows_it(case, tmp_path):
    result = exported(tmp_path / "out.ome.zarr", case)
    viewer = napari.components.ViewerModel()
    for node in Reader(parse_url(tmp_path / "out.ome.zarr"))():
        name = node.zarr.basename()
        if name == "classes":
            shown = viewer.add_labels(node.data, multiscale=True)
        elif node.data:
            axes = [axis["name"] for axis in node.metadata["axes"]]
            channel = axes.index("c") if "c" in axes else None
            viewer.add_image(node.data, channel_axis=channel, multiscale=True)
    assert len(viewer.layers) == (2 if result.image.gray else 4)
    assert viewer.dims.ndim == len(result.image.label_axes)
    assert shown.data[0].max().compute() == len(result.table)


# The input's space ------------------------------------------------------------


def transforms(path, level):
    group = zarr.open_group(path, mode="r")
    multiscale = group.attrs["ome"]["multiscales"][0]
    scale, translation = multiscale["datasets"][level]["coordinateTransformations"]
    names = [axis["name"] for axis in multiscale["axes"]]
    return (
        dict(zip(names, scale["scale"], strict=True)),
        dict(zip(names, translation["translation"], strict=True)),
        {axis["name"]: axis.get("unit") for axis in multiscale["axes"]},
    )


@pytest.mark.parametrize("where", ["out.ome.zarr", "out.ome.zarr/labels/classes"])
def test_scale_translation_and_units_are_carried_over(where, tmp_path):
    source = Source(
        random_image((2, 3, 3, 30, 21)),
        axes="tczyx",
        scale={"t": 2.0, "z": 3.0, "y": 0.5, "x": 0.25},
        translation={"z": 7.0, "y": 10.0, "x": 20.0},
        units={"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"},
    )
    segment(source, ct=0, st=0.1).export(tmp_path / "out.ome.zarr")
    for level in range(3):
        scale, translation, units = transforms(tmp_path / where, level)
        step = 2**level
        for found in (scale, translation, units):
            found.pop("c", None)
        assert scale == {"t": 2.0, "z": 3.0, "y": 0.5 * step, "x": 0.25 * step}
        # A coarse pixel lies at the center of the block that it stands for.
        centers = {"y": 10 + 0.5 * np.arange(step).mean(), "x": 20 + 0.25 * np.arange(step).mean()}
        assert translation == {"t": 0.0, "z": 7.0, **centers}
        assert units == source.units


def test_an_ome_zarr_by_another_library_hands_on_its_space(tmp_path):
    write_image(
        random_image((3, 41, 30)), str(tmp_path / "in.ome.zarr"), scale_factors=(),
        axes=["c", "y", "x"], scale={"c": 1.0, "y": 0.7, "x": 0.3},
        axes_units={"y": "micrometer", "x": "micrometer"},
    )  # fmt: skip
    segment(tmp_path / "in.ome.zarr", ct=0, st=0.1).export(tmp_path / "out.ome.zarr")
    scale, _, units = transforms(tmp_path / "out.ome.zarr/labels/classes", 0)
    assert scale == {"y": 0.7, "x": 0.3}
    assert units == {"y": "micrometer", "x": "micrometer"}


def test_its_own_output_can_be_segmented_again(tmp_path):
    exported(tmp_path / "one.ome.zarr", "stack")
    again = segment(tmp_path / "one.ome.zarr", ct=0, st=0.1)
    assert again.image.axes == "czyx"
    again.export(tmp_path / "two.ome.zarr")
    assert transforms(tmp_path / "two.ome.zarr", 1) == transforms(tmp_path / "one.ome.zarr", 1)
