"""Estimates the cost of a run: pixels, seconds, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_pixseg.execution.memory_estimate import peak_memory
from napari_pixseg.execution.tiling import Tiling
from napari_pixseg.sources.image import Image


@dataclass(frozen=True)
class Cost:
    """The expected cost of a run.

    Attributes
    ----------
    pixels : int
        Pixels of the image. A pixel with three channels counts once.
    bytes : int
        Size of the samples in memory.
    seconds : float
        Rough time of a run that writes classes and picture.
    memory : int
        Peak memory of the process in bytes, without regions.
    workers : int
        Number of threads that these figures assume (threads, not worker processes).
    """

    pixels: int
    bytes: int
    seconds: float
    memory: int
    workers: int


# Measured on 2 shared cores with zarr's own codecs; see benchmarks.
_PIXELS_PER_SECOND_AND_WORKER = 8e6


def estimate(image: Image, tiling: Tiling, workers: int) -> Cost:
    """Estimate time and memory of a run, from rates measured once."""
    pixels = math.prod(tiling.shape)
    sample = image.dtype.itemsize * image.color_channels
    # More workers than tiles do not help.
    busy = min(workers, len(tiling))
    seconds = pixels / (_PIXELS_PER_SECOND_AND_WORKER * busy)
    memory = peak_memory(image, tiling.tile_pixels, busy)
    return Cost(pixels, pixels * sample, seconds, memory, workers)
