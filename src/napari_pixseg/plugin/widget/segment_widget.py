"""The widget "Segment (pixseg)": a thin view of the controller."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, Label, LineEdit, PushButton
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QSizePolicy

from napari_pixseg.errors import PixsegError
from napari_pixseg.execution.progress import Progress
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.parameters import Interval, Parameters
from napari_pixseg.plugin.controller import Controller, Decision
from napari_pixseg.plugin.layers.image_layers import (
    LayerView,
    image_layer_of_path,
    images_of_layer,
    placement,
)
from napari_pixseg.plugin.layers.preview import Preview
from napari_pixseg.plugin.layers.result_layers import Computed, layers_of_results
from napari_pixseg.plugin.remote_job import RemoteFields, RemoteJob, Sent
from napari_pixseg.plugin.widget.class_panel import WhyPanel
from napari_pixseg.plugin.widget.collapsible import Folds
from napari_pixseg.plugin.widget.parameter_fields import CONTRAST_LIMITS, Fields
from napari_pixseg.plugin.widget.path_buttons import add_browse
from napari_pixseg.plugin.widget.run_fields import RunFields
from napari_pixseg.plugin.widget.signal_queue import Mailbox
from napari_pixseg.plugin.widget.window_events import Watcher, align_labels

_WIDTH = 460


# Half-typed texts are not taken for what was meant.
_TYPING_MS = 400


# So many colors are decided in some 15 ms; on a thread beside a window that draws, in 50.
_AT_ONCE = 150_000


# Above this, a result in memory is refused: it is to be written.
_LARGEST_IN_MEMORY = 64_000_000


# The same trouble is not told anew within so many seconds.
_SAME_SECONDS = 3.0


_CLICKED = {
    "(overwrite=True, --overwrite)": "(check “replace an existing output”)",
    "(resume=True, --resume)": "(check “continue an unfinished output”)",
}


@dataclass(frozen=True)
class _Target:
    """Where results in memory belong, even if their image's layer has gone meanwhile."""

    name: str
    placement: dict[str, Any]


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
        self.controller = controller or Controller(at_once=_AT_ONCE)
        self.fields, self.run_fields, self.panel = Fields(), RunFields(), WhyPanel()
        self.remote, self.remote_job = RemoteFields(), RemoteJob()
        self._preview = Preview(napari_viewer, self._on_picked)
        self._layer: Any = None
        self._shown: Any = (None, None)
        self._target: _Target | None = None
        self._bar: Any = None
        self._running, self._told = False, ("", 0.0)
        self.img = ComboBox(
            name="img", label="image (img)", choices=self._image_layers, nullable=True,
            tooltip="The image to segment; its colors are counted in the background.",
        )  # fmt: skip
        self.path = LineEdit(
            name="img_path", label="or a path, URL",
            tooltip="Opened lazily when you press Enter: zarr, OME-Zarr, TIFF, PNG, JPEG.",
        )  # fmt: skip
        self.status = Label(value="Choose an image.")
        _let_fill(self.status.native)
        self.run_button = PushButton(text="Run and write", name="run_button")
        self.cancel_button = PushButton(text="Cancel", name="cancel_button", enabled=False)
        self.manifest_button = PushButton(text="Restore from a manifest ...", name="manifest")
        super().__init__(widgets=[self.img, self.path, *self.fields.main], labels=True)
        self._lay_out()
        self._connect()
        if (active := napari_viewer.layers.selection.active) in self.img.choices:
            self.img.value = active

    def _lay_out(self) -> None:
        buttons = Container(
            layout="horizontal", widgets=[self.run_button, self.cancel_button], labels=False
        )
        advanced = [self.fields.advanced, self.manifest_button]
        self._folds = Folds()
        self._folds.add(self.panel)
        self._folds.fold("More parameters", [field.native for field in advanced])
        run = [self.remote.native, self.run_fields.native, buttons.native]
        self._folds.fold("Run at full resolution", run)
        layout = self.native.layout()
        layout.addWidget(self.status.native)
        # What turns the knobs stays in sight; what is below may scroll.
        layout.addWidget(self._folds, 1)
        add_browse(self.path, ("folder", "file"), self._open_path)
        add_browse(self.run_fields.path, ("save",), None)
        self.native.setMinimumWidth(_WIDTH)
        self.native.setAcceptDrops(True)
        self._watcher = Watcher(
            self.native, self.controller.load, self.close_down, self._align_labels
        )

    def _align_labels(self) -> None:
        align_labels([self, self.fields.advanced, self.remote, self.run_fields])

    def _connect(self) -> None:
        self.img.changed.connect(self._on_layer)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self.reset_choices)
        self.path.native.returnPressed.connect(self._open_path)
        self._typing = QTimer(self.native)
        self._typing.setSingleShot(True)
        self._typing.setInterval(_TYPING_MS)
        self._typing.timeout.connect(self._on_typed)
        self.fields.listen(self._on_fields, self._typing.start)
        self.run_button.changed.connect(self._run)
        self.cancel_button.changed.connect(self.controller.cancel)
        self.cancel_button.changed.connect(self.remote_job.cancel)
        self.remote.where.changed.connect(self._show_place)
        self.manifest_button.changed.connect(self._choose_manifest)
        self._listen()
        self.panel.events.selected.connect(self._preview.select)
        self.panel.events.hidden.connect(self._preview.hide)
        self.panel.events.background.connect(self._on_background)
        self.native.destroyed.connect(self._stop)
        if (application := QApplication.instance()) is not None:
            application.aboutToQuit.connect(self._stop)

    def _listen(self) -> None:
        """Hear the controller on the window's thread."""
        slots: dict[str, Callable[..., None]] = {
            "decided": self._on_decided,
            "progressed": self._on_progress,
            "failed": self._on_failed,
            "exported": self._on_exported,
            "computed": self._on_computed,
            "busy": self._on_busy,
            "running": self._on_running,
            "stopped": self._on_stopped,
            "parameters_changed": self._on_parameters,
        }
        self._mailbox = Mailbox(self.native, frozenset({"decided", "progressed"}))
        self._mailbox.connect_to(self.controller, slots)
        there: dict[str, Callable[..., None]] = {
            "done": self._on_sent, "failed": self._on_failed, "busy": self._on_busy,
            "running": self._on_running, "stopped": self._on_stopped,
        }  # fmt: skip
        self._mailbox.connect_to(self.remote_job, there)

    def close_down(self) -> None:
        """Stop all work, as the widget was taken out of its window; the layers stay."""
        self._mailbox.close()
        self._stop()
        self._on_busy(False)
        self._on_running(False)
        self._layer = None

    def _stop(self) -> None:
        self.controller.close()
        self.remote_job.close()

    # Choosing ----------------------------------------------------------------

    def _image_layers(self, _widget: Any = None) -> list[Any]:
        from napari.layers import Image

        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def reset_choices(self, *_: Any) -> None:
        """Offer the layers there are, under their names; the chosen one stays chosen.

        napari calls it, also when a layer gets another name: of its own accord the field would
        then choose none, as the text it knew is gone.
        """
        with self.img.changed.blocked():
            self.img.reset_choices()
            if self._layer in self.img.choices:
                self.img.value = self._layer
        self._on_layer(self.img.value)

    def _on_layer(self, layer: Any) -> None:
        if layer is self._layer:
            return
        self._preview.drop()
        self.panel.clear()
        self._follow_limits(layer)
        self._layer = layer
        if layer is None:
            self.controller.forget()
            self.status.value = "Choose an image."
            return
        self.status.value = "Counting colors ..."
        view = LayerView.of(layer)

        def reopen(parameters: Parameters) -> Any:
            return images_of_layer(view, parameters)

        parameters = self.controller.parameters
        if self.fields.window.value == CONTRAST_LIMITS:
            # Those of the layer before are not its own.
            parameters = parameters.replace(window=self._shown_window())
        self.controller.choose(reopen, parameters)

    def _follow_limits(self, layer: Any) -> None:
        """Hear of the contrast limits of another layer; while they move, they are not final."""
        if self._layer is not None:
            self._layer.events.contrast_limits.disconnect(self._on_limits)
        if layer is not None:
            layer.events.contrast_limits.connect(self._on_limits)

    def _on_limits(self) -> None:
        if self.fields.window.value == CONTRAST_LIMITS:
            self._typing.start()

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
        """Take what the fields say, or say what is wrong with it."""
        self._typing.stop()
        self._take_fields(self._on_failed)

    def _on_typed(self) -> None:
        """Take what was typed so far, if it makes sense."""
        self._take_fields(lambda _sentence: None)

    def _take_fields(self, refuse: Callable[[str], None], complete: bool = False) -> bool:
        """Take what the fields say; return whether they say something that can be meant."""
        try:
            parameters = self._meant(complete)
        except PixsegError as error:
            refuse(str(error))
            return False
        self.controller.restore(parameters)
        return True

    def _meant(self, complete: bool = False) -> Parameters:
        return self.fields.parameters(self.controller.parameters, self._shown_window(), complete)

    def _shown_window(self) -> tuple[Interval] | None:
        """Return the contrast limits of the layer, if it has any, as a window."""
        if self._layer is None or self._layer.rgb:
            return None
        low, high = self._layer.contrast_limits
        return ((float(low), float(high)),)

    def _on_parameters(self, parameters: Parameters) -> None:
        """Show other parameters; most often the fields are where they come from."""
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

    @property
    def preview(self) -> Any:
        """The layer with the preview, or None."""
        return self._preview.layer

    def _on_decided(self, decision: Decision) -> None:
        segmentation = self.controller.segmentation
        if self._layer is None or segmentation is None:
            return
        classes = decision.classes
        shown = classes.parameters.axes, classes.parameters.channels
        if shown != self._shown:
            self._preview.drop()
        self._shown = shown
        self._preview.decide(decision)
        if not self._preview.is_shown:
            images = images_of_layer(LayerView.of(self._layer), classes.parameters)
            self._preview.show(self._layer, images)
        self._preview.draw(segmentation)
        background = classes.parameters.background
        named = background if isinstance(background, tuple) else ()
        self.panel.show_classes(classes, named, self._preview.hidden)
        self.panel.select(self._preview.selected)
        self._say(decision)

    def _say(self, decision: Decision) -> None:
        self.status.value = _status(decision, self.controller.is_counting)

    def _on_picked(self, number: int) -> None:
        """Select the class that was clicked on in the picture."""
        self.panel.select(number)
        self._preview.select(number)

    # Running -----------------------------------------------------------------

    def _show_place(self) -> None:
        # What an endpoint answers is a picture; where it goes is not asked.
        self.run_fields.visible = not self.remote.is_remote

    def _run(self) -> None:
        fields = self.run_fields
        # What stands there in red is not what was run with before.
        self._typing.stop()
        if self._running or not self._take_fields(self._on_failed, complete=True):
            return
        if self.remote.is_remote:
            self._run_there()
            return
        path = fields.path.value.strip()
        if not path:
            self._run_in_memory()
            return
        self.controller.export(
            path, fields.outputs, overwrite=fields.overwrite.value,
            resume=fields.resume.value, blob=fields.blob.value,
            scheduler=fields.scheduler.value.strip(),
        )  # fmt: skip

    def _run_there(self) -> None:
        """Send the image to an endpoint; its answer becomes a layer."""
        if self._layer is None:
            self._on_failed("There is no image to segment; choose a layer or open a path first.")
            return
        try:
            endpoint = self.remote.endpoint()
        except PixsegError as error:
            self._on_failed(str(error))
            return
        view, parameters = LayerView.of(self._layer), self.controller.parameters
        self.status.value = f"Sending {self._layer.name} to the endpoint ..."
        self.remote_job.run(
            endpoint, lambda: images_of_layer(view, parameters)[0], parameters,
            self._layer.name, placement(self._layer),
        )  # fmt: skip

    def _on_sent(self, sent: Sent) -> None:
        from napari.layers import Layer

        self.viewer.add_layer(Layer.create(*sent.layer()))
        self.status.value = "Done; the picture of the endpoint is a new layer, in memory."

    def _run_in_memory(self) -> None:
        segmentation = self.controller.segmentation
        pixels = 0 if segmentation is None else int(np.prod(segmentation.image.shape))
        if pixels > _LARGEST_IN_MEMORY:
            self._on_failed(
                f"The image has {pixels / 1e6:.0f} megapixels, too many for a result in memory; "
                "give a path to write to."
            )
            return
        if self._layer is not None:
            self._target = _Target(self._layer.name, placement(self._layer))
        self.controller.compute(self.run_fields.outputs)

    def _on_computed(self, computed: Computed) -> None:
        from napari.layers import Layer

        if self._target is None:
            return
        for data in layers_of_results(computed, self._target.name, self._target.placement):
            self.viewer.add_layer(Layer.create(*data))
        self.status.value = "Done; the results are new layers, in memory."

    def _on_exported(self, manifest: Manifest) -> None:
        from napari.layers import Layer
        from napari.utils.notifications import show_info

        link = str(manifest.link)
        written = f"Written: {_spoken(link)}"
        show_info(written)
        self.status.value = written
        if link.lower().endswith(PICTURES):
            return
        from napari_pixseg.plugin.reader import layers_of_output

        try:
            layers = layers_of_output(link)
        except PixsegError as error:
            # Somebody has removed or replaced it meanwhile.
            self._on_failed(str(error))
            return
        for data in layers:
            self.viewer.add_layer(Layer.create(*data))

    def _on_running(self, running: bool) -> None:
        """Take one run at a time: a second click is one too many."""
        self._running = running
        self.run_button.enabled = not running

    def _on_busy(self, busy: bool) -> None:
        self.cancel_button.enabled = busy
        if not busy and self._bar is not None:
            self._bar.close()
            self._bar = None
        decision = self.controller.decision
        if not busy and decision is not None and decision.provisional:
            self._say(decision)

    def _on_progress(self, step: Progress) -> None:
        from napari.utils import progress

        if self._bar is None or self._bar.desc != step.stage or self._bar.total != step.total:
            if self._bar is not None:
                self._bar.close()
            self._bar = progress(total=step.total, desc=step.stage)
        self._bar.update(max(step.done - self._bar.n, 0))
        self._preview.freshen()
        if self.controller.decision is None and not self._running:
            self.status.value = f"Counting colors: tile {step.done} of {step.total}"
        elif self._running or not self.controller.is_counting:
            self.status.value = f"Running, {step.stage}: tile {step.done} of {step.total}"

    def _on_stopped(self, sentence: str) -> None:
        self.status.value = sentence

    def _on_failed(self, sentence: str) -> None:
        from napari.utils.notifications import show_error

        sentence = _for_a_window(sentence)
        self.status.value = sentence
        (kind, value, _), (before, then) = sentence.partition("="), self._told
        self._told = kind, time.monotonic()
        # A slider that is dragged too far says the same of every value.
        if not value or kind != before or time.monotonic() > then + _SAME_SECONDS:
            show_error(sentence)


def _for_a_window(sentence: str) -> str:
    """Name what is to be clicked on instead of what is to be typed."""
    for typed, clicked in _CLICKED.items():
        sentence = sentence.replace(typed, clicked)
    return sentence.replace("file:///", "/")


def _spoken(link: str) -> str:
    """Name a result first: napari cuts notifications at their end."""
    path = link.removeprefix("file://").rstrip("/")
    folder, name = os.path.split(path)
    return f"{name} in {folder}"


def _let_fill(label: QLabel) -> None:
    """Give a sentence the whole width, and always two lines: what is below must not jump."""
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setMinimumHeight(2 * label.fontMetrics().lineSpacing() + 6)
    label.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)


def _status(decision: Decision, counting: bool) -> str:
    count, pixels = len(decision.classes), decision.table.pixels
    what = f"{count} class" + ("es" if count != 1 else "")
    if decision.provisional and counting:
        return f"{what}, provisional: counting goes on"
    if decision.provisional:
        return f"{what}, provisional: counting was stopped; choose the image again to count all"
    return f"{what} of {len(decision.table):,} colors, {pixels:,} pixels counted"
