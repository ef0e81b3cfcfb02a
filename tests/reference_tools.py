"""The original programs, callable from tests, and the golden files made with them.

ImageMagick 6 is driven through its own library, the only way to name all 22 colour
spaces and to pass thresholds as doubles. It lives in a child process (this file, run as
a script), because the library ends the whole process on fatal errors and changes its
locale. GraphicsMagick is driven through its command line.

`cs` is the number of the colour space (1..22), `ct` the cluster threshold and `st` the
smoothing threshold, both as the tool gets them.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pickle
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "GoldenCase",
    "ReferenceResult",
    "ReferenceToolError",
    "TooManyClusters",
    "golden_case",
    "golden_cases",
    "graphicsmagick_available",
    "graphicsmagick_segment",
    "imagemagick_available",
    "imagemagick_segment",
    "imagemagick_version",
]

GOLDEN_DIR = Path(__file__).parent / "golden"

Kind = Literal["imagemagick", "graphicsmagick"]
Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# By soname: find_library needs a compiler or ldconfig's cache and wants a dev link.
# Q16 without HDRI only; .so.7 is the same 6.x line as packaged by later releases.
_SONAMES = (
    "libMagickWand-6.Q16.so.6",
    "libMagickWand-6.Q16.so.7",
    "libMagickWand-6.Q16.so.3",
)
# From the headers colorspace.h and constitute.h (pixel.h) of ImageMagick 6.
_GRAY_COLORSPACE = 2
_STORAGE = {np.dtype(np.uint8): 1, np.dtype(np.uint16): 7}
_SHORT_PIXEL = 7


class TooManyClusters(Exception):
    """The tool refused the case: it found more than 256 classes."""


class ReferenceToolError(RuntimeError):
    """The tool failed, crashed or is missing; says nothing about the algorithm."""


@dataclass(frozen=True)
class ReferenceResult:
    """What a tool made of an image.

    Attributes
    ----------
    labels
        (H, W) intp; index of the pixel's 16-bit output colour in `palette`.
    palette
        (k, 3) uint16; the distinct output colours, sorted by R, then G, then B.
    palette8
        (k, 3) uint8; `palette` in 8 bits. Rows may repeat: they are not made distinct.
    """

    labels: npt.NDArray[np.intp]
    palette: npt.NDArray[np.uint16]
    palette8: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GoldenCase:
    """One golden file with its input image; optional fields are None where not stored.

    Attributes
    ----------
    id
        File name without its ending; serves as the id of a parametrized test.
    kind
        The tool that made it.
    name, image
        Input: its name, and (H, W), (H, W, 3) or (H, W, 4) uint8 or uint16 samples.
    cs, ct, st
        Parameters as a user gives them. For GraphicsMagick `st` is the value for the
        `documented` semantics, normalised to 2**20 pixels.
    tool_st
        The smoothing threshold that the tool was given (differs for GraphicsMagick).
    error
        True if the tool refused the case; the arrays mean nothing then.
    labels, palette, palette8
        As in `ReferenceResult`, dtype of `labels` uint8. No `palette` for GraphicsMagick.
    classes
        (H, W) uint8; the tool's own class numbers, from 0. ImageMagick, not for grey.
    centres
        (n, 3) uint8; class centres in colour space `cs`. ImageMagick, not for grey.
    """

    id: str
    kind: Kind
    name: str
    image: Image
    cs: int
    ct: float
    st: float
    tool_st: float
    error: bool
    labels: npt.NDArray[np.uint8]
    palette8: npt.NDArray[np.uint8]
    palette: npt.NDArray[np.uint16] | None = None
    classes: npt.NDArray[np.uint8] | None = None
    centres: npt.NDArray[np.uint8] | None = None


def golden_case(path: str | Path) -> GoldenCase:
    """Load one golden file and its input image.

    Parameters
    ----------
    path
        The file, or its name (with or without ``.npz``) inside `GOLDEN_DIR`. The inputs
        are read from the archive of images in the same folder.
    """
    path = GOLDEN_DIR / path
    if path.suffix != ".npz":  # Path.with_suffix would eat the ".5" of "st1.5"
        path = path.with_name(path.name + ".npz")
    kind: Kind = "graphicsmagick" if path.name.startswith("gm_") else "imagemagick"
    images = "gm_images.npz" if kind == "graphicsmagick" else "images.npz"
    with np.load(path) as stored, np.load(path.with_name(images)) as inputs:
        name, st = str(stored["name"]), float(stored["st"])
        return GoldenCase(
            id=path.name.removesuffix(".npz"),
            kind=kind,
            name=name,
            image=inputs[name],
            cs=int(stored["cs"]),
            ct=float(stored["ct"]),
            st=st,
            tool_st=float(stored["st_absolute"]) if "st_absolute" in stored else st,
            error=bool(stored["error"]) if "error" in stored else False,
            labels=stored["labels"],
            palette8=stored["palette8"],
            **{
                field: stored[field]
                for field in ("palette", "classes", "centres")
                if field in stored
            },
        )


def golden_cases(kind: Kind) -> list[GoldenCase]:
    """All golden cases of one tool, in the order of their file names."""
    pattern = "gm_[0-9]*.npz" if kind == "graphicsmagick" else "[0-9]*.npz"
    return [golden_case(path) for path in sorted(GOLDEN_DIR.glob(pattern))]


@cache
def imagemagick_version() -> str | None:
    """Version line of the ImageMagick 6 Q16 library, None if it cannot be used."""
    try:
        return str(_CHILD.ask("version"))
    except ReferenceToolError:
        return None


def imagemagick_available() -> bool:
    """Whether `imagemagick_segment` can work here.

    The specification is of 6.9.11-60; `imagemagick_version` tells which one is there.
    """
    return imagemagick_version() is not None


def imagemagick_segment(image: Image, cs: int, ct: float, st: float) -> ReferenceResult:
    """Segment with the library's own SegmentImage.

    Parameters
    ----------
    image
        (H, W), given to the library as a grey file; (H, W, 3) RGB; or (H, W, 4) RGBA;
        uint8 or uint16, sRGB.
    cs
        Colour space, 1..22.
    ct, st
        Cluster and smoothing threshold, passed on as they are.

    Notes
    -----
    Time grows with pixels times classes squared: a megapixel with 150 classes takes
    minutes. Keep test images small.

    Raises
    ------
    TooManyClusters
        More than 256 classes.
    ReferenceToolError
        Anything else: no library, limits of its policy.xml (a side above 16,000 pixels
        aborts inside the library), a crash in it.
    """
    _check_image(image, channels=(3, 4))
    if not 1 <= cs <= 22:  # the library takes any other number for sRGB, silently
        raise ValueError(f"cs must be 1..22, not {cs}")
    samples = np.ascontiguousarray(image)
    return _result(_CHILD.ask("segment", samples, int(cs), float(ct), float(st)))


def graphicsmagick_available() -> bool:
    """Whether the ``gm`` program is on the path."""
    return shutil.which("gm") is not None


def graphicsmagick_segment(image: Image, ct: float, st: float) -> ReferenceResult:
    """Segment with ``gm convert -segment`` in sRGB.

    Parameters
    ----------
    image
        (H, W, 3) RGB, uint8 or uint16.
    ct
        Cluster threshold in percent of the counted pixels.
    st
        Smoothing threshold, absolute: ``documented`` semantics say 2**20 / (H W) times
        this number for the same thing.

    Raises
    ------
    TooManyClusters
        More than 256 classes.
    ReferenceToolError
        Anything else that makes the program fail, or no program.
    """
    _check_image(image, channels=(3,), grey=False)
    # Positional, because "1e-05" is no valid part of a geometry.
    numbers = [np.format_float_positional(value, trim="-") for value in (ct, st)]
    command = ["gm", "convert", "ppm:-", "-segment", "x".join(numbers), "-depth", "16"]
    try:
        done = subprocess.run(
            [*command, "ppm:-"], input=_pnm(image), capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise ReferenceToolError("gm is not installed") from error
    message = done.stderr.decode(errors="replace").strip()
    _raise_for(message)
    if done.returncode or message:
        raise ReferenceToolError(message or f"gm ended with status {done.returncode}")
    return _result(_read_ppm16(done.stdout, image.shape[:2]))


def _check_image(image: Image, *, channels: tuple[int, ...], grey: bool = True) -> None:
    """Refuse what the tools would silently read as something else."""
    shape_fits = (grey and image.ndim == 2) or (image.ndim == 3 and image.shape[2] in channels)
    if image.dtype not in _STORAGE or not shape_fits or image.size == 0:
        raise ValueError(f"cannot hand over {image.dtype} of shape {image.shape}")


def _result(pixels: npt.NDArray[np.uint16]) -> ReferenceResult:
    """Partition (H, W, 3) output samples by colour."""
    wide = pixels.astype(np.int64)
    # One integer per colour sorts like the triple, and much faster than unique(axis=0).
    keys, inverse = np.unique(
        wide[..., 0] << 32 | wide[..., 1] << 16 | wide[..., 2], return_inverse=True
    )
    palette = np.stack([keys >> 32, keys >> 16 & 0xFFFF, keys & 0xFFFF], axis=1)
    rounded = palette + 128
    return ReferenceResult(
        labels=inverse.reshape(pixels.shape[:2]),
        palette=palette.astype(np.uint16),
        palette8=((rounded - (rounded >> 8)) >> 8).astype(np.uint8),
    )


def _pnm(image: Image) -> bytes:
    """The image as a binary PGM (2-D) or PPM file; 16 bits are big-endian there."""
    magic, (height, width) = ("P5" if image.ndim == 2 else "P6"), image.shape[:2]
    maximum = np.iinfo(image.dtype).max
    header = f"{magic}\n{width} {height}\n{maximum}\n".encode()
    return header + image.astype(image.dtype.newbyteorder(">")).tobytes()


def _read_ppm16(blob: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """Samples of a 16-bit PPM of known shape; the header is what comes before them."""
    size = shape[0] * shape[1] * 3 * 2
    header, samples = blob[:-size], blob[-size:]
    if header.split() != f"P6 {shape[1]} {shape[0]} 65535".encode().split():
        raise ReferenceToolError(f"unexpected PPM header {header[:60]!r}")
    return np.frombuffer(samples, ">u2").astype(np.uint16).reshape(*shape, 3)


def _raise_for(message: str) -> None:
    # "too many cluster" from the tools' message catalogues, the bare tag "TooManyClusters"
    # where a catalogue is not installed.
    if "toomanycluster" in message.lower().replace(" ", ""):
        raise TooManyClusters(message)


class _Child:
    """A child process with the library in it, started at need and after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # one conversation at a time over the two pipes
        atexit.register(self.close)

    def ask(self, *request: Any) -> Any:
        """Send a request of `_serve` and return the answer, or raise its error."""
        with self._lock:
            process = self._running()
            assert process.stdin
            assert process.stdout
            try:
                pickle.dump(request, process.stdin)
                process.stdin.flush()
                failed, answer = pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                status = self._end()
                raise ReferenceToolError(f"child died, status {status}") from error
        if failed:
            _raise_for(answer)
            raise ReferenceToolError(answer)
        return answer

    def close(self) -> None:
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith("MAGICK_")  # a user's own limits and policies
            }
            environment["OMP_NUM_THREADS"] = "1"  # the tests' workers use the cores
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        return self._process

    def _end(self) -> int | None:
        """Let the child end by closing its input; returns its status."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin
        assert process.stdout
        with suppress(OSError):  # unsent bytes of a request to a dead child
            process.stdin.close()
        process.stdout.close()
        return process.wait()


_CHILD = _Child()


# What follows runs in the child only.


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer ``(failed, value or message)`` to each request until the input ends."""
    wand: _MagickWand | None = None
    while True:
        try:
            what, *arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            wand = wand or _MagickWand()
            answer = False, getattr(wand, what)(*arguments)
        except (OSError, ReferenceToolError) as error:
            answer = True, str(error)
        pickle.dump(answer, answers)
        answers.flush()


