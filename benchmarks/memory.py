"""Peak memory of the full job: ``python -m benchmarks.memory [--full]``.

Each job is a whole process on two threads that writes classes, regions, picture, pyramids and
table. Two parts of the peak are listed: the color table with 12 bytes per color (24 while colors
are converted and classes decided), and the seam table with 80 bytes per component that touches a
seam. The rest must not grow with the image.
"""

from __future__ import annotations

import shutil

from benchmarks import measure
from benchmarks.floor import OUTPUTS
from benchmarks.pictures import write_zarr
from napari_pixseg.regions.numbering import BYTES_PER_SEAM_COMPONENT

SMALL = (16, 64)
FULL = (64, 256, 1024)
BYTES_PER_COLOR = 24


def main() -> None:
    """Measure every size once, because peaks of several runs differ only by a few percent."""
    options = measure.parse_options(__doc__)
    sizes = options.sizes or (FULL if options.full else SMALL)
    rows: list[measure.Row] = []
    with measure.work_folder(options.folder) as folder:
        measure.refuse_small_disk(folder, 25 * max(sizes) * 2**20)
        for size in sizes:
            source = folder / "in.zarr"
            target = folder / "out.zarr"
            write_zarr(source, size)
            load = measure.machine_load()
            run = measure.run_python("benchmarks.jobs", "export", source, target, *OUTPUTS)
            counted = measure.run_python("benchmarks.jobs", "seams", target)
            run.answer.update(seam_components=counted.answer["seam_components"])
            shutil.rmtree(source)
            shutil.rmtree(target)
            rows.append(_make_row(size, run, rows[-1] if rows else None, load))
    measure.print_report("memory", rows, options.json)


def _make_row(size: int, run: measure.Run, before: measure.Row | None, load: float) -> measure.Row:
    colors = run.answer["colors"] * BYTES_PER_COLOR / 1e6
    seams = run.answer["seam_components"] * BYTES_PER_SEAM_COMPONENT / 1e6
    rest = run.peak - colors - seams
    row: measure.Row = {"MP": size, "peak_mb": run.peak, "colors_mb": colors, "seams_mb": seams}
    growth = None if before is None else f"{100 * (rest / before['rest_mb'] - 1):+.0f} %"
    cost = {"wall_s": run.answer["wall"], "cpu_s": run.answer["cpu"], "load": load}
    return {**row, "rest_mb": rest, "growth": growth, **cost, "regions": run.answer["regions"]}


if __name__ == "__main__":
    main()
