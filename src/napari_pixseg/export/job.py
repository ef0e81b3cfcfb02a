"""From a segmentation to disk, by the commit protocol.

Everything is written at its final path together with a run record; the
manifest comes last. An output without a manifest is unfinished.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_pixseg.engine.classify import Counted
from napari_pixseg.engine.image import Image
from napari_pixseg.engine.location import public_uri
from napari_pixseg.engine.run import Watch
from napari_pixseg.errors import NoSpace, OutputConflict, ParameterError, PixsegError, status_of
from napari_pixseg.export.manifest import Manifest, new_id, now, software
from napari_pixseg.export.painter import Painter, color_channels
from napari_pixseg.export.picture import PICTURES, refuse_format, write_picture
from napari_pixseg.export.place import MANIFEST_NAME, RECORD_NAME, Place
from napari_pixseg.export.store import StoreWriter
from napari_pixseg.model.classes import Classes
from napari_pixseg.parameters import Parameters

# Names that a user would not give to a folder.
_OTHER_FORMATS = (
    *(".bmp", ".gif", ".webp", ".jp2", ".jxl", ".avif", ".ppm", ".pgm", ".svg", ".pdf"),
    *(".npy", ".npz", ".h5", ".hdf5", ".csv", ".parquet", ".json", ".zip"),
)
OUTPUTS = ("classes", "recolored", "regions")
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """What is exported.

    Attributes
    ----------
    counted : Counted
    parameters : Parameters
    decide : callable
        Gives the classes; counts the colors first if need be.
    warnings : callable
        Gives what a user should know, once the classes are decided.
    """

    counted: Counted
    parameters: Parameters
    decide: Callable[[Watch], Classes]
    warnings: Callable[[], tuple[str, ...]]

    @property
    def image(self) -> Image:
        """The image that is segmented."""
        return self.counted.image


def export(
    job: Job,
    path: str | os.PathLike[str],
    outputs: tuple[str, ...],
    overwrite: bool,
    watch: Watch,
    *,
    blob: bool = False,
) -> Manifest:
    """Write an output and its manifest; see :meth:`Segmentation.export`.

    An exception that leaves here carries the answer in its attribute ``manifest``.
    """
    place = _place(path)
    manifest = Manifest(200, new_id(), place.uri, details=details_of(job, outputs))
    try:
        with _clear_os_errors(place):
            check_target(job, place, outputs, overwrite, blob)
            if place.suffix in PICTURES:
                return _export_picture(job, place, manifest, watch, blob)
            return _export_store(job, place, outputs, manifest, watch)
    except Exception as error:
        answer = replace(manifest, status=status_of(error), link=None, error=str(error))
        error.manifest = answer  # type: ignore[attr-defined]
        raise


def _place(path: object) -> Place:
    try:
        target = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        target = ""
    if not isinstance(target, str) or not target.strip():
        raise ParameterError(
            f"{path!r} is no place to write to; give a path or URL, for example out.ome.zarr."
        )
    return Place(target)


def check_target(
    job: Job, place: Place, outputs: tuple[str, ...], overwrite: bool, blob: bool
) -> None:
    """Refuse an output that cannot be written; changes nothing.

    Raises
    ------
    ParameterError, TooLarge, OutputConflict
    """
    check_outputs(outputs)
    _check_format(place, blob)
    _refuse_input_as_output(job.image, place)
    if place.suffix in PICTURES:
        if "recolored" not in outputs:
            raise ParameterError(
                f"{place.name} is a picture and can hold only the output 'recolored', not "
                f"{', '.join(outputs)}; give a path that ends in .ome.zarr."
            )
        channels = color_channels(job.image) + (job.image.alpha is not None)
        refuse_format(place.suffix, job.image.shape, channels, place.name)
    _refuse_existing(place, overwrite)


def _check_format(place: Place, blob: bool) -> None:
    if place.suffix in _OTHER_FORMATS:
        raise ParameterError(
            f"{place.name} would be a {place.suffix} file, which cannot be written; give a path "
            f"that ends in .ome.zarr, {', '.join(PICTURES)}."
        )
    if blob and place.suffix not in PICTURES:
        raise ParameterError(
            f"blob gives the picture alone, but {place.name} is no picture; "
            f"give a path that ends in {', '.join(PICTURES)}."
        )


def check_outputs(outputs: tuple[str, ...]) -> None:
    """Refuse names that are no outputs, and none at all."""
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        named = ", ".join(repr(name) for name in unknown) or "nothing"
        raise ParameterError(f"outputs names {named}; choose one or more of {', '.join(OUTPUTS)}.")


def _refuse_input_as_output(image: Image, place: Place) -> None:
    """Overwriting the input, or writing inside it, would destroy what cannot be made again."""
    if image.source.uri is None:
        return
    source, target = (
        f"{uri.rstrip('/')}/" for uri in (Place(image.source.uri).real_uri, place.real_uri)
    )
    if source.startswith(target) or target.startswith(source):
        raise OutputConflict(
            f"The output {place.uri} and the input {image.source.uri} overlap; "
            "choose an output elsewhere."
        )


def _refuse_existing(place: Place, overwrite: bool) -> None:
    """Refuse what exists, unless it is an output of ours and may be replaced."""
    if obstacle := place.obstacle():
        raise OutputConflict(
            f"{place.uri} cannot be made, because {obstacle} is in the way; choose another path."
        )
    if place.suffix in PICTURES:
        sidecar = place.sidecar()
        if sidecar.exists() and not (overwrite and _is_manifest(sidecar)):
            raise OutputConflict(_conflict(sidecar, overwrite))
        if place.is_folder() or (place.exists() and not overwrite):
            raise OutputConflict(_conflict(place, overwrite))
    elif place.exists():
        names = [] if place.is_file() else place.names()
        ours = RECORD_NAME in names or _is_manifest(place.child(MANIFEST_NAME))
        if not (_never_began(place, names) or (ours and overwrite)):
            raise OutputConflict(_conflict(place, overwrite))


def _is_manifest(place: Place) -> bool:
    """Whether a file is a manifest that this program wrote."""
    content = place.read_bytes()
    try:
        return content is not None and "software" in Manifest.from_json(content).details
    except ParameterError:
        return False


def _conflict(place: Place, overwrite: bool) -> str:
    if overwrite:
        return (
            f"{place.uri} exists and is not an output of this kind, so it is not overwritten; "
            "choose another path or remove it yourself."
        )
    return f"{place.uri} exists already; choose another path, or ask to overwrite it."


def _never_began(place: Place, names: list[str]) -> bool:
    """Whether a run failed here before it wrote anything: then nothing can be lost."""
    if names != [RECORD_NAME]:
        return False
    try:
        record = json.loads(place.child(RECORD_NAME).read_bytes() or b"{}")
        return record["state"] in ("failed", "cancelled")
    except (ValueError, KeyError, TypeError):
        return False


def details_of(job: Job, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Return the part of the details that is known before anything is read."""
    return {
        "parameters": job.parameters.to_dict(),
        "semantics": job.parameters.semantics,
        "outputs": list(outputs),
        "input": describe_input(job.image),
        "software": software(),
        "started": now(),
    }


