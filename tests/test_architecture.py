"""The plan of the house: who may import whom, and what importing the package costs."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import napari_pixseg

ROOT = Path(napari_pixseg.__file__).parent
HEAVY = ("numpy", "dask", "zarr", "numba", "napari", "qtpy", "PyQt5", "PyQt6", "PySide6")
GUI = ("napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "magicgui", "vispy")
ENGINE = ("dask", "zarr", "fsspec", "tifffile", "imageio", "imagecodecs", "PIL", "pyarrow")
# A room imports from itself and from rooms further up in this list, never from one below.
ORDER = (
    "errors",
    "interruption",
    "parameter_kinds",
    "parameter_sequences",
    "parameters",
    "slices",
    "byte_sizes",
    "algorithm",
    "sources",
    "execution",
    "classification",
    "regions",
    "export",
    "result_warnings",
    "locked_cached_property",
    "segmentation",
    "segment_image",
    "endpoint",
    "demo",
    "terminal",
    "info_command",
    "cli",
    "__main__",
    "plugin.layer_types",
    "plugin.map_checksum",
    "plugin.notices",
    "plugin.background",
    "plugin.sample_data",
    "plugin.writer",
    "plugin.export_dialog",
    "plugin.layers",
    "plugin.decision",
    "plugin.background_counting",
    "plugin.full_runs",
    "plugin.controller",
    "plugin.reader",
    "plugin.remote_job",
    "plugin.widget",
)
# The window and the command line do not know each other, although one stands below the other.
STRANGERS = {"plugin": ("demo", "cli", "__main__")}
# Libraries that a room must do without; every room but the plugin does without a window.
WITHOUT = {
    "errors": HEAVY,
    "interruption": HEAVY,
    "parameters": HEAVY,
    "terminal": HEAVY,
    "algorithm": ENGINE,
}
# Lists the public names and imports them when they are asked for, so it belongs to no room.
FREE = {"__init__"}


def name_of(file):
    """Dotted name of a source file, without the package's; a folder's own is the folder's."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def room_of(name):
    """The room of a module: the longest entry of the order that its name begins with."""
    return max((room for room in ORDER if belongs(name, room)), key=len, default=None)


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


def neighbors(name):
    """Modules of the package that a module imports, function-level imports included."""
    own = {found[1:] for found in imported(FILES[name]) if found.startswith(".")}
    return {found for found in own if found in FILES and found != name}


@pytest.mark.parametrize("room", ORDER)
def test_arrows_run_one_way(room):
    files = [name for name in FILES if room_of(name) == room]
    assert files, f"{room} does not exist"
    for name in files:
        wrong = {
            other
            for other in neighbors(name)
            if room_of(other) and ORDER.index(room_of(other)) > ORDER.index(room)
        }
        for stranger in STRANGERS.get(room.split(".")[0], ()):
            wrong |= {other for other in neighbors(name) if belongs(other, stranger)}
        assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize("room", [room for room in ORDER if not belongs(room, "plugin")])
def test_rooms_do_without_what_they_should_not_need(room):
    forbidden = (*GUI, *WITHOUT.get(room, ()))
    for name in (name for name in FILES if room_of(name) == room):
        wrong = {n for n in imported(FILES[name]) for library in forbidden if belongs(n, library)}
        assert not wrong, f"{name} imports {sorted(wrong)}"


def test_every_room_is_under_the_rule():
    assert {name for name in FILES if room_of(name) is None} - {"plugin"} == FREE
    assert len(set(ORDER)) == len(ORDER)


def test_imports_make_no_circle():
    done = set()
    for start in FILES:
        # Depth first: what is still open when it is met again closes a circle.
        path, waiting = [], [(start, iter(sorted(neighbors(start))))]
        while waiting:
            name, rest = waiting[-1]
            if name not in path:
                path.append(name)
            other = next((n for n in rest if n not in done), None)
            if other is None:
                waiting.pop()
                done.add(path.pop())
                continue
            assert other not in path, " -> ".join([*path[path.index(other) :], other])
            waiting.append((other, iter(sorted(neighbors(other)))))


def test_the_rule_sees_what_it_forbids():
    assert {"dask.array", ".parameters", ".parameters.AXES"} <= imported(FILES["sources.image"])
    # Imports inside functions are seen as well.
    assert "segmentation" in neighbors("cli")
    assert belongs("dask.array", "dask")
    assert not belongs("daskerville", "dask")
    assert room_of("plugin.layers.styles") == "plugin.layers"


PAGE = (ROOT.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title):
    """Text of one section of the page on the architecture."""
    return re.search(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)[1]


def mapped():
    """Entries of the map, in its order: path below the package, and what is said of it."""
    listed = section("The map").split("\n### ")[0]
    return re.findall(r"^ *- `([^`]+)`: (\S.*)$", listed, re.MULTILINE)


def test_the_map_has_a_line_for_every_file_and_for_nothing_else():
    here = {path for path in ROOT.rglob("*") if "__pycache__" not in path.parts}
    files = {str(p.relative_to(ROOT)) for p in here if p.is_file() and p.name != "__init__.py"}
    folders = {f"{path.relative_to(ROOT)}/" for path in here if (path / "__init__.py").is_file()}
    paths = [path for path, _ in mapped()]
    assert len(set(paths)) == len(paths)
    missing = (files | folders | {"__init__.py"}) - set(paths)
    assert not missing, f"add a line to the map of docs/architecture.md for {sorted(missing)}"
    gone = set(paths) - files - folders - {"__init__.py"}
    assert not gone, f"take {sorted(gone)} out of the map of docs/architecture.md"


def test_the_map_lists_the_rooms_in_their_order():
    names = [path.removesuffix(".py").strip("/").replace("/", ".") for path, _ in mapped()]
    rooms = list(dict.fromkeys(room for name in names if (room := room_of(name))))
    assert rooms == list(ORDER)


def defined_in(name):
    """Whether a dotted name is a module, or something that a module or one of its classes has."""
    parts = name.split(".")
    home = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in FILES), 0)
    if not home:
        return False
    body = ast.parse(FILES[".".join(parts[:home])].read_text()).body
    for part in parts[home:]:
        found = [node for node in body if getattr(node, "name", None) == part]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def test_every_function_of_the_walk_exists():
    tops = "|".join(sorted({name.split(".")[0] for name in FILES}))
    named = re.findall(rf"`((?:{tops})(?:\.\w+)+)`", section("One picture through the code"))
    named = [name for name in named if not name.endswith(".py")]
    assert len(named) > 30
    lost = [name for name in named if not defined_in(name)]
    assert not lost, f"the walk in docs/architecture.md names {lost}"
    assert defined_in("sources.image.Image.read")
    assert not defined_in("sources.image.Image.paint")


def test_every_file_of_the_checklists_exists():
    text = section("One picture through the code").split("### Where something new goes")[1]
    named = set(re.findall(r"`([\w./-]+\.(?:py|html|yaml|json|md))`", text))
    assert len(named) > 25
    places = (ROOT, ROOT / "sources" / "formats", ROOT.parents[1])
    lost = {name for name in named if not any((place / name).is_file() for place in places)}
    assert not lost, f"the checklists in docs/architecture.md name {sorted(lost)}"


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
