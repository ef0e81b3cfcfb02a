"""Writes one OME-Zarr, from the count of colors to its manifest: new, replaced or resumed.

The order makes it a transaction. The run record comes first, then the chunks,
then the manifest. A run that dies at any point leaves either an unfinished
store, which can be resumed, or a finished one.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from napari_pixseg.algorithm.classes import Classes
from napari_pixseg.errors import ClassError, OutputConflict
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.export.color_table_cache import restore_colors, save_colors
from napari_pixseg.export.completeness import StoreContents, remove_torn_metadata
from napari_pixseg.export.disk_sync import flush_disk
from napari_pixseg.export.export_request import ExportableSegmentation, ExportRequest
from napari_pixseg.export.lock import HeldLock
from napari_pixseg.export.manifest import JsonObject, Manifest, utc_now
from napari_pixseg.export.manifest_details import counted_details, decided_details
from napari_pixseg.export.ome_zarr import StoreWriter
from napari_pixseg.export.output_location import (
    COLORS_NAME,
    MANIFEST_NAME,
    RECORD_NAME,
    ROWS_NAME,
    OutputLocation,
)
from napari_pixseg.export.preconditions import list_contents, load_finished
from napari_pixseg.export.pyramid import level_shapes
from napari_pixseg.export.run_record import (
    DISTRUSTED,
    SIZES,
    RunRecord,
    load_record,
    refuse_living_run,
    refuse_other_run,
    unreadable_record,
)
from napari_pixseg.export.same_input import (
    has_identity,
    known_results,
    refuse_other_colors,
    refuse_other_files,
)
from napari_pixseg.export.same_output_on_workers import remove_tokens, shared_output

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreTransaction:
    """Writes a store: a new one, a replacement, or the rest of an unfinished one.

    Attributes
    ----------
    segmentation : ExportableSegmentation
    location : OutputLocation
    manifest : Manifest
        As far as it is known at the beginning.
    request : ExportRequest
    """

    segmentation: ExportableSegmentation
    location: OutputLocation
    manifest: Manifest
    request: ExportRequest

    def run(self, lock: HeldLock) -> Manifest:
        """Write everything, and the manifest last, after checking that all workers see the output.

        The lock of the store is released when only the manifest is left to write.
        """
        with shared_output(self.location, self.manifest.id):
            return self._run_shared(lock)

    def _run_shared(self, lock: HeldLock) -> Manifest:
        policy = self.request.policy
        if not self.location.is_local:
            refuse_living_run(self.location, policy.break_lock, self.request.monitor.check)
        wants_resume = policy.resume
        exists = bool(list_contents(self.location))
        before = load_record(self.location) if exists else None
        resumed = before if wants_resume else None
        if exists and wants_resume and resumed is None:
            raise unreadable_record(self.location)
        if resumed is not None:
            # Before anything is removed or written: tiles of two runs must never be mixed.
            refuse_other_run(self.location, resumed, self.manifest.details)
            if resumed.get(DISTRUSTED):
                # The input may be unchanged again, but not everything that was read from it was
                # right.
                files = self.segmentation.image.source.current_fingerprint()
                refuse_other_files(self.location, resumed.get("input_files"), files)
                resumed = None
        if wants_resume:
            self._reopen_finished()
            self.location.remove_partial_files()
            remove_torn_metadata(self.location)
        record = RunRecord(self.location, self.manifest, before)
        try:
            with record.keep_beating(), ThreadPoolExecutor(1) as beside:
                if exists and resumed is None:
                    classes, saving = self._decide_and_replace(record, beside)
                else:
                    classes, saving = self._decide_in_place(record, resumed, beside)
                details = self._write_outputs(record, classes, resumed is not None)
                saving.result()
        except BaseException as error:
            # Once the record says that the run has failed, nothing may be written any more.
            self.location.wait_for_writers()
            record.record_end(error)
            if isinstance(error, OSError):
                # If the output was moved away, that says more than which file was not found.
                record.refuse_to_share()
            raise
        return self._commit_manifest(record, details, lock)

    def find_gap(self, details: JsonObject) -> str | None:
        """Say what a store with these details lacks; None if it is whole."""
        sizes = (load_record(self.location) or {}).get(SIZES)
        recorded = sizes if isinstance(sizes, dict) else {}
        return self._contents(details).find_gap(recorded)

    def _reopen_finished(self) -> None:
        """Remove the manifest of a store that was once finished, but now lacks something."""
        if (finished := load_finished(self.location)) is not None:
            gap = self.find_gap(finished.details)
            _log.warning("%s was finished, but %s; it is written again.", self.location.uri, gap)
        # An unreadable manifest is removed as well.
        self.location.child(MANIFEST_NAME).remove()

    def _decide_and_replace(
        self, record: RunRecord, beside: Executor
    ) -> tuple[Classes, Future[None]]:
        """Count and decide, and only then remove the older output.

        The color table is saved meanwhile. Without it, a resumed run would have to count again.
        """
        classes = self.segmentation.decide(self.request.monitor)
        # On an object store there is no lock, so another run may have come first.
        record.refuse_to_share()
        _remove_output(self.location)
        return classes, beside.submit(save_colors, self.segmentation.color_count, self.location)

    def _decide_in_place(
        self, record: RunRecord, resumed: JsonObject | None, beside: Executor
    ) -> tuple[Classes, Future[None]]:
        """Count, or reuse the count of the resumed run, and decide."""
        # Written before anything is counted, which proves that the location is writable.
        record.write(**known_results(resumed))
        color_count = self.segmentation.color_count
        was_restored = resumed is not None and self._restore_colors(resumed)
        color_count.table(self.request.monitor)
        if resumed is not None:
            refuse_other_colors(self.location, resumed, color_count)
        saving = beside.submit(
            lambda: None if was_restored else save_colors(color_count, self.location)
        )
        record.write(
            **counted_details(color_count),
            input_files=color_count.input_fingerprint,
            absence=list(color_count.absence),
        )
        try:
            return self.segmentation.decide(self.request.monitor), saving
        except ClassError:
            saving.result()
            # The same parameters would fail again, so nobody will need these colors.
            self.location.child(COLORS_NAME).remove()
            raise

    def _restore_colors(self, before: JsonObject) -> bool:
        """Take the saved colors if the input's identity proves that they still belong to it."""
        is_known = has_identity(self.segmentation.image.source)
        return is_known and restore_colors(self.segmentation.color_count, self.location, before)

    def _write_outputs(self, record: RunRecord, classes: Classes, resumes: bool) -> JsonObject:
        color_count = self.segmentation.color_count
        decided = decided_details(color_count, classes, self.segmentation.warnings)

        def record_pass(name: str) -> None:
            record.write(**{"pass": name})

        counted = {name: decided[name] for name in ("window", "color_table")}
        record.write(**counted, input_files=color_count.input_fingerprint)
        writer = StoreWriter(
            color_count,
            self.segmentation.parameters,
            classes,
            self.location,
            self.request.monitor,
            resumes,
            record_pass,
        )
        # These become details of the manifest, which is written when everything else is done.
        written = writer.write(self.request.outputs)
        return {**self.manifest.details, **decided, **written}

    def _commit_manifest(self, record: RunRecord, details: JsonObject, lock: HeldLock) -> Manifest:
        """Remove everything that only an unfinished store needs; then write the manifest."""
        manifest = replace(self.manifest, details={**details, "finished": utc_now()})
        try:
            # Tiles read before a change and tiles read after it would not make one image.
            self.segmentation.color_count.refuse_change()
            for name in (COLORS_NAME, ROWS_NAME):
                self.location.child(name).remove()
            # Includes tokens that a killed client left in a store that is finished now.
            remove_tokens(self.location)
            if active_client() is not None:
                # A killed worker leaves the file it was writing, while the run goes on.
                self.location.remove_partial_files()
            with ThreadPoolExecutor(1) as beside:
                flushing = beside.submit(flush_disk, self.location)
                contents = self._contents(details)
                contents.refuse_gaps()
                record.write(**{"pass": "done", "state": "finished", SIZES: contents.sizes})
                flushing.result()
            # A kill right after the manifest would leave the lock in a finished store,
            # so the lock goes first.
            lock.release()
            written = self.location.child(MANIFEST_NAME)
            written.write_bytes(manifest.to_json().encode())
            try:
                # Perhaps the output was moved away, and the manifest is now at its old place.
                record.refuse_to_share()
            except OutputConflict:
                written.remove()
                raise
        except BaseException as error:
            record.record_end(error)
            raise
        return manifest

    def _contents(self, details: JsonObject) -> StoreContents:
        regions = details.get("regions")
        return StoreContents(
            self.location,
            details["outputs"],
            len(level_shapes(self.segmentation.color_count.tiling.shape)),
            None if regions is None else regions["count"],
        )


def _remove_output(location: OutputLocation) -> None:
    """Remove an output; its manifest first, so that a crash leaves nothing that looks finished.

    Its record goes last, when the record of the new run replaces it. Leftovers of an older
    run must never pass for a part of the new one.
    """
    location.child(MANIFEST_NAME).remove()
    for name in list_contents(location):
        if name != RECORD_NAME:
            location.child(name).remove()
