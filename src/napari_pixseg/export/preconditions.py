"""What is refused before an export begins; nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from napari_pixseg.errors import OutputConflict, ParameterError
from napari_pixseg.export.lock import only_writer
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import (
    LOCK_NAME,
    MANIFEST_NAME,
    PICTURES,
    RECORD_NAME,
    Place,
)
from napari_pixseg.export.raster import refuse_format
from napari_pixseg.export.recolor import color_channels
from napari_pixseg.export.run_record import load_record, refuse_living_run, unreadable
from napari_pixseg.sources.image import Image

OnError: TypeAlias = Literal["raise", "skip"]


OUTPUTS = ("classes", "recolored", "regions")


_WITH_DIGITS = (".jp2", ".h5", ".hdf5", ".bz2", ".nd2")


@dataclass(frozen=True)
class Wish:
    """What is to be done with an output that exists.

    Attributes
    ----------
    overwrite : bool
        It may be replaced.
    resume : bool
        It is to be finished.
    """

    overwrite: bool = False
    resume: bool = False


def check_target(
    image: Image, place: Place, outputs: tuple[str, ...], wish: Wish, blob: bool
) -> None:
    """Refuse an output that cannot be written.

    Raises
    ------
    ParameterError, TooLarge, OutputConflict
    """
    if wish.overwrite and wish.resume:
        raise ParameterError(
            "overwrite replaces an output and resume finishes it; ask for one of them, not both."
        )
    check_outputs(outputs)
    _check_format(place, blob)
    _refuse_input_as_output(image, place)
    if place.suffix in PICTURES:
        if "recolored" not in outputs:
            raise ParameterError(
                f"{place.name} is a picture and can hold only the output 'recolored', not "
                f"{', '.join(outputs)}; give a path that ends in .ome.zarr."
            )
        channels = color_channels(image) + (image.alpha is not None)
        refuse_format(place.suffix, image.shape, channels, place.name)
    if obstacle := place.obstacle():
        raise OutputConflict(
            f"{place.uri} cannot be made, because {obstacle} is in the way; choose another path."
        )
    try:
        refuse_existing(place, wish)
    except OutputConflict:
        if is_unfinished(place):
            # To hear that it is being written helps more than that it exists.
            _refuse_second_writer(place)
        raise


def _check_format(place: Place, blob: bool) -> None:
    # A folder may be called out.v2; letters after the last dot are those of some format.
    letters = place.suffix[1:].isalpha() or place.suffix in _WITH_DIGITS
    if letters and place.suffix not in (".zarr", *PICTURES):
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


def check_on_error(on_error: str, image: Image) -> None:
    """Refuse what cannot be done about damaged chunks."""
    if on_error not in get_args(OnError):
        raise ParameterError(f"on_error = {on_error!r}; choose 'raise' or 'skip'.")
    if on_error == "skip" and image.source.kind == "dask":
        raise ParameterError(
            "on_error = 'skip' cannot tell which chunks lie behind a Dask array; give the zarr "
            "store or the file that it reads."
        )


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


def refuse_existing(place: Place, wish: Wish) -> None:
    """Refuse what exists, unless it is an output of ours and may be replaced or finished.

    Raises
    ------
    OutputConflict
    """
    if place.suffix in PICTURES:
        _refuse_existing_picture(place, wish)
        return
    if place.exists() and not place.is_folder():
        raise OutputConflict(_of_others(place, wish))
    names = contents(place)
    if not names or (_never_began(place, names) and not wish.resume):
        return
    ours = RECORD_NAME in names or _is_manifest(place.child(MANIFEST_NAME))
    if not ours and not wish.resume:
        raise OutputConflict(_not_ours(place))
    if not (ours and (wish.overwrite or wish.resume)):
        raise OutputConflict(_conflict(place, wish))
    if wish.resume and MANIFEST_NAME in names:
        raise OutputConflict(_finished(place))
    if wish.resume and load_record(place) is None:
        raise unreadable(place)


def contents(place: Place) -> list[str]:
    """Names of what is in a store, but for the lock and a record that was never whole."""
    never = f".{RECORD_NAME}."
    return [name for name in place.names() if name != LOCK_NAME and not name.startswith(never)]


def _refuse_existing_picture(place: Place, wish: Wish) -> None:
    sidecar = place.sidecar()
    if wish.resume and place.exists() and _is_manifest(sidecar):
        raise OutputConflict(_finished(place))
    if sidecar.exists() and not _is_manifest(sidecar):
        raise OutputConflict(_of_others(sidecar, wish))
    if place.is_folder():
        raise OutputConflict(_of_others(place, wish))
    found = next((one for one in (place, sidecar) if one.exists()), None)
    if found is not None and not wish.overwrite:
        raise OutputConflict(_conflict(found, wish))


def _refuse_second_writer(place: Place) -> None:
    if place.is_local:
        with only_writer(place, is_store=True):
            return
    refuse_living_run(place)


def _is_manifest(place: Place) -> bool:
    """Whether a file is a manifest that this program wrote."""
    content = place.read_bytes()
    try:
        return content is not None and "software" in Manifest.from_json(content).details
    except ParameterError:
        return False


def _of_others(place: Place, wish: Wish) -> str:
    return _not_resumable(place) if wish.resume else _not_ours(place)


def _not_resumable(place: Place) -> str:
    return (
        f"{place.uri} exists and is no unfinished output of this program, so it cannot be "
        "resumed; choose another path."
    )


def _conflict(place: Place, wish: Wish) -> str:
    if wish.resume:
        return _not_resumable(place)
    if is_unfinished(place):
        return (
            f"{place.uri} exists already, unfinished; ask to resume it (resume=True, --resume), "
            "choose another path, or ask to overwrite it (overwrite=True, --overwrite)."
        )
    return (
        f"{place.uri} exists already; choose another path, or ask to overwrite it "
        "(overwrite=True, --overwrite)."
    )


def _not_ours(place: Place) -> str:
    return (
        f"{place.uri} exists and is not an output of this kind, so it is not overwritten; "
        "choose another path or remove it yourself."
    )


def _finished(place: Place) -> str:
    return (
        f"{place.uri} is finished already, so there is nothing to resume; choose another path, or "
        "ask to overwrite it (overwrite=True, --overwrite)."
    )


def is_unfinished(place: Place) -> bool:
    """Whether a store was begun by this program and not finished."""
    names = place.names()
    return RECORD_NAME in names and MANIFEST_NAME not in names and load_record(place) is not None


def _never_began(place: Place, names: list[str]) -> bool:
    """Whether a run failed here before it wrote anything: then nothing can be lost."""
    record = load_record(place) if names == [RECORD_NAME] else None
    return (record or {}).get("state") in ("failed", "cancelled")
