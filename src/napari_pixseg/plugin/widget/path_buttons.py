"""Small buttons inside a text field, for choosing a path with the mouse."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from magicgui.widgets import LineEdit
from qtpy.QtWidgets import QFileDialog, QLineEdit, QStyle

_ICONS = {
    "file": (QStyle.StandardPixmap.SP_FileIcon, "Choose a file ..."),
    "folder": (QStyle.StandardPixmap.SP_DirOpenIcon, "Choose a folder, such as a zarr store ..."),
    "save": (QStyle.StandardPixmap.SP_DialogSaveButton, "Choose where to write ..."),
}


def add_browse_buttons(
    field: LineEdit, kinds: tuple[str, ...], chosen: Callable[[], None] | None
) -> None:
    """Put buttons into a text field that open dialogs for a path.

    Parameters
    ----------
    field : LineEdit
        Gets the path.
    kinds : tuple of {"file", "folder", "save"}
        One button for each kind of path.
    chosen : callable or None
        A method, called when a path was chosen.
    """
    line: QLineEdit = field.native
    # Qt may keep the buttons longer than the widget whose method this is.
    on_chosen = None if chosen is None else weakref.WeakMethod(chosen)
    for kind in kinds:
        pixmap, text = _ICONS[kind]
        icon = line.style().standardIcon(pixmap)
        action = line.addAction(icon, QLineEdit.ActionPosition.TrailingPosition)
        action.setText(kind)
        action.setToolTip(text)
        action.triggered.connect(
            lambda _checked=False, kind=kind: _fill_field(field, kind, on_chosen)
        )


def _fill_field(
    field: LineEdit, kind: str, on_chosen: weakref.WeakMethod[Callable[[], None]] | None
) -> None:
    path = ask_for_path(field, kind)
    if not path:
        return
    field.value = path
    slot = None if on_chosen is None else on_chosen()
    if slot is not None:
        slot()


def ask_for_path(field: LineEdit, kind: str) -> str:
    """Ask for a path; return an empty string if the user cancels."""
    parent = field.native
    start = field.value
    if kind == "folder":
        return QFileDialog.getExistingDirectory(parent, "Choose an image's folder", start)
    if kind == "file":
        return QFileDialog.getOpenFileName(parent, "Choose an image", start)[0]
    return QFileDialog.getSaveFileName(parent, "Write the segmentation to", start)[0]
