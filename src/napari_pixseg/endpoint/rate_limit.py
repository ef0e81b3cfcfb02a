"""How often a key may be used: a bucket of tokens for each."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from napari_pixseg.errors import RateExceeded

# Without keys there is a bucket for each address. Beyond this many buckets, the one used longest
# ago is forgotten.
_MOST_BUCKETS = 10_000


@dataclass(frozen=True)
class Rate:
    """A number of requests in a number of seconds.

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
        # For each key: how many tokens there were, and when. The key used last comes last.
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def count_request(self, holder: object) -> None:
        """Take a token.

        Parameters
        ----------
        holder : hashable
            The key, or address, that made the request.

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
            # A key that keeps making requests is not forgotten, so it does not get a full bucket
            # again.
            self._keep_bucket(holder, tokens, now)
            raise RateExceeded(
                f"This key may be used {self._rate.requests} times in {self._rate.seconds:g} s; "
                f"try again in {self._rate.pause} s."
            )
        self._keep_bucket(holder, tokens - 1, now)

    def _keep_bucket(self, holder: object, tokens: float, now: float) -> None:
        self._buckets[holder] = (tokens, now)
        self._buckets.move_to_end(holder)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
