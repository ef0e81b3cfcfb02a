"""The region table, and regions on disk: what scikit-image measures on the whole image."""

import json
from pathlib import Path

import dask
import dask.array as da
import jsonschema
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import regionprops_table
from test_regions import MANY_CLASSES, painted

from napari_pixseg import Manifest, cli, segment
from napari_pixseg.execution import tiling
from napari_pixseg.export import pyramid
from napari_pixseg.sources.source import Source

SCHEMA = Path(__file__).parents[1] / "docs/manifest.schema.json"
AXES = ("yx", "yxc", "yxc", "zyx", "zyxc", "tyx", "tzyxc", "xyc", "cxyz")
LENGTHS = {"t": (2, 3), "z": (3, 1, 4), "y": (7, 10, 1, 13), "x": (6, 9, 14, 1), "c": (3, 1, 2)}
SCALE = {"t": 9.0, "z": 2.0, "y": 0.5, "x": 0.25}


def small_tiles(patch, side):
    """Tiles and written chunks of so many pixels, and several levels of small images."""
    patch.setattr(tiling, "_SMALLEST_UNIT", 2)
    patch.setattr(tiling, "WRITE_SIDE", side)
    patch.setattr(tiling, "TILE_SIDE", side)
    patch.setattr(tiling, "TILE_PIXELS", side * side)
    patch.setattr(pyramid, "COARSEST_SIDE", 7)


@pytest.fixture
def small(monkeypatch):
    small_tiles(monkeypatch, 14)


# The table from the whole image ----------------------------------------------------


def engine_order(array, axes):
    return array.transpose([axes.index(axis) for axis in "tzyxc" if axis in axes])


def edge_numbers(labels, axes):
    """Numbers on the first and last plane of every axis of space that has more than one."""
    faces = [
        labels.take((0, -1), axis=k)
        for k, axis in enumerate(axes)
        if axis != "t" and labels.shape[k] > 1
    ]
    return np.unique(np.concatenate([np.ravel(face) for face in faces] or [[]]))


def whole_table(regions, classes, picture, axes):
    """Rows by number, each frame measured by scikit-image."""
    own = "".join(axis for axis in "tzyx" if axis in axes)
    samples = engine_order(picture, axes)
    samples = samples if "c" in axes else samples[..., np.newaxis]
    samples = samples.astype(np.float64)  # of float32, scikit-image makes a mean of 32 bits
    labels, classes = (engine_order(a, axes.replace("c", "")) for a in (regions, classes))
    names = ("label", "area", "bbox", "centroid", "intensity_mean")
    border, spatial = edge_numbers(labels, own), own.replace("t", "")
    tables = []
    for t in range(labels.shape[0] if "t" in own else 1):
        at = t if "t" in own else slice(None)
        found = regionprops_table(labels[at], samples[at], properties=names)
        rows = {"number": found["label"], "area": found["area"].astype(int)}
        rows["class"] = [classes[at][labels[at] == k][0] for k in rows["number"]]
        for k, axis in enumerate(spatial):
            rows[f"bbox_min_{axis}"] = found[f"bbox-{k}"]
            rows[f"bbox_max_{axis}"] = found[f"bbox-{k + len(spatial)}"]
            rows[f"centroid_{axis}"] = found[f"centroid-{k}"]
        if "t" in own:
            rows |= {"bbox_min_t": t, "bbox_max_t": t + 1, "centroid_t": float(t)}
        for channel in range(samples.shape[-1]):
            rows[f"mean_{channel}"] = found[f"intensity_mean-{channel}"]
        rows["touches_border"] = np.isin(rows["number"], border)
        tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)


