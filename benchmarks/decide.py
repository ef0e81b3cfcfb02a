"""How long it takes to decide on the classes: ``python -m benchmarks.decide [--full]``.

The color tables have 10^5, 10^6 and 10^7 colors. When ``ct`` and ``st`` change, the colors are
already converted to the color space. When ``cs`` changes, they must be converted first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks import measure
from napari_pixseg.algorithm.classes import decide
from napari_pixseg.algorithm.color_table import COLORS, ColorTable
from napari_pixseg.parameters import ColorSpace, Parameters

REPEATS = 7


def table_of(colors: int) -> ColorTable:
    """Make a table with a number of colors, most of them near a few centers as in a photograph."""
    rng = np.random.default_rng(colors)
    y, x, z = np.mgrid[0:256, 0:256, 0:256].reshape(3, -1).astype(np.float32)
    weight = np.zeros(COLORS, np.float32)
    for center in rng.uniform(20, 235, (8, 3)):
        distance = (y - center[0]) ** 2 + (x - center[1]) ** 2 + (z - center[2]) ** 2
        weight += np.exp(-distance / (2 * 18.0**2))
    packed = np.sort(np.argpartition(-weight, colors - 1)[:colors]).astype(np.uint32)
    counts = (1 + 1000 * weight[packed]).astype(np.int64)
    return ColorTable(packed, counts)


def median_ms(work: Callable[[int], object]) -> float:
    """Time several runs and return the median, in milliseconds."""
    times = []
    for repeat in range(REPEATS):
        start = time.perf_counter()
        work(repeat)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure_table(colors: int) -> dict[str, float]:
    """Measure the decision on a table with a number of colors."""
    table = table_of(colors)
    classes = decide(table, Parameters())
    spaces = [space for space in ColorSpace if space not in (ColorSpace.YUV, ColorSpace.GRAY)]
    return {
        "colors": colors,
        "classes": len(classes),
        "st and ct, ms": median_ms(lambda i: decide(table, Parameters(st=1.5 + i, ct=1 + i / 10))),
        "cs, ms": median_ms(lambda i: decide(table, Parameters(cs=spaces[3 * i % 20], ct=0.1))),
        "look-up table, ms": median_ms(lambda _: classes.lookup(table)),
    }


def main() -> None:
    """Measure all tables; the one of 10^7 colors only with --full."""
    options = measure.parse_options(__doc__)
    decide(table_of(1000), Parameters())
    powers = (5, 6, 7) if options.full else (5, 6)
    rows = [{**measure_table(10**power), "load": measure.machine_load()} for power in powers]
    measure.print_report("decide", rows, options.json)


if __name__ == "__main__":
    main()
