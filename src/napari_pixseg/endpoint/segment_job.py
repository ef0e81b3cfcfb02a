"""Runs a job on an image: checks it, segments it, and writes the answer's picture.

Jobs run in processes of their own, so requests and results are JSON.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from napari_pixseg.classification.tile import Tile
from napari_pixseg.endpoint import ANSWER_PICTURES
from napari_pixseg.endpoint.untrusted_image import open_received
from napari_pixseg.errors import TooLarge
from napari_pixseg.execution.progress import RunMonitor
from napari_pixseg.execution.scheduler import run_tiles
from napari_pixseg.export.manifest import JsonObject, Manifest, new_id, utc_now
from napari_pixseg.export.manifest_details import decided_details, initial_details
from napari_pixseg.parameters import Parameters
from napari_pixseg.regions.rules import resolve_rules
from napari_pixseg.regions.whole_map import label_whole_map
from napari_pixseg.segmentation import Segmentation, open_segmentation
from napari_pixseg.slices import Samples, whole_box
from napari_pixseg.sources.damaged_chunks import read_box
from napari_pixseg.sources.source import Source

# As many numbers as a PNG of 16 bits can hold.
_MOST_NUMBERS = (1 << 16) - 1
# Samples that are decoded at once; the memory limit leaves room for them.
_BYTES_PER_PIXEL = 16


@dataclass(frozen=True)
class ImageJob:
    """A job on one image.

    Attributes
    ----------
    image : str
        Path of the file that came from a client.
    picture : str
        Path of the PNG to write; if empty, the image is decoded and nothing else.
    max_pixels : int
        Size limit of the decoded image.
    uri : str or None
        Address that the image came from, without secrets.
    output : str
        One of `ANSWER_PICTURES`.
    parameters : dict
        As :meth:`Parameters.to_dict` gives them.
    """

    image: str
    picture: str
    max_pixels: int
    uri: str | None = None
    output: str = ANSWER_PICTURES[0]
    parameters: JsonObject = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the job as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ImageJob:
        """Parse what :meth:`to_json` returned."""
        return cls(**json.loads(text))


def run_image_job(job: ImageJob) -> Manifest:
    """Do a job.

    Returns
    -------
    Manifest
        Without a link.

    Raises
    ------
    PixsegError
        If the image is refused; the message is for the client.
    """
    source = open_received(Path(job.image), job.uri, job.max_pixels)
    if not job.picture:
        return _check_image(source)
    source = _decode_once(source, job.max_pixels)
    segmentation = open_segmentation(source, Parameters.from_dict(job.parameters))
    if job.output == "recolored":
        return segmentation.export(job.picture, ("recolored",), blob=True)
    _write_numbers(job.picture, _NUMBERS[job.output](segmentation), job.output)
    return _describe_run(segmentation, job.output)


def _decode_once(source: Source, max_pixels: int) -> Source:
    """Return a TIFF of a usual size with its pixels in memory.

    Read in parts, it would be decoded in both passes, and Dask would be loaded for its tiles. That
    takes longer than the image, and a process with Dask is not used again.
    """
    pixels = source.array
    if source.is_in_memory or math.prod(pixels.shape) * pixels.dtype.itemsize > (
        _BYTES_PER_PIXEL * max_pixels
    ):
        return source
    pixels = read_box(source, whole_box(pixels.shape))
    return replace(source, array=pixels, chunks=None, is_in_memory=True)


def _check_image(source: Source) -> Manifest:
    pixels = np.asarray(source.array[...])
    details = {"shape": list(pixels.shape), "dtype": str(pixels.dtype), "identity": source.identity}
    return Manifest(200, new_id(), details={"input": details})


def _class_numbers(segmentation: Segmentation) -> Samples:
    """Return the class of every pixel, without Dask, which a picture does not need."""
    lookup = segmentation.decision.lookup(segmentation.color_table)
    pixels = segmentation.color_count.pixels()
    numbers = np.empty(pixels.tiling.shape, lookup.dtype)

    def fill_tile(tile: Tile, number: int) -> None:
        numbers[pixels.tiling.slices(number)] = tile.known_classes()

    run_tiles(pixels.class_tiles(lookup), fill_tile, "classes", RunMonitor())
    return numbers


def _region_numbers(segmentation: Segmentation) -> Samples:
    """Return the region of every pixel, without Dask, too."""
    rules = resolve_rules(segmentation.parameters, segmentation.decision)
    return label_whole_map(_class_numbers(segmentation), segmentation.image.label_axes, rules)


_NUMBERS = {"classes": _class_numbers, "regions": _region_numbers}


def _write_numbers(path: str, numbers: Samples, output: str) -> None:
    """Write a PNG whose samples are the numbers themselves, in 8 or 16 bits."""
    most = int(numbers.max())
    if most > _MOST_NUMBERS:
        raise TooLarge(
            f"The image has {most} {output}, but a PNG holds {_MOST_NUMBERS} numbers; raise "
            "min_size, ct or denoise to get fewer."
        )
    plane = numbers.reshape(numbers.shape[-2:]).astype(np.uint8 if most < 256 else np.uint16)
    PillowImage.fromarray(plane).save(path, compress_level=1)


def _describe_run(segmentation: Segmentation, output: str) -> Manifest:
    details = {
        **initial_details(segmentation.image, segmentation.parameters, (output,)),
        **decided_details(segmentation.color_count, segmentation.decision, segmentation.warnings),
        "finished": utc_now(),
    }
    return Manifest(200, new_id(), details=details)
