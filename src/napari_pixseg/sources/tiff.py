"""TIFF files, read lazily through tifffile: OME-TIFF, BigTIFF, ImageJ, whole slides."""

from __future__ import annotations

import math
import os
import weakref
from collections import OrderedDict
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import NotAnImage, PixsegError
from napari_pixseg.sources.lazy_file import FileArray, Key
from napari_pixseg.sources.location import Location
from napari_pixseg.sources.source import Source

_LETTERS = {"X": "x", "Y": "y", "Z": "z", "T": "t", "C": "c", "S": "c"}


_UNITS = {
    "pm": "picometer",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # micro sign
    "μm": "micrometer",  # Greek mu
    "micron": "micrometer",
    "microns": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "Å": "angstrom",
    "in": "inch",
    "inch": "inch",
    "ns": "nanosecond",
    "µs": "microsecond",
    "ms": "millisecond",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
}


_PALETTE, _CMYK, _YCBCR, _LAB = 3, 5, 6, 8


_REFUSED = {_CMYK: "CMYK", _LAB: "CIE L*a*b*"}


_JPEG = (6, 7, 33007, 34892)


# Decoded blocks kept per file: neighboring tiles of the engine meet in a strip or a halo.
_KEPT_BYTES = 64 << 20


def open_tiff(location: Location) -> Source:
    """Open level 0 of the first series of a TIFF file.

    Parameters
    ----------
    location : Location
        Where :func:`~napari_pixseg.sources.open.is_tiff` holds.

    Returns
    -------
    Source
        Color maps are applied, except those of ImageJ and OME, which are for display.
    """
    identity = location.identity()
    try:
        with closing(_open_file(location)) as tiff:
            return _described(location, identity, tiff)
    except PixsegError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        reason = type(error).__name__ if location.remote else f"{error}".rstrip(".")
        raise NotAnImage(
            f"{location.shown} is no TIFF that can be read: {reason}; copy or save it anew."
        ) from None


class TiffArray(FileArray):
    """Level 0 of the first series of a TIFF file.

    `details` are the stored dimensions that are kept, and whether the color map is applied.
    """

    def _open(self) -> tuple[Any, NDArray[Any] | None]:
        _, colored = self._details
        tiff = _open_file(self._location)
        try:
            series = tiff.series[0]
            palette = _palette(series.keyframe) if colored else None
            if _is_mapped(series, self._location):
                view = _memory_map(tiff, series)
                tiff.close()
                return view, palette
            view = _zarr_view(series)
        except BaseException:
            tiff.close()
            raise
        weakref.finalize(self, tiff.close)
        return view, palette

    def _read(self, opened: Any, key: Key) -> NDArray[Any]:
        (view, palette), (kept, _) = opened, self._details
        stored: list[Any] = [0] * len(view.shape)
        for dimension, part in zip(kept, key, strict=False):
            stored[dimension] = part
        pixels = np.array(view[tuple(stored)])
        return pixels if palette is None else palette[pixels][..., key[-1]]


def _open_file(location: Location) -> Any:
    import tifffile

    if not location.remote:
        return tifffile.TiffFile(location.address)
    file = location.open()
    tiff = tifffile.TiffFile(file, name=location.name)
    # tifffile leaves open what it was given open.
    weakref.finalize(tiff, file.close)
    return tiff


def _described(location: Location, identity: dict[str, Any], tiff: Any) -> Source:
    series = tiff.series[0]
    page = series.keyframe
    notes = _planes_that_are_missing(tiff, series, location)
    _refuse_unreadable(page, location)
    kept, letters = _kept_axes(series.axes, series.shape, location)
    colored = page.photometric == _PALETTE and not (tiff.is_imagej or tiff.is_ome)
    shape = tuple(series.shape[i] for i in kept) + ((3,) if colored else ())
    axes = letters + ("c" if colored else "")
    dtype = np.dtype(np.uint8) if colored else np.dtype(series.dtype)
    version = tuple(sorted(identity.items()))
    scale, units = _calibration(tiff, axes)
    return Source(
        TiffArray(location, shape, dtype, version, (kept, colored)),
        axes=None if "?" in axes or len(set(axes)) < len(axes) else axes,
        scale=scale,
        units=units,
        chunks=_chunks(series, kept, colored, location),
        uri=location.uri,
        identity=identity,
        alpha_last=_has_alpha(series),
        kind="tiff",
        name=location.name,
        state=location.state,
        notes=notes,
    )


