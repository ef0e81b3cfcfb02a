"""The API's response as a record: what was made, from what, and how to make it again."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from napari_pixseg.errors import InputNotFound, ParameterError
from napari_pixseg.export.output_location import MANIFEST_NAME, PICTURES, OutputLocation
from napari_pixseg.parameters import Parameters

_SOFTWARE = ("napari-pixseg", "numpy", "dask", "zarr", "numba")


@dataclass(frozen=True)
class Manifest:
    """What the SEGMENT API answers.

    Attributes
    ----------
    status : int
        200, or the code of the failure.
    id : str
        Unique to this response.
    link : str or None
        Absolute URI of the output; only with status 200.
    error : str or None
        One sentence; only with another status.
    details : dict
        Parameters, input, classes, software versions, times.
    """

    status: int
    id: str
    link: str | None = None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_error(
        cls, status: int, error: str, details: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Answer a request that failed."""
        return cls(status, new_id(), None, error, dict(details or {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the response's JSON values; absent fields are left out."""
        fields = {"status": self.status, "link": self.link, "id": self.id, "error": self.error}
        present = {name: value for name, value in fields.items() if value is not None}
        return {**present, "details": self.details}

    def to_json(self) -> str:
        """Return the response as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, shown: str = "This") -> Manifest:
        """Read back what :meth:`to_json` gave; ``shown`` is how an error calls it.

        Raises
        ------
        ParameterError
            If the text is not a manifest.
        """
        try:
            values = json.loads(text)
            known = {name: values.get(name) for name in ("link", "error")}
            return cls(int(values["status"]), str(values["id"]), **known,
                       details=dict(values.get("details") or {}))  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # The others would tell of Python and not of the text.
            reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
            raise ParameterError(
                f"{shown} is not a manifest of napari-pixseg: it must be JSON with at least "
                f"status and id{reason}."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest file, or that of an output.

        Parameters
        ----------
        path : path or URL
            A manifest, the OME-Zarr that holds one, or the picture beside one.

        Raises
        ------
        InputNotFound
            If there is no manifest there, as for an unfinished output.
        ParameterError
            If the file is no manifest.
        """
        location = OutputLocation(os.fspath(path))
        candidates = [location] if location.uri.endswith(".json") else []
        for candidate in (*candidates, location.child(MANIFEST_NAME), location.sidecar()):
            try:
                content = candidate.read_bytes()
            except OSError as error:
                raise InputNotFound(f"{candidate.uri} cannot be read: {error.strerror}.") from None
            if content is not None:
                return cls.from_json(content, candidate.uri)
        if location.is_file() and location.suffix not in PICTURES:
            raise ParameterError(
                f"{location.uri} is no manifest, whose name would end in .json; give one, or the "
                "output that it belongs to."
            )
        raise InputNotFound(
            f"There is no manifest at {location.uri}; an output without one is unfinished."
        )

    @property
    def parameters(self) -> Parameters:
        """The parameters of the run, ready to run again.

        Raises
        ------
        ParameterError
            If the manifest has none.
        """
        values = self.details.get("parameters")
        if not isinstance(values, Mapping):
            raise ParameterError("This manifest records no parameters.")
        return Parameters.from_dict(values)


def new_id() -> str:
    """Return an unguessable, unique id."""
    return os.urandom(16).hex()


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def software() -> dict[str, str]:
    """Return the versions a result may depend on."""
    versions = {"python": platform.python_version()}
    return {**versions, **{name: _version(name) for name in _SOFTWARE}}


def _version(name: str) -> str:
    """Find an installed version by the name of its folder, which costs a hundredth of asking."""
    start, end = f"{name.replace('-', '_')}-", ".dist-info"
    for folder in map(_entries, sys.path):
        for entry in folder:
            if entry.startswith(start) and entry.endswith(end):
                return entry[len(start) : -len(end)]
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def _entries(folder: str) -> tuple[str, ...]:
    with suppress(OSError):
        return tuple(os.listdir(folder or "."))
    return ()
