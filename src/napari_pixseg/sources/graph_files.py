"""Local files that a lazy array would read on a worker, found in what is sent there.

A worker that does not have them gives zeros: zarr finds no chunk and takes the fill value. To
compute a tile on each worker and compare would find that as well, but it costs a tile, names no
path, and refuses arrays of random numbers. So the graph is gone through as pickle does it, and
nothing is read.
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

# Longer texts are no paths.
_LONGEST_PATH = 4096
# Workers have other disks, not other files: a few of each folder tell.
_MOST_FILES = 64
# Of a huge graph, so many objects are gone through, and so many of each layer at least: its tasks
# are alike, and all of them would take seconds.
_MOST_OBJECTS = 20_000
_FEW_OBJECTS = 1_000

# What pickle is told to write of an object: it is not read again, so a list of its parts.
_Parts: TypeAlias = tuple[Any, ...]


def find_graph_files(array: object) -> tuple[str, ...]:
    """Find the local files that an array's tasks would read, as far as it names them.

    Pixels in memory, mapped ones as well, are sent. Paths that a function of an installed module
    puts together are out of sight.

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
        """Yield what exists: of mere texts, files and absolute folders."""
        for path in sorted(self.texts | self.paths):
            try:
                is_file = os.path.isfile(path)
                is_folder = not is_file and os.path.isdir(path)
            except ValueError:
                continue
            # A dot, a slash or "labels/0" may be anything, and are folders as well.
            is_named = path in self.paths or (os.path.isabs(path) and len(PurePath(path).parts) > 2)
            if is_file or (is_folder and is_named):
                yield path


class _Nowhere:
    """Where the pickle goes."""

    def write(self, content: Any) -> int:
        return len(content)


class _Walk(pickle.Pickler):
    """Goes through all that would be sent, and writes nothing."""

    def __init__(self, most: int) -> None:
        super().__init__(_Nowhere(), protocol=5, buffer_callback=lambda _buffer: None)
        self.found = _Found()
        self._most = most
        self._left = most

    def go_through(self, value: Any) -> None:
        """Go through a part of what is sent, as far as it can be and is worth it."""
        self._left = self._most
        # What cannot be sent at all is refused elsewhere; what was found until then counts.
        with suppress(Exception):
            self.dump(value)

    def persistent_id(self, value: Any) -> int | None:
        """Note a path; return a number for what has no parts that matter, so that it is left."""
        if isinstance(value, str):
            may_be_path = os.sep in value or "." in value
            # Names of modules in the traces of functions are no input.
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
        """Return what an object consists of."""
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
        """Note the folder of a zarr array; its metadata may name files that nobody reads."""
        root = getattr(place.store, "root", None)
        if not isinstance(root, PurePath):
            return (place.store,)
        self.found.paths.add(str(root / place.path))
        return ()


def _parts(parts: Sequence[Any]) -> _Parts:
    return list, (list(parts),)


def _parts_of_function(function: FunctionType) -> Sequence[Any]:
    """Return the values that a function carries, if it is sent itself and not by its name."""
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
    """Return an object's parts as pickle would ask for them, or as a Dask client would."""
    try:
        of_class = copyreg.dispatch_table.get(type(value))
        reduced = value.__reduce_ex__(5) if of_class is None else of_class(value)
    except Exception:  # noqa: BLE001 - open files, locks, whatever cannot be pickled
        return _parts(_dask_header(value))
    if isinstance(reduced, str):
        return _parts(())
    # Its state comes after it is known, so that a ring of objects has an end.
    return list, (list(reduced[1]), reduced[0]), *reduced[2:5]


def _dask_header(value: Any) -> Sequence[Any]:
    """Return what a Dask client sends in place of an open file, such as one of HDF5."""
    serialize = sys.modules.get("distributed.protocol.serialize")
    if serialize is None:
        return ()
    try:
        header, _frames = serialize.dask_serialize(value)
    except Exception:  # noqa: BLE001 - it has none
        return ()
    return (header,)


def _choose(paths: Iterator[str]) -> list[str]:
    """Return the first and the last file of each folder, and few folders of many."""
    ends: dict[str, list[str]] = {}
    for path in paths:
        of_folder = ends.setdefault(os.path.dirname(path), [path])
        of_folder[1:] = [path] if path != of_folder[0] else []
    chosen = [path for of_folder in ends.values() for path in of_folder]
    step = max(1, -(-len(chosen) // _MOST_FILES))
    return chosen[::step]
