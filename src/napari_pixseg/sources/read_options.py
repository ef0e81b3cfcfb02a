"""Options of reading an input: how often reads are repeated, and which image is taken."""

from __future__ import annotations

from dataclasses import dataclass

from napari_pixseg.errors import ParameterError

DEFAULT_RETRIES = 5

_MOST_RETRIES = 100

# A server that sends nothing for this long, before or between bytes, counts as not answering.
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class ReadOptions:
    """Options of opening an input; they are sent to workers together with the input.

    Attributes
    ----------
    retries : int
        How often a read that fails because of the network is repeated, with growing pauses.
    allow_missing : bool
        Whether a zarr without any chunk is accepted as an image of its fill value.
    series : int, str or None
        Number or name of the image to take from a file or store that holds several. None takes the
        largest of a TIFF, and the first of anything else.
    """

    retries: int = DEFAULT_RETRIES
    allow_missing: bool = False
    series: int | str | None = None

    def __post_init__(self) -> None:
        is_count = isinstance(self.retries, int) and not isinstance(self.retries, bool)
        if not is_count or not 0 <= self.retries <= _MOST_RETRIES:
            raise ParameterError(
                f"retries = {self.retries!r} is not a number of attempts; "
                f"give 0 to {_MOST_RETRIES}."
            )
        series = self.series
        if isinstance(series, bool) or not isinstance(series, (int, str, type(None))):
            raise ParameterError(
                f"series = {series!r} is neither number nor name of an image; give one of them."
            )


DEFAULT_OPTIONS = ReadOptions()