def describe_input(image: Image) -> dict[str, Any]:
    """Return what an input is, as JSON values."""
    source = image.source
    return {
        "uri": source.uri,
        "kind": source.kind,
        "shape": [int(n) for n in source.array.shape],
        "dtype": str(image.dtype),
        "axes": image.axes,
        "channels": None if image.channels is None else list(image.channels),
        "scale": source.scale,
        "units": source.units,
        "identity": source.identity,
        "notes": list(image.notes),
    }


def _decided_details(job: Job, classes: Classes) -> dict[str, Any]:
    table = job.counted.table()
    window = job.counted.pixels().encoding.window
    return {
        "window": None if window is None else [list(pair) for pair in window],
        "color_table": {"sha256": table.hash(), "colors": len(table), "pixels": table.pixels},
        "classes": [_row(row) for row in classes.table],
        "warnings": list(job.warnings()),
    }


def _row(row: np.void) -> dict[str, Any]:
    names = row.dtype.names or ()
    return {name: row[name].tolist() for name in names}


@contextmanager
def _clear_os_errors(place: Place) -> Iterator[None]:
    """Turn a full or read-only device into one sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PixsegError):
            raise
        if error.errno in _FULL:
            raise NoSpace(
                f"No space is left at {place.uri}; free some, and run again with overwrite."
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise ParameterError(f"{place.name} is too long a name; give a shorter one.") from error
        if error.errno in _UNWRITABLE or not place.is_local:
            reason = public_uri(error.strerror or str(error))
            raise NoSpace(f"{place.uri} cannot be written: {reason}.") from error
        raise


# A store -----------------------------------------------------------------------


class _Record:
    """The run record: how far a run got, and why it ended."""

    def __init__(self, place: Place, manifest: Manifest) -> None:
        self._place = place.child(RECORD_NAME)
        self._values = {"id": manifest.id, "state": "running", "pass": "counting"}
        self._values |= manifest.details
        self._exists = False

    def write(self, **changes: Any) -> None:
        self._exists = True
        self._values |= changes
        self._place.write_bytes(json.dumps(self._values, indent=2).encode())

    def end(self, error: BaseException) -> None:
        """Say why the run ended, unless it never came to touch the output.

        The disk may be the reason, so failing here is no news.
        """
        if not self._exists:
            return
        status = status_of(error)
        state = "cancelled" if status == 499 else "failed"
        try:
            self.write(state=state, status=status, error=str(error) or repr(error), ended=now())
        except Exception:  # noqa: BLE001
            return


def _export_store(
    job: Job, place: Place, outputs: tuple[str, ...], manifest: Manifest, watch: Watch
) -> Manifest:
    replaces, record = place.exists(), _Record(place, manifest)
    if not replaces:
        # Before anything is counted: it proves that the place can be written.
        record.write()
    try:
        classes = job.decide(watch)
        details = {**manifest.details, **_decided_details(job, classes)}
        if replaces:
            _clear(place)
        record.write(**{"pass": "writing", "color_table": details["color_table"]})
        details |= StoreWriter(job.counted, job.parameters, classes, place, watch).write(outputs)
        manifest = replace(manifest, details={**details, "finished": now()})
        record.write(**{"pass": "done", "state": "finished"})
        place.child(MANIFEST_NAME).write_bytes(manifest.to_json().encode())
    except BaseException as error:
        record.end(error)
        raise
    return manifest


def _clear(place: Place) -> None:
    """Remove an output; its manifest first, so that a crash leaves nothing that looks finished."""
    place.child(MANIFEST_NAME).remove()
    place.remove()


# A picture ---------------------------------------------------------------------


def _export_picture(
    job: Job, place: Place, manifest: Manifest, watch: Watch, blob: bool
) -> Manifest:
    classes = job.decide(watch)
    details = {**manifest.details, **_decided_details(job, classes)}
    with place.new_file() as partial:
        pixels = job.counted.pixels()
        lookup = classes.lookup(job.counted.table())
        painter = Painter.of(job.image, classes)
        write_picture(
            partial,
            pixels.class_feed(lookup),
            pixels.tiling,
            painter,
            place.suffix,
            place.name.lower().endswith((".ome.tif", ".ome.tiff")),
            watch,
            lambda: pixels.classes(lookup),
        )
        # The commit record of an older picture goes at the last moment.
        place.sidecar().remove()
    manifest = replace(manifest, details={**details, "outputs": ["recolored"], "finished": now()})
    if not blob:
        place.sidecar().write_bytes(manifest.to_json().encode())
    return manifest
