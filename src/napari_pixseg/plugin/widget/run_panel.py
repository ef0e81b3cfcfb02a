"""The part of the widget that runs a segmentation at full resolution and shows its results."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from magicgui.widgets import PushButton
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QMessageBox

from napari_pixseg.errors import PixsegError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import PICTURES
from napari_pixseg.plugin.controller import Controller
from napari_pixseg.plugin.layer_types import LayerOptions
from napari_pixseg.plugin.layers.image_layers import (
    LayerSnapshot,
    images_of_layer,
    placement_of,
)
from napari_pixseg.plugin.layers.result_layers import ComputedLayers, ComputedOutputs
from napari_pixseg.plugin.reader import layers_of_output
from napari_pixseg.plugin.remote_job import RemoteJob, RemotePicture
from napari_pixseg.plugin.widget.image_chooser import add_layer
from napari_pixseg.plugin.widget.remote_fields import RemoteFields
from napari_pixseg.plugin.widget.run_fields import RunFields
from napari_pixseg.plugin.widget.status_line import StatusLine

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image as NapariImage

# A larger image is not segmented in memory; its result must be written.
_LARGEST_IN_MEMORY = 64_000_000


@dataclass(frozen=True)
class _Target:
    """Where results in memory are placed, even if the image's layer has been removed meanwhile."""

    name: str
    placement: LayerOptions


class RunPanel:
    """Starts runs on this machine or at an endpoint, one at a time, and shows their results.

    Parameters
    ----------
    viewer : napari.Viewer
    controller : Controller
    status : StatusLine
    chosen_layer : callable
        Returns the layer of the chosen image, or None.
    take_fields : callable
        Passes the parameter fields on to the controller; returns False if they are invalid.

    Attributes
    ----------
    remote : RemoteFields
    fields : RunFields
    run_button, cancel_button : PushButton
    is_running : bool
    """

    def __init__(
        self,
        viewer: Viewer,
        controller: Controller,
        status: StatusLine,
        chosen_layer: Callable[[], NapariImage | None],
        take_fields: Callable[[], bool],
    ) -> None:
        self._viewer = viewer
        self._controller = controller
        self._status = status
        self._chosen_layer = chosen_layer
        self._take_fields = take_fields
        self._target: _Target | None = None
        self._break_and_run: Callable[[], None] | None = None
        self.is_running = False
        self.remote = RemoteFields()
        self.remote_job = RemoteJob()
        self.fields = RunFields()
        self.run_button = PushButton(text="Run and write", name="run_button")
        self.cancel_button = PushButton(text="Cancel", name="cancel_button", enabled=False)
        self.run_button.changed.connect(self._start_run)
        self.cancel_button.changed.connect(controller.cancel)
        self.cancel_button.changed.connect(self.remote_job.cancel)
        self.remote.where.changed.connect(self._show_fields_of_place)

    def _show_fields_of_place(self) -> None:
        # An endpoint returns a picture, which becomes a layer; nothing is written.
        self.fields.visible = not self.remote.is_remote

    def set_running(self, running: bool) -> None:
        """Allow one run at a time: disable the button until the run has ended."""
        self.is_running = running
        self.run_button.enabled = not running

    # Starting ----------------------------------------------------------------

    def _start_run(self) -> None:
        if self.is_running or not self._take_fields():
            return
        path = self.fields.path.value.strip()
        if self.remote.is_remote:
            self._run_remotely()
        elif path:
            self._run_to_path(path)
        else:
            self._run_in_memory()

    def _run_to_path(self, path: str) -> None:
        fields = self.fields
        run = partial(
            self._controller.export,
            path,
            fields.outputs,
            overwrite=fields.overwrite.value,
            resume=fields.resume.value,
            blob=fields.blob.value,
            scheduler=fields.scheduler.value.strip(),
        )
        self._break_and_run = partial(run, break_lock=True)
        run()

    def offer_to_break_lock(self, sentence: str) -> None:
        """Ask whether to break the lock that a killed writer may have left, and run again."""
        answer = QMessageBox.question(
            self.fields.native,
            "Is the other run dead?",
            f"{sentence}\n\nBreak its lock, and write? If it still lives, both are spoiled.",
            QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No,
            QMessageBox.StandardButton.No,
        )
        if answer == QMessageBox.StandardButton.Yes and self._break_and_run is not None:
            self._break_and_run()
        else:
            self._status.report_error(sentence)

    def _run_remotely(self) -> None:
        layer = self._chosen_layer()
        if layer is None:
            self._status.report_error(
                "There is no image to segment; choose a layer or open a path first."
            )
            return
        try:
            endpoint = self.remote.endpoint()
        except PixsegError as error:
            self._status.report_error(str(error))
            return
        # The worker must not touch the layer, which the user may change meanwhile.
        snapshot = LayerSnapshot.of(layer)
        parameters = self._controller.parameters
        self._status.say(f"Sending {layer.name} to the endpoint ...")
        self.remote_job.run(
            endpoint,
            lambda: images_of_layer(snapshot, parameters)[0],
            parameters,
            layer.name,
            placement_of(layer),
        )

    def _run_in_memory(self) -> None:
        segmentation = self._controller.segmentation
        pixels = 0 if segmentation is None else math.prod(segmentation.image.shape)
        if pixels > _LARGEST_IN_MEMORY:
            self._status.report_error(
                f"The image has {pixels / 1e6:.0f} megapixels, too many for a result in memory "
                f"(at most {_LARGEST_IN_MEMORY / 1e6:.0f}); enter a path to write to."
            )
            return
        layer = self._chosen_layer()
        if layer is not None:
            self._target = _Target(layer.name, placement_of(layer))
        self._controller.compute(self.fields.outputs)

    # Results -----------------------------------------------------------------

    def show_computed(self, computed: ComputedOutputs) -> None:
        """Add the layers of a result in memory."""
        if self._target is None:
            return
        target = self._target
        for data in ComputedLayers(computed, target.name, target.placement).make_layers():
            add_layer(self._viewer, data)
        self._status.say("Done; the results are new layers, in memory.")

    def show_exported(self, manifest: Manifest) -> None:
        """Report the written output, and add its layers unless it is a picture file."""
        link = str(manifest.link)
        written = f"Written: {_name_before_folder(link)}"
        show_info(written)
        self._status.say(written)
        if link.lower().endswith(PICTURES):
            return
        try:
            layers = layers_of_output(link)
        except PixsegError as error:
            # Somebody has removed or replaced the output meanwhile.
            self._status.report_error(str(error))
            return
        for data in layers:
            add_layer(self._viewer, data)

    def show_remote_picture(self, remote: RemotePicture) -> None:
        """Add the picture that an endpoint gave back."""
        add_layer(self._viewer, remote.make_layer())
        self._status.say("Done; the endpoint's picture is a new layer, in memory.")


def _name_before_folder(link: str) -> str:
    """Put the name of a result first, because napari cuts off the end of notifications."""
    path = link.removeprefix("file://").rstrip("/")
    folder, name = os.path.split(path)
    return f"{name} in {folder}"
