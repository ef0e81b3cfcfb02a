"""Counts the colors of an image in the background: a rough answer first, the exact one last."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.algorithm.kernels.dispatch import kernel_choice
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.classification.counting import count_colors
from napari_pixseg.classification.encoding import Encoding
from napari_pixseg.classification.parameter_checks import check_parameters
from napari_pixseg.classification.pixels import Pixels
from napari_pixseg.execution.progress import Progress, RunMonitor
from napari_pixseg.execution.tiling import plan_tiles
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.decision import CountedColors
from napari_pixseg.plugin.layers.overview import Overview
from napari_pixseg.plugin.layers.strided_image import empty_overview
from napari_pixseg.sources.image import Image

# The rough answer comes from a level of at most this many pixels.
_MOST_ROUGH_PIXELS = 1_000_000

# An image of at most this many tiles is counted so fast that it needs no rough answer.
_FEW_TILES = 4

# A rough answer comes from this many tiles if there is no coarse level.
_ROUGH_TILES = 4

# Before counting begins, single pixels are read for the overview for this long.
_SAMPLING_SECONDS = 2.0

# Given parameters, opens the levels of the chosen image, fine to coarse.
OpenLevels: TypeAlias = Callable[[Parameters], Sequence[Image]]


class Counting:
    """One count of the colors of an image, under one set of parameters.

    Parameters
    ----------
    open_levels : callable
        Given parameters, returns the levels of the image, fine to coarse.
    parameters : Parameters
    on_progress : callable
        Called with a :class:`Progress` after every tile.
    """

    def __init__(
        self,
        open_levels: OpenLevels,
        parameters: Parameters,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._open_levels = open_levels
        self._parameters = parameters
        self._on_progress = on_progress
        self._cancel = threading.Event()

    def cancel(self) -> None:
        """Stop before the next tile."""
        self._cancel.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether counting has stopped or is about to."""
        return self._cancel.is_set()

    def open(self) -> OpenCount:
        """Open the image.

        Raises
        ------
        Cancelled
        PixsegError
            If the image cannot be opened, or the parameters do not fit it.
        """
        monitor = RunMonitor(self._on_progress, self._cancel)
        monitor.check()
        # Compiled code is loaded here, on a worker thread, and not while the user moves a slider.
        kernel_choice.expect_repetition()
        levels = self._open_levels(self._parameters)
        check_parameters(levels[0], self._parameters)
        color_count = ColorCount(levels[0], plan_tiles(levels[0]), self._parameters)
        return OpenCount(levels, self._parameters, color_count, monitor)


@dataclass(frozen=True)
class OpenCount:
    """A count whose image is open.

    Attributes
    ----------
    levels : sequence of Image
        Fine to coarse.
    parameters : Parameters
    color_count : ColorCount
        The count of the finest level, which :meth:`run` completes.
    monitor : RunMonitor
    """

    levels: Sequence[Image]
    parameters: Parameters
    color_count: ColorCount
    monitor: RunMonitor

    def run(self) -> Iterator[CountedColors]:
        """Count; a provisional result comes first, unless the final one comes soon.

        Raises
        ------
        Cancelled, PixsegError
        """
        color_count = self.color_count
        overview = empty_overview(self.levels)
        rough = self._count_roughly()
        if rough is not None:
            table, encoding = rough
            yield CountedColors(table, encoding, color_count.image, overview, provisional=True)
        # A huge image takes long to count; without samples its picture would stay black.
        if overview is not None:
            _sample_overview(overview, color_count.pixels(self.monitor), self.monitor)
        table = color_count.table(self.monitor, None if overview is None else overview.add)
        yield CountedColors(table, color_count.pixels().encoding, color_count.image, overview)

    def _count_roughly(self) -> tuple[ColorTable, Encoding] | None:
        """Count a coarse level or some tiles; None if the whole image is counted at once."""
        color_count = self.color_count
        if len(color_count.tiling) <= _FEW_TILES:
            return None
        # The progress of the rough count is hidden, because it would look like that of the exact
        # one.
        monitor = RunMonitor(None, self.monitor.cancel)
        small = [level for level in self.levels[1:] if math.prod(level.shape) <= _MOST_ROUGH_PIXELS]
        if small:
            # A coarser stored level has about the same proportions of colors as the finest.
            coarse = ColorCount(small[0], plan_tiles(small[0]), self.parameters)
            return coarse.table(monitor), coarse.pixels().encoding
        # A few tiles suffice only for bytes: the window of other types depends on all tiles.
        if color_count.image.dtype.kind != "u" or color_count.image.dtype.itemsize > 1:
            return None
        pixels = color_count.pixels()
        tiles = pixels.color_tiles().only(_spread_tiles(len(color_count.tiling)))
        return count_colors(tiles, pixels.encoding.space, monitor), pixels.encoding


def _spread_tiles(total: int) -> list[int]:
    """Return the numbers of a few tiles that are spread over the image."""
    half_step = total // (2 * _ROUGH_TILES)
    return sorted({total * step // _ROUGH_TILES + half_step for step in range(_ROUGH_TILES)})


def _sample_overview(overview: Overview, pixels: Pixels, monitor: RunMonitor) -> None:
    """Read single pixels for a short time, so that there is a picture at once."""
    end = time.monotonic() + _SAMPLING_SECONDS
    for _ in overview.sample_pixels(pixels.read):
        monitor.check()
        if time.monotonic() > end:
            return
