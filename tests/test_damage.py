"""Chunks that cannot be decoded are named, or become no data; missing ones are the fill value."""

import itertools
import json
import random
import shutil
import threading
from pathlib import Path

import dask.array as da
import jsonschema
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from resume_tools import ALL, SHAPE, make_small, picture, same, segmented

from napari_pixseg import Manifest, cli, segment
from napari_pixseg.classification import pixels as classify
from napari_pixseg.errors import Cancelled, CorruptInput, OutputConflict, ParameterError
from napari_pixseg.export.output_location import MANIFEST_NAME
from napari_pixseg.sources.zarr_chunks import ChunkFiles

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/manifest.schema.json").read_text())


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.ome.zarr"


def zarr_of(folder, pixels, chunks=(8, 8, 3), **options):
    path = folder / "in.zarr"
    array = zarr.create_array(
        path, shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, **options
    )
    array[...] = pixels
    return path


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garbled(file):
    file.write_bytes(random.Random(0).randbytes(file.stat().st_size))


def damaged_tiff(folder, tiles):
    path = folder / "in.tif"
    tifffile.imwrite(path, picture(), tile=(16, 16), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        where = [(page.dataoffsets[i], page.databytecounts[i]) for i in tiles]
    content = bytearray(path.read_bytes())
    for start, size in where:
        content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    return path


def without(parts, pixels=None):
    """The picture as floats, with NaN where chunks are damaged: an image of the same meaning."""
    left = (picture() if pixels is None else pixels).astype(np.float32)
    for rows, columns in parts:
        left[slice(*rows), slice(*columns)] = np.nan
    return left


def assert_left_out(output, parts, **options):
    expected = segmented(without(parts), window=(0, 255), **options)
    read = {name: zarr.open_array(output / f"labels/{name}/0")[...] for name in ALL[:2]}
    np.testing.assert_array_equal(read["classes"], expected.classes)
    np.testing.assert_array_equal(read["regions"], expected.regions)
    painted = np.moveaxis(zarr.open_array(output / "0")[...], 0, -1)
    np.testing.assert_array_equal(painted, expected.recolored)
    manifest = Manifest.load(output)
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest.to_dict())
    skipped, details = manifest.details["skipped"], manifest.details
    assert skipped["pixels"] == sum((b - a) * (d - c) for (a, b), (c, d) in parts)
    assert details["color_table"]["pixels"] + skipped["pixels"] == SHAPE[0] * SHAPE[1]
    assert sum(row["count"] for row in details["classes"]) == details["color_table"]["pixels"]
    assert any(f"{skipped['pixels']} pixels are 0" in said for said in details["warnings"])
    return skipped


def cancelled_in(stage):
    """Arguments of an export that is cancelled in a stage."""
    cancel = threading.Event()
    return {"on_event": lambda step: step.stage == stage and cancel.set(), "cancel": cancel}


BLOCKS = [((8, 16), (16, 24)), ((32, 40), (32, 36))]
NAMES = ["c/1/2/0", "c/4/4/0"]


# Named -------------------------------------------------------------------------


CODECS = {
    "zlib": numcodecs.Zlib(), "gzip": numcodecs.GZip(), "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(), "zstd": numcodecs.Zstd(), "lz4": numcodecs.LZ4(),
    "blosc": numcodecs.Blosc(),
}  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("harm", [truncated, garbled])
def test_damage_is_told_and_skipped_whatever_the_codec_raises(codec, harm, tmp_path, output):
    path = tmp_path / "in.zarr"
    zarr.create_array(
        path, data=picture(), chunks=(8, 8, 3), zarr_format=2, compressors=CODECS[codec]
    )
    harm(path / "1.2.0")
    with pytest.raises(CorruptInput, match=r"in.zarr is damaged: .*1.2.0"):
        segmented(path).export(output, ALL)
    segmented(path).export(output, ALL, on_error="skip")
    assert Manifest.load(output).details["skipped"]["pixels"] == 64


@pytest.mark.parametrize("harm", [truncated, garbled])
@pytest.mark.parametrize("direct", [False, True])
def test_a_damaged_zarr_chunk_is_named(harm, direct, tmp_path, output, monkeypatch):
    monkeypatch.setattr(classify, "DIRECT_TILES", 2 if direct else 10_000)
    path = zarr_of(tmp_path, picture())
    harm(path / NAMES[0])
    with pytest.raises(CorruptInput) as caught:
        segmented(path).export(output, ALL)
    assert caught.value.status == 422
    assert "in.zarr is damaged: c/1/2/0, chunk (1, 2, 0)" in str(caught.value)
    assert "[8:16, 16:24, 0:3]" in str(caught.value)
    assert "skip" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (output / MANIFEST_NAME).exists()


def test_a_damaged_tiff_tile_is_named(tmp_path, output):
    path = damaged_tiff(tmp_path, [4])
    with pytest.raises(CorruptInput, match=r"in\.tif is damaged: tile 1/1/0, chunk \(1, 1, 0\)"):
        segmented(path).export(output, ALL)


