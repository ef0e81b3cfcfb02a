"""Chooses the version of a kernel, and compiles kernels with numba.

Importing numba and loading what it compiled earlier takes longer than NumPy takes for a picture of
some megapixels. The kernels that such a picture needs therefore exist twice: compiled, and
vectorized with NumPy. Tests hold the two equal, bit for bit. :data:`kernel_choice` picks one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import update_wrapper
from types import FunctionType
from typing import Generic, ParamSpec, TypeVar, cast

from napari_pixseg.algorithm.kernels.arrays import AnyArray

P = ParamSpec("P")
R = TypeVar("R")

# Beyond these numbers numba is faster, as measured on whole processes. Vectorized kernels process
# about ten elements for each pixel and a few for each color.
MOST_VECTORIZED_ELEMENTS = 1 << 29
MOST_VECTORIZED_PIXELS = 1 << 25

# Reentrant, because compiling a kernel compiles the kernels it calls.
_compiling = threading.RLock()


@dataclass(frozen=True, eq=False)
class Workload:
    """The work of a process, as far as it is known.

    Attributes
    ----------
    vectorized_elements : int
        Array elements that vectorized kernels have processed so far.
    largest_image : int
        Pixels of the largest image that was announced.
    repeats : bool
        Whether the same kernels will be called again and again, as when a slider is moved.
    """

    vectorized_elements: int = 0
    largest_image: int = 0
    repeats: bool = False


def is_worth_compiling(
    work: Workload, numba_is_loaded: bool, most_elements: int = MOST_VECTORIZED_ELEMENTS
) -> bool:
    """Return whether compiled kernels are faster for this work.

    If numba is loaded already, it costs nothing more, so it is used at once.
    """
    return (
        numba_is_loaded
        or work.repeats
        or work.largest_image > MOST_VECTORIZED_PIXELS
        or work.vectorized_elements >= most_elements
    )


class KernelChoice:
    """Chooses between compiled and vectorized kernels for one process.

    Callers announce work with :meth:`expect_image`, :meth:`expect_repetition` and :meth:`run`.
    Reading :attr:`uses_compiled` changes nothing.

    Parameters
    ----------
    most_elements : int
        Elements that vectorized kernels may process before numba is loaded.
    """

    def __init__(self, most_elements: int = MOST_VECTORIZED_ELEMENTS) -> None:
        self._most_elements = most_elements
        self._work = Workload()
        self._lock = threading.Lock()

    @property
    def uses_compiled(self) -> bool:
        """Whether the next kernel is a compiled one."""
        return is_worth_compiling(self._work, "numba" in sys.modules, self._most_elements)

    def expect_image(self, pixels: int) -> None:
        """Announce an image that will be worked on."""
        with self._lock:
            largest = max(pixels, self._work.largest_image)
            self._work = replace(self._work, largest_image=largest)

    def expect_repetition(self) -> None:
        """Announce that the kernels will be called again and again."""
        with self._lock:
            self._work = replace(self._work, repeats=True)

    def run(self, elements: int, vectorized: Callable[[], R], compiled: Callable[[], R]) -> R:
        """Run the cheaper of two versions of some work, and keep count of the elements."""
        if self.uses_compiled:
            return compiled()
        with self._lock:
            # Counted before the work: several threads begin at the same time.
            total = self._work.vectorized_elements + elements
            self._work = replace(self._work, vectorized_elements=total)
        return vectorized()


kernel_choice = KernelChoice()


class Kernel(Generic[P, R]):
    """A loop over arrays that is compiled when it is first called.

    Attributes
    ----------
    function : callable
        The loop in Python.
    vectorized : callable or None
        The same function in NumPy, for work that is not worth loading numba.
    """

    def __init__(self, function: Callable[P, R], vectorized: Callable[P, R] | None = None) -> None:
        update_wrapper(self, function)
        self.function = function
        self.vectorized = vectorized
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the version that is faster for the size of the first argument."""
        vectorized = self.vectorized
        if vectorized is None:
            return self.compiled(*args, **kwargs)
        return kernel_choice.run(
            cast(AnyArray, args[0]).size,
            lambda: vectorized(*args, **kwargs),
            lambda: self.compiled(*args, **kwargs),
        )

    @property
    def compiled(self) -> Callable[P, R]:
        """The function compiled by numba."""
        if self._compiled is None:
            with _compiling:
                # Asked again inside the lock: another thread may have compiled it meanwhile.
                self._compiled = self._compiled or _compile_loop(self.function)
        return self._compiled


def compiled(function: Callable[P, R]) -> Kernel[P, R]:
    """Make a kernel that is always compiled."""
    return Kernel(function)


def compiled_or(vectorized: Callable[P, R]) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Make a kernel that has a vectorized version, too."""
    return lambda function: Kernel(function, vectorized)


def _compile_loop(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba; keep the machine code on disk where possible."""
    import numba

    loop = _with_compiled_callees(cast(FunctionType, function))
    # No fast-math, because results must not depend on the processor.
    try:
        kernel: Callable[P, R] = numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError:
        # A read-only installation without a home directory has no place for a cache.
        kernel = numba.njit(nogil=True)(loop)
    return kernel


def _with_compiled_callees(function: FunctionType) -> FunctionType:
    """Return the function with the kernels that it calls compiled, as numba requires."""
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
