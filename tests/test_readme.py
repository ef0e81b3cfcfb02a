"""What the README shows is run as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_in_the_readme_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})


def test_the_readme_has_code_and_its_two_commands():
    assert blocks("python")
    commands = "".join(blocks("sh"))
    assert "make demo" in commands
    assert "make test" in commands


def test_commands_of_the_readme_are_those_of_the_makefile():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", "".join(blocks("sh")), re.MULTILINE))
    assert named <= targets
