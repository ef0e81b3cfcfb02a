"""Take the documentation's pictures of the widget, from a real window.

Run it from the repository's root; without a screen it brings one (xvfb-run):

    python docs/make_screenshots.py [folder]
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = (1500, 950)
SCREEN = "-screen 0 1600x1000x24"
LONGEST_WAIT = 120
LARGE = 12_288


def main() -> None:
    """Write all pictures."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.execvp("xvfb-run", ["xvfb-run", "-a", "-s", SCREEN, sys.executable, *sys.argv])
    if sys.version_info < (3, 12):
        # PySide6 6.12.0 drops a reference to None with every call that returns None.
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    scenes = (
        choose_and_preview, see_why, highlight_a_class, segment_a_stack, restore_a_manifest,
        compute_in_memory, run_to_disk, open_a_large_image, count_a_huge_slide,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        for scene in scenes:
            window = Window(Path(scratch))
            scene(window)
            path = folder / f"widget-{scene.__name__.replace('_', '-')}.png"
            window.save(path)
            window.viewer.close()


class Window:
    """A viewer with the widget, and how a user's hands reach it."""

    def __init__(self, scratch: Path) -> None:
        import napari

        from napari_pixseg.plugin.widget.segment_widget import SegmentWidget

        self.scratch = scratch
        self.viewer = napari.Viewer(show=False)
        self.viewer.show()
        self.widget = SegmentWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Segment (pixseg)", area="right")
        self.viewer.window.resize(*SIZE)
        self.rest()

    def add(self, sample: Callable[[], Any]) -> None:
        """Open sample data and choose it."""
        from napari.layers import Layer

        for data in sample():
            layer = self.viewer.add_layer(Layer.create(*data))
        self.widget.img.value = layer
        self.settle()
        self.viewer.reset_view()

    def settle(self) -> None:
        """Wait until everything is counted, decided and drawn."""
        controller = self.widget.controller
        self.wait(lambda: controller.decision is not None and not controller.decision.provisional)
        self.wait(lambda: controller.decision.classes.parameters == controller.parameters)
        self.rest()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let the window work until a condition holds."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + LONGEST_WAIT
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"Nothing came of it; the widget says: {self.status}")
            QApplication.processEvents()
            time.sleep(0.01)

    def rest(self, seconds: float = 1.0) -> None:
        """Let the window work for some time."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)

    def unfold(self, title: str) -> None:
        """Open a folded part of the widget."""
        from superqt import QCollapsible

        for part in self.widget.native.findChildren(QCollapsible):
            if part.text() == title:
                part.expand(animate=False)

    @property
    def status(self) -> str:
        """The widget's sentence."""
        return str(self.widget.status.value)

    def save(self, path: Path) -> None:
        """Write a picture of the whole window."""
        self.viewer.window.resize(*SIZE)
        self.rest()
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        shrink(path)
        sys.stdout.write(f"{path}: {self.status}\n")


def choose_and_preview(window: Window) -> None:
    """Choose the histology picture; the preview is there."""
    from napari_pixseg.plugin.sample_data import histology

    window.add(histology)


def see_why(window: Window) -> None:
    """Look at histograms, regions and classes of a photograph, with all parameters in sight."""
    from napari_pixseg.plugin.sample_data import photograph

    window.add(photograph)
    window.widget.fields.cs.value = 5
    window.widget.fields.st.number = 6.0
    window.settle()
    window.unfold("More parameters")


def highlight_a_class(window: Window) -> None:
    """Click a row of the table."""
    from napari_pixseg.plugin.sample_data import histology

    window.add(histology)
    window.widget.panel._table.selectRow(1)


def run_to_disk(window: Window) -> None:
    """Run, and look at the regions that come back from disk."""
    from napari_pixseg.plugin.sample_data import histology

    window.add(histology)
    window.unfold("Run at full resolution")
    os.chdir(window.scratch)
    window.widget.run_panel.fields.path.value = "tissue.ome.zarr"
    before = len(window.viewer.layers)
    window.widget.run_panel.run_button.native.click()
    window.wait(lambda: len(window.viewer.layers) == before + 3)
    for layer in window.viewer.layers:
        layer.visible = layer.name.endswith("regions")
    window.viewer.layers[-1].visible = True


def segment_a_stack(window: Window) -> None:
    """Look at a plane in the middle of a 16-bit stack."""
    from napari_pixseg.plugin.sample_data import nuclei

    window.add(nuclei)
    window.viewer.dims.set_point(0, 18.0)


def restore_a_manifest(window: Window) -> None:
    """Restore all fields from the manifest of a finished output."""
    from napari_pixseg import segment
    from napari_pixseg.plugin.sample_data import histology

    (data, _, _), *_ = histology()
    path = window.scratch / "earlier.ome.zarr"
    segment(data, ct=4.0, cs=5, st=4.0, background="largest", min_size=20).export(
        str(path), ("classes",)
    )
    window.add(histology)
    window.unfold("More parameters")
    window.widget.controller.load(str(path))
    window.settle()


def compute_in_memory(window: Window) -> None:
    """Compute the results in memory, and look at the regions and their table."""
    from napari_pixseg.plugin.sample_data import histology

    window.add(histology)
    window.widget.fields.denoise.value = 3
    window.settle()
    before = len(window.viewer.layers)
    window.widget.run_panel.run_button.native.click()
    window.wait(lambda: len(window.viewer.layers) == before + 3)
    for layer in window.viewer.layers:
        layer.visible = layer.name.endswith("regions")
        if layer.visible:
            window.viewer.layers.selection.active = layer
    window.viewer.window.add_plugin_dock_widget("napari", "Features table widget")


def count_a_huge_slide(window: Window) -> None:
    """Open an image larger than memory; the answer is provisional while it is counted."""
    from napari.layers import Layer

    from napari_pixseg.plugin.sample_data import slide

    for data in slide():
        layer = window.viewer.add_layer(Layer.create(*data))
    window.widget.img.value = layer
    controller = window.widget.controller
    window.wait(lambda: controller.decision is not None and window.widget.preview is not None)
    window.rest(2)


def shrink(path: Path) -> None:
    """Keep what a page loads small: 256 colors are enough for a window."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
    small.save(path, optimize=True)


def open_a_large_image(window: Window) -> None:
    """Open 150 megapixels by their path and look at a part of them."""
    path = window.scratch / "slide.zarr"
    make_large(path)
    window.widget.path.value = str(path)
    window.widget.path.native.returnPressed.emit()
    window.settle()
    window.viewer.reset_view()
    camera = getattr(window.viewer, "scene", window.viewer).camera
    camera.zoom *= 8
    camera.center = (LARGE * 0.73, LARGE * 0.78)
    window.rest()
    shutil.rmtree(path)


def make_large(path: Path) -> None:
    """Write a part of the computed slide as one zarr array."""
    import zarr

    from napari_pixseg.plugin.sample_data import SlideLevel

    level, chunk = SlideLevel(2), 1024
    shape = (LARGE, LARGE, 3)
    array = zarr.create_array(str(path), shape=shape, chunks=(chunk, chunk, 3), dtype="uint8")
    for top in range(0, LARGE, chunk):
        rows = slice(top + 8000, top + 8000 + chunk)
        array[top : top + chunk] = level[rows, slice(8000, 8000 + LARGE), slice(None)]


if __name__ == "__main__":
    main()
