"""Lists the images of a layer's file, and shows notes about the one that was taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_pixseg.plugin.layers.image_layers import ImageListing
from napari_pixseg.sources.image_choice import Series, StoredImage

# Shown as the choice where another reader opened the file.
_AS_OPENED = "as napari opened it"


class SeriesChoice:
    """A list of images, shown if a file has several, and notes, shown if there are any.

    Parameters
    ----------
    on_choice : callable
        Called with the number of another image; returns whether it could be opened.

    Attributes
    ----------
    field : ComboBox
    notes : QLabel
    """

    def __init__(self, on_choice: Callable[[Series], bool]) -> None:
        self._on_choice = on_choice
        self._taken: Series | None = None
        self.field = ComboBox(
            name="series",
            label="its images (series)",
            choices=[],
            visible=False,
            tooltip="The file holds several images; the one chosen here is opened and segmented.",
        )
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.notes.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.clear()

    def connect(self) -> None:
        """Listen to the field."""
        self.field.changed.connect(self._choose)

    def clear(self) -> None:
        """Show nothing, for example for an array."""
        self._taken = None
        self.field.visible = False
        self.tell(())

    def offer(self, listing: ImageListing) -> None:
        """Show the images of a file, with the one that is taken."""
        choices: list[tuple[str, Series]] = []
        for number, image in enumerate(listing.images):
            choices.append((_describe_entry(number, image), number))
            if listing.taken is not None and listing.taken in (number, image.name):
                self._taken = number
        if self._taken is None:
            # A single page of a file is not in the list, and napari may have opened any image.
            self._taken = _AS_OPENED if listing.taken is None else listing.taken
            choices.append((str(self._taken), self._taken))
        with self.field.changed.blocked():
            self.field.choices = choices
            self.field.value = self._taken
        self.field.visible = True

    def tell(self, notes: Sequence[str]) -> None:
        """Show notes about oddities of the image and left-out parts."""
        self.notes.setText("\n".join(notes))
        self.notes.setVisible(bool(notes))

    def _choose(self, series: Series | None) -> None:
        if series is None or series == self._taken or self._on_choice(series):
            return
        with self.field.changed.blocked():
            self.field.value = self._taken


def _describe_entry(number: int, image: StoredImage) -> str:
    name = f"{image.name}, " if image.name else ""
    return f"{number}: {name}{image.size} ({image.axes})"
