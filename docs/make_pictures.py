"""Draw the documentation's pictures of what each parameter does, and of a scale space.

Run it from the repository's root:

    python docs/make_pictures.py [folder]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.data import astronaut, coffee, immunohistochemistry

from napari_pixseg import ColorSpace, Segmentation, segment
from napari_pixseg.algorithm.scale_space import SCALES
from napari_pixseg.plugin.widget.channel_names import CHANNEL_NAMES

TISSUE = immunohistochemistry()
CUP = coffee()
PORTRAIT = astronaut()


def main() -> None:
    """Write all pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (cluster_threshold, smoothing, color_space, denoise, regions, scale_space):
        figure = draw()
        path = folder / f"parameter-{draw.__name__.replace('_', '-')}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        sys.stdout.write(f"{path}\n")


def cluster_threshold() -> Figure:
    """The same picture with rising ct."""
    values = (0.05, 1.0, 5.0, 10.0)
    return _row(CUP, [(f"ct = {ct:g} %", segment(CUP, ct=ct)) for ct in values])


def smoothing() -> Figure:
    """The same picture with rising st."""
    values = (0.2, 1.5, 5.0, 40.0)
    return _row(PORTRAIT, [(f"st = {st:g}", segment(PORTRAIT, st=st)) for st in values])


def color_space() -> Figure:
    """The same picture in some spaces."""
    names = ("YUV", "Lab", "HSL", "OHTA", "sRGB", "GRAY")
    shown = [(f"{ColorSpace[name].value} {name}", segment(TISSUE, cs=name)) for name in names]
    return _row(TISSUE, shown)


def denoise() -> Figure:
    """The same picture with rising radius."""
    rng = np.random.default_rng(0)
    noisy = np.clip(CUP + rng.normal(0, 20, CUP.shape), 0, 255).astype(np.uint8)
    shown = [(f"denoise = {r}", segment(noisy, denoise=r)) for r in (0, 1, 3, 8)]
    return _row(noisy, shown, first="with noise")


def regions() -> Figure:
    """Regions of one segmentation under different rules."""
    seg = segment(CUP, ct=2, denoise=1)
    rules: list[tuple[str, dict[str, Any]]] = [
        ("all regions", {}),
        ("background = 'largest'", {"background": "largest"}),
        ("... and connectivity = 2", {"background": "largest", "connectivity": 2}),
        ("... and min_size = 50", {"background": "largest", "connectivity": 2, "min_size": 50}),
    ]
    figure, axes = plt.subplots(1, len(rules) + 1, figsize=(11, 2.1), layout="constrained")
    _show(axes[0], seg.recolored.compute(), "classes")
    for place, (title, changes) in zip(axes[1:], rules, strict=True):
        labels = seg.update(**changes).regions.compute()
        _show(place, _random_colors(labels), f"{title}\n{int(labels.max()):,} regions")
    return figure


def scale_space() -> Figure:
    """A channel's histogram at all scales, and the intervals that follow from it."""
    seg = segment(TISSUE, cs="YUV", st=1.5)
    found = seg.decision.scale_spaces[2]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9, 6), height_ratios=(2, 3), sharex=True, layout="constrained"
    )
    used = np.flatnonzero(found.smoothed[-1])
    low, high = int(used[0]) - 8, int(used[-1]) + 8
    above.margins(y=0.15)
    above.bar(np.arange(256), found.smoothed[-1], 1.0, color="0.75", label="histogram")
    above.plot(found.smoothed[0], color="C0", label=f"smoothed, scale {SCALES[0]:.1f}")
    for left, right in found.intervals.tolist():
        above.axvspan(left - 0.5, right + 0.5, color="C1", alpha=0.25)
    above.set(ylabel="pixels", xlim=(low, high))
    name = CHANNEL_NAMES[ColorSpace.YUV][2]
    above.set_title(f"Channel {name} of a stained tissue section: intervals shaded")
    above.legend()
    _draw_marks(below, found.marks)
    below.set(xlabel="value of the channel, 0 to 255", ylabel="scale, in bins")
    return figure


def _draw_marks(axes: Axes, marks: NDArray[np.int8]) -> None:
    rows = range(len(SCALES))
    for sign, color, name in ((-1, "C3", "concave"), (1, "C0", "convex")):
        row, value = np.nonzero(marks == sign)
        axes.scatter(value, row, 10, color=color, marker="|", linewidths=1.5, label=name)
    axes.set_yticks(list(rows), ["raw" if scale == 0 else f"{scale:.1f}" for scale in SCALES])
    axes.set_ylim(-0.6, len(SCALES) + 1.4)
    axes.legend(title="consolidated marks", loc="upper right", ncols=2)


def _row(
    picture: NDArray[np.uint8], shown: Sequence[tuple[str, Segmentation]], first: str = "original"
) -> Figure:
    columns = len(shown) + 1
    height = 11 / columns * picture.shape[0] / picture.shape[1] + 0.55
    figure, axes = plt.subplots(1, columns, figsize=(11, height), layout="constrained")
    _show(axes[0], picture, first)
    for place, (title, seg) in zip(axes[1:], shown, strict=True):
        count = len(seg.table)
        plural = "" if count == 1 else "es"
        _show(place, seg.recolored.compute(), f"{title}\n{count} class{plural}")
    return figure


def _show(axes: Axes, picture: NDArray[Any], title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _random_colors(labels: NDArray[Any]) -> NDArray[np.uint8]:
    colors = np.random.default_rng(3).integers(60, 256, (int(labels.max()) + 1, 3))
    colors[0] = 0
    return colors.astype(np.uint8)[labels]


if __name__ == "__main__":
    main()
