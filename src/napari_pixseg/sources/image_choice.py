"""Chooses an image of a file or store that holds several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from napari_pixseg.errors import ParameterError

# Number or name of an image.
Series: TypeAlias = int | str

# How many names a sentence lists.
_LISTED = 6


@dataclass(frozen=True)
class StoredImage:
    """One of the images that a file or store holds.

    Attributes
    ----------
    name : str
        Empty if the file gives none.
    axes : str
        One letter for each dimension, "?" if it has no name.
    shape : tuple of int
    scale, units : dict
        Same as the attributes of a :class:`~napari_pixseg.sources.source.Source`.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    scale: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """Lengths of its dimensions."""
        return " x ".join(str(length) for length in self.shape)

    @property
    def plane_size(self) -> int:
        """Pixels of a (y, x) plane."""
        return self.shape[self.axes.index("y")] * self.shape[self.axes.index("x")]


def find_series(wanted: Series, names: Sequence[str], shown: str) -> int:
    """Return the number of the image with a number or name.

    Parameters
    ----------
    wanted : int or str
        Text that matches no name may be a number.
    names : sequence of str
        Names of all images, empty for images without a name.
    shown : str
        The file's name in error messages.

    Raises
    ------
    ParameterError
    """
    if isinstance(wanted, str) and wanted in names and wanted:
        return names.index(wanted)
    text = str(wanted)
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else -1
    if 0 <= number < len(names):
        return number
    known = list(dict.fromkeys(filter(None, names)))
    raise ParameterError(
        f"series = {wanted!r} is not an image of {shown}; give a number from 0 to "
        f"{len(names) - 1}" + (f", or a name: {list_names(known)}." if known else ".")
    )


def refuse_series(wanted: Series | None, what: str) -> None:
    """Refuse any choice but 0 for an input that has only one image.

    Raises
    ------
    ParameterError
    """
    if wanted is not None and str(wanted) != "0":
        raise ParameterError(
            f"series = {wanted!r} was given, but the input is {what}, which is one image; leave "
            "series out."
        )


def list_names(names: Sequence[str]) -> str:
    """Return the first names, and how many there are beyond them."""
    listed = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{listed} and {more} more" if more > 0 else listed


def describe_choice(images: Sequence[StoredImage], taken: int, why: str) -> tuple[str, ...]:
    """Return a sentence about the image that is taken; none if there is only one.

    Parameters
    ----------
    images : sequence of StoredImage
    taken : int
        Its number.
    why : str
        Which of them is taken: "largest" or "first".
    """
    if len(images) < 2:
        return ()
    others = [describe_image(i, image) for i, image in enumerate(images) if i != taken]
    return (
        f"There are {len(images)} images in it, of which the {why} is taken: "
        f"{describe_image(taken, images[taken])}. The others are {list_names(others)}; choose one "
        "with series.",
    )


def describe_image(number: int, image: StoredImage) -> str:
    """Return number, name and size of an image."""
    name = f"{image.name!r}, " if image.name else ""
    return f"{number} ({name}{image.size})"


def note_channel_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence with the names of channels, for choosing; none if there is only one."""
    if len(names) < 2:
        return ()
    return (f"Its channels are {', '.join(f'{i} ({name})' for i, name in enumerate(names))}.",)