def check(table, expected, rtol):
    assert len(table) == len(expected)
    assert set(table.dtype.names) == {*expected.columns, "physical_area"}
    np.testing.assert_array_equal(table["number"], np.arange(1, len(table) + 1))
    for name in expected.columns:
        if table.dtype[name].kind == "f":
            np.testing.assert_allclose(table[name], expected[name], rtol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(table[name], expected[name], name)


@st.composite
def pictures(draw):
    axes = draw(st.sampled_from(AXES))
    shape = tuple(draw(st.sampled_from(LENGTHS[axis])) for axis in axes)
    dtype = np.dtype(draw(st.sampled_from(("u1", "u2", "i4", "f4", "f8"))))
    return of_type(painted(shape, axes, draw(st.integers(0, 9999))), dtype), axes


def of_type(picture, dtype):
    """The same classes in samples that are no bytes, or no integers."""
    if dtype == np.uint8:
        return picture
    fractions = np.random.default_rng(1).random(picture.shape) if dtype.kind == "f" else 0
    return ((picture.astype(int) + fractions) * 211 - 3000 * (dtype.kind != "u")).astype(dtype)


@st.composite
def options(draw, axes):
    return {
        "connectivity": draw(st.integers(1, len(set(axes) & set("zyx")))),
        "background": draw(st.sampled_from((None, None, "largest", 1))),
        "min_size": draw(st.sampled_from((0, 0, 3))),
    }


def test_the_table_is_that_of_scikit_image_on_the_whole_image():
    counts = []

    @given(data=st.data())
    def equal(data):
        picture, axes = data.draw(pictures())
        choices = data.draw(options(axes))
        with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
            small_tiles(patch, data.draw(st.integers(1, 9)))
            result = segment(picture, axes=axes, **MANY_CLASSES, **choices)
            regions, table = result.regions.compute(), result.region_table
            classes = result.classes.compute()
        # Sums of integers are exact there and here; other samples are added in another order.
        check(table, whole_table(regions, classes, picture, axes), 1e-12)
        np.testing.assert_array_equal(table["physical_area"], table["area"])
        counts.append(len(table))

    equal()
    assert max(counts) > 10


@given(data=st.data())
def test_the_table_does_not_depend_on_tiles(data):
    picture, axes = data.draw(pictures())
    choices, tables = data.draw(options(axes)), []
    for side in (100, data.draw(st.integers(1, 9)), data.draw(st.integers(2, 4))):
        with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="threads"):
            small_tiles(patch, side)
            tables.append(segment(picture, axes=axes, **MANY_CLASSES, **choices).region_table)
    whole, *others = tables
    for table in others:
        assert table.dtype == whole.dtype
        for name in whole.dtype.names:
            if name.startswith("mean") and picture.dtype.kind == "f":
                np.testing.assert_allclose(table[name], whole[name], rtol=1e-12)
            else:
                np.testing.assert_array_equal(table[name], whole[name], name)


@pytest.mark.parametrize(("axes", "size"), [("yx", 0.125), ("zyx", 0.25), ("tyx", 0.125)])
def test_physical_areas_are_those_of_the_pixels_in_space(axes, size, small):
    picture = painted((3, 12, 10)[-len(axes) :], axes, 4)
    table = segment(Source(picture, axes=axes, scale=SCALE), **MANY_CLASSES).region_table
    np.testing.assert_array_equal(table["physical_area"], table["area"] * size)


def test_alpha_is_not_averaged(small):
    picture = painted((9, 9, 4), "yxc", 0)
    assert [n for n in segment(picture).region_table.dtype.names if "mean" in n] == [
        "mean_0", "mean_1", "mean_2",
    ]  # fmt: skip


@pytest.mark.parametrize("nothing", [{"background": "largest"}, {"min_size": 1000}])
def test_no_regions_make_an_empty_table_and_an_export_all_the_same(nothing, small, tmp_path):
    result = segment(np.full((20, 20, 3), 7, np.uint8), **nothing)
    assert not result.regions.compute().any()
    assert result.region_table.shape == (0,)
    manifest = result.export(tmp_path / "out.ome.zarr", ("classes", "regions"))
    assert manifest.details["regions"]["count"] == 0
    frame = pd.read_parquet(tmp_path / "out.ome.zarr/regions.parquet")
    assert list(frame.columns) == list(result.region_table.dtype.names)
    assert len(frame) == 0


# On disk ---------------------------------------------------------------------


EXPORTED = {
    "gray": ("yx", (30, 41), np.uint8),
    "color": ("yxc", (41, 30, 3), np.uint8),
    "stack": ("zyx", (3, 20, 31), np.uint16),
    "film": ("tyxc", (2, 20, 31, 3), np.float32),
    "odd order": ("xyt", (31, 20, 2), np.uint8),
}
OUTPUTS = [("classes", "regions", "recolored"), ("regions",), ("recolored", "regions")]


def levels(path):
    group = zarr.open_group(path, mode="r")
    (described,) = group.attrs["ome"]["multiscales"]
    return [group[dataset["path"]] for dataset in described["datasets"]]


