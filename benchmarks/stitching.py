"""Labeling and stitching compared with peers: ``python -m benchmarks.stitching [--full]``.

The input is a photograph reduced to foreground and background, a zarr mask of bytes with chunks of
1024. Its regions are labeled in three ways, each in a fresh process: with this package's
``label_regions``, with dask-image's ``label`` on the same store, and with cc3d on the whole array
in memory. Nothing is written. The highest number is computed, which needs every label. All three
must find the same number of regions, and cc3d's labels must map one to one to ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.pictures import CHUNK, make_strips, side_of

SMALL = (16,)
FULL = (16, 64)
WAYS = ("ours", "cc3d", "dask-image")
THREADS = 2


def write_mask(path: Path, megapixels: int) -> None:
    """Write the mask of the bright parts of a photograph."""
    import zarr

    side = side_of(megapixels)
    chunk = min(CHUNK, side)
    mask = zarr.create_array(path, shape=(side, side), chunks=(chunk, chunk), dtype=np.uint8)
    for rows, strip in make_strips(side):
        mask[rows] = strip[..., 1] > 127


def label(way: str, path: str) -> None:
    """Label a mask in one way; the clock starts after the imports and a small first run."""
    import dask
    import dask.array as da
    import zarr

    mask = zarr.open_array(path, mode="r")
    work = {"ours": _label_ours, "cc3d": _label_cc3d, "dask-image": _label_dask_image}[way]
    small = da.zeros((64, 64), dtype=np.uint8, chunks=32).compute()
    small[10:20, 20:40] = 1
    clock = measure.Clock()
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        work(small)
        with clock:
            count = work(mask)
    clock.answer(regions=count)


def _label_ours(mask: object) -> int:
    from napari_pixseg import label_regions

    labels = label_regions(mask, axes="yx")
    return int(labels.max().compute())


def _label_dask_image(mask: object) -> int:
    import dask.array as da
    from dask_image.ndmeasure import label as label_lazily

    lazy = da.from_array(mask, chunks=getattr(mask, "chunks", "auto"))
    labels, count = label_lazily(lazy)
    found, highest = da.compute(count, labels.max())
    return max(int(found), int(highest))


def _label_cc3d(mask: object) -> int:
    import cc3d

    labels, count = cc3d.connected_components(mask[:], connectivity=4, return_N=True)  # type: ignore[index]
    assert labels.max() == count
    return int(count)


def same_partition(path: Path) -> bool:
    """Whether our labels and those of cc3d differ only in their numbers."""
    import cc3d
    import zarr

    from napari_pixseg import label_regions

    ours = label_regions(str(path), axes="yx").compute()
    theirs = cc3d.connected_components(zarr.open_array(path, mode="r")[:], connectivity=4)
    other = np.zeros(int(ours.max()) + 1, np.int64)
    other[ours.reshape(-1)] = theirs.reshape(-1)
    mapped = other[ours]
    return bool((mapped == theirs).all() and ours.max() == theirs.max())


def main() -> None:
    """Measure all ways at all sizes."""
    options = measure.parse_options(__doc__)
    rows = []
    with measure.work_folder(options.folder) as folder:
        for size in options.sizes or (FULL if options.full else SMALL):
            mask = folder / f"{size}.zarr"
            write_mask(mask, size)
            same = same_partition(mask)
            load = measure.machine_load()
            for way in WAYS:
                # The slow peer takes minutes, so it runs once.
                repeats = 1 if way == "dask-image" and size > 16 else options.repeats
                runs = [
                    measure.run_python("benchmarks.stitching", "--label", way, mask)
                    for _ in range(repeats)
                ]
                rows.append({"MP": size, "way": way, **_figures(runs), "load": load, "same": same})
    measure.print_report("stitching", rows, options.json)


def _figures(runs: list[measure.Run]) -> measure.Row:
    inner = [measure.Run(run.answer["wall"], run.answer["cpu"], run.peak, {}) for run in runs]
    return {
        "regions": runs[0].answer["regions"],
        "runs": len(runs),
        **measure.median_figures(inner),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--label"]:
        label(*sys.argv[2:])
    else:
        main()
