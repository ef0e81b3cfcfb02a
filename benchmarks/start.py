"""How long a fresh process takes to be ready: ``python -m benchmarks.start``.

Whole processes, interpreter included: one that does nothing, one that imports the package, one
that imports all of the library, one that segments a picture of 1 MP and takes its classes and
regions, with the compiled kernels cached by an earlier run, and the command that writes a picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.pictures import photograph

_SEGMENT = """
from napari_pixseg import segment
segmentation = segment({path!r})
assert segmentation.classes.compute().any()
"""
_REGIONS = _SEGMENT + "assert segmentation.regions.compute().any()\n"


def main() -> None:
    """Measure every kind of start."""
    from PIL import Image

    options = measure.options(__doc__)
    rows = []
    with measure.work_folder(options.folder) as folder:
        picture, target = folder / "one.png", folder / "out.png"
        Image.fromarray(photograph(1024)).save(picture)
        for name, code in _codes(picture).items():
            rows.append(_row(name, [sys.executable, "-c", code], options.repeats + 2))
        command = [sys.executable, "-m", "napari_pixseg", "segment", str(picture), str(target)]
        rows.append(_row("command, 1 MP to PNG", [*command, "--overwrite"], options.repeats + 2))
    measure.report("start", rows, options.json)


def _codes(picture: Path) -> dict[str, str]:
    path = str(picture)
    return {
        "interpreter": "pass",
        "import napari_pixseg": "import napari_pixseg",
        "import napari_pixseg.segmentation": "import napari_pixseg.segmentation",
        "segment 1 MP, classes": _SEGMENT.format(path=path),
        "segment 1 MP, classes and regions": _REGIONS.format(path=path),
    }


def _row(name: str, command: list[str], repeats: int) -> measure.Row:
    # The first run fills the caches; of bytecode, too, which an installation has.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    measure.run(command, env)
    load = measure.load()
    runs = [measure.run(command, env) for _ in range(repeats)]
    return {"process": name, "runs": len(runs), **measure.medians(runs), "load": load}


if __name__ == "__main__":
    main()
