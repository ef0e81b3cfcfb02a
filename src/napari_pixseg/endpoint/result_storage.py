"""Results on disk or in an object store: a picture each, with its manifest beside it."""

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

_RESULT_NAME = re.compile(r"[0-9a-f]{32}\.png")


@dataclass(frozen=True)
class ResultStorage:
    """Where results are kept.

    Attributes
    ----------
    location : OutputLocation
        Folder, or URL of one.
    """

    location: OutputLocation

    def make_folder(self) -> None:
        """Make the folder, readable by its owner only: names are all that protects results."""
        if self.location.is_local:
            self.location.local_path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path_of(self, name: str) -> Path | None:
        """Return the file of a finished result; None for anything else."""
        if not _RESULT_NAME.fullmatch(name) or not self.location.is_local:
            return None
        picture = self.location.local_path / name
        # The manifest is written last, so a picture without one is unfinished.
        finished = picture.with_name(f"{name}.json").is_file() and picture.is_file()
        return picture if finished else None

    def link_of(self, name: str, base: str) -> str:
        """Return the address that the answer gives.

        Parameters
        ----------
        name : str
            File name of the result.
        base : str
            URL at which the client reaches this server.
        """
        if self.location.is_local:
            return f"{base.rstrip('/')}/results/{name}"
        return self.location.child(name).uri

    def store_result(
        self, source: Source, parameters: Parameters, answer: Manifest, cancel: threading.Event
    ) -> None:
        """Segment an image; keep the picture and its manifest ``<id>.png.json``.

        Raises
        ------
        ClassError, TooLarge, NotAnImage, Cancelled, NoSpace
            In these cases nothing is kept.
        """
        picture = self.location.child(f"{answer.id}.png")
        made = write_recolored(picture.target, source, parameters, cancel)
        try:
            # The export gave its own id; clients know the result by the request's.
            manifest = replace(made, id=answer.id, link=answer.link)
            picture.sidecar().write_bytes(manifest.to_json().encode())
        except BaseException:
            picture.remove()
            raise


def write_recolored(
    path: str, source: Source, parameters: Parameters, cancel: threading.Event
) -> Manifest:
    """Segment an image and write the recolored picture, without a manifest."""
    segmentation = open_segmentation(source, parameters)
    return segmentation.export(path, ("recolored",), blob=True, cancel=cancel)
