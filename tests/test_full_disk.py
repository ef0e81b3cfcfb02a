"""A disk that fills up, or cannot be written: one sentence, and nothing that looks finished."""

import json

import numpy as np
import pytest
import zarr
from resume_tools import products, remount, same, segmented, small_device

from napari_pixseg import Manifest, cli
from napari_pixseg.errors import InputNotFound, NoSpace, OutputConflict
from napari_pixseg.export.output_location import MANIFEST_NAME, RECORD_NAME

SIZE = 20 << 20
OUTPUTS = ("classes", "recolored")


@pytest.fixture
def device(tmp_path):
    with small_device(tmp_path / "device", SIZE) as folder:
        yield folder


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Eight random colors, which no codec compresses below three bits a pixel."""
    path = tmp_path_factory.mktemp("input") / "in.zarr"
    array = zarr.create_array(path, shape=(1500, 2500, 3), chunks=(500, 500, 3), dtype=np.uint8)
    chance = np.random.default_rng(0)
    colors = chance.integers(0, 256, (8, 3), np.uint8)
    array[...] = colors[chance.integers(0, 8, array.shape[:2])]
    return path


@pytest.fixture(scope="module")
def expected(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out.ome.zarr"
    segmented(path).export(folder, OUTPUTS)
    return folder


def fill(device, expected, share):
    """Leave room for only a part of the output."""
    size = sum(file.stat().st_size for file in expected.rglob("*") if file.is_file())
    assert 1 << 20 < size < SIZE
    (device / "ballast").write_bytes(bytes(SIZE - (64 << 10) - int(size * share)))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_disk_that_was_full_and_is_not_any_more_is_no_loss(share, path, expected, device):
    fill(device, expected, share)
    output = device / "out.ome.zarr"
    for _ in range(2):  # Running again without making space gives the same error.
        with pytest.raises(NoSpace, match=r"No space is left at file:.*with resume") as caught:
            segmented(path).export(output, OUTPUTS, resume=True)
        assert caught.value.status == 507
        assert "\n" not in str(caught.value)
        with pytest.raises(InputNotFound, match="unfinished"):
            Manifest.load(output)
        assert not any("partial" in name for name in products(output))
    with pytest.raises(OutputConflict, match="unfinished"):
        segmented(path).export(output, OUTPUTS)
    (device / "ballast").unlink()
    segmented(path).export(output, OUTPUTS, resume=True)
    same(output, expected)


@pytest.mark.parametrize("room", [100 << 10, 1 << 20, 5 << 20])
def test_colors_that_are_too_many_for_the_disk_are_no_fault(room, device):
    """A table of 600,000 colors takes more space than the classes of as many pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    (device / "ballast").write_bytes(bytes(SIZE - room - (64 << 10)))
    with pytest.raises(NoSpace, match=r"No space is left at file:.*with resume"):
        segmented(pixels).export(device / "out.ome.zarr", ["classes"])
    (device / "ballast").unlink()
    segmented(pixels).export(device / "out.ome.zarr", ["classes"], resume=True)


def test_the_command_says_that_the_disk_is_full(path, expected, device, capsys):
    fill(device, expected, 0.5)
    assert cli.main(["segment", str(path), str(device / "out.ome.zarr"), "--st=0.1", "--ct=0"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == 507
    assert "link" not in answer
    assert not (device / "out.ome.zarr" / MANIFEST_NAME).exists()


def test_an_unfinished_output_on_a_device_become_read_only_waits(path, expected, device):
    output = device / "out.ome.zarr"
    fill(device, expected, 0.5)
    with pytest.raises(NoSpace):
        segmented(path).export(output, OUTPUTS)
    before = products(output)
    remount(device, "ro")
    with pytest.raises(NoSpace, match="cannot be written: Read-only"):
        segmented(path).export(output, OUTPUTS, resume=True)
    assert products(output) == before
    assert (output / RECORD_NAME).exists()
    remount(device, "rw")
    (device / "ballast").unlink()
    segmented(path).export(output, OUTPUTS, resume=True)
    same(output, expected)
