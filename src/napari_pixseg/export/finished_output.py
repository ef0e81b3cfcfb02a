"""Recognizes an output that is already finished, whole, and made from the same input.

A run that resumes such an output has nothing to do, so a batch system may submit the same command
again.
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
    """Return the manifest of a finished output that this run would only make again.

    Nothing is written. An input without an identity, such as an array in memory, is counted.

    Parameters
    ----------
    segmentation : ExportableSegmentation
    location : OutputLocation
    details : dict
        Details that are known before the run begins.
    request : ExportRequest
    find_gap : callable
        Says what a store with these details lacks.

    Returns
    -------
    Manifest or None
        None if nothing is finished, if ``resume`` is not set, or if a part of a store is missing
        and must be written again.

    Raises
    ------
    OutputConflict
        If it was made from another input, or the picture is not the one that its manifest
        describes.
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
        # A picture holds this, whatever outputs were requested.
        here = {**here, "outputs": ["recolored"]}
    if request.on_error == "skip" and "skipped" in there:
        # The damaged chunks are known only when all chunks are read; the same files have the same
        # ones.
        here = {**here, "skipped": there["skipped"]}
    refuse_other_run(location, there, here)
    source = segmentation.image.source
    if has_identity(source):
        refuse_other_files(location, there.get("input_files"), source.current_fingerprint())
    else:
        segmentation.color_count.table(request.monitor)
        refuse_other_colors(location, there, segmentation.color_count)


def describe_picture(path: Path) -> JsonObject:
    """Return size and checksum of a picture's file, after all of it is on the disk."""
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
    # A hash would load OpenSSL. This checksum also reveals files cut off by a crash or a full disk.
    size, checksum = 0, 0
    while part := file.read(_PART):
        size += len(part)
        checksum = zlib.crc32(part, checksum)
    return {"bytes": size, "crc32": f"{checksum:08x}"}
