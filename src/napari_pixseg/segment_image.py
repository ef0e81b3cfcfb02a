"""``segment()``: the entry point of the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_pixseg.parameters import Background, ColorSpace, Parameters, Semantics, Window
from napari_pixseg.segmentation import Segmentation, open_segmentation
from napari_pixseg.sources.read_options import ReadOptions


# Arguments are written out for editors and type checkers; a test compares them with Parameters.
def segment(
    source: object,
    ct: float = Parameters.ct,
    cs: int | str | ColorSpace = Parameters.cs,
    st: float = Parameters.st,
    *,
    semantics: Semantics = Parameters.semantics,
    denoise: int = Parameters.denoise,
    window: Window | Sequence[Any] = Parameters.window,
    axes: str | None = Parameters.axes,
    channels: int | Sequence[int] | None = Parameters.channels,
    connectivity: int = Parameters.connectivity,
    background: Background | int | Sequence[int] = Parameters.background,
    min_size: int = Parameters.min_size,
    retries: int = ReadOptions.retries,
    allow_missing: bool = ReadOptions.allow_missing,
    series: int | str | None = ReadOptions.series,
) -> Segmentation:
    """Segment an image of any size by its colors.

    The source and the parameters are checked at once. No pixel is read before a
    result is asked for.

    Parameters
    ----------
    source : array, path or URL
        NumPy or Dask array, zarr array or group, other array-likes; a path or
        URL of a zarr store, OME-Zarr, TIFF, PNG, JPEG or another picture.
    ct : float
        Cluster threshold: a class is valid if at least ``ct`` % of the counted
        pixels lie in its box.
    cs : int or str
        Color space in which the histograms are taken, by number or name.
    st : float
        Smoothing threshold: how much structure of the histograms is ignored.
    semantics : {"documented", "imagemagick6"}
        The documented meaning of the parameters, or ImageMagick 6 bug for bug.
    denoise : int
        Radius in pixels of a median filter over y and x.
    window : {"dtype", "minmax"}, (low, high), sequence of these pairs, or None
        What is mapped to 0..255 where samples are not uint8. With numbers,
        samples outside (infinite ones too) are clipped.
    axes : str, optional
        One letter of ``t c z y x`` for each dimension.
    channels : int or sequence of int, optional
        One to three members of axis c.
    connectivity, background, min_size
        How regions are made of classes; the page of the parameters says more.
    retries : int
        How often a read that a network or a server spoils is tried again, with growing
        pauses. After that the run ends as unreachable, and can be resumed.
    allow_missing : bool
        Whether to take a zarr of which no chunk exists as an image of its fill value.
    series : int or str, optional
        Number, name or path of one of the images in a file or store; by default the largest
        of a TIFF, and else the first.

    Returns
    -------
    Segmentation

    Raises
    ------
    ParameterError
        If a parameter is out of range or does not fit the image.
    InputNotFound, NotAnImage, TooLarge, Unavailable
        If the source cannot be opened.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    >>> segment(picture, ct=0, cs="sRGB", st=20).classes.shape
    (64, 64)
    """
    parameters = Parameters(
        ct=ct,
        cs=cs,  # type: ignore[arg-type]
        st=st,
        semantics=semantics,
        denoise=denoise,
        window=window,  # type: ignore[arg-type]
        axes=axes,
        channels=channels,  # type: ignore[arg-type]
        connectivity=connectivity,
        background=background,  # type: ignore[arg-type]
        min_size=min_size,
    )
    return open_segmentation(source, parameters, ReadOptions(retries, allow_missing, series))
