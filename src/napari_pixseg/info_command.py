"""What ``napari-pixseg info`` prints: an input's properties, and what a run should cost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from napari_pixseg.execution.cost_estimate import estimate
from napari_pixseg.execution.memory_estimate import peak_memory
from napari_pixseg.execution.memory_limit import threads_of_worker
from napari_pixseg.execution.tiling import plan_tiles
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import open_image
from napari_pixseg.sources.read_options import ReadOptions


def describe_input(
    path: str, parameters: Parameters, reading: ReadOptions
) -> tuple[str, Sequence[str]]:
    """Open an input and describe it; reads no pixel.

    Parameters
    ----------
    path : str
        Path or URL.
    parameters : Parameters
        Only ``axes`` and ``channels`` matter.
    reading : ReadOptions
        How a remote input is read.

    Returns
    -------
    text : str
        One line for each property.
    notes : sequence of str
        What was guessed about the input.
    """
    image = open_image(path, parameters.axes, parameters.channels, reading)
    tiling = plan_tiles(image)
    cost = estimate(image, tiling, os.cpu_count() or 1)
    least, most = (
        peak_memory(image, tiling.tile_pixels, min(threads_of_worker(), len(tiling)), regions)
        for regions in (False, True)
    )
    source = image.source
    scale = [
        f"{axis} {size:g} {source.units.get(axis, '')}".strip()
        for axis, size in source.scale.items()
    ]
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
    return "".join(f"{name + ':':10}{value}\n" for name, value in lines.items()), image.notes


def _join_sizes(sizes: Iterable[int]) -> str:
    return " x ".join(str(size) for size in sizes)
