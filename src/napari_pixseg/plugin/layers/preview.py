"""The Labels layer that shows a decision in the place of the image it is made of."""

from __future__ import annotations

import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.plugin.controller import Decision
from napari_pixseg.plugin.layers.backdrop import Backdrop
from napari_pixseg.plugin.layers.image_layers import LayerView, placement, preview_levels
from napari_pixseg.plugin.layers.lazy_levels import PreviewLevel, PreviewPixels
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.writer import KEY
from napari_pixseg.segmentation import Segmentation
from napari_pixseg.sources.image import Image

_FAINT = 0.12


# Cyan, magenta, yellow: rare in tissue and in photographs.
_SIGNALS = ((0.0, 0.9, 1.0), (1.0, 0.0, 0.9), (1.0, 0.9, 0.0))


# While counting goes on.
_FRESHEN_SECONDS = 0.4


class Preview:
    """Shows decisions; knows which classes are hidden, and which one is selected.

    Parameters
    ----------
    viewer : napari.Viewer
    on_pick : callable
        A method, called with the number of the class under a click, 0 for none.

    Attributes
    ----------
    layer : napari.layers.Labels or None
    hidden : frozenset of int
    selected : int
        0 for none.
    """

    def __init__(self, viewer: Any, on_pick: Callable[[int], None]) -> None:
        self.layer: Any = None
        self.hidden: frozenset[int] = frozenset()
        self.selected = 0
        self.pixels = PreviewPixels()
        self._viewer = viewer
        self._decision: Decision | None = None
        self._backdrop: Backdrop | None = None
        self._coarsest: PreviewLevel | None = None
        self._version, self._drawn = -1, 0.0
        # The layer may outlive the widget, and must not keep it.
        self._on_pick = weakref.WeakMethod(on_pick)

    @property
    def _classes(self) -> Classes | None:
        return None if self._decision is None else self._decision.classes

    @property
    def _overview(self) -> Overview | None:
        return None if self._decision is None else self._decision.overview

    @property
    def is_shown(self) -> bool:
        """Whether there is a layer, and nobody has removed it."""
        return self.layer is not None and self.layer in self._viewer.layers

    def drop(self) -> None:
        """Remove the layer, and forget all of it."""
        self._remove()
        self._decision = self._backdrop = None
        self.hidden, self.selected = frozenset(), 0
        self.pixels = PreviewPixels()

    def _remove(self) -> None:
        if self.is_shown:
            self._viewer.layers.remove(self.layer)
        self.layer = self._coarsest = None

    def decide(self, decision: Decision) -> None:
        """Take another decision; where the number of classes differs they are others."""
        classes, dtype = decision.classes, self.pixels.lookup.dtype
        radius = classes.parameters.denoise
        self.pixels.encode_with(decision.encoding, radius, decision.overview)
        self.pixels.lookup.show(classes, decision.table)
        if self._classes is not None and len(self._classes) != len(classes):
            self.hidden, self.selected = frozenset(), 0
        self._decision = decision
        if dtype != self.pixels.lookup.dtype:
            self._remove()

    def show(self, image_layer: Any, images: Sequence[Image]) -> None:
        """Add the layer in the place of an image's layer."""
        levels = preview_levels(LayerView.of(image_layer), images, self.pixels)
        self._backdrop = Backdrop(image_layer)
        several = len(levels) > 1
        self._coarsest = levels[-1] if several else None
        self.layer = self._viewer.add_labels(
            levels if several else levels[0],
            name=f"{image_layer.name} classes (preview)",
            multiscale=several,
            opacity=0.7,
            **placement(image_layer),
        )
        self.layer.editable = False
        self.layer.mouse_drag_callbacks.append(_Picker(self._on_pick))

    def draw(self, segmentation: Segmentation | None) -> None:
        """Draw the latest decision; the layer's writer exports the segmentation."""
        if self.is_shown and self._classes is not None:
            self.layer.metadata[KEY] = segmentation
            self._renew()
            # This refreshes the layer, too.
            self.layer.colormap = self._colormap(self._classes)

    def freshen(self) -> None:
        """Draw what the overview has learned by counting since it was drawn, now and then."""
        now = time.monotonic()
        overview = self._overview
        if overview is None or not self.is_shown or now - self._drawn < _FRESHEN_SECONDS:
            return
        if overview.version != self._version:
            self._renew()
            self.layer.refresh(extent=False)

    def _renew(self) -> None:
        self._drawn = time.monotonic()
        self._version = -1 if self._overview is None else self._overview.version
        if self._coarsest is not None:
            self._coarsest.renew()
        if self._backdrop is not None and (decision := self._decision) is not None:
            self._backdrop.follow(decision.overview, decision.encoding, decision.classes.parameters)
            self._backdrop.renew()

    def select(self, number: int) -> None:
        """Highlight a class; 0 for none."""
        self.selected = number
        self._recolor()

    def hide(self, numbers: Iterable[int]) -> None:
        """Show all classes but these."""
        self.hidden = frozenset(numbers)
        self._recolor()

    def _recolor(self) -> None:
        if self.is_shown and self._classes is not None:
            self.layer.colormap = self._colormap(self._classes)

    def _colormap(self, classes: Classes) -> Any:
        from napari.utils.colormaps import DirectLabelColormap

        colors: dict[int | None, Any] = defaultdict(lambda: np.zeros(4, np.float32))
        colors[None] = np.zeros(4, np.float32)
        for number, color in enumerate(classes.palette[1:] / 255.0, start=1):
            shown = _signal_color(color) if number == self.selected else color
            colors[number] = np.array([*shown, self._alpha(number)], np.float32)
        return DirectLabelColormap(color_dict=colors)

    def _alpha(self, number: int) -> float:
        if number in self.hidden:
            return 0.0
        return 1.0 if self.selected in (0, number) else _FAINT


def _signal_color(color: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return a color that stands out from a class's own, which its image has all around it."""
    return max(_SIGNALS, key=lambda signal: float(np.abs(color - signal).sum()))


class _Picker:
    """Tells which class is under a click."""

    def __init__(self, on_pick: weakref.WeakMethod[Callable[[int], None]]) -> None:
        self._on_pick = on_pick

    def __call__(self, layer: Any, event: Any) -> None:
        tell = self._on_pick()
        if tell is None:
            return
        value = layer.get_value(
            event.position, view_direction=event.view_direction,
            dims_displayed=event.dims_displayed, world=True,
        )  # fmt: skip
        number = value[1] if isinstance(value, tuple) else value
        tell(int(number or 0))