def test_an_uncompressed_tiff_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path, output):
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, picture(), photometric="rgb", rowsperstrip=8)
    rows, columns, channels = picture().shape
    with tifffile.TiffFile(path) as file:
        first = file.pages[0].dataoffsets[0]
    path.write_bytes(path.read_bytes()[: first + 20 * columns * channels])
    with pytest.raises(CorruptInput, match=r"in\.tif is damaged: tile [234]/0/0, .*skip"):
        segmented(path).export(output, ALL)
    segmented(path).export(output, ALL, on_error="skip")
    assert_left_out(output, [((16, rows), (0, columns))])


def test_a_damaged_chunk_of_a_shard_is_named_with_the_file(tmp_path, output):
    path = zarr_of(tmp_path, picture(), shards=(16, 16, 3))
    truncated(path / "c/1/0/0")
    with pytest.raises(CorruptInput, match=r"c/1/0/0, chunk \(2, 0, 0\)"):
        segmented(path).export(output, ALL)


def test_what_is_no_damage_keeps_its_own_name(tmp_path, output, monkeypatch):
    path = zarr_of(tmp_path, picture())
    result = segmented(path)

    def offline(*_):
        raise ConnectionError("the network is away")

    monkeypatch.setattr(ChunkFiles, "__getitem__", offline)
    with pytest.raises(ConnectionError, match="away"):
        result.export(output, on_error="skip")


# Left out ----------------------------------------------------------------------


@pytest.mark.parametrize("harm", [truncated, garbled])
@pytest.mark.parametrize(
    "options",
    [{}, {"denoise": 1}, {"connectivity": 2, "min_size": 3}, {"background": "largest"}],
)
def test_damaged_chunks_are_no_data_everywhere(harm, options, tmp_path, output):
    path = zarr_of(tmp_path, picture())
    for name in NAMES:
        harm(path / name)
    segmented(path, **options).export(output, ALL, on_error="skip")
    skipped = assert_left_out(output, BLOCKS, **options)
    assert [chunk["name"] for chunk in skipped["chunks"]] == NAMES
    assert skipped["chunks"][0]["start"] == [8, 16, 0]
    assert skipped["chunks"][0]["stop"] == [16, 24, 3]


@pytest.mark.parametrize("kind", ["zarr 2", "sharded", "a channel each", "tiff", "direct"])
def test_what_is_left_out_follows_the_chunks_of_the_input(kind, tmp_path, output, monkeypatch):
    blocks = [BLOCKS[0]]
    if kind == "zarr 2":
        path = zarr_of(tmp_path, picture(), zarr_format=2)
        truncated(path / "1.2.0")
    elif kind == "sharded":
        path = zarr_of(tmp_path, picture(), shards=(16, 16, 3))
        truncated(path / "c/1/0/0")
        blocks = [((16, 32), (0, 16))]
    elif kind == "a channel each":
        path = zarr_of(tmp_path, picture(), chunks=(8, 8, 1))
        for channel in (0, 2):
            truncated(path / f"c/1/2/{channel}")
    elif kind == "tiff":
        path, blocks = damaged_tiff(tmp_path, [4, 8]), [((16, 32), (16, 32)), ((32, 40), (32, 36))]
    else:
        monkeypatch.setattr(classify, "DIRECT_TILES", 2)
        path = zarr_of(tmp_path, picture())
        truncated(path / "c/1/2/0")
    segmented(path).export(output, ALL, on_error="skip")
    assert_left_out(output, blocks)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int64])
def test_the_window_is_measured_without_what_is_left_out(dtype, tmp_path, output):
    pixels = (picture().astype(np.int64) * 37).astype(dtype)
    pixels[8:16, 16:24] = 60_000
    path = zarr_of(tmp_path, pixels)
    truncated(path / NAMES[0])
    segmented(path).export(output, on_error="skip")
    kept = np.ones(SHAPE[:2], bool)
    kept[8:16, 16:24] = False
    segmented(pixels[kept][np.newaxis]).export(tmp_path / "rest.ome.zarr")
    expected = Manifest.load(tmp_path / "rest.ome.zarr").details
    said = Manifest.load(output).details
    assert said["window"] == expected["window"]
    assert said["color_table"] == expected["color_table"]


def test_random_damage_never_gets_into_the_counts(tmp_path, output):
    chance = random.Random(1)
    grid = list(itertools.product(range(5), range(5)))
    for _ in range(4):
        shutil.rmtree(tmp_path / "in.zarr", ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)
        path, bad = zarr_of(tmp_path, picture()), chance.sample(grid, chance.randint(1, 20))
        for row, column in bad:
            chance.choice([truncated, garbled])(path / f"c/{row}/{column}/0")
        segmented(path).export(output, ALL, on_error="skip")
        parts = [((8 * r, min(8 * r + 8, 40)), (8 * c, min(8 * c + 8, 36))) for r, c in bad]
        assert_left_out(output, parts)


