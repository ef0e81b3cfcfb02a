"""How often a key may be used: a bucket of tokens for each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from napari_pixseg.errors import RateExceeded

# All buckets are forgotten once there are so many; with keys there are few.
_MOST_BUCKETS = 10_000


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds.

    Attributes
    ----------
    requests : int
    seconds : float
    """

    requests: int
    seconds: float

    @property
    def pause(self) -> int:
        """Whole seconds after which one more request is allowed."""
        return max(1, math.ceil(self.seconds / self.requests))


class RateLimiter:
    """Counts the requests of each key.

    A bucket begins full, each request takes a token, and tokens come back evenly. So all
    requests of a period may come at once.

    Parameters
    ----------
    rate : Rate or None
        None sets no limit.
    clock : callable
        Seconds of a clock that never goes back.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        # Of each key: how many tokens there were, and when.
        self._buckets: dict[object, tuple[float, float]] = {}

    def count_request(self, holder: object) -> None:
        """Take a token.

        Parameters
        ----------
        holder : hashable
            Whose request it is.

        Raises
        ------
        RateExceeded
        """
        if self._rate is None:
            return
        most = float(self._rate.requests)
        now = self._clock()
        tokens, before = self._buckets.get(holder, (most, now))
        tokens = min(most, tokens + (now - before) * most / self._rate.seconds)
        if tokens < 1:
            raise RateExceeded(
                f"This key may be used {self._rate.requests} times in {self._rate.seconds:g} s; "
                f"try again in {self._rate.pause} s."
            )
        if len(self._buckets) >= _MOST_BUCKETS:
            self._buckets.clear()
        self._buckets[holder] = (tokens - 1, now)
