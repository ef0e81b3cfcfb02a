"""Where a job runs: on this machine, or at an endpoint of the SEGMENT API."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, LineEdit, Password
from numpy.typing import NDArray
from psygnal import Signal

from napari_pixseg.endpoint.client import Endpoint
from napari_pixseg.errors import Cancelled, NotAnImage, ParameterError, PixsegError, TooLarge
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import Image

HERE, THERE = "this machine", "an endpoint"


# What an endpoint of the SEGMENT API knows.
_KNOWN = Parameters.names_where(is_endpoint=True)


_LARGEST = 50_000_000


class RemoteFields(Container[Any]):
    """The choice where a job runs; address and key are shown for an endpoint only.

    The key is in its field and nowhere else: in no settings, no manifest, no log.
    """

    def __init__(self) -> None:
        self.where = ComboBox(
            name="where", label="run on", choices=[HERE, THERE], value=HERE,
            tooltip="This machine, or a server of the SEGMENT API: the image is sent there.",
        )  # fmt: skip
        self.url = LineEdit(
            name="endpoint", label="endpoint",
            tooltip="Address of the server, such as http://127.0.0.1:8000.",
        )  # fmt: skip
        self.key = Password(
            name="key", label="key",
            tooltip="What that server asks for; it is not kept. Empty: none.",
        )  # fmt: skip
        super().__init__(widgets=[self.where, self.url, self.key], name="remote")
        self.where.changed.connect(self._show)
        self._show()

    def _show(self) -> None:
        for widget in (self.url, self.key):
            widget.visible = self.is_remote

    @property
    def is_remote(self) -> bool:
        """Whether an endpoint is chosen."""
        return bool(self.where.value == THERE)

    def endpoint(self) -> Endpoint:
        """Return the endpoint that the fields name.

        Raises
        ------
        ParameterError
            If the address is none.
        """
        return Endpoint(str(self.url.value).strip(), str(self.key.value).strip() or None)


@dataclass(frozen=True)
class Sent:
    """A picture that an endpoint gave back.

    Attributes
    ----------
    picture : (y, x) or (y, x, c) ndarray of uint8
    name : str
        Of the image that was sent.
    placement : dict
        What puts the picture in the image's place.
    """

    picture: NDArray[Any] = field(repr=False)
    name: str
    placement: dict[str, Any] = field(repr=False)

    def layer(self) -> tuple[NDArray[Any], dict[str, Any], str]:
        """Return the picture as the data of a napari layer."""
        options = {"name": f"{self.name} recolored", "rgb": self.picture.ndim == 3}
        return self.picture, {**self.placement, **options}, "image"


class RemoteJob:
    """Sends an image to an endpoint, on a thread of its own; signals tell how it ended.

    Signals are emitted from that thread; a view brings them to its own.
    """

    done = Signal(Sent)
    failed = Signal(str)
    busy = Signal(bool)
    running = Signal(bool)
    stopped = Signal(str)

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "pixseg-remote")
        self._cancel = threading.Event()

    def run(
        self,
        endpoint: Endpoint,
        open_image: Callable[[], Image],
        parameters: Parameters,
        name: str,
        placement: dict[str, Any],
    ) -> None:
        """Run a job there; ``done`` or ``failed`` tells how it ended.

        Parameters
        ----------
        endpoint : Endpoint
        open_image : callable
            Opens what is sent, one plane of one to three channels.
        parameters : Parameters
        name : str
            Of the image.
        placement : dict
            What puts the picture in the image's place.
        """
        cancel = self._cancel = threading.Event()

        def work() -> None:
            self.busy.emit(True)
            try:
                picture = sent(endpoint, open_image(), parameters, cancel)
                self.done.emit(Sent(picture, name, placement))
            except Cancelled as error:
                self.stopped.emit(str(error))
            except PixsegError as error:
                self.failed.emit(str(error))
            except Exception as error:  # noqa: BLE001
                kind = type(error).__name__
                self.failed.emit(f"Something unforeseen went wrong ({kind}: {error}).")
            finally:
                self.busy.emit(False)
                self.running.emit(False)

        self.running.emit(True)
        self._executor.submit(work)

    def cancel(self) -> None:
        """Cut the connection, by which the endpoint knows to stop."""
        self._cancel.set()

    def close(self) -> None:
        """Stop what is running, and take no more jobs."""
        self.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)


def sent(
    endpoint: Endpoint,
    image: Image,
    parameters: Parameters,
    cancel: threading.Event | None = None,
) -> NDArray[Any]:
    """Send an image; return the recolored picture.

    Parameters
    ----------
    endpoint : Endpoint
    image : Image
        One plane.
    parameters : Parameters
        With ``ct``, ``cs`` and ``st`` only.
    cancel : threading.Event, optional
        When set, the job is given up.

    Returns
    -------
    (y, x) or (y, x, c) ndarray of uint8

    Raises
    ------
    ParameterError
        If a parameter is set that no endpoint knows.
    TooLarge, NotAnImage, Cancelled
        Before anything is sent; besides them, what :meth:`Endpoint.segment` raises.
    """
    from PIL import Image as PillowImage

    _refuse_unknown(parameters)
    pixels = _pixels(image)
    values = {name: getattr(parameters, name) for name in _KNOWN}
    content = endpoint.segment(pixels, **values, blob=True, cancel=cancel)
    try:
        with PillowImage.open(io.BytesIO(content), formats=["PNG", "JPEG", "TIFF"]) as answer:
            # Flat colors come as a palette, of which the pixels are indices.
            picture = np.asarray(answer.convert("RGB") if answer.mode == "P" else answer)
    except Exception:  # noqa: BLE001 - Pillow's readers raise anything
        raise NotAnImage("The endpoint gave back no picture; check its address.") from None
    if picture.shape[:2] != image.shape[-2:]:
        raise NotAnImage(f"The endpoint gave back a picture of another size, {picture.shape[:2]}.")
    return picture


def _refuse_unknown(parameters: Parameters) -> None:
    usual = Parameters().to_dict()
    # These say what of the image is sent, and so are heeded here.
    ours = (*_KNOWN, "axes", "channels")
    for name, value in parameters.to_dict().items():
        if name not in ours and value != usual[name]:
            raise ParameterError(
                f"An endpoint knows ct, cs and st only, not {name} = {value!r}; "
                "set it back, or run on this machine."
            )


def _pixels(image: Image) -> NDArray[Any]:
    planes, size = int(np.prod(image.shape[:-2])), int(np.prod(image.shape))
    if planes > 1:
        raise TooLarge(f"The image has {planes} planes, but an endpoint takes one; slice it first.")
    if size > _LARGEST:
        raise TooLarge(
            f"The image has {size / 1e6:.0f} megapixels, too many to send; run on this machine."
        )
    whole: NDArray[Any] = image.read(tuple(slice(None) for _ in image.label_axes))
    pixels: NDArray[Any] = whole.reshape((*image.shape[-2:], image.color_channels))
    if pixels.shape[-1] == 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