def test_alpha_that_cannot_be_read_is_transparent_and_the_colors_stay(tmp_path, output):
    pixels = np.dstack([picture(), np.full(SHAPE[:2], 255, np.uint8)])
    path = zarr_of(tmp_path, pixels, chunks=(8, 8, 1))
    truncated(path / "c/0/0/3")
    manifest = segmented(path).export(output, ALL, on_error="skip")
    assert manifest.details["skipped"]["pixels"] == 0
    painted = zarr.open_array(output / "0")[...]
    assert not painted[3, :8, :8].any()
    assert (painted[3, 8:, 8:] == 255).all()
    np.testing.assert_array_equal(
        zarr.open_array(output / "labels/classes/0")[...], segmented(picture()).classes
    )


def test_an_undamaged_input_is_the_same_with_and_without_skip(tmp_path, output):
    path, steps = zarr_of(tmp_path, picture()), []
    segmented(path).export(output, ALL, on_error="skip", on_event=steps.append)
    assert "damage" not in {step.stage for step in steps}
    segmented(path).export(tmp_path / "other" / "out.ome.zarr", ALL)
    same(output, tmp_path / "other" / "out.ome.zarr")


def test_a_run_that_skips_is_resumed_to_the_last_byte(tmp_path, output):
    path = zarr_of(tmp_path, picture())
    truncated(path / NAMES[0])
    expected = tmp_path / "whole" / "out.ome.zarr"
    segmented(path).export(expected, ALL, on_error="skip")
    for stage in ("damage", "seams", "regions", "picture level 2", "regions level 2"):
        shutil.rmtree(output, ignore_errors=True)
        with pytest.raises(Cancelled):
            segmented(path).export(output, ALL, on_error="skip", **cancelled_in(stage))
        segmented(path).export(output, ALL, on_error="skip", resume=True)
        same(output, expected)


def test_a_run_that_met_damage_may_go_on_by_skipping(tmp_path, output):
    path = zarr_of(tmp_path, picture())
    truncated(path / NAMES[0])
    with pytest.raises(CorruptInput):
        segmented(path).export(output, ALL)
    segmented(path).export(output, ALL, on_error="skip", resume=True)
    assert_left_out(output, BLOCKS[:1])


def test_what_was_left_out_is_not_forgotten_by_a_run_that_resumes(tmp_path, output):
    path = zarr_of(tmp_path, picture())
    truncated(path / NAMES[0])
    segmented(path).export(output, ALL, on_error="skip")
    (output / MANIFEST_NAME).unlink()
    with pytest.raises(OutputConflict, match=r"c/1/2/0 was left out.*on_error='skip'"):
        segmented(path).export(output, ALL, resume=True)
    segmented(path).export(output, ALL, resume=True, on_error="skip")
    assert_left_out(output, BLOCKS[:1])


def test_damage_after_the_count_is_an_error_even_with_skip(tmp_path, output):
    path = zarr_of(tmp_path, picture())
    result = segmented(path)
    assert len(result.table)
    truncated(path / NAMES[0])
    with pytest.raises(CorruptInput, match="c/1/2/0"):
        result.export(output, ALL, on_error="skip")
    assert not (output / MANIFEST_NAME).exists()


@pytest.mark.parametrize("name", ["out.png", "out.tif"])
def test_a_picture_is_black_where_chunks_are_damaged(name, tmp_path):
    path = zarr_of(tmp_path, picture())
    truncated(path / NAMES[0])
    manifest = segmented(path).export(tmp_path / name, ["recolored"], on_error="skip")
    assert manifest.details["skipped"]["pixels"] == 64
    written = segment(tmp_path / name).image.source.array[...]
    np.testing.assert_array_equal(
        written, segmented(without(BLOCKS[:1]), window=(0, 255)).recolored
    )


def test_the_command_says_what_is_damaged_and_skips_when_asked(tmp_path, output, capsys):
    path = zarr_of(tmp_path, picture())
    truncated(path / NAMES[0])
    arguments = ["segment", str(path), str(output), "--axes=yxc", "--ct=0", "--st=0.1"]
    assert cli.main(arguments) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == 422
    assert "c/1/2/0" in answer["error"]
    assert cli.main([*arguments, "--on-error", "skip"]) == 0
    assert json.loads(capsys.readouterr().out)["details"]["skipped"]["pixels"] == 64


def test_skip_is_refused_where_chunks_are_not_known(tmp_path, output):
    lazy = da.from_array(picture(), chunks=(16, 16, 3))
    with pytest.raises(ParameterError, match="Dask array"):
        segmented(lazy).export(output, on_error="skip")
    with pytest.raises(ParameterError, match="'raise' or 'skip'"):
        segmented(picture()).export(output, on_error="ignore")


def test_a_missing_chunk_is_its_fill_value(tmp_path, output):
    path = zarr_of(tmp_path, picture(), fill_value=77)
    (path / NAMES[0]).unlink()
    segmented(path).export(output, ALL)
    filled = picture()
    filled[8:16, 16:24] = 77
    np.testing.assert_array_equal(
        zarr.open_array(output / "labels/classes/0")[...], segmented(filled).classes
    )
    assert "skipped" not in Manifest.load(output).details
