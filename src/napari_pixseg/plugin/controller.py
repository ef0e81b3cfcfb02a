"""What happens when a user turns a knob: counts once, decides often, never blocks.

The controller knows neither napari nor Qt and is tested without a window.
Signals are emitted from worker threads; a view brings them to its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from psygnal import Signal

from napari_pixseg.algorithm.classes import Classes, decide
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.algorithm.kernels.dispatch import kernel_choice
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.parameter_checks import check_parameters, converts_first
from napari_pixseg.classification.pixels import Pixels
from napari_pixseg.classification.tile_colors import packed_colors
from napari_pixseg.errors import Cancelled, ParameterError, PixsegError
from napari_pixseg.execution.dask_cluster import connected
from napari_pixseg.execution.progress import Progress, RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.execution.tiling import plan_tiles
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.layers.level_image import overview_of
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.result_layers import Computed
from napari_pixseg.segmentation import Segmentation
from napari_pixseg.sources.image import Image

# A first answer is given from a level, or from tiles, of about this many pixels.
_FIRST_LOOK = 1_000_000
_GLANCE_SECONDS = 2.0


@dataclass(frozen=True)
class Decision:
    """What is to be shown.

    Attributes
    ----------
    classes : Classes
    table : ColorTable
    encoding : Encoding
        How samples became the colors of the table.
    provisional : bool
        True until every pixel of the finest level has been counted.
    overview : Overview or None
        Of a huge image, filled while it is counted.
    """

    classes: Classes
    table: ColorTable
    encoding: Encoding
    provisional: bool
    overview: Overview | None = None


@dataclass(frozen=True)
class _Table:
    """What decisions are made on."""

    colors: ColorTable
    encoding: Encoding
    image: Image
    overview: Overview | None
    provisional: bool = False


class Controller:
    """Turns parameters into decisions, in the background, dropping those that are stale.

    Parameters
    ----------
    reopen : callable
        Given parameters, returns the levels of the chosen image, fine to coarse;
        asked again when axes or channels change.
    executor : Executor, optional
        Runs counting and exports; a thread of its own if not given.
    decider : Executor, optional
        Makes decisions; a thread of its own if not given.
    at_once : int
        Tables of at most so many colors are decided before a knob's call returns, if that
        comes from the main thread.
    """

    decided = Signal(Decision)
    progressed = Signal(Progress)
    failed = Signal(str)
    exported = Signal(Manifest)
    computed = Signal(Computed)
    busy = Signal(bool)
    running = Signal(bool)
    stopped = Signal(str)
    parameters_changed = Signal(Parameters)

    def __init__(
        self,
        executor: Executor | None = None,
        decider: Executor | None = None,
        at_once: int = 0,
    ) -> None:
        self.parameters = Parameters()
        self.decision: Decision | None = None
        self._executor = executor or ThreadPoolExecutor(1, "pixseg-count")
        self._decider = decider or ThreadPoolExecutor(1, "pixseg-decide")
        self._closed, self._at_once = False, at_once
        self._reopen: Callable[[Parameters], Sequence[Image]] | None = None
        self._counted: ColorCount | None = None
        self._table: _Table | None = None
        self._generation = self._wanted = 0
        self._cancel_count, self._cancel_run = threading.Event(), threading.Event()
        self._counting = False
        self._lock = threading.RLock()

    # Choosing ----------------------------------------------------------------

    def choose(
        self,
        reopen: Callable[[Parameters], Sequence[Image]],
        parameters: Parameters | None = None,
    ) -> None:
        """Take another image, and parameters that go with it: count the colors of the new."""
        if self._closed:
            return
        self._reopen = reopen
        if parameters not in (None, self.parameters):
            self.parameters = parameters
            self.parameters_changed.emit(parameters)
        self._count()

    def forget(self) -> None:
        """Drop the image and stop counting; a run goes on, it was asked for."""
        self._cancel_count.set()
        with self._lock:
            self._generation += 1
            self._reopen = self._counted = self._table = self.decision = None

    def set(self, **changes: Any) -> None:
        """Change parameters; refused ones are reported and change nothing."""
        try:
            parameters = self.parameters.replace(**changes)
        except ParameterError as error:
            self.failed.emit(str(error))
            return
        self.restore(parameters)

    def restore(self, parameters: Parameters) -> None:
        """Take all parameters at once, for example from a manifest."""
        before, self.parameters = self.parameters, parameters
        if parameters == before:
            return
        self.parameters_changed.emit(parameters)
        if self._reopen is None:
            return
        if self._needs_count(before, parameters) or self._is_idle():
            self._count()
        else:
            self._decide_soon()

    def load(self, path: str) -> None:
        """Take the parameters of a manifest, or of the output that holds one."""
        try:
            self.restore(Manifest.load(path).parameters)
        except PixsegError as error:
            self.failed.emit(str(error))

    def _is_idle(self) -> bool:
        """Whether nothing is known and nothing on its way, as after an early cancel.

        What was known when counting was cancelled later goes on giving provisional answers:
        who stopped the reading of a terabyte does not want a slider to begin it again.
        """
        with self._lock:
            return not self._counting and self._table is None

    def _needs_count(self, before: Parameters, after: Parameters) -> bool:
        if self._counted is None or after.needs_pixels_again(before):
            return True
        image = self._counted.image
        converts = converts_first(image, before), converts_first(image, after)
        return converts[0] != converts[1] or (all(converts) and before.cs != after.cs)

    # Counting ----------------------------------------------------------------

    def _count(self) -> None:
        self._cancel_count.set()
        with self._lock:
            self._generation += 1
            self._table = self._counted = self.decision = None
            self._counting = True
            cancel = self._cancel_count = threading.Event()
            generation, parameters = self._generation, self.parameters

        def count() -> None:
            try:
                self._count_now(generation, parameters, cancel)
            finally:
                with self._lock:
                    if generation == self._generation:
                        self._counting = False

        self._submit(count)

    def _count_now(self, generation: int, parameters: Parameters, cancel: threading.Event) -> None:
        if self._reopen is None:
            return
        # Numba is loaded here, in a worker, and not while somebody moves a slider.
        kernel_choice.expect_repetition()
        levels = self._reopen(parameters)
        check_parameters(levels[0], parameters)
        monitor = RunMonitor(self.progressed.emit, cancel)
        color_count = ColorCount(levels[0], plan_tiles(levels[0]), parameters)
        with self._lock:
            if generation != self._generation:
                return
            self._counted = color_count
        overview = overview_of(levels)
        first = _first_look(levels, color_count, parameters, RunMonitor(None, cancel))
        if first is not None:
            self._have_table(
                generation, _Table(*first, color_count.image, overview, provisional=True)
            )
        if overview is not None:
            _glance(overview, color_count.pixels(monitor), monitor)
        table = color_count.table(monitor, None if overview is None else overview.add)
        encoding = color_count.pixels().encoding
        self._have_table(generation, _Table(table, encoding, color_count.image, overview))

    def _have_table(self, generation: int, table: _Table) -> None:
        with self._lock:
            if generation != self._generation or self._counted is None:
                return
            self._table = table
        self._decide_soon()

    # Deciding ----------------------------------------------------------------

    def _decide_soon(self) -> None:
        with self._lock:
            if self._table is None:
                return
            self._wanted += 1
            wanted, colors = self._wanted, len(self._table.colors)
        if colors <= self._at_once and threading.current_thread() is threading.main_thread():
            self._decide_now(wanted)
        else:
            self._decider.submit(self._decide_now, wanted)

    def _decide_now(self, wanted: int) -> None:
        with self._lock:
            # Only the latest wish counts: a slider makes many while one is being answered.
            if wanted != self._wanted or self._table is None:
                return
            table, parameters = self._table, self.parameters
        try:
            check_parameters(table.image, parameters)
            classes = decide(table.colors, parameters, gray=table.image.gray)
        except PixsegError as error:
            self.failed.emit(str(error))
            return
        except Exception as error:  # noqa: BLE001
            self.failed.emit(_unforeseen(error))
            return
        decision = Decision(
            classes, table.colors, table.encoding, table.provisional, table.overview
        )
        with self._lock:
            if wanted != self._wanted:
                return
            self.decision = decision
        self.decided.emit(decision)

    @property
    def is_counting(self) -> bool:
        """Whether a final answer is on its way."""
        with self._lock:
            return self._counting and not self._cancel_count.is_set()

    @property
    def segmentation(self) -> Segmentation | None:
        """The segmentation as it is set now; None before an image was chosen."""
        with self._lock:
            if self._counted is None:
                return None
            return Segmentation(self._counted, self.parameters)

    # Running -----------------------------------------------------------------

    def export(
        self,
        path: str,
        outputs: Sequence[str],
        *,
        overwrite: bool = False,
        resume: bool = False,
        scheduler: str = "",
        blob: bool = False,
    ) -> None:
        """Run the full job out of core; ``exported`` or ``failed`` tells how it ended.

        Parameters
        ----------
        path : str
        outputs : sequence of str
        overwrite : bool
        resume : bool
            Continue an unfinished output.
        scheduler : str
            Address of a Dask scheduler; empty for this machine's threads.
        blob : bool
            Write the picture alone, without its manifest.
        """
        segmentation = self._chosen()
        if segmentation is None:
            return
        cancel = self._cancel_run = threading.Event()

        def run() -> None:
            with connected(scheduler):
                manifest = segmentation.export(
                    path, outputs, overwrite, resume=resume, blob=blob,
                    on_event=self.progressed.emit, cancel=cancel,
                )  # fmt: skip
            self.exported.emit(manifest)

        self._submit_run(run)

    def compute(self, outputs: Sequence[str]) -> None:
        """Compute the outputs in memory; ``computed`` hands them over."""
        segmentation = self._chosen()
        if segmentation is None:
            return
        cancel = self._cancel_run = threading.Event()

        def run() -> None:
            arrays = segmentation.compute(outputs, on_event=self.progressed.emit, cancel=cancel)
            rows = segmentation.region_table if "regions" in arrays else None
            self.computed.emit(Computed(segmentation, arrays, rows))

        self._submit_run(run)

    def _submit_run(self, run: Callable[[], None]) -> None:
        """Run, and tell of a cancel: that of a count goes without saying."""
        if self._closed:
            return

        def told() -> None:
            try:
                run()
            except Cancelled as error:
                self.stopped.emit(str(error))
            finally:
                self.running.emit(False)

        # At once: it may have to wait for a count.
        self.running.emit(True)
        self._submit(told)

    def _chosen(self) -> Segmentation | None:
        segmentation = self.segmentation
        if segmentation is None:
            self.failed.emit(
                "There is no image to segment; choose a layer or open a path first."
                if self._reopen is None
                else "The image is being opened with these parameters; run it in a moment."
            )
        return segmentation

    def cancel(self) -> None:
        """Stop what is running before its next tile."""
        self._cancel_count.set()
        self._cancel_run.set()

    def close(self) -> None:
        """Stop all work and the threads; nothing is done any more."""
        self._closed = True
        self.cancel()
        self.forget()
        for executor in (self._executor, self._decider):
            executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], None]) -> None:
        self._executor.submit(self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        self.busy.emit(True)
        try:
            work()
        except Cancelled:
            pass
        except PixsegError as error:
            self.failed.emit(str(error))
        except Exception as error:  # noqa: BLE001
            self.failed.emit(_unforeseen(error))
        finally:
            self.busy.emit(False)


def _unforeseen(error: Exception) -> str:
    return f"Something unforeseen went wrong ({type(error).__name__}: {error})."


def _first_look(
    levels: Sequence[Image], color_count: ColorCount, parameters: Parameters, monitor: RunMonitor
) -> tuple[ColorTable, Encoding] | None:
    """Count a coarse level, or some tiles; None where everything is counted at once anyway."""
    if len(color_count.tiling) <= 4:
        return None
    coarse = [level for level in levels[1:] if _pixels(level) <= _FIRST_LOOK]
    if coarse:
        small = ColorCount(coarse[0], plan_tiles(coarse[0]), parameters)
        return small.table(monitor), small.pixels().encoding
    # The range of some tiles is not that of the image: only bytes can be sampled like this.
    if color_count.image.dtype.kind != "u" or color_count.image.dtype.itemsize > 1:
        return None
    pixels, total = color_count.pixels(), len(color_count.tiling)
    some = sorted({total * step // 4 + total // 8 for step in range(4)})
    part = run_tiles(
        pixels.color_tiles().part(some),
        _Counting(pixels.encoding),
        "colors",
        monitor,
        ColorTable.merge,
    )
    return part, pixels.encoding


def _glance(overview: Overview, pixels: Pixels, monitor: RunMonitor) -> None:
    """Read single pixels for a short time, so that there is a picture at once."""
    end = time.monotonic() + _GLANCE_SECONDS
    for _ in overview.glances(pixels.read):
        monitor.check()
        if time.monotonic() > end:
            return


def _pixels(image: Image) -> int:
    total = 1
    for n in image.shape:
        total *= n
    return total


@dataclass(frozen=True)
class _Counting:
    encoding: Encoding

    def __call__(self, colors: Any, _number: int) -> ColorTable:
        return ColorTable.from_packed(packed_colors(colors), self.encoding.space)
