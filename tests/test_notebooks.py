"""The notebooks of the repository: valid, without outputs, with cells that keep their names.

`make notebooks` runs them, and tests/notebooks reads what they put out.
"""

import ast
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_four_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@each_notebook
def test_a_notebook_is_stored_without_outputs(path):
    cells = code_cells(read(path))
    assert cells
    for cell in cells:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert cell.metadata == {}


@each_notebook
def test_a_notebook_is_valid_and_names_its_cells(path):
    notebook = read(path)
    nbformat.validate(notebook)
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    assert not any(len(name) == 8 and set(name) <= set("0123456789abcdef") for name in names)


@each_notebook
def test_a_notebook_asks_for_the_kernel_of_any_environment(path):
    metadata = read(path).metadata
    assert metadata.kernelspec.name == "python3"
    assert "version" not in metadata.language_info


@each_notebook
def test_a_notebook_begins_with_its_title_and_parses(path):
    notebook = read(path)
    assert notebook.cells[0].source.startswith("# ")
    for cell in code_cells(notebook):
        ast.parse(cell.source)
