"""The plan of tiles: every pixel once, no chunk written or read by two."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_pixseg import segment
from napari_pixseg.execution import tiling
from napari_pixseg.execution.cost_estimate import estimate
from napari_pixseg.execution.tiling import TILE_PIXELS, TILE_SIDE, Tiling, plan_tiles


@st.composite
def plans(draw):
    """An image of any shape and storage chunks, and its plan."""
    lengths = st.integers(1, 9) | st.integers(1, 9000) | st.sampled_from((1024, 2048, 2049, 4097))
    depth = draw(st.lists(st.integers(1, 6), max_size=2))
    shape = (*depth, draw(lengths), draw(lengths))
    sides = st.integers(1, 9000) | st.sampled_from((1, 64, 100, 255, 256, 512, 1000, 2048, 4096))
    chunks = (*(draw(st.integers(1, n)) for n in depth), draw(sides), draw(sides))
    image = SimpleNamespace(
        shape=shape,
        chunks=draw(st.sampled_from((None, chunks))),
        dtype=np.dtype(draw(st.sampled_from(("uint8", "uint16", "float64")))),
        color_channels=draw(st.integers(1, 3)),
        source=SimpleNamespace(is_in_memory=False, decoding_bytes=0),
    )
    return image, plan_tiles(image)


def partitions(slices, length):
    """Whether slices follow each other without gap or overlap from 0 to a length."""
    ends = sorted({(part.start, part.stop) for part in slices})
    starts = [0, *(stop for _, stop in ends)]
    return starts[:-1] == [start for start, _ in ends] and starts[-1] == length


@given(plans())
def test_tiles_hold_every_pixel_exactly_once(plan):
    image, tiles = plan
    boxes = [tiles.slices(number) for number in range(len(tiles))]
    assert len(boxes) == len(tiles) == math.prod(tiles.grid)
    bounds = [tuple((part.start, part.stop) for part in box) for box in boxes]
    assert len(set(bounds)) == len(boxes)
    for axis, length in enumerate(image.shape):
        assert partitions([box[axis] for box in boxes], length)
        assert sum(tiles.chunks[axis]) == length
    volumes = (math.prod(b - a for a, b in box) for box in bounds)
    assert sum(volumes) == math.prod(image.shape)


@given(plans())
def test_no_written_chunk_belongs_to_two_tiles(plan):
    image, tiles = plan
    for tile, unit, length in zip(tiles.tile, tiles.write_chunk, image.shape, strict=True):
        assert tile % unit == 0 or tile >= length
        assert unit >= 1


@given(plans())
def test_storage_chunks_up_to_a_tiles_side_are_read_by_one_tile(plan):
    image, tiles = plan
    if image.chunks is None or math.prod(image.chunks) > 1 << 26:
        return  # one chunk would fill the memory: it is read in parts
    for tile, chunk, length in zip(tiles.tile, image.chunks, image.shape, strict=True):
        if chunk <= TILE_SIDE:
            assert tile % chunk == 0 or tile >= length


@given(plans())
def test_tiles_are_numbered_along_the_last_axis_first(plan):
    _, tiles = plan
    positions = [tiles.position(number) for number in range(len(tiles))]
    assert positions == list(np.ndindex(*tiles.grid))


@given(plans())
def test_a_plane_is_cut_into_tiles_of_a_few_megapixels(plan):
    image, tiles = plan
    chunk = image.chunks or (1,) * len(image.shape)
    stored = math.prod(min(a, b) for a, b in zip(chunk, image.shape, strict=True))
    rows, columns = (
        min(tile, length) for tile, length in zip(tiles.tile[-2:], image.shape[-2:], strict=True)
    )
    # A chunk of a side that no number from 256 to 2048 divides is written whole.
    assert rows * columns <= max(4 * TILE_PIXELS, 4 * stored, TILE_SIDE * max(chunk[-2:]) * 2)


@pytest.mark.parametrize("rows", [64, 256, 512, 1024, 1026, 1500, 2048, 4096])
@pytest.mark.parametrize("columns", [512, 640, 1024, 1026, 2048, 9000])
def test_half_a_tile_is_whole_chunks_of_the_next_level(rows, columns):
    tiles = plan_tiles(SimpleNamespace(shape=(9000, 9000), chunks=(rows, columns)))
    for tile, unit in zip(tiles.tile, tiles.write_chunk, strict=True):
        # A strip of fewer rows is half as high as two small chunks.
        assert tile % (2 * unit) == 0 or tile >= 9000 or columns == 9000 > 9 * rows


@pytest.mark.parametrize("side", [64, 128, 256])
def test_a_tile_of_deep_chunks_is_no_larger_than_a_flat_one(side):
    image = SimpleNamespace(shape=(1024,) * 3, chunks=(side,) * 3)
    assert math.prod(plan_tiles(image).tile) <= max(4 * TILE_PIXELS, 2 * side**3)


@pytest.mark.parametrize(
    ("shape", "chunks", "tile", "write"),
    [
        ((100, 200), None, (100, 200), (100, 200)),
        ((10_000, 10_000), None, (2048, 2048), (1024, 1024)),
        ((10_000, 10_000), (1000, 1000), (2000, 2000), (1000, 1000)),
        ((10_000, 10_000), (64, 64), (2048, 2048), (1024, 1024)),
        ((10_000, 10_000), (4096, 4096), (4096, 4096), (2048, 2048)),
        ((10_000, 10_000), (2048, 2048), (2048, 2048), (1024, 1024)),
        ((10_000, 10_000), (1111, 1026), (1111, 1026), (1111, 513)),
        ((50, 5000, 5000), (1, 512, 512), (1, 2048, 2048), (1, 512, 512)),
        ((5000, 5000), (1, 5000), (1024, 5120), (512, 1024)),
    ],
)
def test_plans_as_they_are_expected(shape, chunks, tile, write):
    plan = plan_tiles(SimpleNamespace(shape=shape, chunks=chunks))
    assert (plan.tile, plan.write_chunk) == (tile, write)


@pytest.mark.parametrize("denoise", [0, 3])
@pytest.mark.parametrize("shape", [(17, 17), (1, 33), (16, 18), (2, 2), (1, 1)])
def test_last_tiles_of_a_pixel_or_two_work(shape, denoise, monkeypatch):
    array = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    whole = segment(array, ct=0, st=0.1, denoise=denoise).classes.compute()
    monkeypatch.setattr(tiling, "_SMALLEST_UNIT", 4)
    monkeypatch.setattr(tiling, "WRITE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_SIDE", 8)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 64)
    tiled = segment(array, ct=0, st=0.1, denoise=denoise)
    assert len(tiled.color_count.tiling) > 1 or max(shape) <= 8
    np.testing.assert_array_equal(tiled.classes, whole)


@given(plans(), st.integers(1, 64))
def test_more_workers_cost_less_time_and_no_less_memory(plan, workers):
    image, tiles = plan
    one, many = estimate(image, tiles, 1), estimate(image, tiles, workers)
    assert one.pixels == many.pixels == math.prod(image.shape)
    assert one.bytes == one.pixels * image.dtype.itemsize * image.color_channels
    assert 0 < many.seconds <= one.seconds
    assert many.memory >= one.memory


def test_memory_depends_on_tiles_and_not_on_the_image():
    sizes = (8192, 16_384, 1_000_000)
    costs = []
    for side in sizes:
        image = SimpleNamespace(
            shape=(side, side),
            chunks=(1024, 1024),
            dtype=np.dtype("u1"),
            color_channels=3,
            source=SimpleNamespace(is_in_memory=False, decoding_bytes=0),
        )
        costs.append(estimate(image, plan_tiles(image), 4).memory)
    assert len(set(costs)) == 1


def test_a_tiling_of_more_tiles_than_can_be_listed_knows_each_of_them():
    tiles = Tiling((10**6,) * 3, (1, 100, 1000), (1, 100, 1000))
    assert len(tiles) == 10**13
    assert tiles.position(10**13 - 1) == (10**6 - 1, 9999, 999)
    last = tiles.slices(10**13 - 1)
    assert last == (slice(999_999, 10**6), slice(999_900, 10**6), slice(999_000, 10**6))
