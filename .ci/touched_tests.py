"""List the test files that what changed can break, the nearest first: for ``make quick``.

A test file is near if it imports a changed module itself, further away if it imports a module that
does. What changed is what git says: commits since the branch left main, and files not committed.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "napari_pixseg"
# These run whatever changed: the order of the rooms, the figures of the code, the algorithm.
ALWAYS = ("test_architecture", "test_codebase", "test_golden", "test_parameters", "test_plain")
# Files that no test imports, and the tests that read them.
READ_BY = {
    "README.md": "test_pages",
    "CHANGELOG.md": "test_release",
    "CITATION.cff": "test_release",
    "Makefile": "test_release",
    "pyproject.toml": "test_release",
    ".pre-commit-config.yaml": "test_release",
    ".github/": "test_release",
    "docs/": "test_pages",
    "notebooks/": "test_notebooks",
    "src/napari_pixseg/napari.yaml": "test_plugin_manifest",
}


def run_git(*words: str) -> str:
    """Return what a git command prints, or nothing where it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def changed_files() -> list[str]:
    """Return paths below the root that differ from main, or from the last commit on main."""
    base = run_git("merge-base", "HEAD", "main") or run_git("merge-base", "HEAD", "origin/main")
    tracked = run_git("diff", "--name-only", base or "HEAD")
    new = run_git("ls-files", "--others", "--exclude-standard")
    return sorted({*tracked.splitlines(), *new.splitlines()})


def source_files() -> dict[str, Path]:
    """Return the Python files of package and tests by the name they are imported by."""
    files = {}
    for path in (ROOT / "src").rglob("*.py"):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files | {path.stem: path for path in (ROOT / "tests").glob("*.py")}


def imported_names(path: Path) -> Iterator[str]:
    """Yield all that a file imports, imports inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tests_by_distance(changed: list[str]) -> list[str]:
    """Return the names of test modules that reach a changed file, the nearest first."""
    files = source_files()
    importers: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for other in imported_names(path):
            # Everything imports the package itself, which says nothing.
            if other in files and other != PACKAGE:
                importers[other].add(name)
    found = {name: None for name, path in files.items() if str(path.relative_to(ROOT)) in changed}
    for start, test in READ_BY.items():
        if test in files and any(path.startswith(start) for path in changed):
            found[test] = None
    ring = list(found)
    while ring:
        ring = sorted({near for name in ring for near in importers[name]} - set(found))
        found.update(dict.fromkeys(ring))
    return [name for name in found if name.startswith("test_")]


def main() -> None:
    """Print paths of test files, nearest first, then those that always run."""
    near = tests_by_distance(changed_files())
    names = dict.fromkeys([*near[:12], *ALWAYS, *near[12:]])
    paths = [ROOT / "tests" / f"{name}.py" for name in names]
    sys.stdout.write(" ".join(str(path.relative_to(ROOT)) for path in paths if path.exists()))


if __name__ == "__main__":
    main()
