"""The names of the channels of each color space, as the histograms show them. Needs no window."""

from __future__ import annotations

from napari_pixseg.parameters import ColorSpace

_GRAY = ("gray", "gray", "gray")
_LUMA_AND_CHROMA = ("Y luma", "Cb blue", "Cr red")

# A test fails if a color space is missing here.
CHANNEL_NAMES = {
    ColorSpace.RGB: ("red (linear)", "green (linear)", "blue (linear)"),
    ColorSpace.GRAY: _GRAY,
    ColorSpace.Transparent: ("red", "green", "blue"),
    ColorSpace.OHTA: ("I1 intensity", "I2 red-blue", "I3 green-magenta"),
    ColorSpace.Lab: ("L lightness", "a green-red", "b blue-yellow"),
    ColorSpace.XYZ: ("X", "Y", "Z"),
    ColorSpace.YCbCr: _LUMA_AND_CHROMA,
    ColorSpace.YCC: ("Y", "C1", "C2"),
    ColorSpace.YIQ: ("Y luma", "I orange-blue", "Q purple-green"),
    ColorSpace.YPbPr: _LUMA_AND_CHROMA,
    ColorSpace.YUV: ("Y luma", "U blue", "V red"),
    ColorSpace.CMYK: ("cyan", "magenta", "yellow"),
    ColorSpace.sRGB: ("red", "green", "blue"),
    ColorSpace.HSB: ("hue", "saturation", "brightness"),
    ColorSpace.HSL: ("hue", "saturation", "lightness"),
    ColorSpace.HWB: ("hue", "whiteness", "blackness"),
    ColorSpace.Rec601Luma: _GRAY,
    ColorSpace.Rec601YCbCr: _LUMA_AND_CHROMA,
    ColorSpace.Rec709Luma: _GRAY,
    ColorSpace.Rec709YCbCr: _LUMA_AND_CHROMA,
    ColorSpace.Log: ("red (log)", "green (log)", "blue (log)"),
    ColorSpace.CMY: ("cyan", "magenta", "yellow"),
}
