"""Write the table of the parameters into the README and the page of the parameters.

Run it from the repository's root, after a parameter has changed:

    python docs/make_parameter_table.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from napari_pixseg.parameter_kinds import NumberedChoice
from napari_pixseg.parameters import Parameters

PAGES = ("README.md", "docs/parameters.md")
BEGIN = "<!-- Made by docs/make_parameter_table.py from the fields of Parameters: -->"
END = "<!-- End of the table of parameters. -->"


def main() -> None:
    """Renew the table in every page."""
    for name in PAGES:
        page = Path(__file__).parents[1] / name
        page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    """Return a page's text with the table as it should be."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{parameter_table()}\n\n{END}{after}"


def parameter_table() -> str:
    """Return a Markdown table of all parameters, and lists of what is numbered."""
    lines = ["| name | meaning | allowed | default |", "|---|---|---|---|"]
    lists = []
    for name, info in Parameters.descriptions().items():
        allowed = info.kind.allowed
        if info.exact_kind is not None:
            allowed += f" (with `imagemagick6` {info.exact_kind.allowed})"
        lines.append(f"| `{name}` | {info.help} | {allowed} | {info.default_text} |")
        if isinstance(info.kind, NumberedChoice):
            # A number and its name stay on one line.
            items = [
                f"{member.value}\N{NO-BREAK SPACE}{member.name}" for member in info.kind.members
            ]
            listing = f"The {info.kind.noun}s of `{name}`: {', '.join(items)}."
            lists.append("\n" + textwrap.fill(listing, 100).replace("\N{NO-BREAK SPACE}", " "))
    return "\n".join(lines + lists)


if __name__ == "__main__":
    main()
