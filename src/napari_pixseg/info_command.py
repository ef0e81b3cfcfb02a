"""Makes the text of ``napari-pixseg info``: an input's properties, and a run's expected cost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from napari_pixseg.execution.cost_estimate import estimate
from napari_pixseg.execution.memory_estimate import peak_memory
from napari_pixseg.execution.memory_limit import threads_of_worker
from napari_pixseg.execution.tiling import plan_tiles
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.read_options import ReadOptions
from napari_pixseg.sources.source import Source


def describe_input(
    path: str, parameters: Parameters, reading: ReadOptions, thumbnail: str | None = None
) -> tuple[str, Sequence[str]]:
    """Open an input and describe it; reads no pixel unless a thumbnail is asked for.

    Parameters
    ----------
    path : str
        Path or URL.
    parameters : Parameters
        Only ``axes`` and ``channels`` matter.
    reading : ReadOptions
        How a remote input is read.
    thumbnail : str, optional
        Path of a PNG to write.

    Returns
    -------
    text : str
        One line for each property.
    notes : sequence of str
        Guesses about the input.
    """
    image = open_image(path, parameters.axes, parameters.channels, reading)
    if thumbnail is not None:
        from napari_pixseg.export.thumbnail import save_thumbnail

        save_thumbnail(image, thumbnail)
    tiling = plan_tiles(image)
    cost = estimate(image, tiling, os.cpu_count() or 1)
    least, most = (
        peak_memory(image, tiling.tile_pixels, min(threads_of_worker(), len(tiling)), regions)
        for regions in (False, True)
    )
    source = image.source
    scale = describe_scale(source.scale, source.units)
    lines = {
        "name": source.name,
        "kind": source.kind,
        "axes": image.axes,
        "shape": _join_sizes(source.array.shape),
        "dtype": str(image.dtype),
        "chunks": "none" if source.chunks is None else _join_sizes(source.chunks),
        "channels": "gray" if image.gray else str(image.channels),
        "scale": ", ".join(scale) or "not given",
        "size": f"{cost.pixels / 1e6:.1f} megapixels, {cost.bytes / 2**20:.1f} MiB in memory",
        "tiles": f"{len(tiling)} of {_join_sizes(tiling.tile)}",
        "time": f"about {cost.seconds:.0f} s on {cost.workers} threads",
        "memory": f"at most {least / 2**20:.0f} MiB a worker, {most / 2**20:.0f} MiB with regions",
    }
    text = "".join(f"{name + ':':10}{value}\n" for name, value in lines.items())
    return text + _describe_images(source), image.notes


def _describe_images(source: Source) -> str:
    """Return a line for each image of a file or store; nothing if there is only one."""
    images = [] if source.list_images is None else source.list_images()
    if len(images) < 2:
        return ""
    lines = ["images:"]
    for number, image in enumerate(images):
        taken = " (taken)" if source.series in (number, image.name) else ""
        facts = (image.name, image.axes, image.size, *describe_scale(image.scale, image.units))
        lines.append(f"  {number}: {', '.join(filter(None, facts))}{taken}")
    return "\n".join(lines) + "\n"


def describe_scale(scale: Mapping[str, float], units: Mapping[str, str]) -> list[str]:
    """Return size and unit of a pixel along each axis."""
    return [f"{axis} {size:g} {units.get(axis, '')}".strip() for axis, size in scale.items()]


def _join_sizes(sizes: Iterable[int]) -> str:
    return " x ".join(str(size) for size in sizes)
