"""An image and its color table, counted at most once."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field, replace

import numpy as np

from napari_pixseg.algorithm.classes import refuse_foreign
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.input_changed_errors import input_changed
from napari_pixseg.classification.intensity_window import resolve_window
from napari_pixseg.classification.parameter_checks import check_parameters, converts_first
from napari_pixseg.classification.pixels import Observer, Pixels, reads_directly
from napari_pixseg.errors import RecountNeeded
from napari_pixseg.execution.dask_cluster import check_workers, union_over_workers
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.tile_source import TileSource
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.parameters import ColorSpace, Interval, Parameters
from napari_pixseg.sources.image import Image
from napari_pixseg.sources.source import ChunkCensus


@dataclass(eq=False, repr=False)
class ColorCount:
    """An image and its color table, counted at most once and shared by all updates."""

    image: Image
    tiling: Tiling
    parameters: Parameters
    _pixels: Pixels | None = field(default=None, init=False)
    _table: ColorTable | None = field(default=None, init=False)
    _fingerprint: str | None = field(default=None, init=False)
    _census: ChunkCensus | None = field(default=None, init=False, repr=False)
    _is_input_noted: bool = field(default=False, init=False, repr=False)
    _absence: tuple[str, ...] = field(default=(), init=False)
    _checked: set[str] = field(default_factory=set, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def pixels(self, monitor: RunMonitor | None = None) -> Pixels:
        """Return the pixels. The intensity window is measured on first use."""
        with self._lock:
            if self._pixels is None:
                self._is_input_noted = False
                self._fingerprint = None
                self._pixels = self._pixels_with(self._measure_encoding(monitor))
            return self._pixels

    def table(
        self, monitor: RunMonitor | None = None, observer: Observer | None = None
    ) -> ColorTable:
        """Return the color table. The colors are counted on first use.

        The observer (see :meth:`Pixels.count`) gets the tiles only if they are counted now.
        """
        with self._lock:
            if self._table is None:
                try:
                    # The window is measured first, because it determines how samples become colors.
                    pixels = self.pixels(monitor)
                    self._note_input()
                    table = pixels.count(monitor, observer)
                    self._end_census()
                    self._table = table
                except BaseException:
                    # The input may have been repaired before the next attempt.
                    self._pixels = None
                    raise
            return self._table

    def restore(
        self,
        table: ColorTable,
        window: tuple[Interval, ...] | None,
        absence: tuple[str, ...] = (),
    ) -> None:
        """Take a table and the intensity window used for it, unless there is a table already.

        Parameters
        ----------
        table : ColorTable
        window : tuple of pairs, optional
        absence : tuple of str
            What the count said of missing chunks; taken where only a count can tell.
        """
        with self._lock:
            if self._table is None:
                space = self._encoding_space()
                self._pixels = self._pixels_with(self._encoding_in(space, window))
                self._table = table
                self._fingerprint = self._begin_census()
                needs_reads = self._census is not None and self._census.needs_reads
                self._end_census()
                if needs_reads:
                    self._absence = absence

    @property
    def input_fingerprint(self) -> str | None:
        """Fingerprint of the input's files, taken before the count; None if unknown."""
        return self._fingerprint

    def refuse_change(self) -> None:
        """Refuse an input if its files were written to since the count of its colors began.

        Raises
        ------
        InputChanged
        """
        if self._fingerprint != self.image.source.current_fingerprint():
            raise input_changed()

    def check_cluster(self) -> None:
        """Refuse an active cluster whose workers cannot read this image; once for a client.

        Raises
        ------
        ClusterUnfit, ClusterLost, NotAnImage
        """
        check_workers(self.image.source, self._checked)

    def _note_input(self) -> None:
        """Take the fingerprint of the files before they are read for the window or the count.

        This is not done for a mere read of pixels, so that a preview of some tiles need not wait.
        It is done only once, so that a change between the pass for the window and the count is
        noticed.
        """
        self.check_cluster()
        if not self._is_input_noted:
            self._fingerprint = self._begin_census()
            self._is_input_noted = True

    def _begin_census(self) -> str | None:
        """Return the fingerprint of the files, and count chunks in the same walk."""
        fingerprint = self.image.source.fingerprint
        self._census = census = self.image.source.chunk_census()
        if census is not None:
            census.begin(is_told=fingerprint is not None)
        if census is None or fingerprint is None:
            return self.image.source.current_fingerprint()
        return fingerprint(census.see)

    def _end_census(self) -> None:
        if self._census is not None:
            unfound = union_over_workers(self._census.missing_here)
            self._absence = self._census.end(unfound, self.image.allows_absence)
            self._census = None

    @property
    def absence(self) -> tuple[str, ...]:
        """Sentences about chunks of the input that did not exist when the colors were counted."""
        return self._absence

    def with_image(self, image: Image) -> ColorCount:
        """Return a count of the same pixels under another scale or position; nothing is read.

        Parameters
        ----------
        image : Image
            Has the pixels of this count's image.
        """
        # The lock waits for a count that is being made.
        with self._lock:
            placed = copy.copy(self)
            placed.image = image
            if self._pixels is not None:
                placed._pixels = replace(self._pixels, image=image)
            return placed

    @property
    def is_counted(self) -> bool:
        """Whether the table is there already."""
        return self._table is not None

    def _pixels_with(self, encoding: Encoding) -> Pixels:
        return Pixels(self.image, self.tiling, encoding, self.parameters.denoise)

    def _measure_encoding(self, monitor: RunMonitor | None) -> Encoding:
        if converts_first(self.image, self.parameters):
            return self._encoding_in(self.parameters.cs)
        window = self.parameters.window
        return Encoding(resolve_window(self.image, window, self._sample_tiles, monitor))

    def _encoding_in(
        self, space: ColorSpace | None, window: tuple[Interval, ...] | None = None
    ) -> Encoding:
        if space is None:
            return Encoding(window)
        return Encoding(window, space, self.image.highest_sample or 0)

    def _sample_tiles(self) -> TileSource:
        self._note_input()
        if reads_directly(self.image, self.tiling):
            return TileSource.from_slices(self.image.read, self.tiling)
        return TileSource.from_array(self.image.blocks(self.tiling.chunks), self.tiling)

    def refuse_recount(self, parameters: Parameters) -> None:
        """Raise an error if other parameters need another table."""
        check_parameters(self.image, parameters)
        space = self._encoding_space()
        if space is not None:
            empty = ColorTable(np.empty(0, np.uint32), np.empty(0, np.int64), space)
            refuse_foreign(empty, parameters)
        elif converts_first(self.image, parameters):
            raise RecountNeeded(
                "16-bit samples enter imagemagick6 whole, but these colors were counted as bytes: "
                "a recount is needed; call segment() again with the new parameters."
            )

    def _encoding_space(self) -> ColorSpace | None:
        return self.parameters.cs if converts_first(self.image, self.parameters) else None
