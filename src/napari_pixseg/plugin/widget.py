"""The widget "Segment (pixseg)": a thin view of the controller."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, Label, LineEdit, PushButton
from psygnal import emit_queued
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QFileDialog, QWidget
from superqt import QCollapsible

from napari_pixseg.engine.run import Progress
from napari_pixseg.errors import PixsegError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.controller import Controller, Decision
from napari_pixseg.plugin.fields import Fields, RunFields
from napari_pixseg.plugin.layers import (
    LayerView,
    image_layer_of_path,
    images_of_layer,
    levels_of,
    placement,
)
from napari_pixseg.plugin.levels import PreviewLevel, PreviewPixels
from napari_pixseg.plugin.panel import WhyPanel

_WIDTH = 380
_FAINT = 0.12
_POLL_MS = 10
# Above this, a result in memory is refused: it is to be written.
_LARGEST_IN_MEMORY = 64_000_000


class SegmentWidget(Container[Any]):
    """Choose an image, turn the knobs, see why, run it.

    napari's plugin manifest names this class: napari passes the viewer to classes only.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    controller : Controller, optional
        For tests; one with threads of its own if not given.
    """

    def __init__(self, napari_viewer: Any, controller: Controller | None = None) -> None:
        self.viewer = napari_viewer
        self.controller = controller or Controller()
        self.fields, self.run_fields, self.panel = Fields(), RunFields(), WhyPanel()
        self.preview: Any = None
        self._layer: Any = None
        self._shown: Any = (None, None)
        self._pixels = PreviewPixels()
        self._hidden: tuple[int, ...] = ()
        self._selected = 0
        self._bar: Any = None
        self.img = ComboBox(
            name="img", label="image (img)", choices=self._image_layers, nullable=True,
            tooltip="The image to segment; its colors are counted in the background.",
        )  # fmt: skip
        self.path = LineEdit(
            name="img_path", label="or a path, URL",
            tooltip="Opened lazily when you press Enter: zarr, OME-Zarr, TIFF, PNG, JPEG.",
        )  # fmt: skip
        self.status = Label(value="Choose an image.", label=" ")
        self.status.native.setWordWrap(True)
        self.run_button = PushButton(text="Run and write", name="run_button")
        self.cancel_button = PushButton(text="Cancel", name="cancel_button", enabled=False)
        self.manifest_button = PushButton(text="Restore from a manifest ...", name="manifest")
        knobs = [self.fields.ct, self.fields.cs, self.fields.st]
        super().__init__(widgets=[self.img, self.path, *knobs, self.status], labels=True)
        self._lay_out()
        self._connect()
        if (active := napari_viewer.layers.selection.active) in self.img.choices:
            self.img.value = active

    def _lay_out(self) -> None:
        layout = self.native.layout()
        layout.addWidget(self.panel)
        buttons = Container(
            layout="horizontal", widgets=[self.run_button, self.cancel_button], labels=False
        )
        for title, widgets in (
            ("More parameters", [self.fields.advanced, self.manifest_button]),
            ("Run at full resolution", [self.run_fields, buttons]),
        ):
            folded = QCollapsible(title)
            for widget in widgets:
                folded.addWidget(widget.native)
            layout.addWidget(folded)
        self.native.setMinimumWidth(_WIDTH)
        self.native.setAcceptDrops(True)
        self._drops = _ManifestDrops(self.native, self.controller.load)

    def _connect(self) -> None:
        self.img.changed.connect(self._on_layer)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self._on_layers)
        self.path.native.returnPressed.connect(self._open_path)
        for signal in self.fields.signals():
            signal.connect(self._on_fields)
        self.run_button.changed.connect(self._run)
        self.cancel_button.changed.connect(self.controller.cancel)
        self.manifest_button.changed.connect(self._choose_manifest)
        self._listen()
        self.panel.events.selected.connect(self._on_selected)
        self.panel.events.hidden.connect(self._on_hidden)
        self.panel.events.background.connect(self._on_background)
        self.native.destroyed.connect(self.controller.close)

    def _listen(self) -> None:
        """Hear the controller on the window's thread.

        Its signals come from worker threads and wait in a queue that a timer empties: no Qt
        object is ever made or deleted outside the window's thread.
        """
        controller = self.controller
        for signal, slot in (
            (controller.decided, self._on_decided),
            (controller.progressed, self._on_progress),
            (controller.failed, self._on_failed),
            (controller.exported, self._on_exported),
            (controller.computed, self._on_computed),
            (controller.busy, self._on_busy),
            (controller.parameters_changed, self._on_parameters),
        ):
            signal.connect(slot, thread="main")
        self._timer = QTimer(self.native)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(emit_queued)
        self._timer.start()

    # Choosing ----------------------------------------------------------------

    def _image_layers(self, _widget: Any = None) -> list[Any]:
        from napari.layers import Image

        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _on_layers(self) -> None:
        self.img.reset_choices()

    def _on_layer(self, layer: Any) -> None:
        if layer is self._layer:
            return
        self._drop_preview()
        self._layer = layer
        self._hidden, self._selected = (), 0
        self._pixels = PreviewPixels()
        if layer is None:
            self.controller.forget()
            self.status.value = "Choose an image."
            return
        self.status.value = "Counting colors ..."
        view = LayerView.of(layer)
        self.controller.choose(lambda parameters: images_of_layer(view, parameters))

    def _open_path(self) -> None:
        from napari.layers import Layer

        try:
            data = image_layer_of_path(self.path.value.strip())
        except PixsegError as error:
            self._on_failed(str(error))
            return
        layer = self.viewer.add_layer(Layer.create(*data))
        self.img.value = layer

    # Parameters --------------------------------------------------------------

    def _on_fields(self) -> None:
        limits = None
        if self._layer is not None and not self._layer.rgb:
            low, high = self._layer.contrast_limits
            limits = float(low), float(high)
        try:
            parameters = self.fields.parameters(self.controller.parameters, limits)
        except PixsegError as error:
            self._on_failed(str(error))
            return
        self.controller.restore(parameters)

    def _on_parameters(self, parameters: Parameters) -> None:
        self.fields.show(parameters)

    def _choose_manifest(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self.native, "Restore from a manifest", "", "Manifests (*.json)"
        )
        if path:
            self.controller.load(path)

    def _on_background(self, numbers: tuple[int, ...]) -> None:
        self.controller.set(background=numbers or None)

    # Preview -----------------------------------------------------------------

    def _on_decided(self, decision: Decision) -> None:
        if self._layer is None:
            return
        classes = decision.classes
        self._pixels.encode_with(decision.encoding, classes.parameters.denoise)
        self._pixels.lookup.show(classes, decision.table)
        shown = classes.parameters.axes, classes.parameters.channels
        if shown != self._shown:
            self._drop_preview()
        if self.preview is None or self.preview not in self.viewer.layers:
            self._shown = shown
            self._add_preview()
        if self.preview is None:
            return
        self._color_preview(decision)
        background = classes.parameters.background
        named = background if isinstance(background, tuple) else ()
        self.panel.show_classes(classes, named)
        self.status.value = _status(decision)

    def _drop_preview(self) -> None:
        """Remove a preview that shows another image, or other channels of it."""
        if self.preview is not None and self.preview in self.viewer.layers:
            self.viewer.layers.remove(self.preview)
        self.preview = None

    def _add_preview(self) -> None:
        segmentation = self.controller.segmentation
        if segmentation is None:
            return
        view = LayerView.of(self._layer)
        images = images_of_layer(view, self.controller.parameters)
        levels = [PreviewLevel(level, self._pixels) for level in levels_of(images)]
        self.preview = self.viewer.add_labels(
            levels if len(levels) > 1 else levels[0],
            name=f"{self._layer.name} classes (preview)",
            multiscale=len(levels) > 1,
            opacity=0.7,
            **placement(self._layer),
        )
        self.preview.editable = False
        self.preview.mouse_drag_callbacks.append(self._on_click)

    def _color_preview(self, decision: Decision) -> None:
        from napari.utils.colormaps import DirectLabelColormap

        colors: dict[int | None, Any] = defaultdict(lambda: np.zeros(4, np.float32))
        colors[None] = np.zeros(4, np.float32)
        for number, color in enumerate(decision.classes.palette[1:] / 255.0, start=1):
            colors[number] = np.array([*color, self._alpha(number)], np.float32)
        self.preview.metadata["pixseg"] = self.controller.segmentation
        self.preview.colormap = DirectLabelColormap(color_dict=colors)
        self.preview.refresh(extent=False)

    def _alpha(self, number: int) -> float:
        if number in self._hidden:
            return 0.0
        return 1.0 if self._selected in (0, number) else _FAINT

    def _recolor(self) -> None:
        if self.preview is not None and self.controller.decision is not None:
            self._color_preview(self.controller.decision)

    def _on_selected(self, number: int) -> None:
        self._selected = number
        self._recolor()

    def _on_hidden(self, numbers: tuple[int, ...]) -> None:
        self._hidden = numbers
        self._recolor()

    def _on_click(self, layer: Any, event: Any) -> None:
        """Select the class under the cursor in the table."""
        value = layer.get_value(
            event.position, view_direction=event.view_direction,
            dims_displayed=event.dims_displayed, world=True,
        )  # fmt: skip
        number = value[1] if isinstance(value, tuple) else value
        self.panel.select(int(number or 0))
        self._on_selected(int(number or 0))

    # Running -----------------------------------------------------------------

    def _run(self) -> None:
        fields = self.run_fields
        path = fields.path.value.strip()
        if not path:
            self._run_in_memory()
            return
        self.controller.export(
            path, fields.outputs, overwrite=fields.overwrite.value, blob=fields.blob.value,
            scheduler=fields.scheduler.value.strip(),
        )  # fmt: skip

    def _run_in_memory(self) -> None:
        segmentation = self.controller.segmentation
        if segmentation is None:
            self._on_failed("There is no image to segment; choose a layer or open a path first.")
            return
        pixels = int(np.prod(segmentation.image.shape))
        if pixels > _LARGEST_IN_MEMORY:
            self._on_failed(
                f"The image has {pixels / 1e6:.0f} megapixels, too many for a result in memory; "
                "give a path to write to."
            )
            return
        self.controller.compute(self.run_fields.outputs)

    def _on_computed(self, results: dict[str, Any]) -> None:
        place = placement(self._layer)
        for name, data in results.items():
            title = f"{self._layer.name} {name}"
            if name == "recolored":
                self.viewer.add_image(data, name=title, rgb=True, **place)
            else:
                self.viewer.add_labels(data, name=title, **place)

    def _on_exported(self, manifest: Manifest) -> None:
        from napari.layers import Layer
        from napari.utils.notifications import show_info

        link = str(manifest.link)
        show_info(f"Written: {link}")
        if link.endswith((".png", ".jpg", ".jpeg", ".tif", ".tiff")):
            return
        from napari_pixseg.plugin.reader import layers_of_output

        for data in layers_of_output(link):
            self.viewer.add_layer(Layer.create(*data))

    def _on_busy(self, busy: bool) -> None:
        self.cancel_button.enabled = busy
        if not busy and self._bar is not None:
            self._bar.close()
            self._bar = None

    def _on_progress(self, step: Progress) -> None:
        from napari.utils import progress

        if self._bar is None or self._bar.desc != step.stage or self._bar.total != step.total:
            if self._bar is not None:
                self._bar.close()
            self._bar = progress(total=step.total, desc=step.stage)
        self._bar.update(max(step.done - self._bar.n, 0))
        if self.controller.decision is None:
            self.status.value = f"Counting colors: tile {step.done} of {step.total}"

    def _on_failed(self, sentence: str) -> None:
        from napari.utils.notifications import show_error

        self.status.value = sentence
        show_error(sentence)


def _status(decision: Decision) -> str:
    count, pixels = len(decision.classes), decision.table.pixels
    what = f"{count} class" + ("es" if count != 1 else "")
    if decision.provisional:
        return f"{what}, provisional: counting goes on"
    return f"{what} of {len(decision.table):,} colors, {pixels:,} pixels counted"


class _ManifestDrops(QObject):
    """Takes manifests that are dropped on a widget."""

    def __init__(self, widget: QWidget, load: Any) -> None:
        super().__init__(widget)
        self._load = load
        widget.installEventFilter(self)

    def eventFilter(self, _watched: Any, event: Any) -> bool:  # noqa: N802
        """Accept one local file, and load it."""
        if event.type() not in (QEvent.Type.DragEnter, QEvent.Type.Drop):
            return False
        urls = event.mimeData().urls()
        if len(urls) != 1 or not urls[0].isLocalFile():
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self._load(urls[0].toLocalFile())
        return True
