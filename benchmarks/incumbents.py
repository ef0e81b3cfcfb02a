"""Whole processes against those that people use: ``python -m benchmarks.incumbents [--full]``.

Picture in (PPM), recolored picture out (PNG), interpreter and imports included.
ImageMagick 6 ``-segment`` and GraphicsMagick ``-segment`` with the same thresholds. Three cases:
a smooth picture of few classes, a photograph in YUV, and one in linear RGB with many classes,
which ImageMagick is only given at 1 MP. The partitions are compared with ours in the matching
semantics. A program that is missing is left out, and said so.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.pictures import photograph, side_of

SMALL, FULL = (1,), (1, 4, 16)
# The slowest case of ImageMagick takes minutes at 1 MP, an hour at 16.
SLOW_LIMIT_MP = 1
MAGICKS = ("convert-im6.q16", "convert-im6")


@dataclass(frozen=True)
class Case:
    """One picture and the parameters it is segmented with."""

    name: str
    noise: float
    space: str
    ct: float
    st: float


CASES = (
    Case("smooth, few classes", 0.0, "YUV", 1.0, 40.0),
    Case("photograph, YUV", 3.0, "YUV", 1.0, 1.5),
    Case("photograph, many classes", 3.0, "RGB", 0.1, 0.5),
)


def commands(case: Case, source: Path, target: Path) -> dict[str, list[str]]:
    """Return what each program is called with."""
    magick = next((name for name in MAGICKS if shutil.which(name)), None)
    thresholds = f"{case.ct:g}x{case.st:g}"
    ours = [
        sys.executable, "-m", "napari_pixseg", "segment", source, target, "--overwrite", "--blob",
        "--semantics", "imagemagick6", "--ct", case.ct, "--st", case.st, "--cs", case.space,
    ]  # fmt: skip
    found: dict[str, list[object]] = {"ours": ours}
    if magick:
        limits = ["-limit", "area", "4GB", "-limit", "memory", "8GB", "-limit", "map", "8GB"]
        spaced = [magick, *limits, source, "-colorspace", case.space, "-segment", thresholds]
        found["ImageMagick"] = [*spaced, "-colorspace", "sRGB", target]
    if shutil.which("gm"):
        spaced = ["gm", "convert", source, "-colorspace", case.space, "-segment", thresholds]
        found["GraphicsMagick"] = [*spaced, "-colorspace", "RGB", target]
    return {name: [str(part) for part in command] for name, command in found.items()}


def measure_case(case: Case, size: int, folder: Path, repeats: int) -> list[measure.Row]:
    """Run every program on a case; the first row is ours."""
    from PIL import Image

    source = folder / "in.ppm"
    Image.fromarray(photograph(side_of(size), case.noise)).save(source)
    rows: list[measure.Row] = []
    pictures: dict[str, NDArray[np.uint8]] = {}
    for name, command in commands(case, source, folder / "out.png").items():
        slow = case.name.endswith("many classes") and size > SLOW_LIMIT_MP
        if name == "ImageMagick" and slow:
            continue
        load, runs = measure.load(), []
        for _ in range(1 if name == "ImageMagick" else repeats):
            runs.append(measure.run(command))
        pictures[name] = np.asarray(Image.open(folder / "out.png").convert("RGB"))
        row = {"case": case.name, "MP": size, "program": name, **measure.medians(runs)}
        row["classes"] = len(np.unique(_packed(pictures[name])))
        row["times_ours"] = round(row["wall_s"] / rows[0]["wall_s"], 1) if rows else 1.0
        row["same"] = same_partition(pictures["ours"], pictures[name])
        rows.append({**row, "load": load})
    return rows


def _packed(picture: NDArray[np.uint8]) -> NDArray[np.uint32]:
    red, green, blue = (picture[..., i].astype(np.uint32) for i in range(3))
    return red << 16 | green << 8 | blue


def same_partition(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether pixels that are alike in one picture are alike in the other, and differ as well."""
    pairs = _packed(one).astype(np.uint64) << np.uint64(24) | _packed(other)
    count = len(np.unique(pairs))
    return count == len(np.unique(_packed(one))) == len(np.unique(_packed(other)))


def main() -> None:
    """Measure all cases at all sizes."""
    options = measure.options(__doc__)
    rows = []
    if len(commands(CASES[0], Path("in"), Path("out"))) < 3:
        sys.stderr.write("ImageMagick 6 or GraphicsMagick is missing here, and left out.\n")
    with measure.work_folder(options.folder) as folder:
        for size in options.sizes or (FULL if options.full else SMALL):
            for case in CASES:
                rows += measure_case(case, size, folder, options.repeats)
    measure.report("incumbents", rows, options.json)


if __name__ == "__main__":
    main()
