"""One store from the first count to its manifest: anew, over an older one, or resumed."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.errors import ClassError, OutputConflict
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.export.color_table_cache import restore_colors, save_colors
from napari_pixseg.export.job import ExportJob
from napari_pixseg.export.lock import Lock
from napari_pixseg.export.manifest import Manifest, now
from napari_pixseg.export.manifest_details import counted_details, decided_details
from napari_pixseg.export.ome_zarr import StoreWriter
from napari_pixseg.export.output_location import (
    COLORS_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    ROWS_NAME,
    OutputLocation,
)
from napari_pixseg.export.preconditions import ExistingOutputPolicy, contents
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
    job : ExportJob
    location : OutputLocation
    manifest : Manifest
        As far as it is known.
    monitor : RunMonitor
    policy : ExistingOutputPolicy
    lock : Lock
        Of the store; released when there is nothing more to do but the manifest.
    """

    job: ExportJob
    location: OutputLocation
    manifest: Manifest
    monitor: RunMonitor
    policy: ExistingOutputPolicy
    lock: Lock

    def run(self, outputs: tuple[str, ...]) -> Manifest:
        """Write everything, the manifest last."""
        if not self.location.is_local:
            refuse_living_run(self.location)
        exists = bool(contents(self.location))
        before = load_record(self.location) if exists else None
        resumes = exists and self.policy.resume
        if resumes:
            assert before is not None
            refuse_other_run(self.location, before, self.manifest.details)
        if self.policy.resume:
            self.location.sweep()
        record = RunRecord(self.location, self.manifest, before)
        try:
            with record.beating(), ThreadPoolExecutor(1) as beside:
                classes, saving = self._decide(
                    record, before if resumes else None, exists and not resumes, beside
                )
                details = self._write(record, classes, outputs, resumes)
                saving.result()
        except BaseException as error:
            self.location.settle()
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
            classes = self.job.decide(self.monitor)
            # Where there is no lock, another run may have come first.
            record.refuse_to_share()
            _clear(self.location)
            return classes, beside.submit(save_colors, self.job.color_count, self.location)
        # Before anything is counted: it proves that the place can be written.
        record.write(**_kept(before))
        color_count = self.job.color_count
        restored = before is not None and self._restores(before)
        color_count.table(self.monitor)
        if before is not None:
            _refuse_other_colors(self.location, before, color_count)
        saving = beside.submit(
            lambda: None if restored else save_colors(color_count, self.location)
        )
        record.write(**counted_details(color_count), input_files=color_count.state)
        try:
            return self.job.decide(self.monitor), saving
        except ClassError:
            saving.result()
            # The same parameters fail again, so that nobody will ask for these.
            self.location.child(COLORS_NAME).remove()
            raise

    def _restores(self, before: dict[str, Any]) -> bool:
        """Take the saved colors, if what the input is tells whether they are still its own."""
        source = self.job.image.source
        vouched = source.uri is not None and bool(source.identity)
        return vouched and restore_colors(self.job.color_count, self.location, before)

    def _write(
        self, record: RunRecord, classes: Classes, outputs: tuple[str, ...], resumes: bool
    ) -> dict[str, Any]:
        job, details = self.job, self.manifest.details
        details = {**details, **decided_details(job.color_count, classes, job.warnings())}

        def reached(name: str) -> None:
            record.write(**{"pass": name})

        found = {name: details[name] for name in ("window", "color_table")}
        record.write(**found, input_files=job.color_count.state)
        writer = StoreWriter(
            job.color_count, job.parameters, classes, self.location, self.monitor, resumes, reached
        )
        return details | writer.write(outputs)

    def _commit(self, record: RunRecord, details: dict[str, Any]) -> Manifest:
        """Tidy up and, last of all, write the manifest."""
        manifest = replace(self.manifest, details={**details, "finished": now()})
        try:
            # Tiles that were read before and after a change would not make one picture.
            self.job.color_count.refuse_change()
            for name in (COLORS_NAME, ROWS_NAME):
                self.location.child(name).remove()
            if active_client() is not None:
                # A worker that was killed leaves what it was writing, while the run goes on.
                self.location.sweep()
            record.write(**{"pass": "done", "state": "finished"})
            # Now, as a kill right after the manifest would leave it in a finished store.
            self.lock.release()
            self.location.child(MANIFEST_NAME).write_bytes(manifest.to_json().encode())
        except BaseException as error:
            record.end(error)
            raise
        return manifest


def _kept(before: dict[str, Any] | None) -> dict[str, Any]:
    """What a run that is continued has found out, for the case that this one dies too."""
    names = ("window", "color_table", "input_files")
    return {name: before[name] for name in names if before and name in before}


def _refuse_other_colors(
    location: OutputLocation, before: dict[str, Any], color_count: ColorCount
) -> None:
    """Refuse to mix what was made from other colors, or another window, with what comes now."""
    there, here = _kept(before), counted_details(color_count)
    files = there.pop("input_files", None)
    if files is not None and files != color_count.state:
        raise OutputConflict(
            f"{location.uri} cannot be resumed, because files of the input were written since that "
            "run began; ask to overwrite it (overwrite=True, --overwrite)."
        )
    if there and there != {name: here[name] for name in there}:
        was, now_ = (d["color_table"]["sha256"][:12] for d in (before, here))
        raise OutputConflict(
            f"{location.uri} cannot be resumed, because the input has changed: the hash of its "
            f"colors was {was} and is now {now_}; give the same input, or ask to overwrite it "
            "(overwrite=True, --overwrite)."
        )


def _clear(location: OutputLocation) -> None:
    """Remove an output; its manifest first, so that a crash leaves nothing that looks finished.

    Its record goes last, when that of the new run replaces it: what is left of an
    older run must never pass for a part of the new one.
    """
    location.child(MANIFEST_NAME).remove()
    for name in contents(location):
        if name != RECORD_NAME:
            location.child(name).remove()
