"""Finds the local files that a lazy array would read on a worker.

On a worker that lacks these files, zarr finds no chunk and returns the fill value, zero. Computing
a tile on each worker and comparing would also reveal this, but it costs a tile, names no path, and
refuses arrays of random numbers. So the graph is searched for paths, the way pickle goes through
it, and no file is read.
"""

from __future__ import annotations

import copyreg
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np

# Longer texts are not paths.
_LONGEST_PATH = 4096
# Workers differ in disks and not in single files, so a few files of each folder suffice.
_MOST_FILES = 64
# In a huge graph, this many objects are searched, and at least this many of each layer. The tasks
# of a layer are alike, and searching all of them would take seconds.
_MOST_OBJECTS = 20_000
_FEW_OBJECTS = 1_000

# What pickle is told to write in place of an object. Nobody reads it, so a list of parts will do.
_Parts: TypeAlias = tuple[Any, ...]


def find_graph_files(array: object) -> tuple[str, ...]:
    """Find the local files that an array's tasks would read, as far as it names them.

    Pixels in memory, mapped files included, are sent along. Paths that a function of an installed
    module puts together cannot be found.

    Returns
    -------
    tuple of str
        Files, and folders with files, that exist here, written as the tasks would open them.
    """
    parts: list[object] = [array]
    if hasattr(array, "__dask_graph__"):
        graph = array.__dask_graph__()
        parts = list(graph.layers.values()) if hasattr(graph, "layers") else [graph]
    walk = _Walk(max(_MOST_OBJECTS // max(len(parts), 1), _FEW_OBJECTS))
    for part in parts:
        walk.go_through(part)
    return tuple(_choose(walk.found.existing()))


@dataclass
class _Found:
    """Texts that may be paths, and paths."""

    texts: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)

    def existing(self) -> Iterator[str]:
        """Yield the paths that exist; of plain texts, only files and absolute folders."""
        for path in sorted(self.texts | self.paths):
            try:
                is_file = os.path.isfile(path)
                is_folder = not is_file and os.path.isdir(path)
            except ValueError:
                continue
            # A dot, a slash or "labels/0" may mean anything, although folders of these names exist.
            is_named = path in self.paths or (os.path.isabs(path) and len(PurePath(path).parts) > 2)
            if is_file or (is_folder and is_named):
                yield path


class _Nowhere:
    """A file that discards the pickle."""

    def write(self, content: Any) -> int:
        return len(content)


class _Walk(pickle.Pickler):
    """Goes through everything that would be sent, and writes nothing."""

    def __init__(self, most: int) -> None:
        super().__init__(_Nowhere(), protocol=5, buffer_callback=lambda _buffer: None)
        self.found = _Found()
        self._most = most
        self._left = most

    def go_through(self, value: Any) -> None:
        """Search one part, as far as it can be pickled and within the limits above."""
        self._left = self._most
        # Objects that cannot be pickled are refused elsewhere. Paths found so far count.
        with suppress(Exception):
            self.dump(value)

    def persistent_id(self, value: Any) -> int | None:
        """Note a path; return a number in place of an object whose parts do not matter."""
        if isinstance(value, str):
            may_be_path = os.sep in value or "." in value
            # Names of modules inside functions are no input.
            if may_be_path and len(value) <= _LONGEST_PATH and not value.endswith(".py"):
                self.found.texts.add(value)
            return 0
        if isinstance(value, (bytes, bytearray, type, ModuleType)):
            return 0
        if isinstance(value, PurePath):
            self.found.paths.add(str(value))
            return 0
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return 0
        return None

    def reducer_override(self, value: Any) -> Any:
        """Return the parts of an object."""
        self._left -= 1
        if self._left < 0:
            raise StopIteration
        if isinstance(value, FunctionType):
            return _parts(_parts_of_function(value))
        if isinstance(value, CodeType):
            return _parts(value.co_consts)
        if hasattr(value, "store_path") and type(value).__module__.startswith("zarr."):
            return _parts(self._parts_of_zarr(value.store_path))
        return _reduce(value)

    def _parts_of_zarr(self, place: Any) -> Sequence[Any]:
        """Note the folder of a zarr array; its metadata may name files that are never read."""
        root = getattr(place.store, "root", None)
        if not isinstance(root, PurePath):
            return (place.store,)
        self.found.paths.add(str(root / place.path))
        return ()


def _parts(parts: Sequence[Any]) -> _Parts:
    return list, (list(parts),)


def _parts_of_function(function: FunctionType) -> Sequence[Any]:
    """Return the values a function carries, if it is sent by value and not by its name."""
    module = sys.modules.get(function.__module__ or "")
    named: Any = module
    for name in function.__qualname__.split("."):
        named = getattr(named, name, None)
    if named is function and function.__module__ != "__main__":
        return ()
    names = _names_in(function.__code__)
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    cells = [_content(cell) for cell in function.__closure__ or ()]
    return (function.__code__, function.__defaults__, function.__kwdefaults__, cells, used)


def _names_in(code: CodeType) -> set[str]:
    inner = (_names_in(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # It is empty.
        return None


def _reduce(value: Any) -> _Parts:
    """Return an object's parts as pickle or a Dask client would request them."""
    try:
        of_class = copyreg.dispatch_table.get(type(value))
        reduced = value.__reduce_ex__(5) if of_class is None else of_class(value)
    except Exception:  # noqa: BLE001 - open files, locks, whatever cannot be pickled
        return _parts(_dask_header(value))
    if isinstance(reduced, str):
        return _parts(())
    # The state is visited after the object is known, so that cycles of objects end.
    return list, (list(reduced[1]), reduced[0]), *reduced[2:5]


def _dask_header(value: Any) -> Sequence[Any]:
    """Return what a Dask client sends in place of an open file, for example an HDF5 file."""
    serialize = sys.modules.get("distributed.protocol.serialize")
    if serialize is None:
        return ()
    try:
        header, _frames = serialize.dask_serialize(value)
    except Exception:  # noqa: BLE001 - it has none
        return ()
    return (header,)


def _choose(paths: Iterator[str]) -> list[str]:
    """Return the first and the last file of each folder, and only a few of many folders."""
    ends: dict[str, list[str]] = {}
    for path in paths:
        of_folder = ends.setdefault(os.path.dirname(path), [path])
        of_folder[1:] = [path] if path != of_folder[0] else []
    chosen = [path for of_folder in ends.values() for path in of_folder]
    step = max(1, -(-len(chosen) // _MOST_FILES))
    return chosen[::step]
