"""A demonstration on real data: a mosaic made of a stained tissue section."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from napari_pixseg.execution.progress import Listener
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.segment_image import segment
from napari_pixseg.segmentation import Segmentation

# 8 x 12 copies of 512 x 512 pixels: 25 megapixels.
_COPIES = (8, 12)
_CHUNK = 1024


def run_demo(
    folder: Path, on_event: Listener | None = None, cancel: threading.Event | None = None
) -> tuple[Manifest, dict[str, Path]]:
    """Make a mosaic of a picture from scikit-image, and segment it.

    Parameters
    ----------
    folder : Path
        Created if needed. Files of an earlier demonstration are replaced.
    on_event : callable, optional
        Called for every tile.
    cancel : threading.Event, optional
        When set, the run stops before its next tile.

    Returns
    -------
    Manifest
    dict of str to Path
        The files that were written, by a description of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "Input, immunohistochemistry mosaic": folder / "ihc.zarr",
        "Result, OME-Zarr with manifest.json": folder / "ihc-segmented.ome.zarr",
        "Picture, input beside result": folder / "ihc-before-after.png",
    }
    source, result, picture = files.values()
    write_mosaic(source, _COPIES)
    segmentation = segment(source, axes="yxc")
    manifest = segmentation.export(result, overwrite=True, on_event=on_event, cancel=cancel)
    _write_comparison(segmentation, picture)
    return manifest, files


def write_mosaic(path: Path, copies: tuple[int, int]) -> None:
    """Write mirrored copies of scikit-image's immunohistochemistry picture as a zarr array.

    Parameters
    ----------
    path : Path
        Where the array is written: zarr format 3, uint8, shape (512 rows, 512 columns, 3).
    copies : (rows, columns)
        Number of copies in each direction.
    """
    picture = data.immunohistochemistry()
    # Mirrored, so that there is no edge between neighboring copies.
    block = np.concatenate([picture, picture[::-1]])
    block = np.concatenate([block, block[:, ::-1]], axis=1)
    height, width = (count * 512 for count in copies)
    array = zarr.create_array(
        str(path),
        shape=(height, width, 3),
        chunks=(_CHUNK, _CHUNK, 3),
        dtype=np.uint8,
        overwrite=True,
    )
    for row in range(0, height, _CHUNK):
        for column in range(0, width, _CHUNK):
            rows = min(_CHUNK, height - row)
            columns = min(_CHUNK, width - column)
            array[row : row + rows, column : column + columns] = block[:rows, :columns]


def _write_comparison(segmentation: Segmentation, path: Path) -> None:
    """Write one copy of the picture beside its classes."""
    first_copy = (slice(0, 512), slice(0, 512))
    before: NDArray[np.uint8] = segmentation.image.read(first_copy)
    after = segmentation.recolored[first_copy].compute()
    Image.fromarray(np.concatenate([before, after], axis=1)).save(path)
