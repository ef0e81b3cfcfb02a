"""An image as the body of a form: read from a file, or encoded from an array."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.errors import InputNotFound, NotAnImage


def read_upload(img: object) -> tuple[str, bytes]:
    """Return a file name for an image, and the content of the file.

    Parameters
    ----------
    img : path, bytes or array

    Raises
    ------
    InputNotFound, NotAnImage
    """
    if isinstance(img, bytes):
        return "image", img
    if isinstance(img, str | os.PathLike):
        try:
            with open(img, "rb") as file:
                return "image", file.read()
        except IsADirectoryError:
            raise NotAnImage(
                f"{os.fspath(img)!r} is a folder, but an endpoint takes one picture file: export a "
                "PNG or TIFF and send that, or segment it here, without an endpoint."
            ) from None
        except OSError as error:
            reason = error.strerror or "it is not a file"
            raise InputNotFound(f"{os.fspath(img)!r} cannot be read: {reason}.") from None
    return _encode_array(np.asarray(img))


def _encode_array(pixels: NDArray[np.generic]) -> tuple[str, bytes]:
    """Return pixels as a PNG if they are bytes, else as a TIFF, which keeps any type."""
    colored = pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
    if pixels.dtype.kind not in "buif" or 0 in pixels.shape or not (pixels.ndim == 2 or colored):
        raise NotAnImage(
            f"An array of shape {pixels.shape} and type {pixels.dtype} cannot be sent; give "
            "numbers of shape (y, x), or (y, x, c) with 3 or 4 channels."
        )
    file = io.BytesIO()
    if pixels.dtype == np.uint8:
        # Pillow and tifffile load here, because most images are files or URLs.
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        return "image.png", file.getvalue()
    import tifffile

    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    alpha = ["unassalpha"] if pixels.shape[2:] == (4,) else None
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb" if colored else "minisblack",
        metadata=None,
        compression="adobe_deflate",
        extrasamples=alpha,
    )
    return "image.tif", file.getvalue()


def build_form(fields: Mapping[str, object], name: str, content: bytes) -> tuple[bytes, str]:
    """Return the body of a multipart/form-data request, and its content type.

    Parameters
    ----------
    fields : mapping of str to object
        Sent as text, before the file.
    name, content : str, bytes
        Of the file.
    """
    boundary = uuid.uuid4().hex
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
