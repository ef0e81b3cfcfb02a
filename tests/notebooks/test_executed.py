"""What the notebooks put out when they ran: figures and text, no warnings, no addresses.

`make notebooks` runs copies in build/notebooks, then these tests.
"""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = re.compile(r"\w+://|\b(?:\d{1,3}\.){3}\d{1,3}\b|localhost")
# Of any machine: what begins like an absolute path, here or on Windows.
MACHINE_PATH = re.compile(r"(?<![\w/.])/(?:home|root|tmp|usr|var|opt|Users|private)\b|\b[A-Z]:\\")

each_notebook = pytest.mark.parametrize("name", NAMES)


def executed(name):
    path = ROOT / "build" / "notebooks" / name
    if not path.exists():
        pytest.fail(f"{name} was not run: `make notebooks` runs it")
    return nbformat.read(path, as_version=4)


def outputs(name):
    cells = [cell for cell in executed(name).cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]


def texts(name):
    for output in outputs(name):
        if output.output_type == "stream":
            yield output.text
        else:
            data = output.get("data", {})
            yield from (text for kind, text in data.items() if kind.startswith("text/"))


@each_notebook
def test_every_cell_was_run(name):
    for cell in executed(name).cells:
        assert cell.cell_type != "code" or cell.execution_count


@each_notebook
def test_nothing_was_warned_of(name):
    warned = [output.text for output in outputs(name) if output.get("name") == "stderr"]
    assert warned == []


@each_notebook
def test_no_address_and_no_path_of_this_machine_is_shown(name):
    for text in texts(name):
        assert not ADDRESS.search(text), text
        assert not MACHINE_PATH.search(text), text
        assert str(Path.home()) not in text


@each_notebook
def test_there_are_figures(name):
    pictures = [output for output in outputs(name) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3


@each_notebook
def test_results_are_figures_and_not_the_names_of_objects(name):
    """A last line without a semicolon shows what it returned, such as a list of artists."""
    assert not any(output.output_type == "execute_result" for output in outputs(name))