class _MagickWand:
    """The few functions of libMagickWand that are needed."""

    def __init__(self) -> None:
        self._library = _load_library()
        self._library.MagickWandGenesis()

    def version(self) -> str:
        text: bytes = self._library.MagickGetVersion(ctypes.byref(ctypes.c_size_t()))
        return text.decode()

    def segment(self, image: Image, cs: int, ct: float, st: float) -> npt.NDArray[np.uint16]:
        """Output samples (H, W, 3) of the segmented image."""
        wand = self._library.NewMagickWand()
        try:
            self._put(wand, image)
            done = self._library.MagickSegmentImage(wand, cs, 0, ct, st)
            self._check(wand, done)
            return self._get(wand, image.shape[:2])
        finally:
            self._library.DestroyMagickWand(wand)

    def _put(self, wand: int, image: Image) -> None:
        if image.ndim == 3:
            height, width, channels = image.shape
            arguments = width, height, b"RGBA"[:channels], _STORAGE[image.dtype]
            done = self._library.MagickConstituteImage(wand, *arguments, image.ctypes.data)
            self._check(wand, done)
            return
        # Only a grey *file* gets the tag GRAY by itself, as a user's image does.
        blob = _pnm(image)
        self._check(wand, self._library.MagickReadImageBlob(wand, blob, len(blob)))
        if self._library.MagickGetImageColorspace(wand) != _GRAY_COLORSPACE:
            raise ReferenceToolError("the PGM did not arrive as a grey image")

    def _get(self, wand: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
        height, width = shape
        pixels = np.empty((height, width, 3), np.uint16)
        done = self._library.MagickExportImagePixels(
            wand, 0, 0, width, height, b"RGB", _SHORT_PIXEL, pixels.ctypes.data
        )
        self._check(wand, done)
        return pixels

    def _check(self, wand: int, done: int) -> None:
        if done:
            return
        severity = ctypes.c_int()
        text = self._library.MagickGetException(wand, ctypes.byref(severity))
        message = ctypes.cast(text, ctypes.c_char_p).value or b"no message"
        self._library.MagickRelinquishMemory(text)
        raise ReferenceToolError(message.decode(errors="replace"))


def _load_library() -> ctypes.CDLL:
    """The first of the known libraries, with the types of the functions used."""
    errors = []
    for soname in _SONAMES:
        try:
            library = ctypes.CDLL(soname)
            break
        except OSError as error:
            errors.append(str(error))
    else:
        raise OSError("; ".join(errors))
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    index, real, text = ctypes.c_ssize_t, ctypes.c_double, ctypes.c_char_p
    for name, result, arguments in (
        ("MagickWandGenesis", None, []),
        ("MagickGetVersion", text, [pointer]),
        ("NewMagickWand", pointer, []),
        ("DestroyMagickWand", pointer, [pointer]),
        ("MagickConstituteImage", integer, [pointer, size, size, text, integer, pointer]),
        ("MagickReadImageBlob", integer, [pointer, text, size]),
        ("MagickGetImageColorspace", integer, [pointer]),
        ("MagickSegmentImage", integer, [pointer, integer, integer, real, real]),
        (
            "MagickExportImagePixels",
            integer,
            [pointer, index, index, size, size, text, integer, pointer],
        ),
        ("MagickGetException", pointer, [pointer, pointer]),
        ("MagickRelinquishMemory", pointer, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
