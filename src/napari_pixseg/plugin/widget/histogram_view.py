"""One channel of an image, drawn: its histogram, its intervals and the centers of the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, QSize
from qtpy.QtGui import QColor, QPainter, QPainterPath, QPaintEvent, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_pixseg.algorithm.scale_space import ChannelScaleSpace

# How many intervals are listed above a histogram, which shows all of them.
_MOST_INTERVALS = 6


def describe_intervals(scale_space: ChannelScaleSpace) -> str:
    """Describe the intervals of a channel, and the scale at which they were found."""
    if not len(scale_space.intervals):
        return "no structure"
    intervals = scale_space.intervals[:_MOST_INTERVALS]
    texts = [f"{left}-{right}" for left, right in intervals.tolist()]
    scales = [_describe_scale(scale_space.scales[left]) for left in intervals[:, 0]]
    is_one_scale = len(set(scales)) == 1
    if not is_one_scale:
        texts = [text + scale for text, scale in zip(texts, scales, strict=True)]
    listed = ", ".join(texts)
    more = len(scale_space.intervals) - len(texts)
    if more:
        listed += f" and {more} more"
    return listed + scales[0] if is_one_scale else listed


def _describe_scale(scale: float) -> str:
    return "" if np.isnan(scale) else f" (scale {scale:.1f})"


class HistogramView(QWidget):
    """One channel: its histogram, its intervals, and the centers of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self._scale_space: ChannelScaleSpace | None = None
        self._centers: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._colors: NDArray[np.uint8] = np.empty((0, 3), np.uint8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(64)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for a wide and low place."""
        return QSize(280, 64)

    def show_channel(
        self, scale_space: ChannelScaleSpace, centers: NDArray[np.uint8], colors: NDArray[np.uint8]
    ) -> None:
        """Draw another channel.

        Parameters
        ----------
        scale_space : ChannelScaleSpace
        centers : (n,) ndarray of uint8
            Centers of the classes in this channel.
        colors : (n, 3) ndarray of uint8
            Colors of the classes.
        """
        self._scale_space = scale_space
        self._centers = centers
        self._colors = colors
        self.setToolTip(f"Intervals: {describe_intervals(scale_space)}")
        self.update()

    def clear(self) -> None:
        """Draw nothing."""
        self._scale_space = None
        self.setToolTip("")
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802
        """Draw the channel; called by Qt."""
        if self._scale_space is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        try:
            self._draw_channel(painter, self._scale_space)
        finally:
            painter.end()

    def _draw_channel(self, painter: QPainter, scale_space: ChannelScaleSpace) -> None:
        step = self.width() / 256.0
        # The centers are drawn in the space below this height.
        height = self.height() - 10.0
        text = self.palette().color(QPalette.ColorRole.WindowText)
        shade = QColor(text)
        shade.setAlpha(45)
        for left, right in scale_space.intervals.tolist():
            painter.fillRect(QRectF(left * step, 0, (right - left + 1) * step, height), shade)
        counts = scale_space.smoothed[-1]
        # The square root makes small peaks visible beside large ones.
        tops = np.sqrt(counts / max(counts.max(), 1.0)) * (height - 4)
        path = QPainterPath()
        path.moveTo(0, height)
        for value, top in enumerate(tops.tolist()):
            path.lineTo(value * step, height - top)
            path.lineTo((value + 1) * step, height - top)
        path.lineTo(256 * step, height)
        painter.fillPath(path, text)
        for center, color in zip(self._centers.tolist(), self._colors.tolist(), strict=True):
            painter.setPen(QPen(text, 0.5))
            painter.setBrush(QColor(*color))
            left = min(max((center + 0.5) * step - 4, 0.0), self.width() - 8.0)
            painter.drawEllipse(QRectF(left, height + 1, 8, 8))
