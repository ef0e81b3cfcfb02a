"""Warnings about a result, which a user should read before trusting it."""

from __future__ import annotations

from napari_pixseg.export.manifest_details import skipped_details
from napari_pixseg.parameters import Parameters
from napari_pixseg.sources.image import Image

_ONE_CLASS = (
    "There is only one class: pictures of a few flat colors often have no curvature in their "
    "histograms; a lower st, a lower ct or another cs may find more."
)


def result_warnings(image: Image, parameters: Parameters, classes: int) -> tuple[str, ...]:
    """Return one sentence for each reason to doubt a result.

    Parameters
    ----------
    image : Image
        The image, whose notes list guesses about the input.
    parameters : Parameters
    classes : int
        How many classes were found.
    """
    one_class = (_ONE_CLASS,) if classes <= 1 else ()
    skipped = _warn_of_skipped_chunks(image)
    return image.notes + skipped + one_class + _warn_of_background(parameters, classes)


def _warn_of_skipped_chunks(image: Image) -> tuple[str, ...]:
    if not image.missing:
        return ()
    pixels = skipped_details(image)["skipped"]["pixels"]
    return (
        f"{len(image.missing)} chunks of the input cannot be decoded; their {pixels} pixels are "
        "0, no data, and were not counted.",
    )


def _warn_of_background(parameters: Parameters, classes: int) -> tuple[str, ...]:
    background = parameters.background
    numbers = background if isinstance(background, tuple) else ()
    unknown = [str(number) for number in numbers if number > classes]
    if not unknown:
        return ()
    return (
        f"background names {', '.join(unknown)}, but there are only {classes} classes; it has no "
        "effect there.",
    )
