"""The Labels layer that shows a decision in the place of the image it is made of."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.engine.image import Image
from napari_pixseg.model.classes import Classes
from napari_pixseg.plugin.controller import Decision
from napari_pixseg.plugin.layers import levels_of, placement
from napari_pixseg.plugin.levels import LevelImage, PreviewLevel, PreviewPixels
from napari_pixseg.plugin.writer import KEY
from napari_pixseg.segmentation import Segmentation

_FAINT = 0.12


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
        self._classes: Classes | None = None
        self._coarsest: _CoarsestLevel | None = None
        # The layer may outlive the widget, and must not keep it.
        self._on_pick = weakref.WeakMethod(on_pick)

    @property
    def is_shown(self) -> bool:
        """Whether there is a layer, and nobody has removed it."""
        return self.layer is not None and self.layer in self._viewer.layers

    def drop(self) -> None:
        """Remove the layer, and forget all of it."""
        if self.is_shown:
            self._viewer.layers.remove(self.layer)
        self.layer = self._classes = self._coarsest = None
        self.hidden, self.selected = frozenset(), 0
        self.pixels = PreviewPixels()

    def decide(self, decision: Decision) -> None:
        """Take another decision; classes of another number of them are other classes."""
        classes = decision.classes
        self.pixels.encode_with(decision.encoding, classes.parameters.denoise)
        self.pixels.lookup.show(classes, decision.table)
        if self._classes is not None and len(self._classes) != len(classes):
            self.hidden, self.selected = frozenset(), 0
        self._classes = classes

    def show(self, image_layer: Any, images: Sequence[Image]) -> None:
        """Add the layer in the place of an image's layer."""
        finer = levels_of(images)
        coarsest = _CoarsestLevel(finer.pop(), self.pixels)
        levels = [*(PreviewLevel(level, self.pixels) for level in finer), coarsest]
        self._coarsest = coarsest
        self.layer = self._viewer.add_labels(
            levels if len(levels) > 1 else levels[0],
            name=f"{image_layer.name} classes (preview)",
            multiscale=len(levels) > 1,
            opacity=0.7,
            **placement(image_layer),
        )
        self.layer.editable = False
        self.layer.mouse_drag_callbacks.append(_Picker(self._on_pick))

    def draw(self, segmentation: Segmentation | None) -> None:
        """Draw the latest decision; the layer's writer exports the segmentation."""
        if not self.is_shown or self._classes is None:
            return
        if self._coarsest is not None:
            self._coarsest.renew()
        self.layer.metadata[KEY] = segmentation
        self.layer.colormap = self._colormap(self._classes)
        self.layer.refresh(extent=False)

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
            colors[number] = np.array([*color, self._alpha(number)], np.float32)
        return DirectLabelColormap(color_dict=colors)

    def _alpha(self, number: int) -> float:
        if number in self.hidden:
            return 0.0
        return 1.0 if self.selected in (0, number) else _FAINT


class _CoarsestLevel(PreviewLevel):
    """Renews what it has handed out: napari 0.9 keeps the coarsest level of a plane for ever."""

    def __init__(self, level: LevelImage, pixels: PreviewPixels) -> None:
        super().__init__(level, pixels)
        self._whole = self.shape
        self._kept: list[weakref.ref[NDArray[np.uint16]]] = []

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = super().__array__(dtype, copy)
        if self.shape == self._whole:
            # A list of one, which all narrower levels share.
            self._kept[:] = [weakref.ref(array)]
        return array

    def renew(self) -> None:
        """Write the classes of today into the array of yesterday, if someone still has it."""
        for reference in self._kept:
            if (array := reference()) is not None:
                array[...] = super().__array__(array.dtype)


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