def check_store(path, result, axes):
    """What lies on disk is what Python gives, at every level."""
    fine, *coarse = levels(path / "labels/regions")
    regions = engine_order(result.regions.compute(), axes.replace("c", ""))
    assert fine.dtype == np.uint32
    np.testing.assert_array_equal(fine, regions)
    assert coarse
    for k, level in enumerate(coarse, start=1):
        assert level.dtype == np.uint32
        np.testing.assert_array_equal(level, regions[..., :: 2**k, :: 2**k])
    expected = pd.DataFrame(result.region_table)
    pd.testing.assert_frame_equal(pd.read_parquet(path / "regions.parquet"), expected)
    manifest = json.loads((path / "manifest.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(manifest)
    stated = {"count": len(expected), "dtype": "uint32", "table": "regions.parquet"}
    assert manifest["details"]["regions"] == stated
    return manifest["details"]


@pytest.mark.parametrize(
    ("case", "outputs"),
    [*((case, OUTPUTS[0]) for case in EXPORTED), *(("color", some) for some in OUTPUTS[1:])],
)
def test_an_export_holds_the_regions_and_their_table(case, outputs, small, tmp_path):
    axes, shape, dtype = EXPORTED[case]
    picture = of_type(painted(shape, axes, 9), np.dtype(dtype))
    choices = {"connectivity": 2, "background": (2,), "min_size": 2}
    source = Source(picture, axes=axes, scale=SCALE)
    result = segment(source, **MANY_CLASSES, **choices)
    path = tmp_path / "out.ome.zarr"
    result.export(path, outputs)
    details = check_store(path, result, axes)
    assert details["outputs"] == list(outputs)
    assert len(result.region_table) > 10
    labels = zarr.open_group(path / "labels", mode="r")
    named = [name for name in ("classes", "regions") if name in outputs]
    assert labels.attrs["ome"]["labels"] == named == sorted(labels)
    if "classes" in outputs:
        classes = engine_order(result.classes.compute(), axes.replace("c", ""))
        np.testing.assert_array_equal(levels(path / "labels/classes")[0], classes)
    described = labels["regions"].attrs["ome"]
    assert ("source" in described["image-label"]) == ("recolored" in outputs)


def test_regions_on_disk_do_not_depend_on_tiles(monkeypatch, tmp_path):
    picture = painted((30, 41, 3), "yxc", 10)
    for side in (64, 16, 9):
        small_tiles(monkeypatch, side)
        chunked = da.from_array(picture, chunks=(side, side, 1))
        segment(chunked, **MANY_CLASSES).export(tmp_path / f"{side}.ome.zarr", ("regions",))
    tables = [
        pd.read_parquet(tmp_path / f"{side}.ome.zarr/regions.parquet") for side in (64, 16, 9)
    ]
    labels = [levels(tmp_path / f"{side}.ome.zarr/labels/regions")[0] for side in (64, 16, 9)]
    for table, label in zip(tables[1:], labels[1:], strict=True):
        pd.testing.assert_frame_equal(table, tables[0])
        np.testing.assert_array_equal(label, labels[0])


def test_without_the_output_there_is_no_table_and_nothing_in_the_manifest(small, tmp_path):
    picture = painted((30, 41, 3), "yxc", 10)
    manifest = segment(picture).export(tmp_path / "out.ome.zarr", ("classes",))
    assert "regions" not in manifest.details
    assert not (tmp_path / "out.ome.zarr/regions.parquet").exists()
    assert not (tmp_path / "out.ome.zarr/labels/regions").exists()


def test_the_command_writes_regions_as_it_was_told(small, tmp_path, capsys):
    picture = painted((60, 50, 3), "yxc", 11)
    source = zarr.create_array(tmp_path / "in.zarr", shape=picture.shape, dtype="u1")
    source[...] = picture
    path = tmp_path / "out.ome.zarr"
    command = f"segment {tmp_path / 'in.zarr'} {path} --ct 0 --cs sRGB --st 0.1 --axes yxc"
    told = "--outputs classes,regions,recolored --connectivity 2 --background largest --min-size 5"
    assert cli.main([*command.split(), *told.split()]) == 0
    choices = {"connectivity": 2, "background": "largest", "min_size": 5}
    expected = segment(tmp_path / "in.zarr", axes="yxc", **MANY_CLASSES, **choices)
    details = check_store(path, expected, "yxc")
    assert {name: details["parameters"][name] for name in choices} == choices
    assert details["outputs"] == ["classes", "regions", "recolored"]
    assert Manifest.from_json(capsys.readouterr().out) == Manifest.load(path)
    table = expected.region_table
    largest = np.argmax([row["count"] for row in details["classes"]]) + 1
    assert len(table) > 1
    assert table["area"].min() >= 5
    assert largest not in table["class"]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", "f2", "longdouble", "?"])
def test_samples_of_types_that_no_kernel_knows_are_measured_too(dtype, lazy):
    array = np.random.default_rng(0).integers(0, 2, (12, 14, 3)).astype(dtype)
    native = array.astype(np.float64)
    given = da.from_array(array, chunks=(5, 14, 3)) if lazy else array
    ours = segment(given, ct=0, st=1, window=(0, 1)).region_table
    wanted = segment(native, ct=0, st=1, window=(0, 1)).region_table
    for name in wanted.dtype.names:
        np.testing.assert_array_equal(ours[name], wanted[name])
