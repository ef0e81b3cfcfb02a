"""Which channels of an image are its colors, and which is alpha."""

from __future__ import annotations

from collections.abc import Sequence

from napari_pixseg.errors import ParameterError
from napari_pixseg.sources.source import Source


def resolve_channels(
    shape: tuple[int, ...], axes: str, channels: Sequence[int] | None, source: Source
) -> tuple[tuple[int, ...] | None, int | None, tuple[str, ...]]:
    """Return the indices of the colors along axis c, that of alpha, and notes for the user.

    Parameters
    ----------
    shape : tuple of int
    axes : str
    channels : sequence of int, optional
        The user's choice.
    source : Source
        What the file says about its channels.

    Raises
    ------
    ParameterError
    """
    if "c" not in axes:
        if channels is not None:
            raise ParameterError(
                f"channels = {tuple(channels)} was given, but {source.name} with axes {axes!r} has "
                "no axis c; name it in axes, or leave channels out."
            )
        return None, None, ()
    length = shape[axes.index("c")]
    if channels is not None:
        return _check_channels(tuple(channels), length, source.name)
    if source.colors is not None and length > max(source.colors):
        return _take_described(source.colors, length, source)
    if source.alpha_last and length == 2:
        return (0,), 1, ("The last channel is alpha and is not segmented.",)
    if length > 4:
        raise ParameterError(
            f"{source.name} has {length} channels (axes {axes!r}, shape {shape}), but one to three "
            "make a color; choose them, for example channels=(0, 1, 2), or correct axes."
        )
    if length == 4:
        return (0, 1, 2), 3, ("The fourth channel is taken as alpha and is not segmented.",)
    return tuple(range(length)), None, ()


def _take_described(
    colors: tuple[int, ...], length: int, source: Source
) -> tuple[tuple[int, ...], int | None, tuple[str, ...]]:
    alpha = length - 1 if source.alpha_last and length - 1 not in colors else None
    numbers = ", ".join(map(str, colors))
    return (
        colors,
        alpha,
        (
            f"Of {length} channels, {numbers} {'are' if len(colors) > 1 else 'is'} taken as "
            "color; the file does not say that others are color or alpha, and they are not used "
            "(choose by channels).",
        ),
    )


def _check_channels(
    channels: tuple[int, ...], length: int, name: str
) -> tuple[tuple[int, ...], None, tuple[str, ...]]:
    for channel in channels:
        if channel >= length:
            raise ParameterError(
                f"channels = {channels} asks for channel {channel}, but {name} has "
                f"channels 0 to {length - 1}; choose among these."
            )
    return channels, None, ()
