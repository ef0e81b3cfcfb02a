"""Aligns the fields of several containers below each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from magicgui.widgets import Container


def align_field_labels(containers: Iterable[Container[Any]]) -> None:
    """Make the fields of all containers begin below each other.

    magicgui measures labels in the application's font, but napari's style sheet sets a larger
    one.
    """
    for container in containers:
        rows = [row for field in container if (row := field._labeled_widget()) is not None]
        # Hidden fields count, too, because they may be shown later.
        widest = max((row._label_widget.native.sizeHint().width() for row in rows), default=0)
        for row in rows:
            row.label_width = widest
