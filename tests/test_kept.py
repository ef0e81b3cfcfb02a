"""Components kept between two passes: the same output, with or without them, and nothing left."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import napari_pixseg.execution.tiling as tiling
import napari_pixseg.export.component_cache as kept_module
from napari_pixseg import segment
from napari_pixseg.algorithm.components import find_components, sum_samples
from napari_pixseg.classification.tile import Tile
from napari_pixseg.export.component_cache import ComponentCache
from napari_pixseg.export.output_location import OutputLocation

pq = pytest.importorskip("pyarrow.parquet")
OUTPUTS = ("classes", "regions", "recolored")


def picture(dtype=np.uint8, noise=4, shape=(96, 80)):
    """Blobs of three colors with noise, and a corner of pure noise."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 3, [n // 8 for n in shape]).repeat(8, 0).repeat(8, 1)
    colors = np.array([[40, 90, 200], [120, 60, 30], [220, 210, 90]])[blocks]
    colors = colors + rng.normal(0, noise, colors.shape)
    colors[:32, :32] = rng.integers(0, 256, (32, 32, 3))
    return np.clip(colors, 0, 255).astype(dtype)


@pytest.fixture
def small_tiles(monkeypatch):
    for name, value in (("_SMALLEST_UNIT", 16), ("WRITE_SIDE", 16), ("TILE_SIDE", 32)):
        monkeypatch.setattr(tiling, name, value)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 32 * 32)


def exported(tmp_path, name, image, outputs=OUTPUTS, **options):
    source = tmp_path / "in.zarr"
    if not source.exists():
        zarr.create_array(source, data=image, chunks=(32, 32, 3), dimension_names=["y", "x", "c"])
    segment(source, ct=0.5, st=3, **options).export(tmp_path / name, outputs)
    regions = zarr.open_array(tmp_path / name / "labels/regions/0", mode="r")[...]
    return regions, pq.read_table(tmp_path / name / "regions.parquet").to_pydict()


class Spy:
    """Counts what is kept and given back."""

    def __init__(self, monkeypatch):
        self.kept, self.given = [], []
        keep, give = ComponentCache.save, ComponentCache.load

        def keeps(own, tile, number):
            keep(own, tile, number)
            self.kept += [number] if number in own.numbers() else []

        def gives(own, number):
            tile = give(own, number)
            self.given.append((number, tile.component_sums is not None))
            return tile

        monkeypatch.setattr(ComponentCache, "save", keeps)
        monkeypatch.setattr(ComponentCache, "load", gives)


CASES = {
    "bytes": ({}, OUTPUTS, True),
    "no class map": ({}, ("regions",), True),
    "denoised": ({"denoise": 1}, OUTPUTS, False),
    "background": ({"background": "largest", "min_size": 3}, OUTPUTS, True),
    "corners": ({"connectivity": 2}, OUTPUTS, True),
}


DTYPES = {"16 bits": np.uint16, "floats": np.float32}


@pytest.mark.parametrize("name", [*CASES, *DTYPES])
def test_an_output_is_the_same_whether_components_were_kept_or_not(
    name, tmp_path, small_tiles, monkeypatch
):
    options, outputs, with_totals = CASES.get(name, ({}, OUTPUTS, True))
    image = picture(DTYPES.get(name, np.uint8))
    with monkeypatch.context() as patch:
        patch.setattr(ComponentCache, "save", lambda *_: None)
        expected = exported(tmp_path, "without.zarr", image, outputs, **options)
    spy = Spy(monkeypatch)
    found = exported(tmp_path, "with.zarr", image, outputs, **options)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]
    # The tile of noise has too many runs to be worth it.
    assert sorted(spy.kept) == sorted(number for number, _ in spy.given)
    assert 0 < len(spy.kept) < 9 or name == "denoised"
    assert {totals for _, totals in spy.given} == {with_totals}
    assert not (tmp_path / "with.zarr/pixseg-components").exists()


def test_components_kept_by_a_run_that_was_stopped_are_not_taken_by_the_next(
    tmp_path, small_tiles, monkeypatch
):
    expected = exported(tmp_path, "whole.zarr", picture())

    def stops(self, *_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("napari_pixseg.export.region_export.RegionExport._write_regions", stops)
        with pytest.raises(RuntimeError, match="stopped"):
            exported(tmp_path, "out.zarr", picture())
    kept = tmp_path / "out.zarr/pixseg-components"
    for file in kept.iterdir():
        file.write_bytes(b"damaged by the stop")
    assert list(kept.iterdir())
    rows = tmp_path / "out.zarr/pixseg-rows"
    rows.mkdir()
    (rows / "0").write_bytes(b"of a table that was not finished")
    again = segment(tmp_path / "in.zarr", ct=0.5, st=3)
    again.export(tmp_path / "out.zarr", OUTPUTS, resume=True)
    regions = zarr.open_array(tmp_path / "out.zarr/labels/regions/0", mode="r")[...]
    np.testing.assert_array_equal(regions, expected[0])
    assert not rows.exists()
    assert pq.read_table(tmp_path / "out.zarr/regions.parquet").to_pydict() == expected[1]
    assert not kept.exists()


@given(seed=st.integers(0, 999), dtype=st.sampled_from(("u1", "u2", "i8")), large=st.booleans())
def test_a_kept_tile_comes_back_as_it_was(tmp_path_factory, seed, dtype, large):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, (1, 2, 4, 5)).astype(dtype)
    components = find_components(classes, 1)
    samples = rng.integers(0, 256, (*classes.shape, 3), np.uint8)
    totals = sum_samples(components, [((0, 0, 0, 0), samples)]) * (2**31 if large else 1)
    location = ComponentCache(OutputLocation(str(tmp_path_factory.mktemp("kept"))))
    location.begin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_module, "_SHORT", 1)
        for number, sums in ((3, totals), (5, None)):
            location.save(Tile(classes.shape, components=components, component_sums=sums), number)
    assert location.numbers() == {3, 5}
    assert location.load(5).component_sums is None
    found = location.load(3)
    np.testing.assert_array_equal(found.component_sums, totals)
    assert found.component_sums.dtype == np.int64
    assert found.components.shape == components.shape
    for name in ("lines", "sizes", "first_runs", "starts", "numbers", "values"):
        one, other = getattr(found.components, name), getattr(components, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.components.labels, components.labels)
    location.clear()
    assert location.numbers() == frozenset()
