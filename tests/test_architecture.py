"""The plan of the house: who may import whom, and what importing the package costs."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import napari_pixseg

ROOT = Path(napari_pixseg.__file__).parent
HEAVY = ("numpy", "dask", "zarr", "numba", "napari", "qtpy", "PyQt5", "PyQt6", "PySide6")
GUI = ("napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "magicgui", "vispy")
ENGINE = ("dask", "zarr", "fsspec", "tifffile", "imageio", "PIL")
# What each room must not know of.
WAYS_IN = (".plugin", ".cli", ".segmentation", ".endpoint")
ROOMS = (
    ".algorithm",
    ".sources",
    ".execution",
    ".classification",
    ".regions",
    ".export",
)
FORBIDDEN = {
    "parameters": (*ROOMS, *WAYS_IN, *HEAVY),
    "errors": (*ROOMS, *WAYS_IN, *HEAVY),
    "slices": (*ROOMS, *WAYS_IN, *GUI),
    "algorithm": (*ROOMS[1:], *WAYS_IN, *ENGINE, *GUI),
    "sources": (*ROOMS[2:], *WAYS_IN, *GUI),
    "execution": (*ROOMS[3:], *WAYS_IN, *GUI),
    "classification": (*ROOMS[4:], *WAYS_IN, *GUI),
    "regions": (*ROOMS[5:], *WAYS_IN, *GUI),
    "export": (*WAYS_IN, *GUI),
    "segmentation": (".plugin", ".cli", ".endpoint", *GUI),
    "cli": (".plugin", *GUI),
    "endpoint": (".plugin", ".cli", *GUI),
}


def modules(room):
    """The source files of a room: a folder, or one file."""
    return sorted((ROOT / room).rglob("*.py")) or [ROOT / f"{room}.py"]


def imported(file):
    """Every module a file imports, anywhere in it; those of the package with a dot before."""
    names = set()
    package = [napari_pixseg.__name__, *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*above, *filter(None, [node.module])])
            names |= {home} | {f"{home}.{alias.name}" for alias in node.names}
    return {name.removeprefix(napari_pixseg.__name__) for name in names}


def belongs(name, room):
    return name == room or name.startswith(f"{room}.")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_run_one_way(room):
    seen = set()
    for file in modules(room):
        names = imported(file)
        seen |= names
        wrong = {n for n in names for forbidden in FORBIDDEN[room] if belongs(n, forbidden)}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"
    assert seen


def test_every_room_is_under_the_rule():
    found = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    free = {"__init__", "__main__", "__pycache__", "demo", "plugin"}
    assert found - free <= set(FORBIDDEN)


def test_the_rule_sees_what_it_forbids(tmp_path):
    file = ROOT / "sources" / "image.py"
    assert {"dask.array", ".parameters", ".parameters.AXES"} <= imported(file)
    assert belongs("dask.array", "dask")
    assert not belongs("daskerville", "dask")


def fresh(code):
    """What a new interpreter prints."""
    environment = {"PYTHONPATH": str(ROOT.parent), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


LOADED = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


@pytest.mark.parametrize(
    "first", ["napari_pixseg", "napari_pixseg.parameters", "napari_pixseg.errors"]
)
def test_importing_the_package_loads_nothing_heavy(first):
    loaded = fresh(f"import {first}; {LOADED}")
    assert "napari_pixseg" in loaded
    assert not set(loaded) & set(HEAVY)


@pytest.mark.parametrize("first", ["segmentation", "cli"])
def test_the_library_and_the_command_work_without_napari_or_qt(first):
    loaded = fresh(f"import napari_pixseg.{first}; {LOADED}")
    assert not set(loaded) & set(GUI)


def test_help_needs_no_engine():
    code = f"""
import contextlib, io
from napari_pixseg.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
{LOADED}
"""
    assert not set(fresh(code)) & {"dask", "numba", "napari"}


def test_every_public_name_exists_and_is_described():
    assert napari_pixseg.__all__ == sorted(napari_pixseg.__all__)
    for name in napari_pixseg.__all__:
        value = getattr(napari_pixseg, name)
        assert inspect.getdoc(value), name
        assert name in dir(napari_pixseg)
        members = inspect.getmembers(value) if inspect.isclass(value) else []
        for member, what in members:
            own = str(getattr(what, "__module__", "")).startswith("napari_pixseg")
            if own and not member.startswith("_"):
                assert inspect.getdoc(what), f"{name}.{member}"
    assert napari_pixseg.__version__


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pony'"):
        napari_pixseg.pony  # noqa: B018


def test_modules_have_a_docstring_and_no_module_is_called_utils():
    for file in ROOT.rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), file
        assert "util" not in file.stem
