"""A cached property that uses its instance's own lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class locked_cached_property(Generic[Value]):  # noqa: N801 - it is used like `property`
    """A property that is computed on first access, under the lock of its own instance.

    In Python 3.11, :func:`functools.cached_property` has one lock for all instances. One instance
    could hold it while it waits for a cluster, and tasks in the same process could wait for it
    while they hold the threads that the first one needs.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:
            # Accessed on the class, as documentation tools do.
            return self  # type: ignore[return-value]
        with instance._lock:
            if self._name not in instance.__dict__:
                # From now on Python finds the value here first, because this class has no __set__.
                instance.__dict__[self._name] = self._make(instance)
        kept: Value = instance.__dict__[self._name]
        return kept
