"""How near the full job is to its floor: ``python -m benchmarks.floor [--full]``.

The job: classes, regions, picture, their pyramids, and the region table. The floor: reading the
input once and writing every array of that output once, all levels, with the same codecs, chunks
and number of threads; the table is not part of the floor. Both are timed in turns in fresh
processes, with zarr's own codecs and with ``zarrs`` set, each over its own floor: that floor
reads and writes with ``zarrs``, the job only reads, because ``zarrs`` writes chunks in place.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from benchmarks import measure
from benchmarks.pictures import write_zarr

OUTPUTS = ("classes", "regions", "recolored")
SMALL, FULL = (16,), (64, 256, 1024)
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


def measure_size(folder: Path, megapixels: int, repeats: int, pipeline: str) -> measure.Row:
    """Time job and floor in turns on a picture of so many megapixels."""
    source, target = folder / f"{megapixels}.zarr", folder / "out.zarr"
    if not source.exists():
        write_zarr(source, megapixels)
    env = {"ZARR_CODEC_PIPELINE__PATH": PIPELINES[pipeline]}
    load, jobs, floors = measure.load(), [], []
    for _ in range(repeats):
        shutil.rmtree(target, ignore_errors=True)
        jobs.append(
            measure.run_python("benchmarks.jobs", "export", source, target, *OUTPUTS, env=env)
        )
        copy = folder / "copy.zarr"
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
    options = measure.options(__doc__)
    sizes = options.sizes or (FULL if options.full else SMALL)
    rows = []
    with measure.work_folder(options.folder) as folder:
        measure.refuse_small_disk(folder, 20 * max(sizes) * 2**20)
        for size in sizes:
            rows += [measure_size(folder, size, options.repeats, name) for name in PIPELINES]
            shutil.rmtree(folder / f"{size}.zarr", ignore_errors=True)
    measure.report("floor", rows, options.json)


if __name__ == "__main__":
    main()
