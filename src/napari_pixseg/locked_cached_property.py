"""A property that is made once, under a lock of its own object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class locked_cached_property(Generic[Value]):  # noqa: N801 - it is used like `property`
    """A property that is made on first access, under the lock of its own segmentation.

    In Python 3.11, all instances share the lock of :func:`functools.cached_property`: while one
    waits for a cluster, tasks in the same process that ask another hold the threads it waits for.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None:
            # On the class itself, where documentation looks it up.
            return self  # type: ignore[return-value]
        with instance._lock:
            if self._name not in instance.__dict__:
                # Found there first from now on, because this class has no __set__.
                instance.__dict__[self._name] = self._make(instance)
        kept: Value = instance.__dict__[self._name]
        return kept
