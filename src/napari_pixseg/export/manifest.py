"""The manifest: the outputs of a run, its input, and how to make them again."""

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
from typing import Any, TypeAlias

from napari_pixseg.errors import InputNotFound, ParameterError
from napari_pixseg.export.output_location import MANIFEST_NAME, PICTURES, OutputLocation
from napari_pixseg.parameters import Parameters

# A JSON object; docs/manifest.schema.json describes the types of its values.
JsonObject: TypeAlias = dict[str, Any]

_SOFTWARE = ("napari-pixseg", "numpy", "dask", "zarr", "numba")


@dataclass(frozen=True)
class Manifest:
    """The response of the SEGMENT API.

    Attributes
    ----------
    status : int
        200, or the status code of the failure.
    id : str
        Unique to this response.
    link : str or None
        Absolute URI of the output; set only with status 200.
    error : str or None
        One sentence; set only with other statuses.
    details : dict
        Parameters, input, classes, software versions, times.
    """

    status: int
    id: str
    link: str | None = None
    error: str | None = None
    details: JsonObject = field(default_factory=dict)

    @classmethod
    def of_error(
        cls, status: int, error: str, details: Mapping[str, object] | None = None
    ) -> Manifest:
        """Return the response to a request that failed."""
        return cls(status, new_id(), None, error, dict(details or {}))

    def to_dict(self) -> JsonObject:
        """Return the response as JSON values; fields without a value are left out."""
        fields = {"status": self.status, "link": self.link, "id": self.id, "error": self.error}
        present = {name: value for name, value in fields.items() if value is not None}
        return {**present, "details": self.details}

    def to_json(self) -> str:
        """Return the response as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, shown: str = "This") -> Manifest:
        """Parse the text that :meth:`to_json` made; errors name it ``shown``.

        Raises
        ------
        ParameterError
            If the text is not a manifest.
        """
        try:
            values = json.loads(text)
            return cls(
                int(values["status"]),
                str(values["id"]),
                values.get("link"),
                values.get("error"),
                dict(values.get("details") or {}),
            )
        # Text can nest deeper than Python's stack, and a number can be infinite.
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            OverflowError,
        ) as error:
            # Other errors would mention Python's types instead of the text.
            reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
            raise ParameterError(
                f"{shown} is not a manifest of napari-pixseg: it must be JSON with at least "
                f"status and id{reason}."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest file, or the manifest of an output.

        Parameters
        ----------
        path : path or URL
            A manifest, an OME-Zarr that holds one, or a picture with one beside it.

        Raises
        ------
        InputNotFound
            If there is no manifest there, as for an unfinished output.
        ParameterError
            If the file is not a manifest.
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
                f"{location.uri} is not a manifest, whose name would end in .json; give one, "
                "or the output that it belongs to."
            )
        raise InputNotFound(
            f"There is no manifest at {location.uri}; an output without one is unfinished."
        )

    @property
    def parameters(self) -> Parameters:
        """The parameters of the run, ready for another run.

        Raises
        ------
        ParameterError
            If the manifest records none.
        """
        values = self.details.get("parameters")
        if not isinstance(values, Mapping):
            raise ParameterError("This manifest records no parameters.")
        return Parameters.from_dict(values)


def attach_manifest(error: Exception, manifest: Manifest) -> None:
    """Attach the manifest of a failed export to the error that ended it.

    :class:`~napari_pixseg.errors.PixsegError` declares the attribute. Other exceptions get it too,
    because a bug report should name the parameters and the input.
    """
    vars(error)["manifest"] = manifest


def attached_manifest(error: BaseException) -> Manifest | None:
    """Return the manifest attached to an error; None if no export had begun."""
    manifest = getattr(error, "manifest", None)
    return manifest if isinstance(manifest, Manifest) else None


def new_id() -> str:
    """Return a unique id that nobody can guess."""
    return os.urandom(16).hex()


def utc_now() -> str:
    """Return the current time in UTC as ISO 8601 text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def software_versions() -> dict[str, str]:
    """Return the versions of all software a result may depend on."""
    versions = {"python": platform.python_version()}
    return {**versions, **{name: _installed_version(name) for name in _SOFTWARE}}


def _installed_version(name: str) -> str:
    """Find an installed version by its folder's name.

    This takes a hundredth of the time that importlib.metadata takes.
    """
    start = f"{name.replace('-', '_')}-"
    end = ".dist-info"
    for folder in map(_list_folder, sys.path):
        for entry in folder:
            if entry.startswith(start) and entry.endswith(end):
                return entry[len(start) : -len(end)]
    # Rarely needed, and slow to import.
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


# Cached, because each version looks through every folder of sys.path.
@cache
def _list_folder(folder: str) -> tuple[str, ...]:
    with suppress(OSError):
        return tuple(os.listdir(folder or "."))
    return ()
