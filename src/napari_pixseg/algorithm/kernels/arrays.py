"""Names for the arrays that the kernels work on."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Arrays of whatever number type the image has; numba compiles a variant for each.
AnyArray: TypeAlias = NDArray[Any]
Bytes: TypeAlias = NDArray[np.uint8]
# Colors of three bytes in one number, red << 16 | green << 8 | blue.
Packed: TypeAlias = NDArray[np.uint32]
Counts: TypeAlias = NDArray[np.int64]
# Counters of all 2^24 colors are the largest thing a thread holds, and 32 bits halve it.
Scratch: TypeAlias = NDArray[np.uint32]
# Indices into another array: numbers of intervals, boxes or lines.
Indices: TypeAlias = NDArray[np.int64]
ClassNumbers: TypeAlias = NDArray[np.uint16]
