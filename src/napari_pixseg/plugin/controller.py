"""Reacts when the user changes a parameter: counts once, decides often, never blocks.

The controller knows neither napari nor Qt, and is tested without a window. Signals are emitted on
worker threads; a view must bring them to its own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from psygnal import Signal

from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.classification.parameter_checks import converts_first
from napari_pixseg.errors import ParameterError, PixsegError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.background import describe_error
from napari_pixseg.plugin.background_counting import Counting, OpenLevels
from napari_pixseg.plugin.decision import CountedColors, Decision, refuse_missing_classes
from napari_pixseg.plugin.full_runs import FullRuns
from napari_pixseg.plugin.layers.image_layers import ImageListing
from napari_pixseg.segmentation import Segmentation
from napari_pixseg.sources.image import Image


class Controller(FullRuns):
    """Turns parameters into decisions, in the background, and drops stale ones.

    Parameters
    ----------
    executor : Executor, optional
        Runs counts and exports; a thread of its own if not given.
    decider : Executor, optional
        Makes decisions; a thread of its own if not given.
    at_once : int
        Tables of at most this many colors are decided before the call that changes a parameter
        returns, if that call comes from the main thread.

    Attributes
    ----------
    parameters : Parameters
    decision : Decision or None
        The latest decision; None while nothing is known about the image.
    """

    decided = Signal(Decision)
    parameters_changed = Signal(Parameters)
    listed = Signal(ImageListing)
    loaded = Signal(Manifest)

    def __init__(
        self,
        executor: Executor | None = None,
        decider: Executor | None = None,
        at_once: int = 0,
    ) -> None:
        super().__init__(executor or ThreadPoolExecutor(1, "pixseg-count"))
        self.parameters = Parameters()
        self.decision: Decision | None = None
        self._decider = decider or ThreadPoolExecutor(1, "pixseg-decide")
        self._at_once = at_once
        self._open_levels: OpenLevels | None = None
        # The count that is waiting or being done. Results of any other are stale.
        self._counting: Counting | None = None
        self._color_count: ColorCount | None = None
        self._counted: CountedColors | None = None
        # The decision whose class numbers the background is given in.
        self._numbered_by: Decision | None = None
        # Number of the latest request for a decision. Older ones are stale.
        self._request = 0
        # Reentrant, because methods that hold it call others that take it.
        self._lock = threading.RLock()

    # Choosing ----------------------------------------------------------------

    def choose(self, open_levels: OpenLevels, parameters: Parameters | None = None) -> None:
        """Take another image and count its colors.

        Parameters
        ----------
        open_levels : callable
            Given parameters, returns the levels of the image, fine to coarse. It is called
            again when other axes or channels are chosen.
        parameters : Parameters, optional
            Taken together with the image.
        """
        if self._closed:
            return
        self._open_levels = open_levels
        if parameters is not None and parameters != self.parameters:
            self.parameters = parameters
            self.parameters_changed.emit(parameters)
        self._start_count(open_levels)

    def list_images(self, find: Callable[[], ImageListing | None]) -> None:
        """Find out which images a file holds; ``listed`` tells them if there are several."""

        def find_and_tell() -> None:
            listing = find()
            if listing is not None:
                self.listed.emit(listing)

        if not self._closed:
            self._submit_work(find_and_tell)

    def place(self, open_levels: OpenLevels, place: Callable[[Image], Image]) -> None:
        """Take the same pixels under another scale or position.

        Colors that were counted stay; a count that is not finished begins again.

        Parameters
        ----------
        open_levels : callable
            As :meth:`choose` takes it, with the new scale.
        place : callable
            Gives an image of these pixels the new scale and position.
        """
        if self._closed or self._open_levels is None or self._is_idle():
            return
        self._open_levels = open_levels
        with self._lock:
            count = self._color_count if self._counting is None else None
            if count is not None:
                self._color_count = count.with_image(place(count.image))
        if count is None:
            self._start_count(open_levels)
        else:
            self._request_decision()

    def forget(self) -> None:
        """Drop the image and stop counting; a run goes on, because the user asked for it."""
        with self._lock:
            self._open_levels = None
            self._drop_count()

    def set(self, **changes: Any) -> None:
        """Change parameters; refused values are reported and change nothing."""
        try:
            parameters = self.parameters.replace(**changes)
            if "background" in changes and self.decision is not None:
                refuse_missing_classes(parameters, self.decision)
        except ParameterError as error:
            self.failed.emit(str(error))
            return
        self.restore(parameters)

    def restore(self, parameters: Parameters) -> None:
        """Take all parameters at once, for example from a manifest."""
        before = self.parameters
        self.parameters = parameters
        if parameters == before:
            return
        self.parameters_changed.emit(parameters)
        if self._open_levels is None:
            return
        if self._needs_count(before, parameters) or self._is_idle():
            self._start_count(self._open_levels)
        else:
            self._request_decision()

    def load(self, path: str) -> None:
        """Take the parameters of a manifest, or of the output that holds one."""
        # Its background is numbered by its own classes.
        self._numbered_by = None
        try:
            manifest = Manifest.load(path)
            self.restore(manifest.parameters)
        except PixsegError as error:
            self.failed.emit(str(error))
            return
        self.loaded.emit(manifest)

    def _is_idle(self) -> bool:
        """Whether nothing is known and nothing is being counted, as after an early cancel.

        If counting was cancelled later, the colors counted so far continue to give provisional
        answers. A user who has stopped the reading of a terabyte does not want a slider to restart
        it.
        """
        with self._lock:
            return self._counting is None and self._counted is None

    def _needs_count(self, before: Parameters, after: Parameters) -> bool:
        if self._color_count is None or after.needs_pixels_again(before):
            return True
        image = self._color_count.image
        converted = converts_first(image, before)
        converts = converts_first(image, after)
        return converted != converts or (converts and before.cs != after.cs)

    # Counting ----------------------------------------------------------------

    def _drop_count(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
        self._counting = None
        self._color_count = None
        self._counted = None
        self.decision = None
        self._request += 1

    def _start_count(self, open_levels: OpenLevels) -> None:
        counting = Counting(open_levels, self.parameters, self.progressed.emit)
        with self._lock:
            self._drop_count()
            self._counting = counting
        self._submit_work(lambda: self._count_colors(counting))

    def _count_colors(self, counting: Counting) -> None:
        try:
            opened = counting.open()
            with self._lock:
                if counting is not self._counting:
                    return
                self._color_count = opened.color_count
            for counted in opened.run():
                with self._lock:
                    if counting is not self._counting:
                        return
                    self._counted = counted
                self._request_decision()
        finally:
            with self._lock:
                if counting is self._counting:
                    self._counting = None

    @property
    def is_counting(self) -> bool:
        """Whether a final answer is being computed."""
        with self._lock:
            return self._counting is not None and not self._counting.is_cancelled

    # Deciding ----------------------------------------------------------------

    def _request_decision(self) -> None:
        with self._lock:
            if self._counted is None:
                return
            self._request += 1
            request = self._request
            colors = len(self._counted.table)
        # Deciding a small table takes less time than handing it to a thread beside a drawing
        # window.
        if colors <= self._at_once and threading.current_thread() is threading.main_thread():
            self._make_decision(request)
        else:
            self._decider.submit(self._make_decision, request)

    def _make_decision(self, request: int) -> None:
        with self._lock:
            # A slider makes many requests while one is being answered; only the latest matters.
            if request != self._request or self._counted is None:
                return
            counted = self._counted
            parameters = self.parameters
            numbered_by = self._numbered_by
        try:
            decision = counted.decide(parameters)
            if numbered_by is not None:
                decision = decision.with_background_of(numbered_by)
        # Nobody checks the future of this call, so an error must become a signal.
        except Exception as error:  # noqa: BLE001
            self.failed.emit(describe_error(error))
            return
        with self._lock:
            # Another image may have been chosen while this was decided.
            if request != self._request:
                return
            self.decision = decision
            self._numbered_by = decision
            followed = decision.classes.parameters
            is_renumbered = followed != parameters and self.parameters == parameters
            if is_renumbered:
                self.parameters = followed
        if is_renumbered:
            self.parameters_changed.emit(followed)
        self.decided.emit(decision)

    @property
    def segmentation(self) -> Segmentation | None:
        """The segmentation with the present parameters; None until an image is open."""
        with self._lock:
            if self._color_count is None:
                return None
            return Segmentation(self._color_count, self.parameters)

    @property
    def has_image(self) -> bool:
        """Whether an image was chosen, which may still be being opened."""
        return self._open_levels is not None

    def cancel(self) -> None:
        """Stop all running work before its next tile."""
        with self._lock:
            if self._counting is not None:
                self._counting.cancel()
        super().cancel()

    def close(self) -> None:
        """Stop all work and the threads; the controller is unusable afterwards."""
        super().close()
        # The image may hold files open, and this controller may be kept for long.
        self.forget()
        self._decider.shutdown(wait=False, cancel_futures=True)
