"""How long the preview takes to follow a slider: ``python -m benchmarks.preview [--window]``.

Without a window, it decides on the classes, rebuilds the look-up table, and looks up the pixels
of a view of 1400 x 1000. With ``--window``, it does the same in napari's window, from setting
``st`` in the widget to a drawn canvas, on an RGB zarr of 8192 x 8192 in a temporary folder. This
needs a screen, for example that of ``xvfb-run``.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.decide import table_of
from napari_pixseg.algorithm.classes import decide
from napari_pixseg.algorithm.color_table import ColorTable, unpack_colors
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers.preview_lookup import PreviewLookup

REPEATS = 9
VIEW = (1000, 1400)
SIDE = 8192
COLORS = (10**5, 10**6)
_TIMEOUT_SECONDS = 120


class StepClock:
    """Wall and CPU time of named steps, in milliseconds."""

    def __init__(self) -> None:
        self._wall: dict[str, list[float]] = defaultdict(list)
        self._cpu: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def time_step(self, name: str) -> Iterator[None]:
        """Time the body of the with statement."""
        wall = time.perf_counter()
        cpu = time.process_time()
        yield
        self._wall[name].append(1000 * (time.perf_counter() - wall))
        self._cpu[name].append(1000 * (time.process_time() - cpu))

    def add_seconds(self, name: str, seconds: float) -> None:
        """Record the wall time of a step that was timed elsewhere."""
        self._wall[name].append(1000 * seconds)

    def medians(self) -> dict[str, float]:
        """Return the median of every step, without the first run, which warms up."""
        result = {}
        for name, times in self._wall.items():
            result[f"{name}, ms"] = round(statistics.median(times[1:]), 1)
            if name in self._cpu:
                result[f"{name}, CPU ms"] = round(statistics.median(self._cpu[name][1:]), 1)
        return result


def st_of(repeat: int) -> float:
    """Return a different ``st`` for every repeat."""
    return 2.0 + 0.25 * repeat


def measure(colors: int) -> dict[str, float]:
    """Measure the steps without a window, on a table with a number of colors."""
    table = table_of(colors)
    lookup = PreviewLookup()
    clock = StepClock()
    view = view_of(table, VIEW)
    for repeat in range(REPEATS + 1):
        with clock.time_step("all"):
            with clock.time_step("decide"):
                classes = decide(table, Parameters(st=st_of(repeat)))
            with clock.time_step("show"):
                lookup.set_decision(classes, table)
            with clock.time_step("look up"):
                lookup.look_up(view)
    return {"colors": colors, "classes": len(classes), **clock.medians()}


def view_of(table: ColorTable, shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Make a view in which each color is as frequent as in the table."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(table.counts)
    return table.packed[np.searchsorted(ends, rng.integers(0, ends[-1], shape), "right")]


def measure_in_window(colors: int) -> dict[str, float]:
    """Measure from setting ``st`` in the widget to a drawn canvas."""
    import napari
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    from napari_pixseg.plugin.widget.segment_widget import SegmentWidget

    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/image.zarr"
        write_image(path, table_of(colors))
        viewer = napari.Viewer(show=True)
        try:
            viewer.window.resize(1400, 1000)
            widget = SegmentWidget(viewer)
            viewer.window.add_dock_widget(widget)
            widget.path.value = path
            widget.path.native.returnPressed.emit()
            wait = QEventLoop.ProcessEventsFlag.WaitForMoreEvents
            drive = _WidgetDriver(viewer, widget, lambda: QApplication.processEvents(wait))
            drive.until(lambda: drive.shown() and not drive.decision.provisional)
            for repeat in range(REPEATS + 1):
                with clock.time_step("slider to canvas"):
                    drive.follow(st_of(repeat), clock)
            decision = drive.decision
        finally:
            widget.controller.close()
            viewer.close()
    sizes = {"colors": len(decision.table), "classes": len(decision.classes)}
    return {**sizes, **clock.medians()}


class _WidgetDriver:
    """Sets a value in the widget and waits for its effect."""

    def __init__(self, viewer: Any, widget: Any, process: Callable[[], None]) -> None:
        self.viewer, self.widget, self._process = viewer, widget, process
        self._colormap: Any = None
        self._decided = 0.0
        widget.controller.decided.connect(self._on_decided)

    def _on_decided(self, _decision: Any) -> None:
        self._decided = time.perf_counter()

    @property
    def decision(self) -> Any:
        return self.widget.controller.decision

    def shown(self) -> bool:
        """Whether the layer has the colors of the latest decision."""
        preview, decision = self.widget.preview, self.decision
        if preview is None or decision is None:
            return False
        return preview.colormap is not self._colormap

    def until(self, condition: Callable[[], bool]) -> None:
        """Process events until a condition holds."""
        end = time.monotonic() + _TIMEOUT_SECONDS
        while not condition():
            self._process()
            if time.monotonic() > end:
                raise TimeoutError("The window does not follow.")

    def follow(self, st: float, clock: StepClock) -> None:
        """Set st and wait until the canvas shows it."""
        self._colormap = self.widget.preview.colormap
        start = time.perf_counter()
        self.widget.fields.st._box.value = st
        self.until(self.shown)
        shown = time.perf_counter()
        # The decision is made in a thread, while the window does other work.
        clock.add_seconds("set to decided", self._decided - start)
        clock.add_seconds("decided to refreshed layer", shown - self._decided)
        self.viewer.screenshot(flash=False)
        clock.add_seconds("drawing", time.perf_counter() - shown)


def write_image(path: str, table: ColorTable) -> None:
    """Write an image with the colors of a table, partly sorted so that it has areas."""
    import zarr

    array = zarr.create_array(path, shape=(SIDE, SIDE, 3), chunks=(512, 512, 3), dtype=np.uint8)
    for start in range(0, SIDE, 512):
        packed = np.sort(view_of(table, (512 * SIDE // 4096, 4096)))
        array[start : start + 512] = unpack_colors(packed.reshape(512, SIDE))


def main() -> None:
    """Print the results as a table, and then as JSON."""
    run = measure_in_window if "--window" in sys.argv[1:] else measure
    results = [run(colors) for colors in COLORS]
    for name in results[0]:
        values = "".join(f"{result[name]:12,.1f}" for result in results)
        sys.stdout.write(f"{name:30}{values}\n")
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
