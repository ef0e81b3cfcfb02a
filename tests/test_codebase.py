"""The code stays as readable as the figures of ``python -m benchmarks.codebase`` ask for."""

import pytest

from benchmarks.codebase import (
    GOALS,
    LEAST,
    PACKAGE,
    import_circles,
    measure_codebase,
    read_modules,
    shared_names,
)


@pytest.fixture(scope="module")
def figures():
    return measure_codebase(PACKAGE)


@pytest.mark.parametrize("name", GOALS)
def test_what_should_be_little_is_at_most_its_goal(figures, name):
    assert figures[name] <= GOALS[name], f"{name}: see `python -m benchmarks.codebase`"


@pytest.mark.parametrize("name", LEAST)
def test_what_should_be_plenty_is_at_least_its_goal(figures, name):
    assert figures[name] >= LEAST[name], f"{name}: see `python -m benchmarks.codebase`"


@pytest.fixture
def package(tmp_path):
    """A small package that has every fault once."""
    files = {
        "__init__.py": '"""A package."""\n',
        "one.py": (
            "from typing import Any\n\n\n"
            "def f() -> Any:\n    from package import two\n\n    a, b = 1, two\n    return a, b\n"
        ),
        "two.py": (
            "from package.one import f\n\n\n"
            "# Why.\ndef g_of_f():\n    x = f()\n    return x\n\n\ndef f_():\n    return 0\n"
        ),
        "three.py": '"""A docstring."""\n\n\n'
        "def f():\n    return [1,\n            2]  # fmt: skip\n",
        "tests/test_one.py": "def f():\n    pass\n",
    }
    folder = tmp_path / "package"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_every_figure_counts_what_its_name_says(package):
    found = measure_codebase(package)
    assert found["module lines, max"] == 11
    assert found["one-word function names, %"] == 75
    assert found["names defined in several modules"] == 1
    assert found["tuple assignments, %"] == 50
    assert found["imports inside functions"] == 1
    assert found["fmt: skip"] == 1
    assert found["circles of imports"] == 1
    filled = 5 + 7 + 4
    docstrings = 1
    assert found["comments per 100 lines of code"] == pytest.approx(100 / (filled - docstrings))
    assert found["Any per 1,000 lines"] == pytest.approx(1000 / filled)


def test_faults_are_named(package):
    modules = read_modules(package)
    assert shared_names(modules) == {"f": ["one", "three"]}
    assert import_circles(modules, "package") == [["one", "two"]]
