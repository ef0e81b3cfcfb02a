"""What README and documentation show is run as it stands, page by page."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from endpoint_tools import serving
from PIL import Image as PillowImage
from skimage.data import immunohistochemistry

from napari_pixseg import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# A fence that says so is not run: it needs what a test machine cannot have, or installs.
NOT_RUN = "no-test"
SERVER = "https://segment.example.org"


def blocks(page, language):
    """Code of a page's fences in one language, but for those that say they are not run."""
    found = re.findall(rf"^```{language}([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"),
                       re.DOTALL | re.MULTILINE)  # fmt: skip
    return [code for options, code in found if NOT_RUN not in options]


def commands(page):
    """Lines of a page's shell code, without comments; continued lines are joined."""
    code = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in code.splitlines() if (words := shlex.split(line, comments=True))]


def pages_with(language):
    return [pytest.param(page, id=page.name) for page in PAGES if blocks(page, language)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    picture = immunohistochemistry()[:128, :160]
    PillowImage.fromarray(picture).save("tissue.png")
    PillowImage.fromarray(picture).save("photo.jpg")
    tifffile.imwrite("slide.ome.tif", np.ascontiguousarray(picture), photometric="rgb")
    Path("key.txt").write_text("...")
    return tmp_path


@pytest.fixture
def here(folder, request):
    """A function that puts a server of this machine in the place of the pages' server."""
    if SERVER not in request.getfixturevalue("page").read_text(encoding="utf-8"):
        yield lambda code: code
        return
    with serving(storage=str(folder / "storage"), keys=("...",)) as running:
        yield lambda code: code.replace(SERVER, running.url)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_in_the_pages_runs(page, here):
    names = {"__name__": page.stem}
    for code in blocks(page, "python"):
        exec(compile(here(code), str(page), "exec"), names)


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands_in_the_pages_run(page, here, capsys):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *words in commands(page):
        if program == "make":
            assert set(words) <= targets
        else:
            assert program == "napari-pixseg", f"{program} is not run here: say {NOT_RUN}"
            assert cli.main([here(word) for word in words]) == 0, capsys.readouterr().err


def test_the_readme_has_code_and_its_two_commands():
    assert blocks(README, "python")
    assert {("make", "demo"), ("make", "test")} <= {tuple(words) for words in commands(README)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_pages_that_are_linked_exist(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_names_its_language(page):
    fences = re.findall(r"^```([^\n]*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(opening.strip() for opening in fences[::2])
