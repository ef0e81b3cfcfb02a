"""An output that is finished already: made from the same as this run's, and whole.

Asked to resume it, a run has nothing to do. So a scheduler may submit the same line again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from napari_pixseg.errors import OutputConflict
from napari_pixseg.export.export_request import ExportableSegmentation, ExportRequest
from napari_pixseg.export.manifest import JsonObject, Manifest
from napari_pixseg.export.output_location import PICTURES, OutputLocation
from napari_pixseg.export.preconditions import load_finished
from napari_pixseg.export.run_record import refuse_other_run
from napari_pixseg.export.same_input import (
    has_identity,
    refuse_other_colors,
    refuse_other_files,
)

_PART = 1 << 20


def find_finished(
    segmentation: ExportableSegmentation,
    location: OutputLocation,
    details: JsonObject,
    request: ExportRequest,
    find_gap: Callable[[JsonObject], str | None],
) -> Manifest | None:
    """Return the manifest of a finished output that a run would only make again.

    Nothing is written. An input without an identity, as in memory, is counted.

    Parameters
    ----------
    segmentation : ExportableSegmentation
    location : OutputLocation
    details : dict
        What is known of this run before it begins.
    request : ExportRequest
    find_gap : callable
        Returns what a store lacks that has these details.

    Returns
    -------
    Manifest or None
        None where nothing is finished, resuming was not asked for, or a part of a store is missing,
        which is to be written again.

    Raises
    ------
    OutputConflict
        If it was made of something else, or the picture is not the one of its manifest.
    """
    finished = load_finished(location) if request.policy.resume else None
    if finished is None:
        return None
    _refuse_other_origin(segmentation, location, finished.details, details, request)
    if location.suffix in PICTURES:
        _refuse_other_picture(location, finished.details.get("picture"))
    elif find_gap(finished.details) is not None:
        return None
    return finished


def _refuse_other_origin(
    segmentation: ExportableSegmentation,
    location: OutputLocation,
    there: JsonObject,
    here: JsonObject,
    request: ExportRequest,
) -> None:
    if location.suffix in PICTURES:
        # Whatever was asked for, a picture holds this.
        here = {**here, "outputs": ["recolored"]}
    if request.on_error == "skip" and "skipped" in there:
        # Which chunks they are is known when all are read; the same files have the same.
        here = {**here, "skipped": there["skipped"]}
    refuse_other_run(location, there, here)
    source = segmentation.image.source
    if has_identity(source):
        refuse_other_files(location, there.get("input_files"), source.current_fingerprint())
    else:
        segmentation.color_count.table(request.monitor)
        refuse_other_colors(location, there, segmentation.color_count)


def describe_picture(path: Path) -> JsonObject:
    """Return size and checksum of a picture's file, once all of it is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return _measure_file(file)


def _refuse_other_picture(location: OutputLocation, there: object) -> None:
    with location.open() as file:
        if there == _measure_file(file):
            return
    raise OutputConflict(
        f"{location.uri} is finished, but the file is not the one that its manifest describes; "
        "choose another path, or ask to overwrite it (overwrite=True, --overwrite)."
    )


def _measure_file(file: IO[bytes]) -> JsonObject:
    # A hash would load OpenSSL; this shows what a crash or a full disk has cut as well.
    size, checksum = 0, 0
    while part := file.read(_PART):
        size += len(part)
        checksum = zlib.crc32(part, checksum)
    return {"bytes": size, "crc32": f"{checksum:08x}"}
