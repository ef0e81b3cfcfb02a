"""Runs a segmentation at an endpoint of the SEGMENT API, in the background."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from psygnal import Signal

from napari_pixseg.endpoint.client import Endpoint
from napari_pixseg.errors import NotAnImage, ParameterError, TooLarge
from napari_pixseg.parameters import Parameters
from napari_pixseg.plugin.background import BackgroundJobs
from napari_pixseg.plugin.layer_types import LayerData, LayerOptions
from napari_pixseg.slices import Samples
from napari_pixseg.sources.image import Image

# The parameters that an endpoint of the SEGMENT API knows.
_REMOTE_PARAMETERS = Parameters.names_where(is_endpoint=True)

# These choose the part of the image that is sent, so they are applied before sending.
_LOCAL_PARAMETERS = ("axes", "channels")

_MOST_VALUES = 50_000_000


@dataclass(frozen=True)
class RemotePicture:
    """A picture that an endpoint has returned.

    Attributes
    ----------
    picture : (y, x) or (y, x, c) ndarray of uint8
    name : str
        Name of the image that was sent.
    placement : dict
        Attributes that put the picture where the image is.
    """

    picture: Samples = field(repr=False)
    name: str
    placement: LayerOptions = field(repr=False)

    def make_layer(self) -> LayerData:
        """Return the picture as the data of a napari layer."""
        options = {"name": f"{self.name} recolored", "rgb": self.picture.ndim == 3}
        return self.picture, {**self.placement, **options}, "image"


class RemoteJob(BackgroundJobs):
    """Sends images to an endpoint, on a thread of its own; signals report the result.

    Attributes
    ----------
    done : Signal of RemotePicture
    """

    done = Signal(RemotePicture)

    def __init__(self) -> None:
        super().__init__(ThreadPoolExecutor(1, "pixseg-remote"))

    def run(
        self,
        endpoint: Endpoint,
        open_image: Callable[[], Image],
        parameters: Parameters,
        name: str,
        placement: LayerOptions,
    ) -> None:
        """Segment an image at an endpoint; ``done`` or ``failed`` tells how it ended.

        Parameters
        ----------
        endpoint : Endpoint
        open_image : callable
            Opens the image to send: one plane of one to three channels.
        parameters : Parameters
        name : str
            Name of the image.
        placement : dict
            Attributes that put the picture where the image is.
        """

        def run(cancel: threading.Event) -> None:
            picture = segment_remotely(endpoint, open_image(), parameters, cancel)
            self.done.emit(RemotePicture(picture, name, placement))

        # Setting the event cuts the connection, which makes the endpoint stop.
        self._submit_run(run)


def segment_remotely(
    endpoint: Endpoint,
    image: Image,
    parameters: Parameters,
    cancel: threading.Event | None = None,
) -> Samples:
    """Send an image to an endpoint and return the recolored picture.

    Parameters
    ----------
    endpoint : Endpoint
    image : Image
        One plane.
    parameters : Parameters
        Only ``ct``, ``cs`` and ``st`` may be set, besides axes and channels.
    cancel : threading.Event, optional
        When set, the job is given up.

    Returns
    -------
    (y, x) or (y, x, c) ndarray of uint8

    Raises
    ------
    ParameterError
        If a parameter is set that endpoints do not know.
    TooLarge, NotAnImage, Cancelled
        Before anything is sent. Also whatever :meth:`Endpoint.segment` raises.
    """
    _refuse_unknown_parameters(parameters)
    pixels = _read_plane(image)
    values = {name: getattr(parameters, name) for name in _REMOTE_PARAMETERS}
    content = endpoint.segment(pixels, **values, blob=True, cancel=cancel)
    picture = _decode_picture(content)
    if picture.shape[:2] != image.shape[-2:]:
        raise NotAnImage(
            f"The endpoint gave back a picture of size {picture.shape[:2]} instead of "
            f"{image.shape[-2:]}; check its address."
        )
    return picture


def _refuse_unknown_parameters(parameters: Parameters) -> None:
    defaults = Parameters().to_dict()
    allowed = (*_REMOTE_PARAMETERS, *_LOCAL_PARAMETERS)
    for name, value in parameters.to_dict().items():
        if name not in allowed and value != defaults[name]:
            raise ParameterError(
                f"An endpoint knows only ct, cs and st, not {name} = {value!r}; "
                "set it back, or run on this machine."
            )


def _read_plane(image: Image) -> Samples:
    planes = math.prod(image.shape[:-2])
    size = math.prod(image.shape)
    if planes > 1:
        raise TooLarge(f"The image has {planes} planes, but an endpoint takes one; slice it first.")
    if size > _MOST_VALUES:
        raise TooLarge(
            f"The image has {size / 1e6:.0f} megapixels, too many to send "
            f"(at most {_MOST_VALUES / 1e6:.0f}); run on this machine."
        )
    whole = image.read(tuple(slice(None) for _ in image.label_axes))
    pixels: Samples = whole.reshape((*image.shape[-2:], image.color_channels))
    if pixels.shape[-1] == 2:
        # Picture files hold one or three colors.
        pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _decode_picture(content: bytes) -> Samples:
    # Pillow is loaded for an answer only, not whenever the widget opens.
    from PIL import Image as PillowImage

    try:
        with PillowImage.open(io.BytesIO(content), formats=["PNG", "JPEG", "TIFF"]) as answer:
            # Flat colors come with a palette, and the pixels are indices into it.
            return np.asarray(answer.convert("RGB") if answer.mode == "P" else answer)
    # Pillow's readers raise anything.
    except Exception:  # noqa: BLE001
        raise NotAnImage(
            "The endpoint gave back something that is not a picture; check its address."
        ) from None
