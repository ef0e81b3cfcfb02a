"""How long a fresh process takes to start and to segment: ``python -m benchmarks.start``.

Whole processes are timed, including the interpreter: one that does nothing, one that imports the
package, one that imports the whole library, two that segment a picture of 1 MP and compute its
classes or also its regions, and the command that writes a picture. The compiled kernels come from
the cache, which an earlier run filled.
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

    options = measure.parse_options(__doc__)
    rows = []
    with measure.work_folder(options.folder) as folder:
        picture = folder / "one.png"
        target = folder / "out.png"
        Image.fromarray(photograph(1024)).save(picture)
        for name, code in _code_snippets(picture).items():
            rows.append(_make_row(name, [sys.executable, "-c", code], options.repeats + 2))
        command = [sys.executable, "-m", "napari_pixseg", "segment", str(picture), str(target)]
        rows.append(
            _make_row("command, 1 MP to PNG", [*command, "--overwrite"], options.repeats + 2)
        )
    measure.print_report("start", rows, options.json)


def _code_snippets(picture: Path) -> dict[str, str]:
    path = str(picture)
    return {
        "interpreter": "pass",
        "import napari_pixseg": "import napari_pixseg",
        "import napari_pixseg.segmentation": "import napari_pixseg.segmentation",
        "segment 1 MP, classes": _SEGMENT.format(path=path),
        "segment 1 MP, classes and regions": _REGIONS.format(path=path),
    }


def _make_row(name: str, command: list[str], repeats: int) -> measure.Row:
    # The first run fills the caches, also that of bytecode, which an installation has.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    measure.run_command(command, env)
    load = measure.machine_load()
    runs = [measure.run_command(command, env) for _ in range(repeats)]
    return {"process": name, "runs": len(runs), **measure.median_figures(runs), "load": load}


if __name__ == "__main__":
    main()
