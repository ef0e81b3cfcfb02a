"""The page of formats tells what the readers do."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def table_maker() -> ModuleType:
    """The script that writes the table of formats."""
    spec = importlib.util.spec_from_file_location("maker", ROOT / "docs" / "make_format_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_formats_is_made_from_files_that_are_opened(table_maker: ModuleType) -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert table_maker.with_table(text) == text, "run python docs/make_format_table.py"


def test_every_row_opens_or_says_why_not(table_maker: ModuleType, tmp_path: Path) -> None:
    rows = table_maker.format_table(tmp_path).splitlines()[2:]
    assert len(rows) == len(table_maker.ROWS)
    refused = [row for row in rows if "refused" in row]
    assert [row.split(" | ")[0] for row in refused] == ["| TIFF of CMYK, CIELab, LogLuv"]
