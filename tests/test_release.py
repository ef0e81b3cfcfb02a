"""What a release needs, and the files that services outside this repository read.

``make release-check`` builds the distributions and runs this file on them (``--built``).
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from napari_pixseg import __version__

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GITHUB = ROOT / ".github"
SCHEMAS = {
    ".github/workflows/ci.yml": "vendor.github-workflows",
    ".github/ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/idea.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    "CITATION.cff": "vendor.citation-file-format",
}
# Hooks have environments of their own; these come into ours by way of napari and the test extra.
ONLY_IN_HOOKS = {"pint", "qtpy", "superqt"}


@pytest.fixture(scope="module")
def built(request, tmp_path_factory):
    """Wheel and source distribution: those of ``make release-check``, or new ones."""
    folder = request.config.getoption("--built")
    if folder is None:
        folder = tmp_path_factory.mktemp("dist")
        for name in ("wheel", "sdist"):
            builders = pytest.importorskip(f"hatchling.builders.{name}")
            builder = {"wheel": "WheelBuilder", "sdist": "SdistBuilder"}[name]
            list(getattr(builders, builder)(str(ROOT)).build(directory=str(folder)))
    (wheel,) = Path(folder).glob("*.whl")
    (source,) = Path(folder).glob("*.tar.gz")
    return wheel, source


def test_version_changelog_and_citation_agree(request):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    headings = [
        line.removeprefix("## ")
        for line in (ROOT / "CHANGELOG.md").read_text().splitlines()
        if line.startswith("## ")
    ]
    # Between releases the newest changes wait under a heading of their own; a release has none.
    if request.config.getoption("--built") is None and headings[0] == "Unreleased":
        headings = headings[1:]
    assert citation["version"] == __version__ == headings[0].split()[0]


def test_the_wheel_is_the_package_and_nothing_else(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "napari_pixseg",
        f"napari_pixseg-{__version__}.dist-info",
    }
    inside = {name.removeprefix("napari_pixseg/") for name in names}
    assert {"napari.yaml", "py.typed", "__init__.py", "plugin/widget/__init__.py"} <= inside
    package = ROOT / "src" / "napari_pixseg"
    sources = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert sources == {name for name in inside if name.endswith(".py")}
    assert not [name for name in names if "test" in name]


def test_the_wheel_says_what_it_is(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == PROJECT["name"]
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == PROJECT["license"]
    assert "# napari-pixseg" in metadata.get_payload()


def test_the_source_distribution_holds_what_is_needed_to_test_it(built):
    _, source = built
    with tarfile.open(source) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py"}
    assert needed | {"src/napari_pixseg/py.typed", "benchmarks/codebase.py"} <= names


@pytest.mark.parametrize("file", SCHEMAS)
def test_files_for_others_have_the_form_that_these_expect(file):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[file]]
    done = subprocess.run([*command, str(ROOT / file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_github_file_with_a_form_is_checked():
    found = {str(path.relative_to(ROOT)) for path in GITHUB.rglob("*.yml")}
    assert found == {name for name in SCHEMAS if name.startswith(".github")}


def test_the_workflow_covers_every_python_that_the_package_names():
    jobs = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"]
    named = {
        text.rsplit(" ", 1)[1]
        for text in PROJECT["classifiers"]
        if text.startswith("Programming Language :: Python :: 3.")
    }
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == named
    assert set(jobs) == {"check", "test", "oldest", "build", "audit"}


def test_hooks_need_no_environment_and_use_the_projects_versions():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    extras = PROJECT["optional-dependencies"]
    allowed = {*PROJECT["dependencies"], *(need for needs in extras.values() for need in needs)}
    for hook in repository["hooks"]:
        assert hook["language"] == "python"
        assert "/" not in hook["entry"]
        for need in hook["additional_dependencies"]:
            assert need in allowed or need.split(">=")[0] in ONLY_IN_HOOKS
