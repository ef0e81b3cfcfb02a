"""An array that lies in a file as it is, read in parts.

No memory map is used: if a mapped file is truncated meanwhile, the next access kills the process
(SIGBUS). A short read, in contrast, can be reported as an error.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Iterable
from itertools import chain, product
from typing import Any

import numpy as np

from napari_pixseg.errors import InputChanged
from napari_pixseg.slices import Samples, SampleType, split_key


class FileView:
    """Array-like view of samples that lie one after the other in a local file.

    Several threads may slice it.

    Parameters
    ----------
    path : str
    shown : str
        The file's name in error messages.
    dtype : dtype
        In the byte order of the file.
    offset : int
        Where the first sample is, in bytes.
    shape : tuple of int
    """

    def __init__(
        self, path: str, shown: str, dtype: SampleType, offset: int, shape: tuple[int, ...]
    ) -> None:
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = dtype
        self._shown = shown
        self._offset = offset
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this object
        self._descriptor = self._file.fileno()
        self._lock = threading.Lock()
        weakref.finalize(self, self._file.close)

    def __getitem__(self, key: object) -> Samples:
        box, rest = split_key(key, self.shape)
        # The selection along this axis is contiguous, because all later axes are selected whole.
        last = len(box) - 1
        while last > 0 and box[last] == slice(0, self.shape[last]):
            last -= 1
        outer = [range(part.start, part.stop) for part in box[:last]]
        for axis, item in enumerate(rest[:last]):
            if isinstance(item, slice):
                # Lines that a step skips are not read.
                outer[axis] = outer[axis][item]
        inner = [part.stop - part.start for part in box[last:]]
        samples = np.empty([*map(len, outer), *inner], self.dtype)
        if samples.size:
            content = samples.reshape(-1, math.prod(inner)).view(np.uint8)
            length = content.shape[1]
            read_at = self._read_at
            # A tile has thousands of lines; one call for each would be slow.
            for line, start in zip(content, self._find_runs(outer, box[last].start), strict=True):
                if read_at(start, line) != length:
                    self._read_run(start, line.data)
        done = (slice(None) if isinstance(item, slice) else item for item in rest[:last])
        return samples[(*done, *rest[last:])]

    def _find_runs(self, outer: list[range], first: int) -> Iterable[int]:
        """Return where in the file the contiguous parts begin, in order."""
        steps = [self.dtype.itemsize * math.prod(self.shape[i:]) for i in range(1, self.ndim + 1)]
        start = self._offset + first * steps[len(outer)]
        places = [
            range(lines.start * step, lines.stop * step, lines.step * step)
            for lines, step in zip(outer, steps, strict=False)
        ]
        if not places:
            return (start,)
        *planes, lines = places
        return chain.from_iterable(
            range(start + above + lines.start, start + above + lines.stop, lines.step)
            for above in map(sum, product(*planes))
        )

    def _read_run(self, start: int, content: memoryview) -> None:
        done = 0
        # One call reads at most 2 GiB.
        while done < len(content):
            count = self._read_at(start + done, content[done:])
            if count == 0:
                raise InputChanged(
                    f"{self._shown} was cut off while it was read, so the output is not finished; "
                    "put the file back as it was and run again with resume (resume=True, "
                    "--resume), or segment it anew (overwrite=True, --overwrite)."
                )
            done += count

    if hasattr(os, "preadv"):

        def _read_at(self, start: int, content: Any) -> int:
            return os.preadv(self._descriptor, (content,), start)

    else:

        def _read_at(self, start: int, content: Any) -> int:
            with self._lock:
                self._file.seek(start)
                return self._file.readinto(content) or 0
