"""Results: written by the library's own export, with the answer beside them as their record."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.parameters import Parameters
from napari_pixseg.segmentation import open_segmentation
from napari_pixseg.sources.source import Source

_NAME = re.compile(r"[0-9a-f]{32}\.png")


@dataclass(frozen=True)
class Storage:
    """Where results are kept.

    Attributes
    ----------
    location : OutputLocation
        Folder, or URL of one.
    """

    location: OutputLocation

    def prepare(self) -> None:
        """Make the folder; only its owner looks inside, as names are all the protection."""
        if self.location.is_local:
            self.location.local_path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path_of(self, name: str) -> Path | None:
        """Return the file of a finished result; None for anything else."""
        if not _NAME.fullmatch(name) or not self.location.is_local:
            return None
        picture = self.location.local_path / name
        # The record is written last: a picture without it is unfinished.
        finished = picture.with_name(f"{name}.json").is_file() and picture.is_file()
        return picture if finished else None

    def link_of(self, name: str, base: str) -> str:
        """Return the address that the answer gives."""
        if self.location.is_local:
            return f"{base.rstrip('/')}/results/{name}"
        return self.location.child(name).uri

    def keep(
        self, source: Source, parameters: Parameters, answer: Manifest, cancel: threading.Event
    ) -> None:
        """Segment, and keep the picture and its record ``<id>.png.json``.

        Raises
        ------
        ClassError, TooLarge, NotAnImage, Cancelled, NoSpace
            In which case nothing is kept.
        """
        picture = self.location.child(f"{answer.id}.png")
        made = write_picture(picture.target, source, parameters, cancel)
        try:
            record = replace(made, id=answer.id, link=answer.link)
            picture.sidecar().write_bytes(record.to_json().encode())
        except BaseException:
            picture.remove()
            raise


def write_picture(
    path: str, source: Source, parameters: Parameters, cancel: threading.Event
) -> Manifest:
    """Write the recolored picture of a source, and no record."""
    segmentation = open_segmentation(source, parameters)
    return segmentation.export(path, ("recolored",), blob=True, cancel=cancel)
