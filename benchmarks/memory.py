"""Peak memory of the full job: ``python -m benchmarks.memory [--full]``.

Whole processes on two threads with classes, regions, picture, pyramids and table. Stated beside
the peak are the color table and the seam table: 12 bytes a color (24 while it is converted and
decided) and 80 bytes a component that touches a seam; what is left must not grow with the image.
"""

from __future__ import annotations

import shutil

from benchmarks import measure
from benchmarks.floor import OUTPUTS
from benchmarks.pictures import write_zarr
from napari_pixseg.regions.numbering import BYTES_PER_SEAM_COMPONENT

SMALL, FULL = (16, 64), (64, 256, 1024)
BYTES_PER_COLOR = 24


def main() -> None:
    """Measure all sizes, each once: peaks of several runs differ by a few per cent."""
    options = measure.options(__doc__)
    sizes = options.sizes or (FULL if options.full else SMALL)
    rows: list[measure.Row] = []
    with measure.work_folder(options.folder) as folder:
        measure.refuse_small_disk(folder, 25 * max(sizes) * 2**20)
        for size in sizes:
            source, target = folder / "in.zarr", folder / "out.zarr"
            write_zarr(source, size)
            load = measure.load()
            run = measure.run_python("benchmarks.jobs", "export", source, target, *OUTPUTS)
            color_count = measure.run_python("benchmarks.jobs", "seams", target)
            run.answer.update(seam_components=color_count.answer["seam_components"])
            shutil.rmtree(source)
            shutil.rmtree(target)
            rows.append(_row(size, run, rows[-1] if rows else None, load))
    measure.report("memory", rows, options.json)


def _row(size: int, run: measure.Run, before: measure.Row | None, load: float) -> measure.Row:
    colors = run.answer["colors"] * BYTES_PER_COLOR / 1e6
    seams = run.answer["seam_components"] * BYTES_PER_SEAM_COMPONENT / 1e6
    rest = run.peak - colors - seams
    row: measure.Row = {"MP": size, "peak_mb": run.peak, "colors_mb": colors, "seams_mb": seams}
    growth = None if before is None else f"{100 * (rest / before['rest_mb'] - 1):+.0f} %"
    cost = {"wall_s": run.answer["wall"], "cpu_s": run.answer["cpu"], "load": load}
    return {**row, "rest_mb": rest, "growth": growth, **cost, "regions": run.answer["regions"]}


if __name__ == "__main__":
    main()
