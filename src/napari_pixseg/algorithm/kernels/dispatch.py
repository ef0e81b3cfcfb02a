"""How the kernels are compiled: once, when needed, kept on disk, without the interpreter lock.

Importing numba and loading what it compiled earlier takes longer than a picture of some
megapixels takes in plain NumPy. Kernels that such a picture needs therefore have a plain
version, too; the tests hold the two equal, bit for bit.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")


R = TypeVar("R")


# Where numba begins to be the cheaper way, measured on whole processes: elements that plain
# versions look at, about ten for each pixel and a few for each color.
PLAIN_ELEMENTS = 1 << 29


PLAIN_PIXELS = 1 << 25


_compiling = threading.RLock()


class Kernel(Generic[P, R]):
    """A loop over arrays that is compiled when it is first called.

    Attributes
    ----------
    function : callable
        As it was written.
    plain : callable or None
        Does the same with NumPy, for work that is not worth loading numba.
    """

    def __init__(self, function: Callable[P, R], plain: Callable[P, R] | None = None) -> None:
        update_wrapper(self, function)
        self.function, self.plain = function, plain
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain version where the allowance covers it, else the compiled one."""
        if self.plain is not None and allowance.covers(cast(Any, args[0]).size):
            return self.plain(*args, **kwargs)
        return self.compiled(*args, **kwargs)

    @property
    def compiled(self) -> Callable[P, R]:
        """The function as numba compiled it."""
        if self._compiled is None:
            with _compiling:
                self._compiled = self._compiled or _compile(self.function)
        return self._compiled


def compiled(function: Callable[P, R]) -> Kernel[P, R]:
    """Make a kernel that is always compiled."""
    return Kernel(function)


def compiled_or(plain: Callable[P, R]) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Make a kernel of which there is a plain version."""
    return lambda function: Kernel(function, plain)


class Allowance:
    """How much this process may still do without numba.

    Parameters
    ----------
    elements : int
        What the plain versions may look at before numba is loaded after all.
    """

    def __init__(self, elements: int) -> None:
        self._left = elements

    def covers(self, elements: int) -> bool:
        """Whether so many elements are to be worked on without numba; counts them."""
        if self._left <= 0 or "numba" in sys.modules:
            return False
        self._left -= elements
        return True

    def expect(self, pixels: int) -> None:
        """Be told of an image that will be worked on: if it is large, numba pays at once."""
        if pixels > PLAIN_PIXELS:
            self.end()

    def end(self) -> None:
        """Be told that numba pays at once, because what is done now will be done again."""
        self._left = 0


allowance = Allowance(PLAIN_ELEMENTS)


def _compile(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba; keep the machine code where that can be written.

    No fast-math: results must not depend on the processor. A read-only
    installation without a home has no place for a cache and compiles anew.
    """
    import numba

    loop = _with_compiled_callees(cast(FunctionType, function))
    try:
        kernel: Callable[P, R] = numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError:
        kernel = numba.njit(nogil=True)(loop)
    return kernel


def _with_compiled_callees(function: FunctionType) -> FunctionType:
    """Return the function with the kernels it calls as numba wants them."""
    known = function.__globals__
    kernels = {
        name: known[name].compiled
        for name in function.__code__.co_names
        if isinstance(known.get(name), Kernel)
    }
    if not kernels:
        return function
    copy = FunctionType(function.__code__, {**known, **kernels}, function.__name__)
    return cast(FunctionType, update_wrapper(copy, function))
