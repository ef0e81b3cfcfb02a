"""Choosing paths with the mouse: small buttons inside a text field."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from magicgui.widgets import LineEdit
from qtpy.QtWidgets import QFileDialog, QLineEdit, QStyle

_ICONS = {
    "file": (QStyle.StandardPixmap.SP_FileIcon, "Choose a file ..."),
    "folder": (QStyle.StandardPixmap.SP_DirOpenIcon, "Choose a folder, such as a zarr store ..."),
    "save": (QStyle.StandardPixmap.SP_DialogSaveButton, "Choose where to write ..."),
}


def add_browse(field: LineEdit, kinds: tuple[str, ...], chosen: Callable[[], None] | None) -> None:
    """Put buttons into a text field that ask for a path.

    Parameters
    ----------
    field : LineEdit
        Gets the path.
    kinds : tuple of {"file", "folder", "save"}
        What is asked for, one button each.
    chosen : callable or None
        A method, called when the field has got a path.
    """
    line: QLineEdit = field.native
    tell = None if chosen is None else weakref.WeakMethod(chosen)
    for kind in kinds:
        pixmap, text = _ICONS[kind]
        icon = line.style().standardIcon(pixmap)
        action = line.addAction(icon, QLineEdit.ActionPosition.TrailingPosition)
        action.setText(kind)
        action.setToolTip(text)
        action.triggered.connect(lambda _on=False, kind=kind: _browse(field, kind, tell))


def _browse(field: LineEdit, kind: str, tell: Any) -> None:
    if path := ask_for_path(field, kind):
        field.value = path
        slot = None if tell is None else tell()
        if slot is not None:
            slot()


def ask_for_path(field: LineEdit, kind: str) -> str:
    """Ask for a path; empty if the user changes their mind."""
    parent, start = field.native, field.value
    if kind == "folder":
        return QFileDialog.getExistingDirectory(parent, "Choose an image's folder", start)
    if kind == "file":
        return QFileDialog.getOpenFileName(parent, "Choose an image", start)[0]
    return QFileDialog.getSaveFileName(parent, "Write the segmentation to", start)[0]
