"""A process that decodes pictures of strangers, within limits of memory and time.

The server starts it with pipes: it says that it is ready, then a line of JSON comes in for each
job, and one goes out. What goes
wrong in a decoder goes wrong here, and the server ends this process when it takes too long.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from napari_pixseg.endpoint.segment_job import ImageJob, run_image_job
from napari_pixseg.errors import CorruptInput, TooLarge, is_lack_of_space, status_of
from napari_pixseg.execution.allocator import prepare_heap
from napari_pixseg.export.manifest import JsonObject

try:
    import resource
except ImportError:
    # Windows has no such limits.
    resource = None  # type: ignore[assignment]

# Memory of the largest job: samples of 16 bytes, the file, the color counts, the answer.
_BYTES_PER_PIXEL = 48
_LEAST_BYTES = 512 << 20
_STACK_BYTES = 8 << 20
_MOST_FILES = 256
# Once Dask is loaded, its scheduler runs the tiles, which makes later jobs slower.
_HEAVY = "dask"


def serve_jobs(max_pixels: int, seconds: float) -> None:
    """Do jobs until standard input ends.

    Parameters
    ----------
    max_pixels : int
        Largest image, on which the limit of memory depends.
    seconds : float
        Longest time of a job. The server enforces it; this process ends by itself a little later,
        in case the server was killed.
    """
    # Output printed by a library must not be mistaken for an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    prepare_heap()
    # Imported objects are permanent; searching them for garbage again and again takes longer than a
    # picture.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    limit_memory(_LEAST_BYTES + _BYTES_PER_PIXEL * max_pixels)
    # The time limit of a job starts now.
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        _set_alarm(seconds + 5)
        is_worn = _answer_job(line, answers)
        _set_alarm(0)
        if is_worn:
            return


def limit_memory(allowance: int) -> None:
    """Let this process use this many bytes more than it uses now."""
    if resource is None:
        return
    threads = (os.cpu_count() or 1) * _STACK_BYTES
    for name, limit in (
        ("RLIMIT_DATA", _data_bytes() + threads + allowance),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", _MOST_FILES),
    ):
        with suppress(OSError, ValueError):
            _, hard = resource.getrlimit(getattr(resource, name))
            most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(getattr(resource, name), (most, most))


def _data_bytes() -> int:
    """Return the memory that counts for the limit; known only on Linux."""
    with suppress(OSError):
        found = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) << 10
    return 0


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer_job(line: bytes, answers: BinaryIO) -> bool:
    """Do a job and write its result; return whether this process should be replaced."""
    is_worn = False
    try:
        said: JsonObject = {"manifest": run_image_job(ImageJob.from_json(line)).to_dict()}
    except MemoryError:
        # The remaining memory is fragmented.
        is_worn = True
        said = _describe_error(
            TooLarge("The image takes more memory than this server gives; send a smaller one.")
        )
    except Exception as error:  # noqa: BLE001 - the server must hear of whatever happens
        said = _describe_error(error)
    is_worn = is_worn or _HEAVY in sys.modules
    answers.write(json.dumps({**said, "is_worn": is_worn}).encode() + b"\n")
    answers.flush()
    return is_worn


def _describe_error(error: Exception) -> JsonObject:
    sentence = str(error)
    if isinstance(error, CorruptInput):
        # The error's own advice is for users of the command line.
        sentence = "A part cannot be decoded; repair the image, or save it again."
    return {
        "status": 507 if is_lack_of_space(error) else status_of(error),
        "sentence": sentence,
        "trace": "".join(traceback.format_exception(error)),
    }