def _planes_that_are_missing(tiff: Any, series: Any, location: Location) -> tuple[str, ...]:
    """Refuse an OME-TIFF of which a part is in files that cannot be read; tell of other gaps.

    tifffile reads as 0 what it does not find, and says so to its log only.
    """
    if not tiff.is_ome:
        return ()
    missing = sum(page is None for page in series.pages)
    names = sorted(_files_of(tiff.ome_metadata)) if missing or series.is_multifile else []
    others = [name for name in names if name != location.name]
    folder = os.path.dirname(location.address)
    gone = [n for n in others if location.remote or not os.path.exists(os.path.join(folder, n))]
    if len(names) > 1 and gone:
        raise NotAnImage(
            f"{location.shown} is one of {len(names)} files of an image, and {gone[0][:80]} cannot "
            "be read with it; put all of them into one folder of a disk, and open one there."
        )
    if not missing:
        return ()
    return (
        f"{missing} of {len(series.pages)} planes are not in the file, as of an acquisition that "
        "was stopped; they are read as 0.",
    )


def _files_of(xml: str) -> set[str]:
    found = [one.get("FileName") for one in _elements(xml, "UUID")]
    return {name for name in found if name}


def _elements(xml: str, path: str) -> list[Any]:
    """Return the elements at a path of OME's metadata; none if they cannot be read."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    return root.findall(".//" + "/".join(f"{{*}}{name}" for name in path.split("/")))


def _has_alpha(series: Any) -> bool:
    page = series.keyframe
    extra = page.extrasamples
    return "S" in series.axes and page.samplesperpixel in (2, 4) and extra[-1:] in ((1,), (2,))


def _refuse_unreadable(page: Any, location: Location) -> None:
    stored = _REFUSED.get(int(page.photometric))
    if page.photometric == _YCBCR and page.compression not in _JPEG:
        stored = "YCbCr"
    if stored:
        raise NotAnImage(f"{location.shown} stores {stored} colors: convert it to RGB first.")
    try:
        page.decode(None, 0)
    except Exception as error:
        remedy = (
            "install the package imagecodecs"
            if "imagecodecs" in str(error)
            else "save it with another compression"
        )
        raise NotAnImage(
            f"{location.shown} is stored in a way that cannot be decoded here "
            f"({_codec_name(page)}): {remedy}."
        ) from error


def _codec_name(page: Any) -> str:
    return str(getattr(page.compression, "name", page.compression))


def _kept_axes(axes: str, shape: tuple[int, ...], location: Location) -> tuple[Key, str]:
    """Return the stored dimensions to keep, and a letter for each; "?" where none is known."""
    kept = [
        i
        for i, (letter, length) in enumerate(zip(axes, shape, strict=True))
        if length > 1 or letter in "YXZTCS"
    ]
    channels = [i for i in kept if axes[i] in "CS"]
    long = [i for i in channels if shape[i] > 1]
    if len(long) > 1:
        raise NotAnImage(
            f"{location.shown} has two channel axes, of {shape[long[0]]} and {shape[long[1]]}: "
            "save it with one, or give one of its channels as an array."
        )
    spare = set(channels) - set(long or channels[:1])
    kept = [i for i in kept if i not in spare]
    return tuple(kept), "".join(_LETTERS.get(axes[i], "?") for i in kept)


def _palette(page: Any) -> NDArray[Any]:
    colors = np.asarray(page.colormap)
    # Some writers put bytes where the format wants 16 bits.
    return (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8).T


def _is_mapped(series: Any, location: Location) -> bool:
    """Whether all pixels lie one after the other in a file; of one that is cut off some do not."""
    if location.remote or series.dataoffset is None or series.is_multifile:
        return False
    size: int = series.keyframe.parent.filehandle.size
    return bool(series.dataoffset + series.nbytes <= size)


def _memory_map(tiff: Any, series: Any) -> Any:
    dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    path = tiff.filehandle.path
    return np.memmap(path, dtype, "r", series.dataoffset, tuple(series.shape))


def _zarr_view(series: Any) -> Any:
    import zarr

    store = series.aszarr(level=0)
    block = math.prod(series.keyframe.chunks) * np.dtype(series.dtype).itemsize
    kept = max(1, _KEPT_BYTES // block)
    return zarr.open_array(_keeping(store, kept), mode="r", zarr_format=2)


def _keeping(store: Any, blocks: int) -> Any:
    """Wrap a store so that it keeps its last decoded blocks."""
    import asyncio

    from zarr.storage import WrapperStore

    class KeptBlocks(WrapperStore[Any]):
        """Runs in zarr's one event loop, so nothing needs a lock."""

        def __init__(self, store: Any) -> None:
            super().__init__(store)
            self.kept: OrderedDict[str, asyncio.Future[Any]] = OrderedDict()

        @property
        def read_only(self) -> bool:
            # tifffile's own can be written where the TIFF is uncompressed and its file writable,
            # as uploads and those in memory are; zarr then does not open it for reading.
            return True

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            if byte_range is not None or ".z" in key:
                return await self._store.get(key, prototype, byte_range)
            found = self.kept.get(key)
            if found is None or (found.done() and (found.cancelled() or found.exception())):
                # Two readers of one block wait for one decoding.
                found = asyncio.ensure_future(self._store.get(key, prototype))
                self.kept[key] = found
            self.kept.move_to_end(key)
            while len(self.kept) > blocks:
                self.kept.popitem(last=False)
            return await asyncio.shield(found)

    return KeptBlocks(store)


