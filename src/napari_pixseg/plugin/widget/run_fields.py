"""The fields of a run: the place of its output, and which outputs to write."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, Container, LineEdit


class RunFields(Container[Any]):
    """The place of a run's output, and which outputs to write."""

    def __init__(self) -> None:
        self.path = LineEdit(
            name="path",
            label="write to",
            tooltip="A path or URL: .ome.zarr for everything, .png .tif .jpg for the picture. "
            "Empty: in memory, for images that fit.",
        )
        self.classes = CheckBox(name="classes", text="classes", value=True)
        self.regions = CheckBox(name="regions", text="regions", value=True)
        self.picture = CheckBox(name="picture", text="picture", value=True)
        self.overwrite = CheckBox(name="overwrite", text="replace an existing output", value=False)
        self.resume = CheckBox(
            name="resume",
            text="continue an unfinished output",
            value=False,
            tooltip="Keeps everything that a cancelled, failed or killed run has written.",
        )
        self.blob = CheckBox(
            name="blob",
            text="picture file alone (blob)",
            value=False,
            tooltip="Write just the picture file: no store, no JSON.",
        )
        self.scheduler = LineEdit(
            name="scheduler",
            label="Dask scheduler",
            tooltip="Address such as tcp://host:8786; empty means this machine.",
        )
        outputs = Container(
            layout="horizontal",
            widgets=[self.classes, self.regions, self.picture],
            labels=False,
            label="outputs",
        )
        outputs.margins = (0, 0, 0, 0)
        super().__init__(
            widgets=[self.path, outputs, self.resume, self.overwrite, self.blob, self.scheduler],
            name="run",
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the checked outputs."""
        named = {"classes": self.classes, "regions": self.regions, "recolored": self.picture}
        return tuple(name for name, box in named.items() if box.value)
