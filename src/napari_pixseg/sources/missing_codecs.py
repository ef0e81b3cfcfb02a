"""Names the package to install if a codec is missing; such an input is not damaged."""

from __future__ import annotations

import re

# Beginning of a codec's name -> how to install it. The first match counts.
_PACKAGE_OF_CODEC = (
    ("imagecodecs", "imagecodecs, and call imagecodecs.numcodecs.register_codecs()"),
    ("numcodecs.pcodec", "numcodecs[pcodec]"),
    ("numcodecs.zfpy", "numcodecs[zfpy]"),
    ("numcodecs.crc32c", "numcodecs[crc32c]"),
    ("numcodecs", "a newer numcodecs"),
    ("pcodec", "numcodecs[pcodec]"),
    ("zfpy", "numcodecs[zfpy]"),
    ("msgpack2", "numcodecs[msgpack]"),
    ("crc32c", "numcodecs[crc32c]"),
    ("blosc2", "blosc2"),
    ("bitinformation", "xbitinfo"),
    ("grib", "gribscan"),
    ("jpegls", "imagecodecs, and call imagecodecs.numcodecs.register_codecs()"),
    ("jpeg", "imagecodecs, and call imagecodecs.numcodecs.register_codecs()"),
    ("FITSAscii", "kerchunk"),
    ("fill_hdf_strings", "kerchunk"),
    ("virtual_tiff", "virtual-tiff"),
    ("gdal", "virtual-tiff"),
)


_UNKNOWN_CODEC = re.compile(r"(?:codec not available|unknown codec): *['\"]*([\w.+-]+)", re.I)


def describe_missing_codec(error: BaseException) -> str | None:
    """Return the end of a sentence about a codec that is not installed; None for other errors.

    Parameters
    ----------
    error : Exception
        Raised by numcodecs or zarr when metadata name a codec, or when the codec is to decode.

    Returns
    -------
    str or None
        Such as "needs the codec 'pcodec', which is not installed: install numcodecs[pcodec]."
    """
    if isinstance(error, ImportError):
        name = error.name or ""
        said = " ".join(f"{error}".split()).rstrip(".")
        remedy = f"install the package {name}" if name else f"install it ({said})"
        return f"needs a package to decode it that is not installed: {remedy}."
    found = _UNKNOWN_CODEC.search(f"{error}")
    if found is None:
        return None
    codec = found[1]
    packages = (package for start, package in _PACKAGE_OF_CODEC if codec.startswith(start))
    package = next(packages, None)
    remedy = f"install {package}" if package else "install the package that brings this codec"
    return f"needs the codec {codec!r}, which is not installed: {remedy}."
