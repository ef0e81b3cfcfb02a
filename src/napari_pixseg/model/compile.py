"""How the kernels are compiled: once, kept on disk, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function with numba; keep the machine code where that can be written.

    No fast-math: results must not depend on the processor. A read-only
    installation without a home has no place for a cache and compiles anew.
    """
    try:
        kernel: Function = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        kernel = numba.njit(nogil=True)(function)
    return kernel
