"""How close the full job comes to its floor: ``python -m benchmarks.floor [--full]``.

The job writes classes, regions, picture, their pyramids, and the region table. The floor reads
the input once and writes every array of that output once, at all levels, with the same codecs,
chunks and number of threads. The table is not part of the floor. Job and floor are timed in
turns in fresh processes, once with zarr's own codecs and once with ``zarrs``, and each job is
divided by the floor of the same codecs. With ``zarrs`` the floor reads and writes with it, while
the job only reads with it, because ``zarrs`` writes chunks in place.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from benchmarks import measure
from benchmarks.pictures import write_zarr

OUTPUTS = ("classes", "regions", "recolored")
SMALL = (16,)
FULL = (64, 256, 1024)
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


def measure_size(folder: Path, megapixels: int, repeats: int, pipeline: str) -> measure.Row:
    """Time job and floor in turns on a picture of the given size."""
    source = folder / f"{megapixels}.zarr"
    target = folder / "out.zarr"
    copy = folder / "copy.zarr"
    if not source.exists():
        write_zarr(source, megapixels)
    env = {"ZARR_CODEC_PIPELINE__PATH": PIPELINES[pipeline]}
    load = measure.machine_load()
    jobs = []
    floors = []
    for _ in range(repeats):
        shutil.rmtree(target, ignore_errors=True)
        jobs.append(
            measure.run_python("benchmarks.jobs", "export", source, target, *OUTPUTS, env=env)
        )
        floors.append(measure.run_python("benchmarks.jobs", "floor", source, target, copy, env=env))
        shutil.rmtree(copy, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    row = {"MP": megapixels, "codecs": pipeline, "regions": jobs[0].answer["regions"]}
    for kind in ("wall", "cpu"):
        job = [run.answer[kind] for run in jobs]
        floor = [run.answer[kind] for run in floors]
        ratios = [a / b for a, b in zip(job, floor, strict=True)]
        row[f"job_{kind}_s"] = round(statistics.median(job), 2)
        row[f"floor_{kind}_s"] = round(statistics.median(floor), 2)
        row[f"{kind}_ratio"] = round(statistics.median(ratios), 2)
        row[f"{kind}_range"] = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return {**row, "peak_mb": round(max(run.peak for run in jobs)), "load": load}


def main() -> None:
    """Measure all sizes."""
    options = measure.parse_options(__doc__)
    sizes = options.sizes or (FULL if options.full else SMALL)
    rows = []
    with measure.work_folder(options.folder) as folder:
        measure.refuse_small_disk(folder, 20 * max(sizes) * 2**20)
        for size in sizes:
            rows += [measure_size(folder, size, options.repeats, name) for name in PIPELINES]
            shutil.rmtree(folder / f"{size}.zarr", ignore_errors=True)
    measure.print_report("floor", rows, options.json)


if __name__ == "__main__":
    main()
