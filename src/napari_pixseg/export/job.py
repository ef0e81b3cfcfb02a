"""From a segmentation to disk, by the commit protocol.

Everything is written at its final path together with a run record; the
manifest comes last. An output without a manifest is unfinished, and may be
finished by a later run.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from napari_pixseg.engine.classify import Counted
from napari_pixseg.engine.image import Image
from napari_pixseg.engine.location import public_uri
from napari_pixseg.engine.run import Watch
from napari_pixseg.errors import (
    ClassError,
    NoSpace,
    OutputConflict,
    ParameterError,
    PixsegError,
    status_of,
)
from napari_pixseg.export.checks import Wish, check_target, contents, refuse_existing
from napari_pixseg.export.colors import restore_colors, save_colors
from napari_pixseg.export.details import counted_details, decided_details, details_of
from napari_pixseg.export.lock import Lock, only_writer
from napari_pixseg.export.manifest import Manifest, new_id, now
from napari_pixseg.export.painter import Painter
from napari_pixseg.export.picture import PICTURES, write_picture
from napari_pixseg.export.place import COLORS_NAME, MANIFEST_NAME, RECORD_NAME, Place
from napari_pixseg.export.record import (
    RunRecord,
    load_record,
    refuse_living_run,
    refuse_other_run,
)
from napari_pixseg.export.store import StoreWriter
from napari_pixseg.model.classes import Classes
from napari_pixseg.parameters import Parameters

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """What is exported.

    Attributes
    ----------
    counted : Counted
    parameters : Parameters
    decide : callable
        Gives the classes; counts the colors first if need be.
    warnings : callable
        Gives what a user should know, once the classes are decided.
    """

    counted: Counted
    parameters: Parameters
    decide: Callable[[Watch], Classes]
    warnings: Callable[[], tuple[str, ...]]

    @property
    def image(self) -> Image:
        """The image that is segmented."""
        return self.counted.image


def export(
    job: Job,
    path: str | os.PathLike[str],
    outputs: tuple[str, ...],
    wish: Wish,
    watch: Watch,
    *,
    blob: bool = False,
) -> Manifest:
    """Write an output and its manifest; see :meth:`Segmentation.export`.

    An exception that leaves here carries the answer in its attribute ``manifest``.
    """
    place = _place(path)
    details = details_of(job.image, job.parameters, outputs)
    manifest = Manifest(200, new_id(), place.uri, details=details)
    is_store = place.suffix not in PICTURES
    try:
        with _clear_os_errors(place):
            check_target(job.image, place, outputs, wish, blob)
            with only_writer(place, is_store) as lock:
                # Another run may have ended between the check and the lock.
                refuse_existing(place, wish)
                if is_store:
                    return _Export(job, place, manifest, watch, wish, lock).run(outputs)
                return _export_picture(job, place, manifest, watch, blob)
    except Exception as error:
        answer = replace(manifest, status=status_of(error), link=None, error=str(error))
        error.manifest = answer  # type: ignore[attr-defined]
        raise


def _place(path: object) -> Place:
    try:
        target = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        target = ""
    if not isinstance(target, str) or not target.strip():
        raise ParameterError(
            f"{path!r} is no place to write to; give a path or URL, for example out.ome.zarr."
        )
    return Place(target)


@contextmanager
def _clear_os_errors(place: Place) -> Iterator[None]:
    """Turn a full or read-only device into one sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PixsegError):
            raise
        if error.errno in _FULL:
            raise NoSpace(
                f"No space is left at {place.uri}; free some, and run again with resume."
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise ParameterError(f"{place.name} is too long a name; give a shorter one.") from error
        if error.errno in _UNWRITABLE or not place.is_local:
            reason = public_uri(error.strerror or str(error))
            raise NoSpace(f"{place.uri} cannot be written: {reason}.") from error
        raise


# A store -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Export:
    """Writes a store: anew, in place of another, or on from where a run stopped."""

    job: Job
    place: Place
    manifest: Manifest
    watch: Watch
    wish: Wish
    lock: Lock

    def run(self, outputs: tuple[str, ...]) -> Manifest:
        if not self.place.is_local:
            refuse_living_run(self.place)
        exists = bool(contents(self.place))
        before = load_record(self.place) if exists else None
        resumes = exists and self.wish.resume
        if resumes:
            assert before is not None
            refuse_other_run(self.place, before, self.manifest.details)
            self.place.sweep()
        record = RunRecord(self.place, self.manifest, before)
        try:
            with record.beating():
                classes = self._decide(record, before if resumes else None, exists and not resumes)
                details = self._write(record, classes, outputs, resumes)
        except BaseException as error:
            record.end(error)
            raise
        return self._commit(record, details)

    def _decide(self, record: RunRecord, before: dict[str, Any] | None, replaces: bool) -> Classes:
        """Count, or take what was counted, and decide; what is replaced stays until then."""
        if replaces:
            classes = self.job.decide(self.watch)
            _clear(self.place)
            save_colors(self.job.counted, self.place)
            return classes
        # Before anything is counted: it proves that the place can be written.
        record.write(**_kept(before))
        counted = self.job.counted
        restored = before is not None and self._restores(before)
        counted.table(self.watch)
        if before is not None:
            _refuse_other_colors(self.place, before, counted)
        if not restored:
            save_colors(counted, self.place)
        record.write(**counted_details(counted))
        try:
            return self.job.decide(self.watch)
        except ClassError:
            # The same parameters fail again, so that nobody will ask for these.
            self.place.child(COLORS_NAME).remove()
            raise

    def _restores(self, before: dict[str, Any]) -> bool:
        """Take the saved colors, if what the input is tells whether they are still its own."""
        source = self.job.image.source
        vouched = source.uri is not None and bool(source.identity)
        return vouched and restore_colors(self.job.counted, self.place, before)

    def _write(
        self, record: RunRecord, classes: Classes, outputs: tuple[str, ...], resumes: bool
    ) -> dict[str, Any]:
        job, details = self.job, self.manifest.details
        details = {**details, **decided_details(job.counted, classes, job.warnings())}

        def reached(name: str) -> None:
            record.write(**{"pass": name})

        record.write(window=details["window"], color_table=details["color_table"])
        writer = StoreWriter(
            job.counted, job.parameters, classes, self.place, self.watch, resumes, reached
        )
        return details | writer.write(outputs)

    def _commit(self, record: RunRecord, details: dict[str, Any]) -> Manifest:
        """Tidy up and, last of all, write the manifest."""
        manifest = replace(self.manifest, details={**details, "finished": now()})
        try:
            self.place.child(COLORS_NAME).remove()
            record.write(**{"pass": "done", "state": "finished"})
            # Now, as a kill right after the manifest would leave it in a finished store.
            self.lock.release()
            self.place.child(MANIFEST_NAME).write_bytes(manifest.to_json().encode())
        except BaseException as error:
            record.end(error)
            raise
        return manifest


def _kept(before: dict[str, Any] | None) -> dict[str, Any]:
    """What a run that is continued has found out, for the case that this one dies too."""
    return {name: before[name] for name in ("window", "color_table") if before and name in before}


def _refuse_other_colors(place: Place, before: dict[str, Any], counted: Counted) -> None:
    """Refuse to mix what was made from other colors, or another window, with what comes now."""
    there, here = _kept(before), counted_details(counted)
    if there and there != {name: here[name] for name in there}:
        was, now_ = (d["color_table"]["sha256"][:12] for d in (before, here))
        raise OutputConflict(
            f"{place.uri} cannot be resumed, because the input has changed: the hash of its colors "
            f"was {was} and is now {now_}; give the same input, or ask to overwrite it."
        )


def _clear(place: Place) -> None:
    """Remove an output; its manifest first, so that a crash leaves nothing that looks finished.

    Its record goes last, when that of the new run replaces it: what is left of an
    older run must never pass for a part of the new one.
    """
    place.child(MANIFEST_NAME).remove()
    for name in contents(place):
        if name != RECORD_NAME:
            place.child(name).remove()


# A picture ---------------------------------------------------------------------


def _export_picture(
    job: Job, place: Place, manifest: Manifest, watch: Watch, blob: bool
) -> Manifest:
    place.sweep()
    classes = job.decide(watch)
    details = {**manifest.details, **decided_details(job.counted, classes, job.warnings())}
    with place.new_file() as partial:
        pixels = job.counted.pixels()
        lookup = classes.lookup(job.counted.table())
        painter = Painter.of(job.image, classes)
        write_picture(
            partial,
            pixels.class_feed(lookup),
            pixels.tiling,
            painter,
            place.suffix,
            place.name.lower().endswith((".ome.tif", ".ome.tiff")),
            watch,
            lambda: pixels.classes(lookup),
        )
        # The commit record of an older picture goes at the last moment.
        place.sidecar().remove()
    manifest = replace(manifest, details={**details, "outputs": ["recolored"], "finished": now()})
    if not blob:
        place.sidecar().write_bytes(manifest.to_json().encode())
    return manifest
