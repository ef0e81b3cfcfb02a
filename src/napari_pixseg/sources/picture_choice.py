"""Chooses a picture of a file with several: frames, pages, or the sizes of an icon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_pixseg.errors import NotAnImage
from napari_pixseg.sources.image_choice import (
    Series,
    StoredImage,
    find_series,
    list_names,
    refuse_series,
)
from napari_pixseg.sources.location import Location

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

# Each picture has to be found in the file.
_MOST_LISTED = 100

_ICONS = ("ICO", "ICNS")

# The further pictures in these files are layers, which Pillow does not merge.
_WITH_LAYERS = ("PSD",)


@dataclass(frozen=True)
class PictureChoice:
    """A picture in a file with several.

    Attributes
    ----------
    number : int or None
        The value of ``series`` that chooses it; None if there is only one.
    frame : int
        Number of a frame.
    icon_size : tuple of int
        Width, height and scale of a picture of an icon; empty for others.
    notes : tuple of str
    """

    number: int | None = None
    frame: int = 0
    icon_size: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def show_in(self, image: PillowImage) -> None:
        """Make an open image show this picture."""
        if self.icon_size:
            _show_size(image, self.icon_size)
        elif self.frame:
            image.seek(self.frame)


ONLY_PICTURE = PictureChoice()


def choose_picture(image: ImageFile, series: Series | None, location: Location) -> PictureChoice:
    """Return the requested picture, or else the one that Pillow shows, and show it.

    Parameters
    ----------
    image : ImageFile
        An image that is no animation over time.
    series : int or str, optional
        Number of a frame; number of a size, or "width x height".
    location : Location

    Raises
    ------
    ParameterError, NotAnImage
    """
    if image.format in _ICONS:
        choice = _choose_size(image, series, location)
    else:
        choice = _choose_page(image, series, location)
    if series is not None:
        try:
            choice.show_in(image)
        except Exception as error:  # noqa: BLE001 - Pillow's readers raise anything
            raise NotAnImage(
                f"{location.shown} has no picture {series} that can be read: "
                f"{location.describe_cause(error)}."
            ) from None
    return choice


def describe_pictures(image: ImageFile) -> list[StoredImage]:
    """Describe the pictures of a file in the order of their numbers, at most a hundred."""
    if image.format in _ICONS:
        sizes = _sizes_of_icon(image)
        return [StoredImage("", "yx", (size[1] * size[2], size[0] * size[2])) for size in sizes]
    images = []
    for number in range(min(_count_frames(image), _MOST_LISTED)):
        image.seek(number)
        images.append(StoredImage("", "yx", (image.height, image.width)))
    return images


def _choose_page(image: ImageFile, series: Series | None, location: Location) -> PictureChoice:
    count = _count_frames(image)
    if count < 2:
        refuse_series(series, "a picture")
        return ONLY_PICTURE
    if series is not None:
        number = find_series(series, [""] * count, location.shown)
        return PictureChoice(number, frame=number)
    note = (
        f"There are {count} pictures in it, of which the first is taken; series takes another, by "
        f"a number from 1 to {count - 1}."
    )
    return PictureChoice(0, notes=(note,))


def _choose_size(image: ImageFile, series: Series | None, location: Location) -> PictureChoice:
    sizes = _sizes_of_icon(image)
    names = [f"{size[0] * size[2]} x {size[1] * size[2]}" for size in sizes]
    if len(sizes) < 2:
        refuse_series(series, "a picture")
        return ONLY_PICTURE
    if series is not None:
        number = find_series(series, names, location.shown)
        return PictureChoice(number, icon_size=sizes[number])
    note = (
        f"It is an icon of {len(sizes)} sizes, of which the largest, {names[0]}, is taken. The "
        f"others are {list_names(names[1:])}; series takes one of them, by such a name."
    )
    return PictureChoice(0, notes=(note,))


def _count_frames(image: ImageFile) -> int:
    if image.format in _WITH_LAYERS:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - a damaged count says nothing of the first picture
        return 1


def _sizes_of_icon(image: ImageFile) -> list[tuple[int, ...]]:
    """Return width, height and scale of all pictures, each number of pixels once, large first."""
    sizes = [(*size, 1)[:3] for size in image.info.get("sizes", ())]
    shown = {(size[0] * size[2], size[1] * size[2]): size for size in sizes}
    return [shown[key] for key in sorted(shown, key=lambda side: (side[0] * side[1], side))[::-1]]


def _show_size(image: PillowImage, size: tuple[int, ...]) -> None:
    width, height, scale = size
    # For these files Pillow decodes the best picture, whatever size is requested.
    if hasattr(image, "best_size"):
        image.best_size = size
    image.size = (width * scale, height * scale)  # type: ignore[misc]  # icons can be told so
    image.load()
