"""Whole processes against those that people use: ``python -m benchmarks.incumbents [--full]``.

Picture in (PPM), recolored picture out (PNG), interpreter and imports included. ImageMagick 6
``-segment`` is compared with our ``imagemagick6`` semantics, GraphicsMagick ``-segment``, which
keeps classes as its manual says, with our ``documented`` one at the same threshold. The
thresholds grow with the picture, so that the classes of a case stay about as many. A program
that is missing is left out, and said so.

GraphicsMagick rounds colors of other spaces than sRGB in a way of its own. There it is given the
bytes of that space, which spares it the conversion, and is asked to segment them as they are.

ImageMagick's slowest case takes minutes at 4 megapixels and half an hour at 16: with ``--keep
FOLDER`` what an incumbent made, and the time it took, is kept there and used again.
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

SMALL, FULL = (1,), (1, 4, 16)
MAGICKS = ("convert-im6.q16", "convert-im6")
LIMITS = ("-limit", "area", "4GB", "-limit", "memory", "8GB", "-limit", "map", "8GB")
# What takes longer is run once: it is told apart from our tenths of a second anyway.
SLOW_SECONDS = 10.0
# As GraphicsMagick and ImageMagick have it, st is absolute; ours is for so many pixels.
REFERENCE_PIXELS = 1 << 20
Thresholds = Mapping[int, tuple[float, float]]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One picture, and what the programs are asked for.

    Attributes
    ----------
    name : str
    picture : callable
        Makes the picture, of a side and the standard deviation of its noise.
    noise : float
    space : str
    magick, graphics : mapping of megapixels to (ct, st)
        Thresholds of ImageMagick and of GraphicsMagick; empty: not compared.
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
    # Where margins of boxes overlap, as with so many classes of a photograph, what
    # GraphicsMagick does depends on the order of the pixels. Here none do.
    Case(
        "96 classes, three stains, sRGB", stains, 3.0, "sRGB",
        {}, {1: (1e-4, 6.7), 4: (1e-4, 28), 16: (1e-4, 115)},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A program and its arguments, but for the names of files.

    Attributes
    ----------
    name : str
    before, after : tuple of str
        What precedes and follows the input; the output is last.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def command(self, source: Path, target: Path) -> list[str]:
        """Return the whole command."""
        if self.name.startswith("ours"):
            return [*self.before, str(source), str(target), *self.after]
        return [*self.before, str(source), *self.after, str(target)]


def ours(semantics: str, space: str, ct: float, st: float) -> Program:
    """Return this package's command."""
    before = (sys.executable, "-m", "napari_pixseg", "segment")
    options = f"--overwrite --blob --semantics {semantics} --ct {ct:g} --st {st:g} --cs {space}"
    return Program(f"ours, {semantics}", before, tuple(options.split()))


def pairs(case: Case, size: int) -> list[tuple[Program, Program]]:
    """Return ours and the incumbent, for each that is here and compared."""
    found = []
    magick = next((name for name in MAGICKS if shutil.which(name)), None)
    if magick and size in case.magick:
        ct, st = case.magick[size]
        steps = ("-colorspace", case.space, "-segment", f"{ct:g}x{st:g}", "-colorspace", "sRGB")
        found.append((
            ours("imagemagick6", case.space, ct, st),
            Program("ImageMagick", (magick, *LIMITS), steps),
        ))  # fmt: skip
    if shutil.which("gm") and size in case.graphics:
        ct, st = case.graphics[size]
        found.append((
            ours("documented", case.space, ct, st * REFERENCE_PIXELS / side_of(size) ** 2),
            Program("GraphicsMagick", ("gm", "convert"), ("-segment", f"{ct:g}x{st:g}")),
        ))  # fmt: skip
    return found


