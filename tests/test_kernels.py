"""The compiled loops, against their NumPy formulation."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import napari_pixseg.algorithm.color_table as colortable
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.algorithm.kernels import compiled as kernels
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export import downsample
from napari_pixseg.export import pyramid as ngff

PIXELS = arrays(np.uint32, st.integers(0, 300), elements=st.integers(0, 1 << 24))


@given(PIXELS)
def test_a_table_is_what_unique_counts(packed):
    table = ColorTable.from_packed(packed)
    colors, counts = np.unique(packed[packed < 1 << 24], return_counts=True)
    assert np.array_equal(table.packed, colors)
    assert np.array_equal(table.counts, counts)


@given(st.lists(PIXELS, min_size=1, max_size=9))
def test_merged_tables_are_the_table_of_all_pixels(parts):
    merged = ColorTable.merge([ColorTable.from_packed(part) for part in parts])
    assert merged == ColorTable.from_packed(np.concatenate(parts))
    assert merged.counts.dtype == np.int64


def test_counts_of_merged_tables_go_beyond_32_bits():
    many = ColorTable(np.array([5], np.uint32), np.array([(1 << 32) - 1]))
    assert ColorTable.merge([many, many, many]).counts.tolist() == [3 * ((1 << 32) - 1)]


@given(PIXELS, st.integers(1, 50))
def test_what_is_counted_in_pieces_is_counted_the_same(packed, at_once):
    whole = ColorTable.from_packed(packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colortable, "COUNTED_AT_ONCE", at_once)
        assert ColorTable.from_packed(packed) == whole


def test_counters_that_were_given_back_count_right_again():
    packed = np.array([1, 1, 7], np.uint32)
    before = ColorTable.from_packed(packed)
    colortable.release_counters()
    assert ColorTable.from_packed(packed) == before


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@given(seed=st.integers(0, 999))
def test_numbers_are_counted_as_bincount_does(dtype, seed):
    rng = np.random.default_rng(seed)
    numbers = np.repeat(rng.integers(0, 9, 50), rng.integers(0, 5, 50)).astype(dtype)
    counts = np.zeros(6, np.int64)
    kernels.count_numbers(numbers, counts)
    assert np.array_equal(counts, np.bincount(numbers, minlength=9)[:6])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_painting_takes_colors_and_clips(dtype):
    classes = np.array([0, 3, 1, 200], dtype)
    colors, plane = np.array([9, 8, 7, 6], np.uint8), np.empty(4, np.uint8)
    kernels.paint_classes(classes, colors, plane)
    assert plane.tolist() == np.take(colors, classes, mode="clip").tolist()


@given(PIXELS)
def test_a_look_up_says_how_many_are_zero(packed):
    table = np.arange((1 << 24) + 1) % 3
    result = np.empty(packed.size, np.uint8)
    zeros = kernels.look_up_colors(packed, table.astype(np.uint8), result)
    assert np.array_equal(result, table[packed])
    assert zeros == (result == 0).sum()


@pytest.mark.parametrize("shape", [(64, 64), (61, 47), (3, 40, 33), (170, 150)])
@pytest.mark.parametrize("reduce", [downsample.nearest, downsample.area_mean])
@pytest.mark.parametrize("chunk", [8, 16])
def test_a_level_written_along_is_what_building_it_gives(monkeypatch, shape, reduce, chunk):
    monkeypatch.setattr(ngff, "COARSEST_SIDE", 10)
    lead = (1,) * (len(shape) - 2)
    tiling = Tiling(shape, (*lead, 16, 16), (*lead, chunk, chunk))
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    axes = "zyx"[-len(shape) :]

    def pyramid(along, gathering=None):
        made = ngff.Pyramid.create({}, "", axes, tiling, np.uint8, None)
        made = replace(made, gathering=gathering)
        numbers = np.random.default_rng(1).permutation(len(tiling)).tolist()
        for number in numbers:
            region = tiling.slices(number)
            if along:
                made.write_tile(number, array[region].__getitem__, reduce)
            else:
                made.write(0, region, array[region])

        def done(level):
            there = along and made.writes_along(level)
            return frozenset(range(len(made.level_tiling(level)))) if there else frozenset()

        made.build(reduce, "test", RunMonitor(), done)
        return [np.asarray(level[:]) for level in made.levels]

    expected = pyramid(False)
    for made in (pyramid(True), pyramid(True, downsample.Gathering())):
        for one, other in zip(made, expected, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("grid", [(1, 1), (5, 7), (2, 3, 4), (2, 3, 1, 9), (40, 40)])
def test_tiles_in_nested_order_fill_squares_one_after_the_other(grid):
    tiling = Tiling(tuple(16 * n for n in grid), (16,) * len(grid), (8,) * len(grid))
    order = tiling.nested_order()
    assert sorted(order) == list(range(len(tiling)))
    positions = [tiling.position(number) for number in order]
    for side in (2, 4, 8):
        squares = [(*p[:-2], p[-2] // side, p[-1] // side) for p in positions]
        changes = 1 + sum(a != b for a, b in pairwise(squares))
        assert changes == len(set(squares))


def test_gathered_chunks_are_handed_on_at_once_and_few_wait():
    """Whatever the size of the image: some chunks for each level, with tiles in nested order."""
    most = {}
    for side in (256, 1024):
        tiling = Tiling((side, side), (16, 16), (8, 8))
        gathering, waiting, seen = downsample.Gathering(), 0, 0
        for number in tiling.nested_order():
            part = downsample.halve_slices(tiling.slices(number))
            for level in (2, 3, 4):
                part, shape = downsample.halve_slices(part), (side >> level,) * 2
                block = np.ones([p.stop - p.start for p in part], np.uint8)
                for there, whole in gathering.add(level, part, block, (8, 8), shape):
                    assert whole.shape == tuple(p.stop - p.start for p in there)
                    assert whole.all()
                    seen += whole.size
            waiting = max(waiting, len(gathering._waiting))
        most[side] = waiting
        assert not gathering._waiting
        assert seen == sum((side >> level) ** 2 for level in (2, 3, 4))
    assert most == {256: 3, 1024: 3}


@given(data=st.data())
def test_halving_is_the_mean_of_the_pixels_there_are_rounded_half_up(data):
    shape = tuple(data.draw(st.integers(1, longest)) for longest in (3, 9, 9))
    planes = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, shape, np.uint8)
    found = downsample.area_mean(planes)
    assert found.shape == (shape[0], (shape[1] + 1) // 2, (shape[2] + 1) // 2)
    for index in np.ndindex(found.shape):
        plane, y, x = index
        block = planes[plane, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(int)
        assert found[index] == (2 * block.sum() + block.size) // (2 * block.size)


def test_an_export_imports_neither_pandas_nor_distributed(tmp_path):
    code = f"""
import json, sys
# Dask loads it where it is installed, and it loads pandas.
sys.modules["xarray"] = None
import numpy as np
from napari_pixseg import segment
picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
segment(picture, ct=0, st=20).export({str(tmp_path / "out.zarr")!r}, ("classes", "regions"))
print(json.dumps([name for name in ("pandas", "distributed") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
