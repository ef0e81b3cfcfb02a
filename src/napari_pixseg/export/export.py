"""Write a segmentation to disk so that an unfinished output never looks finished.

Everything is written at its final path, together with a run record. The manifest comes last. An
output without a manifest is unfinished, and a later run may finish it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_pixseg.errors import (
    CorruptInput,
    NoSpace,
    OutputLost,
    ParameterError,
    PixsegError,
    Unavailable,
    status_of,
)
from napari_pixseg.export.class_count_check import refuse_other_counts
from napari_pixseg.export.export_request import ExportableSegmentation, ExportRequest
from napari_pixseg.export.finished_output import describe_picture, find_finished
from napari_pixseg.export.lock import HeldLock, only_writer
from napari_pixseg.export.manifest import JsonObject, Manifest, attach_manifest, new_id, utc_now
from napari_pixseg.export.manifest_details import decided_details, initial_details
from napari_pixseg.export.output_location import PICTURES, OutputLocation
from napari_pixseg.export.painter import Painter
from napari_pixseg.export.picture_writer import write_picture
from napari_pixseg.export.preconditions import ExistingOutputPolicy, check_target, refuse_existing
from napari_pixseg.export.run_record import load_record
from napari_pixseg.sources.network_faults import (
    describe_fault,
    is_passing,
    is_unconnected,
    out_of_files,
)
from napari_pixseg.sources.urls import public_uri

if TYPE_CHECKING:
    from napari_pixseg.export.store_transaction import StoreTransaction

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries below fsspec whose errors are not the operating system's.
_FILE_SYSTEMS = ("fsspec", "aiohttp", "s3fs", "botocore", "aiobotocore", "gcsfs", "google", "azure")


def export_segmentation(
    segmentation: ExportableSegmentation, path: str | os.PathLike[str], request: ExportRequest
) -> Manifest:
    """Write an output and its manifest; see :meth:`Segmentation.export`.

    With ``on_error="skip"``, the first damaged chunk ends the first attempt. A second
    attempt then finishes what the first one left, with all damaged chunks left out.
    """
    location = _output_location(path)
    was_counted = segmentation.color_count.is_counted
    manifest = _begin_manifest(segmentation, location, request)
    with _answering(location, manifest):
        check_target(segmentation.image, location, request.outputs, request.policy, request.blob)
        if finished := _find_finished(segmentation, location, manifest, request):
            return finished
    if not _resumes_with_skipped_chunks(location, request):
        try:
            return _export_once(segmentation, location, manifest, request)
        except CorruptInput:
            # The user may have seen the colors already, so they must not change without being asked
            # for.
            if request.on_error == "raise" or (was_counted and not request.policy.resume):
                raise
        if (load_record(location) or {}).get("id") == manifest.id:
            request = replace(request, policy=ExistingOutputPolicy(resume=True))
    segmentation = segmentation.without_damaged_chunks(request.monitor)
    manifest = _begin_manifest(segmentation, location, request)
    return _export_once(segmentation, location, manifest, request)


def _begin_manifest(
    segmentation: ExportableSegmentation, location: OutputLocation, request: ExportRequest
) -> Manifest:
    details = initial_details(segmentation.image, segmentation.parameters, request.outputs)
    return Manifest(200, new_id(), location.uri, details=details)


def _output_location(path: object) -> OutputLocation:
    try:
        target = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        target = ""
    if not isinstance(target, str) or not target.strip() or "\0" in target:
        raise ParameterError(
            f"{path!r} is not a place to write to; give a path or URL, for example out.ome.zarr."
        )
    return OutputLocation(target)


def _resumes_with_skipped_chunks(location: OutputLocation, request: ExportRequest) -> bool:
    """Whether the run to resume left out chunks.

    This run may never meet those chunks again, because their tiles may be done.
    """
    if request.on_error != "skip" or not request.policy.resume:
        return False
    return "skipped" in (load_record(location) or {})


def _export_once(
    segmentation: ExportableSegmentation,
    location: OutputLocation,
    manifest: Manifest,
    request: ExportRequest,
) -> Manifest:
    """Write an output under its lock."""
    is_store = location.suffix not in PICTURES
    with _answering(location, manifest):
        # Workers are checked before anything is written.
        segmentation.color_count.check_cluster()
        with only_writer(location, is_store, request.policy.break_lock) as lock:
            # Another run may have ended between the check and the lock.
            refuse_existing(location, request.policy)
            if finished := _find_finished(segmentation, location, manifest, request):
                return finished
            if is_store:
                return _begin_transaction(segmentation, location, manifest, request).run(lock)
            return _export_picture(segmentation, location, manifest, request, lock)


def _begin_transaction(
    segmentation: ExportableSegmentation,
    location: OutputLocation,
    manifest: Manifest,
    request: ExportRequest,
) -> StoreTransaction:
    # Imports zarr, which a picture does not need.
    from napari_pixseg.export.store_transaction import StoreTransaction

    return StoreTransaction(segmentation, location, manifest, request)


def _find_finished(
    segmentation: ExportableSegmentation,
    location: OutputLocation,
    manifest: Manifest,
    request: ExportRequest,
) -> Manifest | None:
    """Return the manifest of an already finished output, if the request allows that."""

    def find_gap(details: JsonObject) -> str | None:
        return _begin_transaction(segmentation, location, manifest, request).find_gap(details)

    return find_finished(segmentation, location, manifest.details, request, find_gap)


@contextmanager
def _answering(location: OutputLocation, manifest: Manifest) -> Iterator[None]:
    """Let an exception that leaves the block carry the failed run's manifest."""
    try:
        with _one_sentence_for_os_errors(location):
            yield
    except Exception as error:
        answer = replace(manifest, status=status_of(error), link=None, error=str(error))
        attach_manifest(error, answer)
        raise


