"""How long the preview takes to follow a slider: ``python -m benchmarks.preview [--window]``.

Without a window: decide, rebuild the look-up table, look up the pixels of a view of
1400 x 1000. With ``--window``: the same through napari's window, from setting ``st`` in the
widget to a drawn canvas, on an RGB zarr of 8192 x 8192 in a temporary folder; this needs a
screen, for example that of ``xvfb-run``.
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
from napari_pixseg.plugin.layers.class_lookup import Lookup

REPEATS = 9
VIEW = (1000, 1400)
SIDE = 8192
COLORS = (10**5, 10**6)
_LONGEST = 120


class Clock:
    """Wall and CPU time of named steps, in milliseconds."""

    def __init__(self) -> None:
        self._wall: dict[str, list[float]] = defaultdict(list)
        self._cpu: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._wall[name].append(1000 * (time.perf_counter() - wall))
        self._cpu[name].append(1000 * (time.process_time() - cpu))

    def add(self, name: str, seconds: float) -> None:
        """Note the wall time of a step that was timed elsewhere."""
        self._wall[name].append(1000 * seconds)

    def medians(self) -> dict[str, float]:
        """Return the median of every step but its first run, which warms up."""
        result = {}
        for name, times in self._wall.items():
            result[f"{name}, ms"] = round(statistics.median(times[1:]), 1)
            if name in self._cpu:
                result[f"{name}, CPU ms"] = round(statistics.median(self._cpu[name][1:]), 1)
        return result


def st_of(repeat: int) -> float:
    """Return another ``st`` for every repeat."""
    return 2.0 + 0.25 * repeat


def measure(colors: int) -> dict[str, float]:
    """Measure the path without a window, on a table of so many colors."""
    table, lookup, clock = table_of(colors), Lookup(), Clock()
    view = view_of(table, VIEW)
    for repeat in range(REPEATS + 1):
        with clock.step("all"):
            with clock.step("decide"):
                classes = decide(table, Parameters(st=st_of(repeat)))
            with clock.step("show"):
                lookup.show(classes, table)
            with clock.step("look up"):
                lookup.look_up(view)
    return {"colors": colors, "classes": len(classes), **clock.medians()}


def view_of(table: ColorTable, shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Make a view in which colors are as frequent as in the table."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(table.counts)
    return table.packed[np.searchsorted(ends, rng.integers(0, ends[-1], shape), "right")]


def measure_in_window(colors: int) -> dict[str, float]:
    """Measure from setting ``st`` in the widget to a drawn canvas."""
    import napari
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    from napari_pixseg.plugin.widget.segment_widget import SegmentWidget

    clock = Clock()
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
            drive = _Drive(viewer, widget, lambda: QApplication.processEvents(wait))
            drive.until(lambda: drive.shown() and not drive.decision.provisional)
            for repeat in range(REPEATS + 1):
                with clock.step("slider to canvas"):
                    drive.follow(st_of(repeat), clock)
            decision = drive.decision
        finally:
            widget.controller.close()
            viewer.close()
    sizes = {"colors": len(decision.table), "classes": len(decision.classes)}
    return {**sizes, **clock.medians()}


class _Drive:
    """Turns a knob of the widget and waits for what it does."""

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
        end = time.monotonic() + _LONGEST
        while not condition():
            self._process()
            if time.monotonic() > end:
                raise TimeoutError("The window does not follow.")

    def follow(self, st: float, clock: Clock) -> None:
        """Set st and wait until the canvas shows it."""
        self._colormap = self.widget.preview.colormap
        start = time.perf_counter()
        self.widget.fields.st._box.value = st
        self.until(self.shown)
        shown = time.perf_counter()
        # The decision is made in a thread, beside what the window does meanwhile.
        clock.add("set to decided", self._decided - start)
        clock.add("decided to refreshed layer", shown - self._decided)
        self.viewer.screenshot(flash=False)
        clock.add("drawing", time.perf_counter() - shown)


def write_image(path: str, table: ColorTable) -> None:
    """Write an image that has the colors of a table, sorted in places so that there are areas."""
    import zarr

    array = zarr.create_array(path, shape=(SIDE, SIDE, 3), chunks=(512, 512, 3), dtype=np.uint8)
    for start in range(0, SIDE, 512):
        packed = np.sort(view_of(table, (512 * SIDE // 4096, 4096)))
        array[start : start + 512] = unpack_colors(packed.reshape(512, SIDE))


def main() -> None:
    """Print a table and, after it, the same as JSON."""
    run = measure_in_window if "--window" in sys.argv[1:] else measure
    results = [run(colors) for colors in COLORS]
    for name in results[0]:
        values = "".join(f"{result[name]:12,.1f}" for result in results)
        sys.stdout.write(f"{name:30}{values}\n")
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
