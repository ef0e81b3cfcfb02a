"""The errors for an input that changed while it was segmented."""

from __future__ import annotations

from napari_pixseg.errors import InputChanged

_REMEDY = (
    "leave the input alone while it is segmented, and run again with resume if it is unchanged "
    "(resume=True, --resume), or else replace the unfinished output (overwrite=True, --overwrite)"
)


def input_changed() -> InputChanged:
    """Return the error for an input that differs from what was counted."""
    return InputChanged(
        "The input has changed since its colors were counted, so the output is not finished; "
        f"{_REMEDY}."
    )


def uncounted_colors() -> InputChanged:
    """Return the error for an input with colors that were not counted."""
    return InputChanged(
        "The input holds colors that did not exist when colors were counted, so it has changed; "
        f"{_REMEDY}."
    )
