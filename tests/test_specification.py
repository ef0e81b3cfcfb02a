"""docs/algorithm.md is the authority that comments cite: what they cite is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
CITATION = re.compile(r"docs/algorithm\.md,\s+(?:#\s+)?sections?((?:[\s#,]|to|and|\d+(?:\.\d+)?)+)")
FILES = [
    path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]


def citations():
    """Each file that cites the page, and the sections it cites."""
    for path in sorted(FILES):
        text = path.read_text(encoding="utf-8")
        for found in CITATION.finditer(text):
            for section in re.findall(r"\d+(?:\.\d+)?", found[1]):
                yield pytest.param(section, id=f"{path.name}: {section}")


@pytest.mark.parametrize("section", list(citations()))
def test_cited_sections_exist(section):
    assert re.search(rf"^#+ {re.escape(section)}\.? ", PAGE, re.MULTILINE), section


def test_sections_are_numbered_without_gaps():
    numbers = [int(n) for n in re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    parts = [int(n) for n in re.findall(r"^### 3\.(\d+) ", PAGE, re.MULTILINE)]
    assert parts == list(range(1, len(parts) + 1))


def test_no_other_specification_is_cited():
    """Every mention of a section of the algorithm names the page."""
    for path in FILES:
        if path != Path(__file__):
            assert "ALGORITHM" not in path.read_text(encoding="utf-8"), path


def test_cited_quirks_exist():
    start = PAGE.index("## 7. ")
    quirks = re.findall(r"^(\d+)\. ", PAGE[start : PAGE.index("## 8. ")], re.MULTILINE)
    assert quirks == [str(n + 1) for n in range(len(quirks))]
    cited = [n for path in FILES for n in re.findall(r"section 7,\s+quirk (\d+)", path.read_text())]
    assert cited
    assert set(cited) <= set(quirks)
