"""A demonstration on real data: a stained tissue section, enlarged to a mosaic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_pixseg.execution.progress import Listener
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.segmentation import Segmentation, segment

# 8 x 12 copies of 512 x 512 pixels: 25 megapixels.
_COPIES = (8, 12)
_CHUNK = 1024


def run_demo(folder: Path, on_event: Listener | None = None) -> tuple[Manifest, dict[str, Path]]:
    """Make a mosaic of a picture that comes with scikit-image, and segment it.

    Parameters
    ----------
    folder : Path
        Made if need be; what an earlier demonstration left there is replaced.
    on_event : callable, optional
        Hears of every tile.

    Returns
    -------
    Manifest
    dict of str to Path
        What was written, by what it is.
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
    manifest = segmentation.export(result, overwrite=True, on_event=on_event)
    _write_comparison(segmentation, picture)
    return manifest, files


def write_mosaic(path: Path, copies: tuple[int, int]) -> None:
    """Write mirrored copies of scikit-image's immunohistochemistry picture as a zarr array.

    Parameters
    ----------
    path : Path
        A zarr of format 3, (512 rows, 512 columns, 3) uint8, is written here.
    copies : (rows, columns)
    """
    from skimage.data import immunohistochemistry

    picture = immunohistochemistry()
    # Mirrored, so that neighbors meet without an edge.
    block = np.concatenate([picture, picture[::-1]])
    block = np.concatenate([block, block[:, ::-1]], axis=1)
    height, width = (count * 512 for count in copies)
    array = zarr.create_array(
        str(path), shape=(height, width, 3), chunks=(_CHUNK, _CHUNK, 3), dtype=np.uint8,
        overwrite=True,
    )  # fmt: skip
    for row in range(0, height, _CHUNK):
        for column in range(0, width, _CHUNK):
            rows, columns = min(_CHUNK, height - row), min(_CHUNK, width - column)
            array[row : row + rows, column : column + columns] = block[:rows, :columns]


def _write_comparison(segmentation: Segmentation, path: Path) -> None:
    """Write one copy of the picture beside its classes."""
    from PIL import Image

    region = (slice(0, 512), slice(0, 512))
    before: NDArray[np.uint8] = segmentation.image.read(region)
    after = segmentation.recolored[region].compute()
    Image.fromarray(np.concatenate([before, after], axis=1)).save(path)