@contextmanager
def _one_sentence_for_os_errors(location: OutputLocation) -> Iterator[None]:
    """Turn errors about the output's location into one sentence."""
    try:
        yield
    except PixsegError:
        raise
    except OSError as error:
        failure = _describe_os_error(error, location)
        if failure is None:
            raise
        raise failure from (error if location.is_local else None)
    except Exception as error:
        if location.is_local or not _is_of_file_system(error):
            raise
        if is_passing(error) or is_unconnected(error):
            raise _unreachable_output(location, error) from None
        # The text of the error may contain a URL with secrets.
        raise NoSpace(
            f"{location.uri} cannot be written ({type(error).__name__}): check the address, the "
            "credentials and the permissions, or choose another path."
        ) from None


def _describe_os_error(error: OSError, location: OutputLocation) -> PixsegError | None:
    """Explain an error as one of the output; return None if it is about something else."""
    if (limit := out_of_files(error)) is not None:
        return limit
    if error.errno in _FULL:
        return NoSpace(f"No space is left at {location.uri}; free some, and run again with resume.")
    if error.errno == errno.EFBIG:
        return NoSpace(
            f"A file of {location.uri} would be larger than this process may write; raise the "
            "limit (ulimit -f), and run again with resume."
        )
    if error.errno == errno.ENAMETOOLONG:
        return ParameterError(f"The name {location.name} is too long; give a shorter one.")
    if not location.is_local and is_passing(error):
        return _unreachable_output(location, error)
    if error.errno in _UNWRITABLE or not location.is_local or _is_of_output(error, location):
        reason = public_uri(error.strerror or str(error))
        return NoSpace(
            f"{location.uri} cannot be written: {reason.rstrip('.')}; choose another path, or "
            "make this one writable."
        )
    return None


def _unreachable_output(location: OutputLocation, error: BaseException) -> Unavailable:
    # The text of the error may quote a URL with its secrets.
    return Unavailable(
        f"{location.uri} cannot be reached ({describe_fault(error)}): check the server and the "
        "connection, and run again with resume (resume=True, --resume)."
    )


def _is_of_output(error: OSError, location: OutputLocation) -> bool:
    """Whether an error names the output, a folder above it, or a file in it or beside it."""
    # The names may contain ".." or links, so all are resolved first.
    local = Path(os.path.realpath(location.local_path))
    for name in (error.filename, error.filename2):
        if not isinstance(name, str | bytes):
            continue
        path = Path(os.path.realpath(os.fsdecode(name)))
        # The lock and the partial file lie beside the output.
        is_beside = path.parent == local.parent and path.name.startswith(f".{local.name}")
        if is_beside or path in (local, *local.parents) or local in path.parents:
            return True
    return False


def _is_of_file_system(error: Exception) -> bool:
    """Whether an error comes from a library that talks to a server, or from a missing feature."""
    library = type(error).__module__.partition(".")[0]
    return library in _FILE_SYSTEMS or isinstance(error, NotImplementedError)


def _export_picture(
    segmentation: ExportableSegmentation,
    location: OutputLocation,
    manifest: Manifest,
    request: ExportRequest,
    lock: HeldLock,
) -> Manifest:
    location.remove_partial_files()
    classes = segmentation.decide(request.monitor)
    color_count = segmentation.color_count
    table = color_count.table()
    pixels = color_count.pixels()
    with location.new_file() as partial, ThreadPoolExecutor(1) as beside:
        # While one thread compresses the picture, another computes the hash for the manifest.
        beside.submit(table.hash)
        lookup = classes.lookup(table)
        counts = write_picture(
            partial,
            pixels.class_tiles(lookup),
            pixels.tiling,
            Painter.for_image(segmentation.image, classes),
            location.suffix,
            location.name.lower().endswith((".ome.tif", ".ome.tiff")),
            request.monitor,
            lambda: pixels.classes(lookup),
        )
        color_count.refuse_change()
        # A change that files do not reveal, for example in memory, shows in the numbers of pixels.
        refuse_other_counts(counts, classes)
        picture = describe_picture(partial)
        lock.refuse_loss(location)
        # An older picture's manifest is removed as late as possible.
        location.sidecar().remove()
    decided = decided_details(color_count, classes, segmentation.warnings)
    finished = {"outputs": ["recolored"], "picture": picture, "finished": utc_now()}
    manifest = replace(manifest, details={**manifest.details, **decided, **finished})
    if not request.blob:
        location.sidecar().write_bytes(manifest.to_json().encode())
    if not location.is_file():
        location.sidecar().remove()
        raise OutputLost(
            f"{location.uri} was moved away or removed while it was written, so it is not "
            "finished; run again."
        )
    return manifest
