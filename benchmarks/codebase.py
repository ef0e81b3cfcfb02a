"""How readable the code is, in figures: ``python -m benchmarks.codebase [FOLDER]``.

The same figures can be taken of any Python package, so that this project is compared with models
of its field by one script. Test modules are left out.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "napari_pixseg"
# What each figure should be; see issue "The house".
GOALS = {
    "module lines, median": 150,
    "module lines, max": 350,
    "one-word function names, %": 35,
    "names defined in several modules": 8,
    "tuple assignments, %": 3,
    "imports inside functions": 70,
    "Any per 1,000 lines": 15,
    "fmt: skip": 8,
    "circles of imports": 0,
    "largest folder, % of lines": 20,
}
# More is better here, unlike above.
LEAST = {"comments per 100 lines of code": 4}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes
    ----------
    name : str
        Dotted, below the package.
    text : str
    tree : ast.Module
    """

    name: str
    folder: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    @property
    def filled_lines(self) -> int:
        """Number of lines that are not blank."""
        return sum(bool(line.strip()) for line in self.text.splitlines())


def read_modules(folder: Path) -> list[Module]:
    """Parse every module below a folder that is not a test."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if any(part in ("tests", "_tests", "_vendor") for part in inside.parts):
            continue
        text = path.read_text()
        parts = (
            [*inside.parent.parts] if inside.stem == "__init__" else [*inside.with_suffix("").parts]
        )
        modules.append(Module(".".join(parts), str(inside.parent), text, ast.parse(text)))
    return modules


def functions_of(module: Module) -> Iterator[Function]:
    """Yield every function and method, but for dunder methods."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function) and not node.name.startswith("__"):
            yield node


def measure_codebase(folder: Path) -> dict[str, float]:
    """Return all figures of the package in a folder."""
    modules = [module for module in read_modules(folder) if module.lines > 1]
    lines = sum(module.lines for module in modules)
    filled = sum(module.filled_lines for module in modules)
    # A docstring explains by itself; comments are for the code.
    code = filled - sum(map(_count_docstring_lines, modules))
    functions = [function for module in modules for function in functions_of(module)]
    lengths = [(f.end_lineno or f.lineno) - f.lineno + 1 for f in functions]
    module_lines = [module.lines for module in modules]
    one_word = [f for f in functions if "_" not in f.name.strip("_")]
    folders: Counter[str] = Counter()
    for module in modules:
        folders[module.folder] += module.lines
    return {
        "module lines, median": statistics.median(module_lines),
        "module lines, max": max(module_lines),
        "function lines, median": statistics.median(lengths),
        "function lines, p90": statistics.quantiles(lengths, n=10)[-1],
        "function lines, max": max(lengths),
        "one-word function names, %": 100 * len(one_word) / len(functions),
        "names defined in several modules": len(shared_names(modules)),
        "tuple assignments, %": _tuple_assignments(modules),
        "imports inside functions": sum(map(_inner_imports, functions)),
        "comments per 100 lines of code": 100 * sum(map(_count_comments, modules)) / code,
        "Any per 1,000 lines": 1000 * sum(map(_count_any, modules)) / filled,
        "fmt: skip": sum(module.text.count("fmt: skip") for module in modules),
        "circles of imports": len(import_circles(modules, folder.name)),
        "largest folder, % of lines": 100 * max(folders.values()) / lines,
    }


def shared_names(modules: list[Module]) -> dict[str, list[str]]:
    """Return functions and classes that more than one module defines, and those modules."""
    homes: dict[str, list[str]] = {}
    for module in modules:
        for name in {name for node in module.tree.body for name in _defined_by(node)}:
            homes.setdefault(name, []).append(module.name)
    return {name: found for name, found in homes.items() if len(found) > 1}


def _defined_by(node: ast.stmt) -> list[str]:
    return [node.name] if isinstance(node, Function | ast.ClassDef) else []


def _tuple_assignments(modules: list[Module]) -> float:
    """Share of assignments that give several names values at once (``a, b = ...``)."""
    nodes = [node for module in modules for node in ast.walk(module.tree)]
    assignments = [node for node in nodes if isinstance(node, ast.Assign)]
    several = [
        node
        for node in assignments
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
    ]
    return 100 * len(several) / len(assignments)


def _inner_imports(function: Function) -> int:
    """Count the import statements of a function's own body."""
    return sum(
        isinstance(node, ast.Import | ast.ImportFrom)
        for statement in function.body
        if not isinstance(statement, Function)
        for node in ast.walk(statement)
    )


def _count_comments(module: Module) -> int:
    """Count lines with a comment that is no instruction to a tool."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    tools = ("# type:", "# noqa", "# fmt:", "# pragma")
    return sum(not comment.startswith(tools) for comment in comments)


def _count_docstring_lines(module: Module) -> int:
    """Count lines of docstrings that are not blank."""
    lines = module.text.splitlines()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(module.tree) if isinstance(node, documented)]
    docstrings = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    return sum(
        bool(line.strip())
        for docstring in docstrings
        for line in lines[docstring.lineno - 1 : docstring.end_lineno]
    )


def _count_any(module: Module) -> int:
    nodes = ast.walk(module.tree)
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes)


def imports_of(module: Module, package: str) -> set[str]:
    """Return the modules of the package that a module imports when it is itself imported."""
    found = set()
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            home = (node.module or "")[len(package) + 1 :]
            found |= {home, *(f"{home}.{alias.name}".lstrip(".") for alias in node.names)}
    return found


def import_circles(modules: list[Module], package: str) -> list[list[str]]:
    """Return the circles of imports, function-level ones included, each once."""
    known = {module.name for module in modules}
    graph = {module.name: _all_imports(module, package) & known for module in modules}
    return [sorted(circle) for circle in _strong_components(graph) if len(circle) > 1]


def _all_imports(module: Module, package: str) -> set[str]:
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            home = (node.module or "")[len(package) + 1 :]
            inner = {f"{home}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {home, *inner} - {""}
    return found - {module.name}


def _strong_components(graph: dict[str, set[str]]) -> list[set[str]]:
    """Group modules that reach each other; small graphs, so reachability is searched plainly."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups: list[set[str]] = []
    for name in graph:
        if not any(name in group for group in groups):
            groups.append({other for other in reach[name] if name in reach[other]} | {name})
    return groups


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for neighbor in graph[waiting.pop()] - seen:
            seen.add(neighbor)
            waiting.append(neighbor)
    return seen


def main() -> None:
    """Print every figure beside its goal; the status is 1 if one is missed."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    missed = False
    for name, value in measure_codebase(folder).items():
        goal = GOALS.get(name, LEAST.get(name))
        fails = (name in GOALS and value > GOALS[name]) or (name in LEAST and value < LEAST[name])
        missed = missed or fails
        shown = "" if goal is None else f"goal {goal}" + ("  MISSED" if fails else "")
        sys.stdout.write(f"{name:34}{value:8.1f}  {shown}\n")
    sys.exit(missed)


if __name__ == "__main__":
    main()
