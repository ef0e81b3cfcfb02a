"""A segmented image: its classes and regions, computed lazily, and its export."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pixseg.algorithm.classes import Classes, decide
from napari_pixseg.algorithm.color_table import ColorTable
from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.classification.parameter_checks import check_parameters
from napari_pixseg.errors import ParameterError
from napari_pixseg.execution.dask_cluster import active_client
from napari_pixseg.execution.progress import Listener, RunMonitor
from napari_pixseg.execution.scheduler import compute_array
from napari_pixseg.execution.tiling import plan_tiles
from napari_pixseg.export.export import export_segmentation
from napari_pixseg.export.export_request import ExportRequest
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.preconditions import (
    ExistingOutputPolicy,
    OnError,
    check_on_error,
    check_outputs,
)
from napari_pixseg.locked_cached_property import locked_cached_property
from napari_pixseg.parameters import Parameters
from napari_pixseg.result_warnings import result_warnings
from napari_pixseg.sources.image import Image, open_image
from napari_pixseg.sources.read_options import DEFAULT_OPTIONS, ReadOptions

if TYPE_CHECKING:
    import dask.array as da

    from napari_pixseg.regions.regions import Regions


def open_segmentation(
    source: object, parameters: Parameters, options: ReadOptions = DEFAULT_OPTIONS
) -> Segmentation:
    """Do the same as :func:`napari_pixseg.segment`, with the parameters as one object."""
    image = open_image(source, parameters.axes, parameters.channels, options)
    check_parameters(image, parameters)
    return Segmentation(ColorCount(image, plan_tiles(image), parameters), parameters)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented image: classes are decided on first access, pixels computed where it is sliced.

    Attributes
    ----------
    color_count : ColorCount
        The opened image and the counts of its colors, which several segmentations may share.
    parameters : Parameters
        The parameters of the segmentation.
    """

    color_count: ColorCount = field(repr=False)
    parameters: Parameters
    # Two threads may access it at the same time, for example the widget and a run.
    _lock: Any = field(default_factory=threading.RLock, repr=False, compare=False)
    _made: dict[str, Classes] = field(default_factory=dict, repr=False, compare=False)
    _found: dict[str, Regions] = field(default_factory=dict, repr=False, compare=False)

    @property
    def image(self) -> Image:
        """The opened image: its axes and channels, its source, and notes about guesses."""
        return self.color_count.image

    @property
    def color_table(self) -> ColorTable:
        """Counts of the image's byte colors; counted on first access."""
        return self.color_count.table()

    @property
    def decision(self) -> Classes:
        """The classes, with the histograms and intervals of the channels that gave them."""
        return self.decide()

    def decide(self, monitor: RunMonitor | None = None) -> Classes:
        """Return the classes; counts the colors first unless that was done.

        Raises
        ------
        ClassError
            If no class reaches ``ct``, or there are too many.
        """
        with self._lock:
            if "classes" not in self._made:
                table = self.color_count.table(monitor)
                self._made["classes"] = decide(table, self.parameters, gray=self.image.gray)
            return self._made["classes"]

    @property
    def table(self) -> NDArray[np.void]:
        """One row per class: number, box, center, color, count, percentage, box_count, ...

        Some columns hold several values. For pandas:
        ``DataFrame({name: list(table[name]) for name in table.dtype.names})``.
        """
        return self.decision.table

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(n + 1, 3) colors of the classes, row 0 black for no data: ``palette[classes]``."""
        return self.decision.palette

    @locked_cached_property
    def classes(self) -> da.Array:
        """Class of every pixel: the image's shape without its channel axis, 1..n, 0 = no data."""
        return self.image.in_own_order(self.color_count.pixels().classes(self._lookup))

    @locked_cached_property
    def recolored(self) -> da.Array:
        """``palette[classes]``, lazily: (..., 3) uint8; for gray input three times the same."""
        # Loads Dask, which a segmentation that is only decided does not need.
        from napari_pixseg.classification.lazy_recolored import recolor_lazily

        return recolor_lazily(self.classes, self.palette)

    @locked_cached_property
    def regions(self) -> da.Array:
        """Connected regions of equal class: 1..N in raster order of first pixels, 0 = none.

        The seams between tiles are found on first access, in one pass; the array
        is lazy and holds uint32, or uint64 for more than 2^32 - 1 pixels.
        """
        pixels = self.color_count.pixels()
        classes = pixels.classes(self._lookup).rechunk(pixels.tiling.chunks)
        return self.image.in_own_order(self._find_regions().lazy_labels(classes))

    @locked_cached_property
    def region_table(self) -> NDArray[np.void]:
        """One row per region: number, class, area, bounding box, centroid, means, ...

        Columns, all in pixels but ``physical_area`` (in the input's units):
        ``number``, ``class``, ``area``, ``physical_area``, ``bbox_min_*`` and
        ``bbox_max_*`` (half-open), ``centroid_*``, ``mean_0`` ... (of the input's
        samples, per channel), ``touches_border`` (of a spatial axis longer than one
        pixel). ``pandas.DataFrame`` takes it as it is.
        """
        # The compiled kernels for regions take a while to load, and only regions need them.
        from napari_pixseg.regions.image_regions import make_region_table

        return make_region_table(self._find_regions(), self.color_count.pixels(), self._lookup)

    @locked_cached_property
    def _lookup(self) -> NDArray[Any]:
        return self.decision.lookup(self.color_table)

    def _find_regions(self, monitor: RunMonitor | None = None) -> Regions:
        """Return the regions; they are found on first use, in one pass over the tiles."""
        from napari_pixseg.regions.image_regions import find_image_regions

        if "regions" not in self._found:
            rules = (self.parameters, self.decision)
            pixels = self.color_count.pixels()
            self._found["regions"] = find_image_regions(pixels, self._lookup, *rules, monitor)
        return self._found["regions"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings to read before trusting the result; guesses about the input come first."""
        found = result_warnings(self.image, self.parameters, len(self.table))
        return self.color_count.absence + found

    def update(self, **changes: Any) -> Segmentation:
        """Decide again on the same color table; no counted pixel is read again.

        Parameters
        ----------
        **changes
            Any parameter that does not need the pixels again: ``ct``, ``cs``, ``st`` and
            others, but not those that say how samples become colors.

        Returns
        -------
        Segmentation

        Raises
        ------
        ParameterError
            If a value is out of range, or the parameter needs the pixels again.
        RecountNeeded
            If 16-bit samples were, or would have to be, counted in one color
            space (semantics ``imagemagick6``).
        """
        updatable = self.parameters.names_where(needs_pixels=False)
        for name in changes:
            if name not in updatable:
                raise ParameterError(
                    f"update() cannot change {name!r}, only {', '.join(updatable)}; "
                    "call segment() again for it."
                )
        parameters = self.parameters.replace(**changes)
        self.color_count.refuse_recount(parameters)
        return Segmentation(self.color_count, parameters)

    def compute(
        self,
        outputs: Sequence[str] = ("classes",),
        *,
        on_event: Listener | None = None,
        cancel: threading.Event | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Compute outputs in memory, on this machine's threads.

        Parameters
        ----------
        outputs : sequence of {"classes", "regions", "recolored"}
        on_event : callable, optional
            Called with a :class:`Progress` after every tile.
        cancel : threading.Event, optional
            When set, the computation stops before its next tile.

        Returns
        -------
        dict of str to ndarray
            The arrays that the properties of these names return lazily.

        Raises
        ------
        ParameterError, ClassError, Cancelled
        """
        names = tuple(dict.fromkeys((outputs,) if isinstance(outputs, str) else outputs))
        check_outputs(names)
        monitor = RunMonitor(on_event, cancel)
        self.decide(monitor)
        if "regions" in names:
            self._find_regions(monitor)
        return {name: compute_array(getattr(self, name), name, monitor) for name in names}

    def export(
        self,
        path: str | os.PathLike[str],
        outputs: Sequence[str] = ("classes", "recolored"),
        overwrite: bool = False,
        *,
        resume: bool = False,
        break_lock: bool = False,
        blob: bool = False,
        on_error: OnError = "raise",
        memory_limit: int | str | None = None,
        on_event: Listener | None = None,
        cancel: threading.Event | None = None,
    ) -> Manifest:
        """Write an OME-Zarr 0.5, or a picture, and its manifest; refuses a second writer.

        Parameters
        ----------
        path : path or URL
            Ending in .png, .jpg, .jpeg, .tif or .tiff: the recolored picture;
            anything else: an OME-Zarr store.
        outputs : sequence of {"classes", "regions", "recolored"}
            The outputs that an OME-Zarr should contain.
        overwrite : bool
            Whether an existing output may be replaced.
        resume : bool
            Whether to finish what an earlier run, cancelled, failed or killed, left
            unfinished. It must have begun with the same input, parameters, outputs and
            version of this package. What it wrote is kept, and the result is the same to the
            last byte. Colors of arrays in memory are counted anew, and must be the same. Local
            files of the input, such as chunks, must not have been written since. For a zarr on
            a server only the metadata are compared; a change of its pixels is noticed where
            counts of colors or classes differ. A picture is written whole at the end, and so is
            made anew unless it is finished. Without an earlier run, this one begins anew. An
            output of the same that is finished and whole stays as it is: its manifest is returned.
        break_lock : bool
            Whether to take over the lock of a run that has given no sign of life for 30 seconds,
            for example because its machine died; the lock of a living run is never broken.
        blob : bool
            Write the picture file alone, no manifest beside it.
        on_error : {"raise", "skip"}
            What to do about chunks of the input that cannot be decoded. With skip the whole
            input is read once more when the first is met. The pixels of such chunks are then
            0, no data, in the label images and black in the picture; they are not counted, and
            the manifest names them in ``details["skipped"]``.
        memory_limit : int or str, optional
            Bytes, or text such as ``"4GiB"``, that one worker process may need. A run whose
            estimated peak is higher is refused before it begins.
        on_event : callable, optional
            Called with a :class:`Progress` after every tile.
        cancel : threading.Event, optional
            When set, the export stops before its next tile.

        Returns
        -------
        Manifest
            As written, status 200.

        Raises
        ------
        ParameterError, OutputConflict, CorruptInput, TooLarge, ClassError, Cancelled, NoSpace
            No manifest is left then.
        """
        check_on_error(on_error, self.image)
        outputs = (outputs,) if isinstance(outputs, str) else tuple(dict.fromkeys(outputs))
        self._check_memory(memory_limit, "regions" in outputs)
        policy = ExistingOutputPolicy(overwrite, resume, break_lock)
        monitor = RunMonitor(on_event, cancel)
        request = ExportRequest(outputs, policy, monitor, on_error, blob)
        return export_segmentation(self, path, request)

    def _check_memory(self, limit: object, regions: bool) -> None:
        if limit is None and active_client() is None:
            return
        # Reads Dask's settings, which other runs do not need.
        from napari_pixseg.execution.memory_limit import refuse_memory, refuse_small_workers

        tiling = self.color_count.tiling
        refuse_memory(limit, self.image, tiling.tile_pixels, len(tiling), regions)
        refuse_small_workers(self.image, tiling.tile_pixels, len(tiling), regions)

    def without_damaged_chunks(self, monitor: RunMonitor) -> Segmentation:
        """Return this segmentation with every damaged chunk of the input as no data.

        The whole input is read once, to find those chunks.

        Parameters
        ----------
        monitor : RunMonitor
            Reports every tile, and may stop the search.

        Returns
        -------
        Segmentation
            With nothing counted yet.
        """
        # Needed by very few exports, so it is not loaded with this module.
        from napari_pixseg.classification.damage_scan import without_damage

        tiling = self.color_count.tiling
        image = without_damage(self.image, tiling, monitor)
        color_count = ColorCount(image, tiling, self.color_count.parameters)
        return Segmentation(color_count, self.parameters)
