"""A noisy class map of 64 megapixels: the numbers of a whole-image run of another library."""

import os

import numpy as np
import pytest
import zarr

from napari_pixseg import label_regions

cc3d = pytest.importorskip(
    "cc3d", reason="The whole-image oracle is missing: pip install connected-components-3d"
)

SIDE = 8192
BLOCK = 1024
SOAK = bool(os.environ.get("PIXSEG_SOAK"))


@pytest.fixture(scope="module")
def class_map(tmp_path_factory):
    """Patches of four classes and of nothing, larger than a tile where they happen to join."""
    path = tmp_path_factory.mktemp("large") / "classes.zarr"
    stored = zarr.create_array(path, shape=(SIDE, SIDE), chunks=(BLOCK, BLOCK), dtype="u1")
    coarse = np.random.default_rng(0).integers(0, 5, (SIDE // 64, SIDE // 64), np.uint8)
    # Wide bands of one class: regions that begin far from where they end.
    coarse[::7] = coarse[:, ::11] = 1
    for number in range((SIDE // BLOCK) ** 2):
        row, column = (BLOCK * i for i in divmod(number, SIDE // BLOCK))
        rng = np.random.default_rng([1, number])
        rows, columns = slice(row // 64, (row + BLOCK) // 64), slice(column // 64, None)
        block = coarse[rows, columns][:, : BLOCK // 64].repeat(64, 0).repeat(64, 1)
        noise = rng.random(block.shape, np.float32) < 0.06
        block[noise] = rng.integers(0, 5, np.count_nonzero(noise), np.uint8)
        stored[row : row + BLOCK, column : column + BLOCK] = block
    return path


def whole_image(class_map, connectivity):
    """All regions at once, 1..n in raster order of first pixels."""
    labels, count = cc3d.connected_components(
        class_map, connectivity={1: 4, 2: 8}[connectivity], return_N=True
    )
    flat = labels.reshape(-1)
    firsts = np.empty(count + 1, np.int64)
    # Of repeated indices the last assignment stays: backwards, that is the first pixel.
    firsts[flat[::-1]] = np.arange(flat.size - 1, -1, -1)
    numbers = np.zeros(count + 1, np.uint32)
    numbers[1 + np.argsort(firsts[1:])] = np.arange(1, count + 1)
    return numbers[labels], count


@pytest.mark.parametrize("connectivity", [1, 2] if SOAK else [1])
def test_a_noisy_map_of_64_megapixels_equals_a_whole_image_run(connectivity, class_map, tmp_path):
    lazy = label_regions(class_map, connectivity=connectivity)
    assert lazy.npartitions > 10
    stored = zarr.create_array(
        tmp_path / "regions.zarr", shape=lazy.shape, chunks=(BLOCK, BLOCK), dtype=lazy.dtype
    )
    lazy.store(stored, lock=False)
    expected, count = whole_image(zarr.open_array(class_map, mode="r")[...], connectivity)
    assert count > 1_000_000
    largest = 0
    for row in range(0, SIDE, BLOCK):
        found = stored[row : row + BLOCK]
        assert np.array_equal(found, expected[row : row + BLOCK]), f"rows from {row} differ"
        largest = max(largest, found.max())
    assert largest == count