def _chunks(series: Any, kept: Key, colored: bool, location: Location) -> tuple[int, ...] | None:
    if _is_mapped(series, location):
        return None
    page = series.keyframe
    block = (1,) * (len(series.shape) - len(page.chunks)) + tuple(page.chunks)
    return tuple(block[i] for i in kept) + ((3,) if colored else ())


def _calibration(tiff: Any, axes: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return pixel sizes and their units per axis, where the file gives them."""
    if tiff.is_ome:
        sizes = _ome_sizes(tiff.ome_metadata)
    elif tiff.is_imagej:
        sizes = _imagej_sizes(tiff)
    elif tiff.is_svs:
        sizes = _slide_sizes(tiff)
    else:
        sizes = {}
    known = {
        axis: (size, _UNITS.get(unit))
        for axis, (size, unit) in sizes.items()
        if axis in axes and math.isfinite(size) and size > 0
    }
    scale = {axis: size for axis, (size, _) in known.items()}
    return scale, {axis: unit for axis, (_, unit) in known.items() if unit}


def _ome_sizes(xml: str) -> dict[str, tuple[float, str]]:
    found = _elements(xml, "Image/Pixels")
    if not found:
        return {}
    pixels = found[0]
    names = {axis: (f"PhysicalSize{axis.upper()}", "µm") for axis in "xyz"}
    names["t"] = ("TimeIncrement", "s")
    return {
        axis: (_number(pixels.get(name)), pixels.get(f"{name}Unit", usual))
        for axis, (name, usual) in names.items()
    }


def _imagej_sizes(tiff: Any) -> dict[str, tuple[float, str]]:
    said = tiff.imagej_metadata or {}
    unit = str(said.get("unit", "")).replace("\\u00B5", "µ")
    sizes = {"t": (_number(said.get("finterval")), str(said.get("tunit", "s")))}
    if unit in _UNITS:
        sizes["z"] = (_number(said.get("spacing")), unit)
        for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
            pixels, length = tiff.series[0].keyframe.tags.valueof(tag, (0, 1))
            sizes[axis] = (length / pixels if pixels else math.nan, unit)
    return sizes


def _slide_sizes(tiff: Any) -> dict[str, tuple[float, str]]:
    from tifffile.tifffile import svs_description_metadata

    try:
        size = _number(svs_description_metadata(tiff.pages[0].description).get("MPP"))
    except ValueError:
        return {}
    return {"x": (size, "µm"), "y": (size, "µm")}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
