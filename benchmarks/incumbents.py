"""Compare this package with the usual programs: ``python -m benchmarks.incumbents [--full]``.

Whole processes are compared, including interpreter and imports: they read a picture (PPM) and
write the recolored picture (PNG). ImageMagick 6 ``-segment`` is compared with our ``imagemagick6``
semantics. GraphicsMagick ``-segment`` keeps classes as its manual says, and is compared with our
``documented`` semantics at the same threshold. The thresholds grow with the picture, so that the
number of classes in a case stays about the same. A program that is not installed is skipped with
a message.

GraphicsMagick rounds colors differently in every space but sRGB. For those it gets the bytes of
the color space, which saves it the conversion, and segments them as they are.

ImageMagick's slowest case takes minutes at 4 megapixels and half an hour at 16. With ``--keep
FOLDER``, the results and times of the incumbents are kept there and used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.pictures import photograph, side_of, stains

SMALL = (1,)
FULL = (1, 4, 16)
MAGICKS = ("convert-im6.q16", "convert-im6")
LIMITS = ("-limit", "area", "4GB", "-limit", "memory", "8GB", "-limit", "map", "8GB")
# A program that takes longer is run once; repeats would not change the comparison with our
# tenths of a second.
SLOW_SECONDS = 10.0
# In GraphicsMagick and ImageMagick st is absolute. Ours refers to a picture of this many pixels.
REFERENCE_PIXELS = 1 << 20
Thresholds = Mapping[int, tuple[float, float]]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One picture, and what the programs have to do with it.

    Attributes
    ----------
    name : str
    picture : callable
        Makes the picture from its side and the standard deviation of its noise.
    noise : float
    space : str
    magick, graphics : mapping of megapixels to (ct, st)
        Thresholds for ImageMagick and for GraphicsMagick. A program without any is skipped.
    """

    name: str
    picture: Callable[[int, float], Picture]
    noise: float
    space: str
    magick: Thresholds
    graphics: Thresholds


