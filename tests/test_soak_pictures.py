"""Every picture of a folder that PIXSEG_PICTURES names is right by Pillow, or refused.

PIXSEG_PICTURES=/some/folder python -m pytest tests/test_soak_pictures.py
"""

from __future__ import annotations

import os
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_pixseg import segment
from napari_pixseg.errors import PixsegError
from napari_pixseg.sources.image import Image, open_image

FOLDER = os.environ.get("PIXSEG_PICTURES", "")
SUFFIXES = {
    *(".bmp", ".dcx", ".dds", ".fli", ".gif", ".icns", ".ico", ".im", ".j2k", ".jp2", ".jpeg"),
    *(".jpg", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".ppm", ".psd", ".qoi", ".ras", ".sgi"),
    *(".svs", ".tga", ".tif", ".tiff", ".webp", ".xbm", ".xpm", ".btf", ".lsm", ".ndpi", ".avif"),
}
PICTURES = sorted(
    path for path in Path(FOLDER or "/nonexistent").rglob("*") if path.suffix.lower() in SUFFIXES
)

# None may take longer, or more than so many bytes beside four times its own pixels.
SECONDS = 60
MOST_MEMORY = 1 << 30

# Modes that Pillow shows as bytes -> the mode to compare with.
COMPARED = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "P": "RGBA", "PA": "RGBA", "RGB": "RGB"}
COMPARED |= {"RGBA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def shown_by_pillow(path: Path, image: Image) -> NDArray[Any] | None:
    """The pixels of the page of our size by Pillow; None where it has no opinion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(path) as picture:
                for frame in range(min(getattr(picture, "n_frames", 1), 20)):
                    picture.seek(frame)
                    tags = getattr(picture, "tag_v2", {})
                    # Pillow does not invert what is wider than a byte.
                    is_wide = tags.get(258, (8,))[0] > 8 and tags.get(262) == 0
                    # It turns TIFFs, and no others, as they ask for.
                    is_turned = tags.get(274, 1) != 1
                    if picture.size != image.shape[:-3:-1] or is_wide or is_turned:
                        continue
                    if picture.mode in COMPARED:
                        return np.asarray(picture.convert(COMPARED[picture.mode]))
                    if picture.mode.startswith("I;16") and tags.get(258, (16,))[0] == 16:
                        return np.asarray(picture)
        except Exception:  # noqa: BLE001 - what Pillow cannot read it has no opinion on
            return None
    return None


def first_plane(image: Image) -> NDArray[Any]:
    box = tuple(slice(0, 1) for _ in image.shape[:-2])
    height, width = image.shape[-2:]
    pixels = np.asarray(image.read((*box, slice(0, height), slice(0, width))))
    return pixels.reshape(pixels.shape[-3:])


def check_refusal(error: PixsegError | None) -> None:
    assert error is not None
    assert 400 <= error.status < 500
    assert "\n" not in str(error)
    assert str(error).endswith(".")


@pytest.mark.skipif(not FOLDER, reason="PIXSEG_PICTURES names no folder of pictures to try")
def test_there_are_pictures_to_try() -> None:
    assert PICTURES, f"there is no picture in {FOLDER}"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_picture_is_right_or_refused(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, image, pixels = None, None, np.empty(0)
    try:
        with limited(SECONDS):
            image = open_image(path)
            pixels = first_plane(image)
            segment(path, ct=0).color_table.hash()
    except PixsegError as error:
        refused = error
    if refused is not None or image is None:
        check_refusal(refused)
        return
    assert capfd.readouterr() == ("", "")
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert taken < MOST_MEMORY + 4 * image.source.array.dtype.itemsize * pixels.size
    shown = shown_by_pillow(path, image)
    if shown is None:
        return
    shown = shown.reshape(*shown.shape[:2], -1)
    if pixels.shape[-1] == 3 and shown.shape[-1] < 3:
        shown = np.repeat(shown[..., :1], 3, axis=-1)
    # Pillow cuts what is wider, and takes signed bytes for others.
    assert pixels.dtype in (shown.dtype, np.uint16, np.int8)
    if pixels.dtype == shown.dtype:
        np.testing.assert_array_equal(pixels, shown[..., : pixels.shape[-1]])
