"""What is done already is neither read nor counted nor written again."""

import json
import shutil

import numpy as np
import pytest
import zarr
from resume_tools import ALL, cancelled_at, make_small, same, segmented, source

from napari_pixseg.classification import intensity_window, pixels
from napari_pixseg.errors import Cancelled
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.export import pyramid as ngff
from napari_pixseg.export.completed_tiles import find_done_tiles, measure_chunks
from napari_pixseg.export.output_location import (
    COLORS_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    OutputLocation,
)
from napari_pixseg.sources.image import Image


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


@pytest.fixture
def whole(tmp_path):
    """What an undisturbed run gives, by its options, at the same name; and its steps."""

    def run(what, outputs=ALL, **options):
        steps, folder = [], tmp_path / "whole" / "out.ome.zarr"
        segmented(what, **options).export(folder, outputs, overwrite=True, on_event=steps.append)
        return folder, len(steps)

    return run


# What is done is not done again ------------------------------------------------


def tile_of(tiling, region):
    """The tile that a chunk is of."""
    inside = zip(tiling.tile, region, tiling.shape, strict=True)
    starts = [(part.start // size * size, size, n) for size, part, n in inside]
    return tuple(slice(start, min(start + size, n)) for start, size, n in starts)


class Spy:
    """Counts what is read from the input and written to the output."""

    def __init__(self, monkeypatch):
        self.reads, self.writes, self.pieces, self.color_count = [], [], [], 0
        read, write, count = Image.read, ngff.Pyramid.write, pixels.Pixels.count

        def counting(*arguments):
            self.color_count += 1
            return count(*arguments)

        def reading(image, region):
            # Dask reads nothing, to see of what type that is.
            if all(part.stop > part.start for part in region):
                self.reads.append(region)
            return read(image, region)

        def writing(pyramid, level, region, block):
            # The finest level is written chunk by chunk.
            tile = region if level else tile_of(pyramid.tiling, region)
            name = pyramid.levels[level].path
            assert (name, region) not in self.pieces
            self.pieces.append((name, region))
            if (name, tile) not in self.writes:
                self.writes.append((name, tile))
            write(pyramid, level, region, block)

        monkeypatch.setattr(Image, "read", reading)
        monkeypatch.setattr(ngff.Pyramid, "write", writing)
        monkeypatch.setattr(pixels.Pixels, "count", counting)


TWO = ("classes", "recolored")


def unfinished(path, output, outputs=TWO):
    """An output in which everything is done but its manifest."""
    segmented(path).export(output, outputs)
    record = json.loads((output / RECORD_NAME).read_text())
    (output / RECORD_NAME).write_text(json.dumps({**record, "state": "running"}))
    (output / MANIFEST_NAME).unlink()


def saved_colors(path, output, folder):
    """What a killed run leaves: its color table."""
    with pytest.raises(Cancelled):
        segmented(path).export(folder, TWO, **cancelled_at(12))
    shutil.copy(folder / COLORS_NAME, output / COLORS_NAME)


def test_where_all_is_done_nothing_is_read_or_written(tmp_path, output, monkeypatch):
    path = source(tmp_path)
    unfinished(path, output)
    saved_colors(path, output, tmp_path / "other.ome.zarr")
    spy = Spy(monkeypatch)
    segmented(path).export(output, TWO, resume=True)
    assert (spy.reads, spy.writes, spy.color_count) == ([], [], 0)
    assert not (output / COLORS_NAME).exists()


def test_only_the_tile_that_is_missing_is_read_and_written(tmp_path, output, whole, monkeypatch):
    path = source(tmp_path)
    expected, _ = whole(path, TWO)
    unfinished(path, output)
    saved_colors(path, output, tmp_path / "other.ome.zarr")
    (output / "labels/classes/0/c/2/2").unlink()
    spy = Spy(monkeypatch)
    segmented(path).export(output, TWO, resume=True)
    tile = (slice(16, 32), slice(16, 32))
    assert spy.reads == [tile]
    assert spy.writes == [("labels/classes/0", tile)]
    same(output, expected)


def test_a_missing_picture_is_painted_from_the_classes_on_disk(
    tmp_path, output, whole, monkeypatch
):
    path = source(tmp_path)
    expected, _ = whole(path, TWO)
    unfinished(path, output)
    saved_colors(path, output, tmp_path / "other.ome.zarr")
    shutil.rmtree(output / "0" / "c")
    spy = Spy(monkeypatch)
    segmented(path).export(output, TWO, resume=True)
    assert spy.reads == []
    assert [name for name, _ in spy.writes] == ["0"] * 9
    same(output, expected)


@pytest.mark.parametrize("lost", [("1",), ("0", "1")])
def test_the_level_that_comes_along_with_the_finest_is_made_where_it_is_missing(
    lost, tmp_path, output, whole, monkeypatch
):
    path = source(tmp_path)
    expected, _ = whole(path, TWO)
    unfinished(path, output)
    saved_colors(path, output, tmp_path / "other.ome.zarr")
    for level in lost:
        shutil.rmtree(output / level / "c")
    spy = Spy(monkeypatch)
    segmented(path).export(output, TWO, resume=True)
    assert {name for name, _ in spy.writes} == set(lost)
    same(output, expected)


def test_labels_and_levels_that_are_there_are_not_written_again(
    tmp_path, output, whole, monkeypatch
):
    path = source(tmp_path)
    expected, _ = whole(path)
    unfinished(path, output, ALL)
    (output / "labels/regions/0/c/0/0").unlink()
    (output / "2/c/0/0/0").unlink()
    spy = Spy(monkeypatch)
    segmented(path).export(output, ALL, resume=True)
    assert sorted(name for name, _ in spy.writes) == ["2", "labels/regions/0"]
    same(output, expected)


@pytest.mark.parametrize("damage", ["gone", "cut", "of another run"])
def test_colors_that_cannot_be_trusted_are_counted_again(damage, tmp_path, output, whole):
    path = source(tmp_path, np.uint16)
    expected, _ = whole(path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(26))
    saved = output / COLORS_NAME
    if damage == "cut":
        saved.write_bytes(saved.read_bytes()[:100])
    elif damage == "of another run":
        with open(saved, "wb") as file:
            for column in (np.arange(3, dtype=np.uint32), np.ones(3, int), np.int64(-1)):
                np.save(file, column)
    else:
        saved.unlink()
    segmented(path).export(output, ALL, resume=True)
    same(output, expected)


def test_the_window_is_not_measured_again(tmp_path, output, whole, monkeypatch):
    path = source(tmp_path, np.uint16)
    expected, _ = whole(path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(26))
    monkeypatch.setattr(intensity_window, "run_tiles", None)
    segmented(path).export(output, ALL, resume=True)
    same(output, expected)


def test_what_a_kill_left_half_written_is_swept(tmp_path, output, whole):
    path = source(tmp_path)
    expected, _ = whole(path)
    with pytest.raises(Cancelled):
        segmented(path).export(output, ALL, **cancelled_at(20))
    code = "0123456789abcdef" * 2
    left = [f"0/c/0/0/0.{code}.partial", f"zarr.{code}.partial",
            f".{MANIFEST_NAME}.01234567.partial.json",
            f"labels/classes/0/c/3/3.{code}.partial"]  # fmt: skip
    for name in left:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"half")
    segmented(path).export(output, ALL, resume=True)
    same(output, expected)


def test_a_tile_is_done_when_all_of_its_chunks_have_bytes(tmp_path):
    folder = tmp_path / "array.zarr"
    array = zarr.create_array(
        folder, name="a", shape=(3, 20, 20), chunks=(3, 4, 4), dtype=np.uint8, fill_value=0,
        config={"write_empty_chunks": True},
    )  # fmt: skip
    tiling = Tiling((20, 20), (8, 8), (4, 4))
    assert find_done_tiles(OutputLocation(str(folder)), array, "cyx", tiling) == frozenset()
    array[...] = 0
    everything = frozenset(range(9))
    assert find_done_tiles(OutputLocation(str(folder)), array, "cyx", tiling) == everything
    (folder / "a/c/0/1/1").unlink()
    (folder / "a/c/0/4/4").write_bytes(b"")
    assert find_done_tiles(OutputLocation(str(folder)), array, "cyx", tiling) == everything - {0, 8}


@pytest.mark.parametrize("where", ["", "memory://look"])
@pytest.mark.parametrize("grid", [(3, 2), (3, 20)])
def test_what_is_no_chunk_is_not_taken_for_one(grid, where, tmp_path):
    location = OutputLocation(where or str(tmp_path))
    filesystem, root = location._filesystem_and_path
    files = {"c/0/0": b"x", "c/0/1": b"", "c/1/0.0f.partial": b"x", "c/9/0": b"x", "c/2/1": b"x"}
    for name, content in files.items():
        if where:
            filesystem.pipe_file(f"{root}/{name}", content)
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    if not where:
        (tmp_path / "c/2/0").mkdir()
    expected = np.zeros(grid, bool)
    expected[0, 0] = expected[2, 1] = True
    np.testing.assert_array_equal(measure_chunks(location, grid), expected)


def test_files_of_an_output_are_not_listed_one_by_one(tmp_path, monkeypatch):
    # Names are known, so only sizes are asked for: at most a third of what a listing costs.
    (tmp_path / "c/0").mkdir(parents=True)
    (tmp_path / "c/0/0").write_bytes(b"x")
    monkeypatch.setattr(OutputLocation, "list_files", lambda _: pytest.fail("listed"))
    assert measure_chunks(OutputLocation(str(tmp_path)), (1, 1)).all()
