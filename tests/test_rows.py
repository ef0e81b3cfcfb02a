"""Measures that wait on disk become the rows that they would have become at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export import measurement_spill as rows_module
from napari_pixseg.export import parquet as table_module
from napari_pixseg.export.measurement_spill import temporary_rows
from napari_pixseg.export.output_location import ROWS_NAME, OutputLocation
from napari_pixseg.export.parquet import write_parquet
from napari_pixseg.regions.measurements import RegionMeasures
from napari_pixseg.regions.region_rows import RegionRowBuilder
from napari_pixseg.regions.tile_layout import Layout

COUNT = 60
# Up to what the columns go: all fit four bytes, some do not, nothing does.
SIZES = {"small": 1 << 9, "large": 1 << 19, "huge": 1 << 34}


def made(rng, axes, channels, largest, kind):
    """Measures of regions 1..COUNT at random; areas and extents are such as can be."""
    shape = (COUNT, axes)
    low = rng.integers(0, largest, shape)
    extent = rng.integers(1, min(largest, 1 << 20), shape)
    areas = rng.integers(1, min(largest, 1 << 20), COUNT)
    sums = low * areas[:, np.newaxis] + rng.integers(0, extent * areas[:, np.newaxis])
    totals = rng.integers(-largest if kind == "signed" else 0, largest, (COUNT, channels))
    if kind == "real":
        totals = totals + rng.random((COUNT, channels))
    classes = rng.integers(1, 300, COUNT)
    return RegionMeasures(
        np.arange(1, COUNT + 1), classes, areas, low, low + extent - 1, sums, totals
    )


def make_row_builder(axes, channels):
    tiling = Tiling((1 << 40,) * len(axes), (1,) * len(axes), (1,) * len(axes))
    return RegionRowBuilder(Layout(tiling, axes), channels, {"x": 0.5, "y": 2.0})


@given(
    st.integers(0, 99),
    st.sampled_from(["yx", "tyx", "zyx", "tzyx"]),
    st.integers(0, 3),
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(["unsigned", "signed", "real"]),
    st.integers(1, COUNT),
    st.integers(0, COUNT),
)
def test_measures_on_disk_become_the_same_rows(
    tmp_path_factory, seed, axes, channels, size, kind, start, length
):
    rng = np.random.default_rng(seed)
    row_builder, measures = (
        make_row_builder(axes, channels),
        made(rng, len(axes), channels, SIZES[size], kind),
    )
    # Some come as whole tiles do, some are chosen, some of the last are not there.
    tile_of = rng.integers(0, 4, COUNT)
    stop = min(start + length, COUNT + 1)
    location = OutputLocation(str(tmp_path_factory.mktemp("store")))
    with temporary_rows(row_builder, location) as rows:
        for tile in range(3):
            rows.put(measures, np.flatnonzero(tile_of == tile))
        # In steps that are shorter than groups, and longer.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows_module, "_AT_ONCE", 1 + seed)
            found = rows.read_group(start, stop)
    assert not list(location.local_path.iterdir())
    wanted = np.arange(start, stop) - 1
    expected, put = row_builder.make_rows(measures, wanted), tile_of[wanted] < 3
    assert list(found) == list(row_builder.dtype.names)
    for name, column in expected.items():
        assert found[name].dtype == row_builder.dtype[name]
        np.testing.assert_array_equal(found[name][put], column[put])


def test_regions_far_from_the_corner_of_a_large_image_take_four_bytes_for_each_measure(tmp_path):
    near, far = made(np.random.default_rng(0), 2, 3, SIZES["small"], "unsigned"), 1 << 31
    sums = near.sums + far * near.areas[:, np.newaxis]
    measures = replace(near, low=near.low + far, high=near.high + far, sums=sums)
    assert sums.min() > 1 << 32 or measures.areas.min() < 2
    row_builder = make_row_builder("yx", 3)
    with temporary_rows(row_builder, OutputLocation(str(tmp_path))) as rows:
        rows.put(measures, np.arange(COUNT))
        (file,) = (tmp_path / ROWS_NAME).iterdir()
        assert file.stat().st_size == COUNT * 4 * (3 + 3 * 2 + 3)
        found = rows.read_group(1, COUNT + 1)
    for name, column in row_builder.make_rows(measures).items():
        np.testing.assert_array_equal(found[name], column)


@pytest.mark.parametrize("group", [7, 100, 1 << 17])
def test_a_parquet_file_holds_all_rows_in_order_whenever_they_come(group, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(table_module, "_ROWS_PER_GROUP", group)
    rng, late = np.random.default_rng(0), np.array([1, 7, 8, 14, 15, 50, COUNT]) - 1
    row_builder, measures = make_row_builder("yx", 3), made(rng, 2, 3, SIZES["large"], "unsigned")
    tile_of = rng.integers(0, 3, COUNT)
    tile_of[late] = -1
    with temporary_rows(row_builder, OutputLocation(str(tmp_path))) as rows:
        for tile in (2, 0, 1, 3):
            rows.put(measures, np.flatnonzero(tile_of == tile))
        write_parquet(
            tmp_path / "table.parquet", rows, row_builder.make_rows(measures, late), COUNT
        )
    found = parquet.read_table(tmp_path / "table.parquet")
    for name, column in row_builder.make_rows(measures).items():
        assert found[name].to_numpy().dtype == row_builder.dtype[name]
        np.testing.assert_array_equal(found[name].to_numpy(), column)
