"""Shows sentences to the user through napari, which is loaded only if there is one to show."""

from __future__ import annotations

from typing import Literal


def tell_user(sentence: str, kind: Literal["info", "warning"] = "info") -> None:
    """Show a sentence in napari's window."""
    # Looking for a reader or a sample must not load napari.
    from napari.utils import notifications

    show = notifications.show_warning if kind == "warning" else notifications.show_info
    show(sentence)
