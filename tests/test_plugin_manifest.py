"""The plugin's manifest: what ``npe2 validate`` lets pass."""

import configparser
import subprocess
import sys
import tomllib
import warnings
import zipfile
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic.warnings import PydanticDeprecatedSince20

with warnings.catch_warnings():
    # npe2 and napari use what pydantic deprecates.
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    from napari._app_model.constants._menus import MenuId, is_menu_contributable
    from napari.plugins import menu_item_template
    from npe2 import PluginManifest

ROOT = Path(__file__).parents[1]
NAME = "napari-pixseg"
MANIFEST = PluginManifest.from_file(Path(str(files("napari_pixseg") / "napari.yaml")))
CONTRIBUTIONS = MANIFEST.contributions
COMMANDS = {command.id: command for command in CONTRIBUTIONS.commands}
MENU_ITEMS = [(menu, item.command) for menu, items in CONTRIBUTIONS.menus.items() for item in items]
USED = [
    *(command for _, command in MENU_ITEMS),
    *(part.command for part in CONTRIBUTIONS.widgets),
    *(part.command for part in CONTRIBUTIONS.readers),
    *(part.command for part in CONTRIBUTIONS.writers),
    *(part.command for part in CONTRIBUTIONS.sample_data),
]


def test_the_manifest_has_the_name_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert MANIFEST.name == project["name"] == NAME
    assert project["entry-points"]["napari.manifest"] == {NAME: "napari_pixseg:napari.yaml"}
    assert "Framework :: napari" in project["classifiers"]


def test_no_dependency_brings_napari_or_a_qt_binding_unasked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    unwanted = ("napari", "qt", "pyside", "magicgui")
    assert not [name for name in project["dependencies"] if name.lower().startswith(unwanted)]
    extras = project["optional-dependencies"]
    for name, needed in extras.items():
        if name not in ("all", "test"):
            assert not [n for n in needed if "qt" in n.lower() or "pyside" in n.lower()]
    assert any("[all]" in needed for needed in extras["all"])


@pytest.mark.parametrize("command", COMMANDS)
def test_ids_are_unique_and_begin_with_the_name(command):
    assert command.startswith(f"{NAME}.")
    assert [c.id for c in CONTRIBUTIONS.commands].count(command) == 1


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_python_name_imports_and_can_be_called(command):
    module, name = command.python_name.split(":")
    assert callable(getattr(import_module(module), name))


def test_every_contribution_names_a_command_and_every_command_is_used():
    assert set(USED) == set(COMMANDS)


@pytest.mark.parametrize(("menu", "command"), MENU_ITEMS)
def test_every_menu_is_known_to_napari_and_open_to_plugins(menu, command):
    # napari drops what it does not know without a word.
    assert menu in {known.value for known in MenuId}
    assert is_menu_contributable(menu)
    assert command in COMMANDS


def test_the_widget_and_the_export_are_where_users_look_for_them():
    assert ("napari/layers/segment", f"{NAME}.segment") in MENU_ITEMS
    assert ("napari/file/io_utilities", f"{NAME}.export") in MENU_ITEMS
    (widget,) = CONTRIBUTIONS.widgets
    shown = menu_item_template.format(MANIFEST.display_name, widget.display_name)
    assert shown == "Segment (pixseg)"


def test_sample_keys_are_unique():
    keys = [sample.key for sample in CONTRIBUTIONS.sample_data]
    assert len(set(keys)) == len(keys) >= 4


def test_labels_of_others_are_left_to_naparis_own_writer():
    claimed = {end for writer in CONTRIBUTIONS.writers for end in writer.filename_extensions}
    assert not claimed & {".tif", ".tiff"}
    assert {".ome.zarr", ".png"} <= claimed
    for writer in CONTRIBUTIONS.writers:
        assert sum(part.max() for part in writer.layer_type_constraints()) == 1


@pytest.mark.parametrize("module", ["sample_data", "reader", "writer"])
def test_looking_for_a_reader_or_a_sample_imports_neither_napari_nor_qt(module):
    code = (
        f"import sys, napari_pixseg.plugin.{module}\n"
        "heavy = {'napari', 'qtpy', 'PySide6', 'PyQt6', 'PyQt5', 'pandas'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_manifest_and_its_entry_point(tmp_path):
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    (path,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as wheel:
        source = ROOT / "src/napari_pixseg/napari.yaml"
        assert wheel.read("napari_pixseg/napari.yaml") == source.read_bytes()
        (points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        written = configparser.ConfigParser()
        written.read_string(wheel.read(points).decode())
    assert dict(written["napari.manifest"]) == {NAME: "napari_pixseg:napari.yaml"}
