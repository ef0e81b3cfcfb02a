"""The fields that choose where to run: on this machine, or at an endpoint of the SEGMENT API."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import ComboBox, Container, LineEdit, Password

from napari_pixseg.endpoint.client import Endpoint

THIS_MACHINE = "this machine"
ENDPOINT = "an endpoint"


class RemoteFields(Container[Any]):
    """Where to run; the address and key of an endpoint appear when one is chosen.

    The key is kept only in its field, never in settings, manifests or logs.
    """

    def __init__(self) -> None:
        self.where = ComboBox(
            name="where",
            label="run on",
            choices=[THIS_MACHINE, ENDPOINT],
            value=THIS_MACHINE,
            tooltip="This machine, or a server with the SEGMENT API, to which the image is sent.",
        )
        self.url = LineEdit(
            name="endpoint",
            label="endpoint",
            tooltip="Address of the server, such as http://127.0.0.1:8000.",
        )
        self.key = Password(
            name="key",
            label="key",
            tooltip="The key that the server asks for; it is not stored. Leave it empty if the "
            "server asks for none.",
        )
        super().__init__(widgets=[self.where, self.url, self.key], name="remote")
        self.where.changed.connect(self._show_endpoint_fields)
        self._show_endpoint_fields()

    def _show_endpoint_fields(self) -> None:
        for widget in (self.url, self.key):
            widget.visible = self.is_remote

    @property
    def is_remote(self) -> bool:
        """Whether an endpoint is chosen."""
        return bool(self.where.value == ENDPOINT)

    def endpoint(self) -> Endpoint:
        """Return the endpoint chosen by the fields.

        Raises
        ------
        ParameterError
            If the address is invalid.
        """
        return Endpoint(str(self.url.value).strip(), str(self.key.value).strip() or None)
