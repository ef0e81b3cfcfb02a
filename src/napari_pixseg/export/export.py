"""From a segmentation to disk, by the commit protocol.

Everything is written at its final path together with a run record; the
manifest comes last. An output without a manifest is unfinished, and may be
finished by a later run.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from napari_pixseg.errors import NoSpace, ParameterError, PixsegError, status_of
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.export.job import ExportJob
from napari_pixseg.export.lock import only_writer
from napari_pixseg.export.manifest import Manifest, new_id, now
from napari_pixseg.export.manifest_details import decided_details, details_of
from napari_pixseg.export.output_location import PICTURES, OutputLocation
from napari_pixseg.export.preconditions import ExistingOutputPolicy, check_target, refuse_existing
from napari_pixseg.export.raster import write_picture
from napari_pixseg.export.recolor import Painter
from napari_pixseg.export.run_record import load_record
from napari_pixseg.sources.urls import public_uri

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


_FULL = (errno.ENOSPC, errno.EDQUOT)


def export(
    job: ExportJob,
    path: str | os.PathLike[str],
    outputs: tuple[str, ...],
    policy: ExistingOutputPolicy,
    monitor: RunMonitor,
    *,
    blob: bool = False,
) -> Manifest:
    """Write an output and its manifest; see :meth:`Segmentation.export`.

    An exception that leaves here carries the answer in its attribute ``manifest``.
    """
    location = _place(path)
    details = details_of(job.image, job.parameters, outputs)
    manifest = Manifest(200, new_id(), location.uri, details=details)
    is_store = location.suffix not in PICTURES
    try:
        with _clear_os_errors(location):
            check_target(job.image, location, outputs, policy, blob)
            with only_writer(location, is_store) as lock:
                # Another run may have ended between the check and the lock.
                refuse_existing(location, policy)
                if is_store:
                    from napari_pixseg.export.store_transaction import StoreExport

                    return StoreExport(job, location, manifest, monitor, policy, lock).run(outputs)
                return _export_picture(job, location, manifest, monitor, blob)
    except Exception as error:
        answer = replace(manifest, status=status_of(error), link=None, error=str(error))
        error.manifest = answer  # type: ignore[attr-defined]
        raise


def after_failure(
    path: str | os.PathLike[str], policy: ExistingOutputPolicy, failed: Manifest
) -> ExistingOutputPolicy:
    """Return the wish for a second attempt, which finishes what the first has left."""
    record = load_record(_place(path)) or {}
    return ExistingOutputPolicy(resume=True) if record.get("id") == failed.id else policy


def has_skipped(path: str | os.PathLike[str], policy: ExistingOutputPolicy) -> bool:
    """Whether the run that is to be resumed left out chunks; it may never meet them again."""
    return policy.resume and "skipped" in (load_record(_place(path)) or {})


def _place(path: object) -> OutputLocation:
    try:
        target = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        target = ""
    if not isinstance(target, str) or not target.strip():
        raise ParameterError(
            f"{path!r} is no place to write to; give a path or URL, for example out.ome.zarr."
        )
    return OutputLocation(target)


@contextmanager
def _clear_os_errors(location: OutputLocation) -> Iterator[None]:
    """Turn a full or read-only device into one sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PixsegError):
            raise
        if error.errno in _FULL:
            raise NoSpace(
                f"No space is left at {location.uri}; free some, and run again with resume."
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise ParameterError(
                f"{location.name} is too long a name; give a shorter one."
            ) from error
        if (
            error.errno in _UNWRITABLE
            or not location.is_local
            or _is_missing_target(error, location)
        ):
            reason = public_uri(error.strerror or str(error))
            raise NoSpace(
                f"{location.uri} cannot be written: {reason.rstrip('.')}; choose another path, or "
                "see that this one may be written."
            ) from error
        raise


def _is_missing_target(error: OSError, location: OutputLocation) -> bool:
    """Whether a folder of the output can be neither found nor made, as below /proc."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR) or not error.filename:
        return False
    # Names of which one has been resolved and the other still goes up and down.
    missing, local = (
        Path(os.path.abspath(os.fsdecode(name))) for name in (error.filename, location.local)
    )
    # Its lock, and what it is written to first, lie beside it.
    beside = missing.parent == local.parent and missing.name.startswith(f".{local.name}")
    return beside or missing in (local, *local.parents) or local in missing.parents


# A picture ---------------------------------------------------------------------


def _export_picture(
    job: ExportJob, location: OutputLocation, manifest: Manifest, monitor: RunMonitor, blob: bool
) -> Manifest:
    location.sweep()
    classes = job.decide(monitor)
    table, pixels = job.color_count.table(), job.color_count.pixels()
    with location.new_file() as partial, ThreadPoolExecutor(1) as beside:
        # For the details: a picture is compressed by one thread.
        beside.submit(table.hash)
        lookup = classes.lookup(table)
        painter = Painter.of(job.image, classes)
        write_picture(
            partial,
            pixels.class_tiles(lookup),
            pixels.tiling,
            painter,
            location.suffix,
            location.name.lower().endswith((".ome.tif", ".ome.tiff")),
            monitor,
            lambda: pixels.classes(lookup),
        )
        job.color_count.refuse_change()
        # The commit record of an older picture goes at the last moment.
        location.sidecar().remove()
    details = {**manifest.details, **decided_details(job.color_count, classes, job.warnings())}
    manifest = replace(manifest, details={**details, "outputs": ["recolored"], "finished": now()})
    if not blob:
        location.sidecar().write_bytes(manifest.to_json().encode())
    return manifest
