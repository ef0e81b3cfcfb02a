"""Checks, by listing its files, that an output has everything a finished output needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from napari_pixseg.errors import OutputLost
from napari_pixseg.export.completed_tiles import measure_chunks
from napari_pixseg.export.manifest import JsonObject
from napari_pixseg.export.output_location import TABLE_NAME, OutputLocation

_METADATA = "zarr.json"


@dataclass(frozen=True)
class StoreContents:
    """The content of a finished store.

    Chunks of the fill value are written like all others, so every chunk must exist.

    Attributes
    ----------
    location : OutputLocation
    outputs : sequence of str
        Names from :data:`~napari_pixseg.export.preconditions.OUTPUTS`.
    levels : int
        Levels of each pyramid.
    regions : int or None
        Rows of the region table; None if there is none.
    sizes : dict of str to int
        Bytes of all chunks of each array that was looked at and has all of them.
    """

    location: OutputLocation
    outputs: Sequence[str]
    levels: int
    regions: int | None
    sizes: dict[str, int] = field(default_factory=dict)

    def refuse_gaps(self) -> None:
        """Refuse to finish a store that is not whole.

        Raises
        ------
        OutputLost
        """
        if gap := self.find_gap():
            raise OutputLost(
                f"{self.location.uri} is not finished, because {gap}: it was changed, moved or "
                "written elsewhere during the run; leave it alone, and run again with resume "
                "(resume=True, --resume)."
            )

    def find_gap(self, recorded: Mapping[str, int] = MappingProxyType({})) -> str | None:
        """Return what is missing, in words; None if everything is there.

        The size of every chunk is asked for, and no pixel is read.

        Parameters
        ----------
        recorded : mapping of str to int
            The `sizes` that were found when the store was finished, as far as they are known: so
            a chunk that was cut off since is found.
        """
        pyramids = [f"labels/{name}/" for name in ("classes", "regions") if name in self.outputs]
        groups = ["", "labels/", *pyramids] if pyramids else [""]
        if "recolored" in self.outputs:
            pyramids.append("")
        for group in groups:
            if _read_metadata(self.location, group) is None:
                return f"{group}{_METADATA} is missing or cannot be read"
        arrays = (f"{pyramid}{level}" for pyramid in pyramids for level in range(self.levels))
        gaps = (self._find_gap_of_array(array, recorded) for array in arrays)
        return next(filter(None, gaps), None) or self._find_gap_of_table()

    def _find_gap_of_array(self, path: str, recorded: Mapping[str, int]) -> str | None:
        metadata = _read_metadata(self.location, f"{path}/")
        try:
            assert metadata is not None
            shape = metadata["shape"]
            chunks = metadata["chunk_grid"]["configuration"]["chunk_shape"]
            grid = tuple(math.ceil(n / size) for n, size in zip(shape, chunks, strict=True))
        except (AssertionError, KeyError, TypeError, ValueError):
            return f"{path}/{_METADATA} is missing or cannot be read"
        sizes = measure_chunks(self.location.child(path), grid)
        missing = np.argwhere(sizes == 0)
        if not len(missing):
            self.sizes[path] = int(sizes.sum())
            return _compare_sizes(path, self.sizes[path], recorded)
        first = "/".join(map(str, missing[0]))
        return (
            f"{len(missing)} of the {math.prod(grid)} chunks of {path} are missing or empty, such "
            f"as c/{first}"
        )

    def _find_gap_of_table(self) -> str | None:
        if self.regions is None:
            return None
        # Outputs without regions do not need pyarrow.
        from napari_pixseg.export.parquet import count_rows

        rows = count_rows(self.location.child(TABLE_NAME))
        if rows is None:
            return f"{TABLE_NAME} is missing or cannot be read"
        if rows != self.regions:
            return f"{TABLE_NAME} has {rows} rows, not one for each of the {self.regions} regions"
        return None


def _compare_sizes(path: str, found: int, recorded: Mapping[str, int]) -> str | None:
    if recorded.get(path, found) == found:
        return None
    return f"the chunks of {path} had {recorded[path]} bytes when it was finished and have {found}"


def _read_metadata(location: OutputLocation, folder: str) -> JsonObject | None:
    content = location.child(f"{folder}{_METADATA}").read_bytes()
    try:
        metadata = json.loads(content or b"null")
    # Text can nest deeper than Python's stack.
    except (ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None


def remove_torn_metadata(location: OutputLocation) -> None:
    """Remove documents of groups and arrays that a crash of the machine left incomplete."""
    if not location.is_local:
        return
    for folder in ("", "*/", "labels/*/", "labels/*/*/"):
        for path in location.local_path.glob(f"{folder}{_METADATA}"):
            inside = path.relative_to(location.local_path).parent.as_posix()
            if _read_metadata(location, f"{inside}/") is None:
                path.unlink()
