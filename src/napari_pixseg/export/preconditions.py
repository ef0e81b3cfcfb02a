"""Checks before an export begins. They may refuse it, but they change nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from napari_pixseg.errors import OutputConflict, ParameterError
from napari_pixseg.export.lock import has_left_lock, only_writer
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import (
    LOCK_NAME,
    MANIFEST_NAME,
    PICTURES,
    RECORD_NAME,
    TOKEN_PREFIX,
    OutputLocation,
)
from napari_pixseg.export.painter import color_channels
from napari_pixseg.export.picture_writer import refuse_format
from napari_pixseg.export.run_record import load_record, refuse_living_run, unreadable_record
from napari_pixseg.sources.image import Image

OnError: TypeAlias = Literal["raise", "skip"]


OUTPUTS = ("classes", "recolored", "regions")
# Extensions of other formats that do not consist of letters alone.
_WITH_DIGITS = (".jp2", ".h5", ".hdf5", ".bz2", ".nd2")


@dataclass(frozen=True)
class ExistingOutputPolicy:
    """What may be done to an existing output.

    Attributes
    ----------
    overwrite : bool
        Whether it may be replaced.
    resume : bool
        Whether it should be finished.
    break_lock : bool
        Whether the lock of a writer that has been silent for some beats may be broken.
    """

    overwrite: bool = False
    resume: bool = False
    break_lock: bool = False


def check_target(
    image: Image,
    location: OutputLocation,
    outputs: tuple[str, ...],
    policy: ExistingOutputPolicy,
    blob: bool,
) -> None:
    """Refuse an output that cannot, or must not, be written.

    Raises
    ------
    ParameterError, TooLarge, OutputConflict
    """
    if policy.overwrite and policy.resume:
        raise ParameterError(
            "overwrite replaces an output and resume finishes it; ask for one of them, not both."
        )
    check_outputs(outputs)
    _check_format(location, blob)
    _refuse_input_as_output(image, location)
    if location.suffix in PICTURES:
        if "recolored" not in outputs:
            raise ParameterError(
                f"{location.name} is a picture and can hold only the output 'recolored', not "
                f"{', '.join(outputs)}; give a path that ends in .ome.zarr."
            )
        channels = color_channels(image) + (image.alpha is not None)
        refuse_format(location.suffix, image.shape, channels, location.name)
    if obstacle := location.find_obstacle():
        raise OutputConflict(
            f"{location.uri} cannot be made, because {obstacle} is in the way; choose another path."
        )
    try:
        refuse_existing(location, policy)
    except OutputConflict:
        if is_unfinished(location):
            # If a run is writing the output, that is more helpful to know than that it exists.
            _refuse_second_writer(location, policy)
        raise


def _check_format(location: OutputLocation, blob: bool) -> None:
    # A folder may have a name such as out.v2. Only letters after the last dot mean a file format.
    letters = location.suffix[1:].isalpha() or location.suffix in _WITH_DIGITS
    if letters and location.suffix not in (".zarr", *PICTURES):
        raise ParameterError(
            f"{location.name} would be a {location.suffix} file, which cannot be written; give a "
            f"path that ends in .ome.zarr, {', '.join(PICTURES)}."
        )
    if location.suffix not in PICTURES and not _is_utf8(location.target):
        raise ParameterError(
            f"{location.name!r} is not a name in UTF-8, which the metadata of a store require; "
            "give another one."
        )
    if blob and location.suffix not in PICTURES:
        raise ParameterError(
            f"blob gives the picture alone, but {location.name} is not a picture; "
            f"give a path that ends in {', '.join(PICTURES)}."
        )


def _is_utf8(text: str) -> bool:
    """Whether a path is UTF-8 on the disk, whatever encoding this process uses."""
    try:
        os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return False
    return True


def check_outputs(outputs: tuple[str, ...]) -> None:
    """Refuse unknown names of outputs, and an empty list."""
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        named = ", ".join(repr(name) for name in unknown) or "nothing"
        raise ParameterError(f"outputs names {named}; choose one or more of {', '.join(OUTPUTS)}.")


def check_on_error(on_error: str, image: Image) -> None:
    """Refuse an unknown ``on_error``, and ``skip`` for an input whose chunks are unknown."""
    if on_error not in get_args(OnError):
        raise ParameterError(f"on_error = {on_error!r}; choose 'raise' or 'skip'.")
    if on_error == "skip" and image.source.is_dask:
        raise ParameterError(
            "on_error = 'skip' cannot tell which chunks lie behind a Dask array; give the zarr "
            "store or the file that the array reads."
        )


def _refuse_input_as_output(image: Image, location: OutputLocation) -> None:
    """Refuse to overwrite the input or to write inside it, which could not be undone."""
    if image.source.uri is None:
        return
    source = OutputLocation(image.source.uri).real_uri.rstrip("/") + "/"
    target = location.real_uri.rstrip("/") + "/"
    if source.startswith(target) or target.startswith(source):
        raise OutputConflict(
            f"The output {location.uri} and the input {image.source.uri} overlap; "
            "choose an output elsewhere."
        )


def refuse_existing(location: OutputLocation, policy: ExistingOutputPolicy) -> None:
    """Refuse an existing output, unless this program made it and may replace or finish it.

    Raises
    ------
    OutputConflict
    """
    if location.suffix in PICTURES:
        _refuse_existing_picture(location, policy)
        return
    if location.exists() and not location.is_folder():
        raise OutputConflict(_foreign_sentence(location, policy))
    names = list_contents(location)
    # A run that never began has left nothing to protect.
    if not names or (_never_began(location, names) and not policy.resume):
        return
    # Only this program writes a run record, or a manifest that names its own software.
    ours = RECORD_NAME in names or _is_manifest(location.child(MANIFEST_NAME))
    if not ours and not policy.resume:
        raise OutputConflict(_not_ours_sentence(location))
    if not (ours and (policy.overwrite or policy.resume)):
        raise OutputConflict(_exists_sentence(location, policy))
    # A finished output may have no record.
    if policy.resume and load_record(location) is None and load_finished(location) is None:
        raise unreadable_record(location)


def list_contents(location: OutputLocation) -> list[str]:
    """Return the names in a store, without the lock, tokens and half-written run records."""
    passing = (f".{RECORD_NAME}.", TOKEN_PREFIX)
    return [
        name for name in location.list_names() if name != LOCK_NAME and not name.startswith(passing)
    ]


def _refuse_existing_picture(location: OutputLocation, policy: ExistingOutputPolicy) -> None:
    sidecar = location.sidecar()
    if policy.resume and location.is_file() and load_finished(location) is not None:
        return
    if sidecar.exists() and not _is_manifest(sidecar):
        raise OutputConflict(_foreign_sentence(sidecar, policy))
    if location.is_folder():
        raise OutputConflict(_foreign_sentence(location, policy))
    found = next((one for one in (location, sidecar) if one.exists()), None)
    if policy.resume and found == location and has_left_lock(location):
        # A run was killed between the picture and its manifest.
        return
    if found is not None and not policy.overwrite:
        raise OutputConflict(_exists_sentence(found, policy))


def _refuse_second_writer(location: OutputLocation, policy: ExistingOutputPolicy) -> None:
    """Raise OutputConflict if a run is writing the output at this moment."""
    if location.is_local:
        with only_writer(location, is_store=True, break_lock=policy.break_lock):
            return
    refuse_living_run(location, policy.break_lock)


def load_finished(location: OutputLocation) -> Manifest | None:
    """Return the manifest of an output that this program finished; None if there is none."""
    if location.suffix in PICTURES:
        return _read_manifest(location.sidecar())
    return _read_manifest(location.child(MANIFEST_NAME))


def _is_manifest(location: OutputLocation) -> bool:
    """Whether a file is a manifest written by this program."""
    return _read_manifest(location) is not None


def _read_manifest(location: OutputLocation) -> Manifest | None:
    content = location.read_bytes()
    if content is None:
        return None
    try:
        manifest = Manifest.from_json(content)
    except ParameterError:
        return None
    return manifest if "software" in manifest.details else None


def _foreign_sentence(location: OutputLocation, policy: ExistingOutputPolicy) -> str:
    return _not_resumable_sentence(location) if policy.resume else _not_ours_sentence(location)


def _not_resumable_sentence(location: OutputLocation) -> str:
    return (
        f"{location.uri} exists and is not an unfinished output of this program, so it cannot "
        "be resumed; choose another path."
    )


def _exists_sentence(location: OutputLocation, policy: ExistingOutputPolicy) -> str:
    if policy.resume:
        return _not_resumable_sentence(location)
    if is_unfinished(location):
        return (
            f"{location.uri} exists already, unfinished; ask to resume it (resume=True, --resume), "
            "choose another path, or ask to overwrite it (overwrite=True, --overwrite)."
        )
    return (
        f"{location.uri} exists already; choose another path, or ask to overwrite it "
        "(overwrite=True, --overwrite)."
    )


def _not_ours_sentence(location: OutputLocation) -> str:
    return (
        f"{location.uri} exists and is not an output of this kind, so it is not overwritten; "
        "choose another path or remove it yourself."
    )


def is_unfinished(location: OutputLocation) -> bool:
    """Whether this program began a store and did not finish it."""
    names = location.list_names()
    return RECORD_NAME in names and MANIFEST_NAME not in names and load_record(location) is not None


def _never_began(location: OutputLocation, names: list[str]) -> bool:
    """Whether a run failed here before it wrote anything, so that nothing can be lost."""
    record = load_record(location) if names == [RECORD_NAME] else None
    return (record or {}).get("state") in ("failed", "cancelled")
