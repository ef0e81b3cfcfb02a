"""Runs at full resolution, of the segmentation that is on the screen."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from psygnal import Signal

from napari_pixseg.errors import OutputLocked
from napari_pixseg.execution.dask_cluster import connected
from napari_pixseg.execution.progress import Progress
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.plugin.background import BackgroundJobs
from napari_pixseg.plugin.layers.result_layers import ComputedOutputs
from napari_pixseg.segmentation import Segmentation


class FullRuns(BackgroundJobs):
    """Computes or writes a segmentation at full resolution, one run at a time.

    Attributes
    ----------
    segmentation : Segmentation or None
        The one to run.
    has_image : bool
        Whether an image was chosen, which may still be being opened.
    """

    progressed = Signal(Progress)
    exported = Signal(Manifest)
    locked = Signal(str)
    computed = Signal(ComputedOutputs)

    @property
    def segmentation(self) -> Segmentation | None:
        """The segmentation with the present parameters; None until an image is open."""
        raise NotImplementedError

    @property
    def has_image(self) -> bool:
        """Whether an image was chosen."""
        raise NotImplementedError

    def export(
        self,
        path: str,
        outputs: Sequence[str],
        *,
        overwrite: bool = False,
        resume: bool = False,
        scheduler: str = "",
        blob: bool = False,
        break_lock: bool = False,
    ) -> None:
        """Segment at full resolution and write; ``exported`` or ``failed`` tells how it ended.

        ``locked`` tells of a lock that its holder, silent for long, may have left behind.

        Parameters
        ----------
        path : str
        outputs : sequence of str
        overwrite : bool
        resume : bool
            Continue an unfinished output.
        scheduler : str
            Address of a Dask scheduler; empty for this machine's threads.
        blob : bool
            Write the picture alone, without its manifest.
        break_lock : bool
            Break such a lock.
        """
        segmentation = self._require_segmentation()
        if segmentation is None:
            return

        def run(cancel: threading.Event) -> None:
            try:
                with connected(scheduler):
                    manifest = segmentation.export(
                        path,
                        outputs,
                        overwrite,
                        resume=resume,
                        break_lock=break_lock,
                        blob=blob,
                        on_event=self.progressed.emit,
                        cancel=cancel,
                    )
            except OutputLocked as error:
                self.locked.emit(str(error))
                return
            self.exported.emit(manifest)

        self._submit_run(run)

    def compute(self, outputs: Sequence[str]) -> None:
        """Segment at full resolution in memory; the signal ``computed`` carries the outputs."""
        segmentation = self._require_segmentation()
        if segmentation is None:
            return

        def run(cancel: threading.Event) -> None:
            arrays = segmentation.compute(outputs, on_event=self.progressed.emit, cancel=cancel)
            rows = segmentation.region_table if "regions" in arrays else None
            self.computed.emit(ComputedOutputs(segmentation, arrays, rows))

        self._submit_run(run)

    def _require_segmentation(self) -> Segmentation | None:
        segmentation = self.segmentation
        if segmentation is None:
            self.failed.emit(
                "There is no image to segment; choose a layer or open a path first."
                if not self.has_image
                else "The image is still being opened with these parameters; "
                "run it again in a moment."
            )
        return segmentation
