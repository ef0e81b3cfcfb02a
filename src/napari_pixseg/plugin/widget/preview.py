"""The Labels layer that shows a decision in the same place as its image."""

from __future__ import annotations

import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.plugin.decision import Decision
from napari_pixseg.plugin.layer_types import SEGMENTATION_KEY
from napari_pixseg.plugin.layers.image_layers import LayerSnapshot, placement_of, preview_levels
from napari_pixseg.plugin.layers.image_refresh import ImageRefresh
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.preview_level import PreviewLevel, PreviewPixels
from napari_pixseg.segmentation import Segmentation
from napari_pixseg.sources.image import Image

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image as NapariImage
    from napari.layers import Labels
    from napari.utils.events import Event

# Opacity of all other classes while one is selected.
_FAINT = 0.12

# Cyan, magenta, yellow: rare in tissue and in photographs.
_HIGHLIGHTS = ((0.0, 0.9, 1.0), (1.0, 0.0, 0.9), (1.0, 0.9, 0.0))

# Drawing takes time away from counting, so newly counted pixels are drawn only this often.
_REFRESH_SECONDS = 0.4


class Preview:
    """Shows decisions, without hidden classes and with the selected one highlighted.

    Parameters
    ----------
    viewer : napari.Viewer
    on_pick : callable
        A method, called with the number of the class under a click; 0 means no class.

    Attributes
    ----------
    layer : napari.layers.Labels or None
    hidden : frozenset of int
    selected : int
        Number of the highlighted class; 0 means none.
    """

    def __init__(self, viewer: Viewer, on_pick: Callable[[int], None]) -> None:
        self.layer: Labels | None = None
        self.hidden: frozenset[int] = frozenset()
        self.selected = 0
        self.pixels = PreviewPixels()
        self._viewer = viewer
        self._decision: Decision | None = None
        self._image_refresh: ImageRefresh | None = None
        self._coarsest: PreviewLevel | None = None
        self._drawn_version = -1
        self._drawn_at = 0.0
        # The layer may outlive the widget, and must not keep it alive.
        self._on_pick = weakref.WeakMethod(on_pick)

    @property
    def _classes(self) -> Classes | None:
        return None if self._decision is None else self._decision.classes

    @property
    def _overview(self) -> Overview | None:
        return None if self._decision is None else self._decision.overview

    @property
    def is_shown(self) -> bool:
        """Whether there is a layer that the user has not removed."""
        return self.layer is not None and self.layer in self._viewer.layers

    def drop(self) -> None:
        """Remove the layer and forget its decision."""
        self._remove_layer()
        self._decision = None
        self._image_refresh = None
        self._show_all_classes()
        self.pixels = PreviewPixels()

    def _remove_layer(self) -> None:
        if self.is_shown:
            self._viewer.layers.remove(self.layer)
        self.layer = None
        self._coarsest = None

    def _show_all_classes(self) -> None:
        self.hidden = frozenset()
        self.selected = 0

    def take_decision(self, decision: Decision) -> None:
        """Take another decision; :meth:`draw` shows it."""
        classes = decision.classes
        dtype = self.pixels.lookup.dtype
        radius = classes.parameters.denoise
        self.pixels.encode_with(decision.encoding, radius, decision.overview)
        self.pixels.lookup.set_decision(classes, decision.table)
        # If the number of classes has changed, a number means another class than before.
        if self._classes is not None and len(self._classes) != len(classes):
            self._show_all_classes()
        self._decision = decision
        # napari does not allow the type of a layer's data to change.
        if dtype != self.pixels.lookup.dtype:
            self._remove_layer()

    def add_layer(self, image_layer: NapariImage, images: Sequence[Image]) -> None:
        """Add the Labels layer in the same place as an image's layer."""
        levels = preview_levels(LayerSnapshot.of(image_layer), images, self.pixels)
        self._image_refresh = ImageRefresh(image_layer)
        is_multiscale = len(levels) > 1
        self._coarsest = levels[-1] if is_multiscale else None
        self.layer = self._viewer.add_labels(
            levels if is_multiscale else levels[0],
            name=f"{image_layer.name} classes (preview)",
            multiscale=is_multiscale,
            opacity=0.7,
            **placement_of(image_layer),
        )
        # Painting on a preview would be lost with the next decision.
        self.layer.editable = False
        self.layer.mouse_drag_callbacks.append(_ClassPicker(self._on_pick))

    def place(self, image_layer: NapariImage) -> None:
        """Move the layer to where the image's layer is now."""
        if self.layer is not None and self.is_shown:
            for name, value in placement_of(image_layer).items():
                setattr(self.layer, name, value)

    def draw(self, segmentation: Segmentation | None) -> None:
        """Draw the latest decision.

        Parameters
        ----------
        segmentation : Segmentation or None
            Written by napari's "Save" of the layer.
        """
        if self.layer is not None and self.is_shown and self._classes is not None:
            self.layer.metadata[SEGMENTATION_KEY] = segmentation
            self._renew_levels()
            # Setting the colors also refreshes the layer.
            self.layer.colormap = self._make_colormap(self._classes)

    def draw_news(self) -> None:
        """Draw the pixels counted since the last drawing, unless that was only a moment ago."""
        overview = self._overview
        if self.layer is None or overview is None or not self.is_shown:
            return
        if time.monotonic() - self._drawn_at < _REFRESH_SECONDS:
            return
        if overview.version != self._drawn_version:
            self._renew_levels()
            self.layer.refresh(extent=False)

    def _renew_levels(self) -> None:
        self._drawn_at = time.monotonic()
        self._drawn_version = -1 if self._overview is None else self._overview.version
        if self._coarsest is not None:
            self._coarsest.renew()
        decision = self._decision
        if self._image_refresh is not None and decision is not None:
            parameters = decision.classes.parameters
            self._image_refresh.use_overview(decision.overview, decision.encoding, parameters)
            self._image_refresh.draw_news()

    def select(self, number: int) -> None:
        """Highlight a class; 0 highlights none."""
        self.selected = number
        self._update_colors()

    def hide(self, numbers: Iterable[int]) -> None:
        """Show all classes except these."""
        self.hidden = frozenset(numbers)
        self._update_colors()

    def _update_colors(self) -> None:
        if self.layer is not None and self.is_shown and self._classes is not None:
            self.layer.colormap = self._make_colormap(self._classes)

    def _make_colormap(self, classes: Classes) -> DirectLabelColormap:
        colors: dict[int | None, NDArray[np.float32]] = defaultdict(lambda: np.zeros(4, np.float32))
        # Numbers without a class, such as 0 for no data, are transparent.
        colors[None] = np.zeros(4, np.float32)
        for number, color in enumerate(classes.palette[1:] / 255.0, start=1):
            shown = _contrasting_color(color) if number == self.selected else color
            colors[number] = np.array([*shown, self._opacity_of(number)], np.float32)
        return DirectLabelColormap(color_dict=colors)

    def _opacity_of(self, number: int) -> float:
        if number in self.hidden:
            return 0.0
        return 1.0 if self.selected in (0, number) else _FAINT


def _contrasting_color(color: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return a color that stands out from the class's own color."""
    return max(_HIGHLIGHTS, key=lambda one: float(np.abs(color - one).sum()))


class _ClassPicker:
    """Finds the class under a click; napari calls it for every click on the layer."""

    def __init__(self, on_pick: weakref.WeakMethod[Callable[[int], None]]) -> None:
        self._on_pick = on_pick

    def __call__(self, layer: Labels, event: Event) -> None:
        on_pick = self._on_pick()
        if on_pick is None:
            return
        value = layer.get_value(
            event.position,
            view_direction=event.view_direction,
            dims_displayed=event.dims_displayed,
            world=True,
        )
        # A multiscale layer also returns the level.
        number = value[1] if isinstance(value, tuple) else value
        on_pick(int(number or 0))
