"""How often a request is tried, how long each step may take, and how long to wait in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tramontane.errors import (
    CapacityExceeded,
    ConnectFailed,
    RateLimited,
    RequestTimeout,
    TimedOut,
    TramontaneError,
)
from tramontane.wire.config import Retries, Timeouts

# Refused before anything was done, so that also what must not happen twice may be sent again.
NOT_SERVED = (ConnectFailed, RateLimited, CapacityExceeded, RequestTimeout)


@dataclass(frozen=True)
class Limits:
    """Seconds for one try: until connected, and until the next bytes."""

    connect_s: float
    read_s: float


class Tries:
    """Of one request. Times are of a clock that only goes forward."""

    def __init__(self, timeouts: Timeouts, retries: Retries, now_s: float, *, repeatable: bool) -> None:
        self._timeouts = timeouts
        self._retries = retries
        self._repeatable = repeatable
        self._made = 0
        self._streams = False
        self.ends_s = now_s + timeouts.total_s

    def begin(self, now_s: float, *, streams: bool = False) -> Limits:
        """One more try. Raises TimedOut."""
        left_s = self.left_s(now_s)
        self._made += 1
        self._streams = streams
        read_s = min(left_s, self._timeouts.first_token_s) if streams else left_s
        return Limits(min(self._timeouts.connect_s, left_s), read_s)

    def left_s(self, now_s: float) -> float:
        """Raises TimedOut."""
        left_s = self.ends_s - now_s
        if left_s <= 0:
            raise TimedOut("total", self._timeouts.total_s)
        return left_s

    def silence_s(self, now_s: float) -> float:
        """How long the body of an answer may pause. Raises TimedOut."""
        left_s = self.left_s(now_s)
        return min(left_s, self._timeouts.idle_s) if self._streams else left_s

    def no_answer(self) -> TimedOut:
        """The answer did not begin in time."""
        if self._streams:
            return TimedOut("first_token", self._timeouts.first_token_s)
        return TimedOut("total", self._timeouts.total_s)

    def no_more(self) -> TimedOut:
        """The answer paused for too long."""
        return TimedOut("idle", self._timeouts.idle_s) if self._streams else TimedOut("total", self._timeouts.total_s)

    def wait_s(self, failure: TramontaneError, now_s: float, chance: float) -> Optional[float]:
        """Until the next try; None: there is none. `chance` from 0 to 1: the spread keeps many clients that failed
        together from coming back together.
        """
        retries = self._retries
        may = failure.retryable and (self._repeatable or isinstance(failure, NOT_SERVED))
        if not may or self._made >= retries.tries_max:
            return None
        backoff_s = min(retries.backoff_s_max, retries.backoff_s * 2.0 ** (self._made - 1))
        demanded_s = failure.retry_after_s or 0.0
        wait_s = demanded_s + chance * backoff_s
        if demanded_s > retries.retry_after_s_max or now_s + wait_s >= self.ends_s:
            return None
        return wait_s
