"""Checks that an output was made from this run's input, by files and colors."""

from __future__ import annotations

from napari_pixseg.classification.color_counts import ColorCount
from napari_pixseg.errors import OutputConflict
from napari_pixseg.export.manifest import JsonObject
from napari_pixseg.export.manifest_details import counted_details
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.sources.source import Source

_ANEW = "ask to overwrite it (overwrite=True, --overwrite)"


def has_identity(source: Source) -> bool:
    """Whether an input is known by its place and version; arrays in memory are not."""
    return source.uri is not None and bool(source.identity)


def known_results(before: JsonObject | None) -> JsonObject:
    """Return the findings of a resumed run, which are recorded again in case this run dies, too."""
    names = ("window", "color_table", "input_files", "absence")
    return {name: before[name] for name in names if before and name in before}


def refuse_other_colors(
    location: OutputLocation, before: JsonObject, color_count: ColorCount
) -> None:
    """Refuse to mix tiles made from other colors, or another window, with new ones.

    Raises
    ------
    OutputConflict
    """
    there = known_results(before)
    here = counted_details(color_count)
    # Servers that list nothing tell of missing chunks only while they are read.
    there.pop("absence", None)
    refuse_other_files(location, there.pop("input_files", None), color_count.input_fingerprint)
    if there and there != {name: here[name] for name in there}:
        old_hash = before["color_table"]["sha256"][:12]
        new_hash = here["color_table"]["sha256"][:12]
        raise OutputConflict(
            f"{location.uri} cannot be resumed, because the input has changed: the hash of its "
            f"colors was {old_hash} and is now {new_hash}; give the same input, or {_ANEW}."
        )


def refuse_other_files(location: OutputLocation, there: str | None, here: str | None) -> None:
    """Refuse an input whose files were written to since they were counted.

    Raises
    ------
    OutputConflict
    """
    if there is not None and there != here:
        raise OutputConflict(
            f"{location.uri} cannot be resumed, because files of the input were written since that "
            f"run began; {_ANEW}."
        )
