"""One counter for many tiles, against one table of all of them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import napari_pixseg.algorithm.color_counter as counter_module
import napari_pixseg.algorithm.kernels.threads as threads
from napari_pixseg.algorithm.color_counter import ColorCounter
from napari_pixseg.algorithm.color_table import NO_DATA, ColorTable, pack_colors
from napari_pixseg.parameters import ColorSpace

# Few colors, so that tiles share some; the first, the last, and none.
COLORS = st.sampled_from((0, 1, 255, 1 << 16, (1 << 24) - 1, int(NO_DATA)))
TILES = st.lists(arrays(np.uint32, st.integers(0, 30), elements=COLORS), min_size=1, max_size=5)


@given(tiles=TILES, most=st.sampled_from((30, 60, (1 << 32) - 1)))
def test_tiles_counted_in_any_threads_are_one_table(tiles, most):
    with pytest.MonkeyPatch.context() as patch:
        # Where 32 bits are full, a part becomes a table, or is not added to others.
        patch.setattr(counter_module, "COUNTED_AT_ONCE", most)
        counter = ColorCounter()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(counter.add_packed, tiles))
        found = counter.table()
    assert found == ColorTable.from_packed(np.concatenate(tiles))
    assert counter.table() == ColorTable.from_packed(np.empty(0, np.uint32))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_bytes_are_counted_as_when_they_are_packed(channels):
    pixels = np.random.default_rng(channels).integers(0, 4, (5, 40, 3), np.uint8)
    pixels[0] = 255
    counter = ColorCounter(ColorSpace.Lab)
    counter.add_pixels(pixels[..., :channels])
    counter.add_packed(pack_colors(pixels[..., :channels]))
    found = counter.table()
    expected = ColorTable.from_pixels(pixels[..., :channels])
    assert found == ColorTable(expected.packed, 2 * expected.counts, ColorSpace.Lab)


@pytest.mark.parametrize("length", [0, 1, 7, 1000])
def test_slices_make_up_the_whole_in_order(length):
    parts = threads.parallel_slices(lambda part: list(range(length))[part], length, fewest=3)
    assert [item for part in parts for item in part] == list(range(length))
    if length == 1000:
        assert len(parts) == min(threads.os.cpu_count(), 333)


def test_an_error_in_a_thread_is_raised():
    def fails(part):
        if part.start:
            raise ValueError("in the second slice")

    threads_of_this_machine = threads.os.cpu_count()
    if threads_of_this_machine < 2:
        pytest.skip("there is one thread")
    with pytest.raises(ValueError, match="second slice"):
        threads.parallel_slices(fails, 1 << 20)
