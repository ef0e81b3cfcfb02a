"""One store from the first count to its manifest: anew, over an older one, or resumed."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import Counted
from napari_pixseg.errors import ClassError, OutputConflict
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.progress import Watch
from napari_pixseg.export.color_table_cache import restore_colors, save_colors
from napari_pixseg.export.job import Job
from napari_pixseg.export.lock import Lock
from napari_pixseg.export.manifest import Manifest, now
from napari_pixseg.export.manifest_details import counted_details, decided_details
from napari_pixseg.export.ome_zarr import StoreWriter
from napari_pixseg.export.output_location import (
    COLORS_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    ROWS_NAME,
    Place,
)
from napari_pixseg.export.preconditions import Wish, contents
from napari_pixseg.export.run_record import (
    RunRecord,
    load_record,
    refuse_living_run,
    refuse_other_run,
)


@dataclass(frozen=True)
class StoreExport:
    """Writes a store: anew, in place of another, or on from where a run stopped.

    Attributes
    ----------
    job : Job
    place : Place
    manifest : Manifest
        As far as it is known.
    watch : Watch
    wish : Wish
    lock : Lock
        Of the store; released when there is nothing more to do but the manifest.
    """

    job: Job
    place: Place
    manifest: Manifest
    watch: Watch
    wish: Wish
    lock: Lock

    def run(self, outputs: tuple[str, ...]) -> Manifest:
        """Write everything, the manifest last."""
        if not self.place.is_local:
            refuse_living_run(self.place)
        exists = bool(contents(self.place))
        before = load_record(self.place) if exists else None
        resumes = exists and self.wish.resume
        if resumes:
            assert before is not None
            refuse_other_run(self.place, before, self.manifest.details)
        if self.wish.resume:
            self.place.sweep()
        record = RunRecord(self.place, self.manifest, before)
        try:
            with record.beating(), ThreadPoolExecutor(1) as beside:
                classes, saving = self._decide(
                    record, before if resumes else None, exists and not resumes, beside
                )
                details = self._write(record, classes, outputs, resumes)
                saving.result()
        except BaseException as error:
            self.place.settle()
            record.end(error)
            raise
        return self._commit(record, details)

    def _decide(
        self, record: RunRecord, before: dict[str, Any] | None, replaces: bool, beside: Executor
    ) -> tuple[Classes, Future[None]]:
        """Count, or take what was counted, and decide; what is replaced stays until then.

        The table is saved meanwhile: without it, a run that is continued counts again.
        """
        if replaces:
            classes = self.job.decide(self.watch)
            # Where there is no lock, another run may have come first.
            record.refuse_to_share()
            _clear(self.place)
            return classes, beside.submit(save_colors, self.job.counted, self.place)
        # Before anything is counted: it proves that the place can be written.
        record.write(**_kept(before))
        counted = self.job.counted
        restored = before is not None and self._restores(before)
        counted.table(self.watch)
        if before is not None:
            _refuse_other_colors(self.place, before, counted)
        saving = beside.submit(lambda: None if restored else save_colors(counted, self.place))
        record.write(**counted_details(counted), input_files=counted.state)
        try:
            return self.job.decide(self.watch), saving
        except ClassError:
            saving.result()
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

        found = {name: details[name] for name in ("window", "color_table")}
        record.write(**found, input_files=job.counted.state)
        writer = StoreWriter(
            job.counted, job.parameters, classes, self.place, self.watch, resumes, reached
        )
        return details | writer.write(outputs)

    def _commit(self, record: RunRecord, details: dict[str, Any]) -> Manifest:
        """Tidy up and, last of all, write the manifest."""
        manifest = replace(self.manifest, details={**details, "finished": now()})
        try:
            # Tiles that were read before and after a change would not make one picture.
            self.job.counted.refuse_change()
            for name in (COLORS_NAME, ROWS_NAME):
                self.place.child(name).remove()
            if active_client() is not None:
                # A worker that was killed leaves what it was writing, while the run goes on.
                self.place.sweep()
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
    names = ("window", "color_table", "input_files")
    return {name: before[name] for name in names if before and name in before}


def _refuse_other_colors(place: Place, before: dict[str, Any], counted: Counted) -> None:
    """Refuse to mix what was made from other colors, or another window, with what comes now."""
    there, here = _kept(before), counted_details(counted)
    files = there.pop("input_files", None)
    if files is not None and files != counted.state:
        raise OutputConflict(
            f"{place.uri} cannot be resumed, because files of the input were written since that "
            "run began; ask to overwrite it (overwrite=True, --overwrite)."
        )
    if there and there != {name: here[name] for name in there}:
        was, now_ = (d["color_table"]["sha256"][:12] for d in (before, here))
        raise OutputConflict(
            f"{place.uri} cannot be resumed, because the input has changed: the hash of its colors "
            f"was {was} and is now {now_}; give the same input, or ask to overwrite it "
            "(overwrite=True, --overwrite)."
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