@dataclass(frozen=True)
class Bench:
    """Where files are, how often programs run, and where results of incumbents are kept."""

    folder: Path
    repeats: int
    keep: Path | None

    def case(self, case: Case, size: int) -> list[measure.Row]:
        """Run every program on a case, each incumbent after ours in its semantics."""
        from PIL import Image

        from napari_pixseg.algorithm.colorspaces.convert import forward_bytes
        from napari_pixseg.parameters import ColorSpace

        source, in_space = self.folder / "in.ppm", self.folder / "in-space.ppm"
        picture = case.picture(side_of(size), case.noise)
        Image.fromarray(picture).save(source)
        colors = forward_bytes(ColorSpace[case.space], picture.reshape(-1, 3))
        Image.fromarray(colors.reshape(picture.shape)).save(in_space)
        rows = []
        for mine, theirs in pairs(case, size):
            reference, one = self._measured(mine, source)
            given = in_space if theirs.name == "GraphicsMagick" else source
            row, other = self._incumbent(theirs, given, case, size)
            row |= {
                "times_wall": round(row["wall_s"] / reference["wall_s"], 1),
                "times_cpu": round(row["cpu_s"] / reference["cpu_s"], 1),
                "same": same_partition(one, other),
                "px_apart_%": round(100 * share_apart(one, other), 3),
            }
            rows += [{"case": case.name, "MP": size, **r} for r in (reference, row)]
        return rows

    def _measured(self, program: Program, source: Path) -> tuple[measure.Row, Picture]:
        target = self.folder / "out.png"
        command = program.command(source, target)
        # As in an installation, bytecode is there: the first run leaves it.
        env = {"PYTHONDONTWRITEBYTECODE": ""}
        if program.name.startswith("ours"):
            measure.run(command, env)
        load = measure.load()
        runs: list[measure.Run] = []
        while len(runs) < self.repeats and not any(run.wall > SLOW_SECONDS for run in runs):
            runs.append(measure.run(command, env))
        picture = decoded(target)
        row = {"program": program.name, "runs": len(runs), **measure.medians(runs)}
        return {**row, "classes": len(np.unique(packed(picture))), "load": load}, picture

    def _incumbent(
        self, program: Program, source: Path, case: Case, size: int
    ) -> tuple[measure.Row, Picture]:
        if self.keep is None:
            return self._measured(program, source)
        folder = self.keep / f"{program.name}, {case.name}, {size} MP".replace(", ", "-")
        input_hash = hashlib.sha256(source.read_bytes()).hexdigest()
        asked = {"arguments": [*program.before, *program.after], "input": input_hash}
        record, picture = folder / "run.json", folder / "out.png"
        if record.exists():
            kept = json.loads(record.read_text())
            if kept["asked"] == asked:
                return {**kept["row"], "kept": True}, decoded(picture)
        row, made = self._measured(program, source)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "out.png", picture)
        record.write_text(json.dumps({"asked": asked, "row": row}))
        return row, made


def decoded(path: Path) -> Picture:
    """Return the colors of a picture, of a palette's, too."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def packed(picture: Picture) -> NDArray[np.uint32]:
    """Return each color as one number."""
    red, green, blue = (picture[..., i].astype(np.uint32) for i in range(3))
    return red << 16 | green << 8 | blue


def _both(one: Picture, other: Picture) -> NDArray[np.uint64]:
    return packed(one).astype(np.uint64) << np.uint64(24) | packed(other)


def same_partition(one: Picture, other: Picture) -> bool:
    """Whether pixels that are alike in one picture are alike in the other, and differ as well."""
    count = len(np.unique(_both(one, other)))
    return count == len(np.unique(packed(one))) == len(np.unique(packed(other)))


def share_apart(one: Picture, other: Picture) -> float:
    """Share of pixels that are not where most of their class of the first picture are."""
    both, counts = np.unique(_both(one, other), return_counts=True)
    starts = np.flatnonzero(np.diff(both >> np.uint64(24), prepend=np.uint64(1 << 40)))
    return 1.0 - float(np.maximum.reduceat(counts, starts).sum() / counts.sum())


def options() -> argparse.Namespace:
    """Read the options of all benchmarks, and those of this one."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--keep", type=Path, help="folder for what incumbents made, used again")
    ours_, rest = parser.parse_known_args()
    return argparse.Namespace(**vars(measure.options(__doc__, rest)), keep=ours_.keep)


def main() -> None:
    """Measure all cases at all sizes."""
    given = options()
    rows = []
    if not shutil.which("gm") or not any(map(shutil.which, MAGICKS)):
        sys.stderr.write("ImageMagick 6 or GraphicsMagick is missing here, and left out.\n")
    with measure.work_folder(given.folder) as folder:
        bench = Bench(folder, given.repeats, given.keep)
        for size in given.sizes or (FULL if given.full else SMALL):
            for case in CASES:
                rows += bench.case(case, size)
    measure.report("incumbents", rows, given.json)


if __name__ == "__main__":
    main()