CASES = (
    Case(
        "few classes, smooth, YUV", photograph, 0.0, "YUV",
        {1: (1, 20), 4: (1, 80), 16: (1, 255)}, {},
    ),
    Case(
        "few classes, smooth, sRGB", photograph, 0.0, "sRGB",
        {}, {1: (1, 20), 4: (1, 80), 16: (1, 320)},
    ),
    Case(
        "22 classes, photograph, YUV", photograph, 3.0, "YUV",
        {1: (1, 10), 4: (1, 12), 16: (1, 40)}, {1: (1e-3, 1), 4: (1e-3, 4), 16: (1e-3, 16)},
    ),
    Case(
        "22 classes, photograph, sRGB", photograph, 3.0, "sRGB",
        {}, {1: (1e-3, 7), 4: (1e-3, 18), 16: (1e-3, 80)},
    ),
    Case(
        "80 classes, photograph, sRGB", photograph, 1.0, "sRGB",
        {1: (1, 0.7), 4: (1, 4), 16: (1, 30)}, {},
    ),
    # With many classes of a photograph, margins of boxes overlap, and then the result of
    # GraphicsMagick depends on the order of the pixels. In this picture none overlap.
    Case(
        "96 classes, three stains, sRGB", stains, 3.0, "sRGB",
        {}, {1: (1e-4, 6.7), 4: (1e-4, 28), 16: (1e-4, 115)},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A program and its arguments without the file names.

    Attributes
    ----------
    name : str
    before, after : tuple of str
        Words before and after the input; the output comes last.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def command(self, source: Path, target: Path) -> list[str]:
        """Return the command with the file names."""
        if self.name.startswith("ours"):
            return [*self.before, str(source), str(target), *self.after]
        return [*self.before, str(source), *self.after, str(target)]


def our_program(semantics: str, space: str, ct: float, st: float) -> Program:
    """Return the command of this package."""
    before = (sys.executable, "-m", "napari_pixseg", "segment")
    options = f"--overwrite --blob --semantics {semantics} --ct {ct:g} --st {st:g} --cs {space}"
    return Program(f"ours, {semantics}", before, tuple(options.split()))


def program_pairs(case: Case, size: int) -> list[tuple[Program, Program]]:
    """Return our program and the incumbent, for each that is installed and compared."""
    found = []
    magick = next((name for name in MAGICKS if shutil.which(name)), None)
    if magick and size in case.magick:
        ct, st = case.magick[size]
        steps = ("-colorspace", case.space, "-segment", f"{ct:g}x{st:g}", "-colorspace", "sRGB")
        mine = our_program("imagemagick6", case.space, ct, st)
        found.append((mine, Program("ImageMagick", (magick, *LIMITS), steps)))
    if shutil.which("gm") and size in case.graphics:
        ct, st = case.graphics[size]
        steps = ("-segment", f"{ct:g}x{st:g}")
        relative_st = st * REFERENCE_PIXELS / side_of(size) ** 2
        mine = our_program("documented", case.space, ct, relative_st)
        found.append((mine, Program("GraphicsMagick", ("gm", "convert"), steps)))
    return found


@dataclass(frozen=True)
class Bench:
    """The folder for files, the number of runs, and the folder of kept results, if any."""

    folder: Path
    repeats: int
    keep: Path | None

    def measure_case(self, case: Case, size: int) -> list[measure.Row]:
        """Run every program on a case; ours runs first, with the semantics of the incumbent."""
        from PIL import Image

        from napari_pixseg.algorithm.colorspaces.convert import forward_bytes
        from napari_pixseg.parameters import ColorSpace

        source = self.folder / "in.ppm"
        in_space = self.folder / "in-space.ppm"
        picture = case.picture(side_of(size), case.noise)
        Image.fromarray(picture).save(source)
        colors = forward_bytes(ColorSpace[case.space], picture.reshape(-1, 3))
        Image.fromarray(colors.reshape(picture.shape)).save(in_space)
        rows = []
        for mine, theirs in program_pairs(case, size):
            reference, one = self._measure_program(mine, source)
            given = in_space if theirs.name == "GraphicsMagick" else source
            row, other = self._measure_incumbent(theirs, given, case, size)
            row |= {
                "times_wall": round(row["wall_s"] / reference["wall_s"], 1),
                "times_cpu": round(row["cpu_s"] / reference["cpu_s"], 1),
                "same": same_partition(one, other),
                "px_apart_%": round(100 * share_apart(one, other), 3),
            }
            rows += [{"case": case.name, "MP": size, **r} for r in (reference, row)]
        return rows

    def _measure_program(self, program: Program, source: Path) -> tuple[measure.Row, Picture]:
        target = self.folder / "out.png"
        command = program.command(source, target)
        # An installation has its bytecode; here the first run writes it.
        env = {"PYTHONDONTWRITEBYTECODE": ""}
        if program.name.startswith("ours"):
            measure.run_command(command, env)
        load = measure.machine_load()
        runs: list[measure.Run] = []
        while len(runs) < self.repeats and not any(run.wall > SLOW_SECONDS for run in runs):
            runs.append(measure.run_command(command, env))
        picture = decode_picture(target)
        row = {"program": program.name, "runs": len(runs), **measure.median_figures(runs)}
        return {**row, "classes": len(np.unique(pack_colors(picture))), "load": load}, picture

    def _measure_incumbent(
        self, program: Program, source: Path, case: Case, size: int
    ) -> tuple[measure.Row, Picture]:
        if self.keep is None:
            return self._measure_program(program, source)
        folder = self.keep / f"{program.name}, {case.name}, {size} MP".replace(", ", "-")
        input_hash = hashlib.sha256(source.read_bytes()).hexdigest()
        asked = {"arguments": [*program.before, *program.after], "input": input_hash}
        record = folder / "run.json"
        picture = folder / "out.png"
        if record.exists():
            kept = json.loads(record.read_text())
            if kept["asked"] == asked:
                return {**kept["row"], "kept": True}, decode_picture(picture)
        row, made = self._measure_program(program, source)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "out.png", picture)
        record.write_text(json.dumps({"asked": asked, "row": row}))
        return row, made


def decode_picture(path: Path) -> Picture:
    """Return the colors of a picture file, which may have a palette."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def pack_colors(picture: Picture) -> NDArray[np.uint32]:
    """Return each color as one number."""
    red, green, blue = (picture[..., i].astype(np.uint32) for i in range(3))
    return red << 16 | green << 8 | blue


def _pair_colors(one: Picture, other: Picture) -> NDArray[np.uint64]:
    return pack_colors(one).astype(np.uint64) << np.uint64(24) | pack_colors(other)


def same_partition(one: Picture, other: Picture) -> bool:
    """Whether both pictures divide the pixels into the same sets of equal color."""
    count = len(np.unique(_pair_colors(one, other)))
    return count == len(np.unique(pack_colors(one))) == len(np.unique(pack_colors(other)))


def share_apart(one: Picture, other: Picture) -> float:
    """Share of pixels that the second picture separates from most of their class in the first."""
    both, counts = np.unique(_pair_colors(one, other), return_counts=True)
    starts = np.flatnonzero(np.diff(both >> np.uint64(24), prepend=np.uint64(1 << 40)))
    return 1.0 - float(np.maximum.reduceat(counts, starts).sum() / counts.sum())


def read_options() -> argparse.Namespace:
    """Read the options that all benchmarks share, and those of this one."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--keep", type=Path, help="folder that keeps the results of incumbents for later runs"
    )
    own, rest = parser.parse_known_args()
    return argparse.Namespace(**vars(measure.parse_options(__doc__, rest)), keep=own.keep)


def main() -> None:
    """Measure all cases at all sizes."""
    given = read_options()
    rows = []
    if not shutil.which("gm") or not any(map(shutil.which, MAGICKS)):
        sys.stderr.write("ImageMagick 6 or GraphicsMagick is not installed, and is skipped.\n")
    with measure.work_folder(given.folder) as folder:
        bench = Bench(folder, given.repeats, given.keep)
        for size in given.sizes or (FULL if given.full else SMALL):
            for case in CASES:
                rows += bench.measure_case(case, size)
    measure.print_report("incumbents", rows, given.json)


if __name__ == "__main__":
    main()
