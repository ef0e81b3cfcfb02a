"""The widget "Segment (pixseg)": a thin view of the controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, PushButton
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_pixseg.errors import PixsegError
from napari_pixseg.execution.progress import Progress
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.parameters import Interval
from napari_pixseg.plugin.controller import Controller
from napari_pixseg.plugin.decision import Decision
from napari_pixseg.plugin.layers.image_layers import (
    ImageListing,
    LayerSnapshot,
    images_of_layer,
    source_of_layer,
)
from napari_pixseg.plugin.widget.class_panel import ClassPanel
from napari_pixseg.plugin.widget.collapsible import CollapsibleSections
from napari_pixseg.plugin.widget.field_alignment import align_field_labels
from napari_pixseg.plugin.widget.image_chooser import ImageChoice
from napari_pixseg.plugin.widget.parameter_fields import CONTRAST_LIMITS, Fields
from napari_pixseg.plugin.widget.path_buttons import add_browse_buttons
from napari_pixseg.plugin.widget.preview import Preview
from napari_pixseg.plugin.widget.run_panel import RunPanel
from napari_pixseg.plugin.widget.series_choice import SeriesChoice
from napari_pixseg.plugin.widget.signal_queue import SignalQueue
from napari_pixseg.plugin.widget.status_line import CHOOSE_IMAGE, StatusLine, describe_decision
from napari_pixseg.plugin.widget.window_events import WindowEvents

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

_WIDTH = 460

# Text is read when nothing was typed for this long, because half a text may mean something else.
_TYPING_MS = 400

# Deciding this many colors takes about 15 ms, but 50 ms on a thread beside a drawing window.
_AT_ONCE = 150_000


class SegmentWidget(Container[Any]):
    """Choose an image, change parameters, see the reasons, run it.

    napari's plugin manifest names this class: napari passes the viewer to classes only.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    controller : Controller, optional
        For tests; one with threads of its own if not given.
    """

    def __init__(self, napari_viewer: Viewer, controller: Controller | None = None) -> None:
        self.viewer = napari_viewer
        self.controller = controller or Controller(at_once=_AT_ONCE)
        self.fields = Fields()
        self.panel = ClassPanel()
        self._status_line = StatusLine()
        self.status = self._status_line.label
        self._choice = ImageChoice(
            napari_viewer,
            on_layer=self._on_layer,
            on_limits=self._on_limits,
            on_place=self._on_place,
            on_error=self._status_line.report_error,
        )
        self.img = self._choice.img
        self.path = self._choice.path
        self.series = SeriesChoice(self._choice.reopen)
        self.run_panel = RunPanel(
            napari_viewer,
            self.controller,
            self._status_line,
            chosen_layer=lambda: self._choice.layer,
            take_fields=self._take_complete_fields,
        )
        self._preview = Preview(napari_viewer, self._on_picked)
        # The axes and channels that the preview shows.
        self._previewed: tuple[object, object] = (None, None)
        self.manifest_button = PushButton(text="Restore from a manifest ...", name="manifest")
        super().__init__(
            widgets=[self.img, self.path, self.series.field, *self.fields.main], labels=True
        )
        self._lay_out()
        self._connect_fields()
        self._connect_controller()
        self.series.connect()
        self._choice.connect()

    def _lay_out(self) -> None:
        run_panel = self.run_panel
        buttons = Container(
            layout="horizontal",
            widgets=[run_panel.run_button, run_panel.cancel_button],
            labels=False,
        )
        self._sections = sections = CollapsibleSections()
        sections.add_widget(self.series.notes, 0)
        sections.add_widget(self.panel)
        advanced = [self.fields.advanced.native, self.manifest_button.native]
        sections.add_section("More parameters", advanced)
        run = [run_panel.remote.native, run_panel.fields.native, buttons.native]
        sections.add_section("Run at full resolution", run)
        layout = self.native.layout()
        layout.addWidget(self.status.native)
        # The parameters stay visible; the sections below them may scroll.
        layout.addWidget(sections, 1)
        add_browse_buttons(run_panel.fields.path, ("save",), None)
        self.native.setMinimumWidth(_WIDTH)
        self.native.setAcceptDrops(True)
        self._window_events = WindowEvents(
            self.native, self.controller.load, self.close_down, self._align_labels
        )

    def _align_labels(self) -> None:
        run_panel = self.run_panel
        align_field_labels([self, self.fields.advanced, run_panel.remote, run_panel.fields])

    def _connect_fields(self) -> None:
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self.reset_choices)
        self._typing = QTimer(self.native)
        self._typing.setSingleShot(True)
        self._typing.setInterval(_TYPING_MS)
        self._typing.timeout.connect(self._on_typed)
        self.fields.listen(self._on_fields, self._typing.start)
        self.manifest_button.changed.connect(self._choose_manifest)
        self.panel.events.selected.connect(self._preview.select)
        self.panel.events.hidden.connect(self._preview.hide)
        self.panel.events.background.connect(self._on_background)
        # Threads would keep Python from ending, so every way out of a window stops them.
        self.native.destroyed.connect(self._stop_work)
        if (application := QApplication.instance()) is not None:
            application.aboutToQuit.connect(self._stop_work)

    def _connect_controller(self) -> None:
        """Receive signals of the controller and of remote jobs on the window's thread."""
        run_panel = self.run_panel
        slots: dict[str, Callable[..., None]] = {
            "failed": self._status_line.report_error,
            "busy": self._on_busy,
            "running": run_panel.set_running,
            "stopped": self._status_line.say,
        }
        # A slider causes many decisions, and a run many steps: only the latest is drawn.
        self._signal_queue = SignalQueue(self.native, latest=frozenset({"decided", "progressed"}))
        self._signal_queue.connect_to(
            self.controller,
            {
                **slots,
                "decided": self._on_decided,
                "progressed": self._on_progress,
                "exported": run_panel.show_exported,
                "locked": run_panel.offer_to_break_lock,
                "computed": run_panel.show_computed,
                "parameters_changed": self.fields.show,
                "listed": self._on_listed,
                "loaded": self._on_loaded,
            },
        )
        self._signal_queue.connect_to(
            run_panel.remote_job, {**slots, "done": run_panel.show_remote_picture}
        )

    def close_down(self) -> None:
        """Stop all work, because the widget was taken out of its window; the layers stay."""
        self._signal_queue.close()
        self._stop_work()
        self._on_busy(False)
        self.run_panel.set_running(False)
        self._choice.drop()

    def _stop_work(self) -> None:
        self.controller.close()
        self.run_panel.remote_job.close()

    # Choosing ----------------------------------------------------------------

    def reset_choices(self, *_: object) -> None:
        """Offer the present layers; napari calls this, also when a layer is renamed."""
        self._choice.update_choices()

    def _on_layer(self) -> None:
        layer = self._choice.layer
        self._preview.drop()
        self.panel.clear()
        self.series.clear()
        if layer is None:
            self.controller.forget()
            self._status_line.say(CHOOSE_IMAGE)
            return
        self._status_line.say("Counting colors ...")
        snapshot = LayerSnapshot.of(layer)
        parameters = self.controller.parameters
        if self.fields.window.value == CONTRAST_LIMITS:
            # The current window comes from another layer's limits.
            parameters = parameters.replace(window=self._limits_as_window())
        self.controller.list_images(lambda: ImageListing.of(layer))
        self.controller.choose(lambda chosen: images_of_layer(snapshot, chosen), parameters)

    def _on_listed(self, listing: ImageListing) -> None:
        # Another layer may have been chosen while a server was asked.
        if listing.layer is self._choice.layer:
            self.series.offer(listing)

    def _on_loaded(self, manifest: Manifest) -> None:
        """Take the image that a manifest was made from, if it is in the chosen layer's file."""
        source = source_of_layer(self._choice.layer)
        made_from = manifest.details.get("input") or {}
        series = made_from.get("series")
        is_same_file = source is not None and source.uri == made_from.get("uri")
        if source is not None and is_same_file and series not in (None, source.series):
            self._choice.reopen(series)

    def _on_limits(self) -> None:
        # While the limits move, they are not final.
        if self.fields.window.value == CONTRAST_LIMITS:
            self._typing.start()

    def _on_place(self) -> None:
        layer = self._choice.layer
        if layer is None:
            return
        self._preview.place(layer)
        snapshot = LayerSnapshot.of(layer)
        self.controller.place(lambda chosen: images_of_layer(snapshot, chosen), snapshot.place)

    # Parameters --------------------------------------------------------------

    def _on_fields(self) -> None:
        """Take the values of the fields, or show what is wrong with them."""
        self._typing.stop()
        self._take_fields(self._status_line.report_error)

    def _on_typed(self) -> None:
        """Take the text typed so far, if it is valid."""
        self._take_fields(lambda _sentence: None)

    def _take_complete_fields(self) -> bool:
        """Take the values of the fields for a run, for which none may be missing."""
        self._typing.stop()
        return self._take_fields(self._status_line.report_error, complete=True)

    def _take_fields(self, refuse: Callable[[str], None], complete: bool = False) -> bool:
        """Pass the fields on to the controller; return whether they are valid."""
        before = self.controller.parameters
        try:
            parameters = self.fields.parameters(before, self._limits_as_window(), complete)
        except PixsegError as error:
            refuse(str(error))
            return False
        self.controller.restore(parameters)
        return True

    def _limits_as_window(self) -> tuple[Interval] | None:
        """Return the contrast limits of the layer as a window, if it has any."""
        layer = self._choice.layer
        if layer is None or layer.rgb:
            return None
        low, high = layer.contrast_limits
        return ((float(low), float(high)),)

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
    def preview(self) -> Labels | None:
        """The layer with the preview, or None."""
        return self._preview.layer

    def _on_decided(self, decision: Decision) -> None:
        layer = self._choice.layer
        segmentation = self.controller.segmentation
        if layer is None or segmentation is None:
            return
        classes = decision.classes
        parameters = classes.parameters
        choice = (parameters.axes, parameters.channels)
        # Other axes give the preview other dimensions, which requires another layer.
        if choice != self._previewed:
            self._preview.drop()
        self._previewed = choice
        self._preview.take_decision(decision)
        if not self._preview.is_shown:
            images = images_of_layer(LayerSnapshot.of(layer), parameters)
            self._preview.add_layer(layer, images)
        self._preview.draw(segmentation)
        self.series.tell(segmentation.image.notes)
        # Classes named by number have check marks; "largest" has none.
        background = parameters.background if isinstance(parameters.background, tuple) else ()
        self.panel.show_classes(classes, background, self._preview.hidden)
        self.panel.select(self._preview.selected)
        self._say_decision(decision)

    def _say_decision(self, decision: Decision) -> None:
        self._status_line.say(describe_decision(decision, self.controller.is_counting))

    def _on_picked(self, number: int) -> None:
        """Select the class that was clicked on in the picture."""
        self.panel.select(number)
        self._preview.select(number)

    # Progress ----------------------------------------------------------------

    def _on_busy(self, busy: bool) -> None:
        self.run_panel.cancel_button.enabled = busy
        if busy:
            return
        self._status_line.end_progress()
        decision = self.controller.decision
        if decision is not None and decision.provisional:
            self._say_decision(decision)

    def _on_progress(self, step: Progress) -> None:
        self._status_line.show_progress(step)
        self._preview.draw_news()
        is_running = self.run_panel.is_running
        if self.controller.decision is None and not is_running:
            # The count may have been given up since it told this.
            if self.controller.is_counting:
                self._status_line.say(f"Counting colors: tile {step.done} of {step.total}")
        elif is_running or not self.controller.is_counting:
            self._status_line.say(f"Running, {step.stage}: tile {step.done} of {step.total}")
