"""The fields that choose an image: a layer of the viewer, or a path that becomes a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox, LineEdit
from napari.layers import Image, Layer
from napari.utils.events import EventEmitter

from napari_pixseg.errors import PixsegError
from napari_pixseg.plugin.layer_types import LayerData
from napari_pixseg.plugin.layers.image_layers import (
    PLACEMENT,
    image_layer_of_path,
    path_of_layer,
)
from napari_pixseg.plugin.widget.path_buttons import add_browse_buttons
from napari_pixseg.sources.image_choice import Series

if TYPE_CHECKING:
    from napari import Viewer


class ImageChoice:
    """A list of image layers, a field for a path, and the layer that was chosen.

    Parameters
    ----------
    viewer : napari.Viewer
    on_layer : callable
        Called after another layer, or none, was chosen.
    on_limits : callable
        Called when the contrast limits of the chosen layer change.
    on_place : callable
        Called when its scale, position, orientation or units change.
    on_error : callable
        Called with a sentence if a path cannot be opened.

    Attributes
    ----------
    img : ComboBox
    path : LineEdit
    layer : napari.layers.Image or None
    """

    def __init__(
        self,
        viewer: Viewer,
        on_layer: Callable[[], None],
        on_limits: Callable[[], None],
        on_place: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._viewer = viewer
        self._on_layer = on_layer
        self._on_limits = on_limits
        self._on_place = on_place
        self._on_error = on_error
        self.layer: Image | None = None
        self.img = ComboBox(
            name="img",
            label="image (img)",
            choices=self._list_images,
            nullable=True,
            tooltip="The image to segment; its colors are counted in the background.",
        )
        self.path = LineEdit(
            name="img_path",
            label="or a path, URL",
            tooltip="Press Enter to open a zarr, OME-Zarr, TIFF, PNG or JPEG; its pixels are "
            "read when they are needed.",
        )

    def connect(self) -> None:
        """Listen to the fields, and choose the active layer of the viewer if it is an image."""
        self.img.changed.connect(self._choose_layer)
        self.path.native.returnPressed.connect(self._open_path)
        add_browse_buttons(self.path, ("folder", "file"), self._open_path)
        active = self._viewer.layers.selection.active
        if active in self.img.choices:
            self.img.value = active

    def update_choices(self) -> None:
        """Offer the present layers under their present names; the chosen one stays chosen.

        After a renaming, the field itself would choose no layer, because its text is gone.
        """
        with self.img.changed.blocked():
            self.img.reset_choices()
            if self.layer in self.img.choices:
                self.img.value = self.layer
        self._choose_layer(self.img.value)

    def drop(self) -> None:
        """Forget the layer without telling anyone."""
        self.layer = None

    def _list_images(self, _widget: object = None) -> list[Image]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def _choose_layer(self, layer: Image | None) -> None:
        if layer is self.layer:
            return
        if self.layer is not None:
            for event, listener in self._listeners(self.layer):
                event.disconnect(listener)
        if layer is not None:
            for event, listener in self._listeners(layer):
                event.connect(listener)
        self.layer = layer
        self._on_layer()

    def _listeners(self, layer: Image) -> list[tuple[EventEmitter, Callable[[], None]]]:
        """Return the events of a layer that change what is segmented, and who hears of them."""
        events = layer.events
        places = [getattr(events, name) for name in PLACEMENT if hasattr(events, name)]
        return [
            (events.contrast_limits, self._on_limits),
            (events.data, self._on_layer),
            *((event, self._on_place) for event in places),
        ]

    def _open_path(self) -> None:
        try:
            data = image_layer_of_path(self.path.value.strip())
        except PixsegError as error:
            self._on_error(str(error))
            return
        self.img.value = add_layer(self._viewer, data)

    def reopen(self, series: Series) -> bool:
        """Open another image of the chosen layer's file in its place, if possible.

        Returns
        -------
        bool
            False if that fails; the layer then stays as it is.
        """
        before = self.layer
        path = None if before is None else path_of_layer(before)
        if before is None or path is None:
            return False
        try:
            data = image_layer_of_path(path, series)
        except PixsegError as error:
            self._on_error(str(error))
            return False
        layer = Layer.create(*data)
        name = before.name
        self._viewer.layers.insert(self._viewer.layers.index(before), layer)
        self.img.value = layer
        self._viewer.layers.remove(before)
        # Frees the name, because two layers cannot have the same one.
        layer.name = name
        return True


def add_layer(viewer: Viewer, data: LayerData) -> Layer:
    """Make a layer from its data and add it to the viewer."""
    return viewer.add_layer(Layer.create(*data))
