"""What rules count with: a sliding window, a bucket, a number of open records, and calendar windows."""

from collections import defaultdict
from dataclasses import dataclass

from core.queue.rules import CALENDAR, Rule, RuleKind, Window

MINUTE_MS = 60_000
OPEN_RETRY_MS = 1_000
SUBS = 120


@dataclass(frozen=True, slots=True)
class Amount:
    """What one request reserves or has used."""

    tokens: int
    nano: int

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.nano - other.nano)


class RequestWindow:
    """Requests of the last span: 120 whole sub-windows and, in proportion, a part of the oldest. Moments are in
    120ths of a millisecond, so that a sub-window of any span is whole.
    """

    def __init__(self, span_ms: int) -> None:
        self._sub = span_ms
        self._counts: defaultdict[int, int] = defaultdict(int)

    def used(self, now_ms: int) -> int:
        """Rounded up, so that the limit is never passed."""
        current, elapsed = divmod(now_ms * SUBS, self._sub)
        whole = sum(count for index, count in self._counts.items() if index > current - SUBS)
        oldest = self._counts.get(current - SUBS, 0)
        return whole - (-oldest * (self._sub - elapsed) // self._sub)

    def add(self, now_ms: int) -> None:
        current = now_ms * SUBS // self._sub
        self._counts[current] += 1
        for index in [index for index in self._counts if index < current - SUBS]:
            del self._counts[index]

    def retry_after_ms(self, limit: int, now_ms: int) -> int | None:
        """The first moment at which enough of the oldest requests have left; None: no time cures it."""
        if limit < 1:
            return None
        current = now_ms * SUBS // self._sub
        younger = sum(count for index, count in self._counts.items() if index >= current - SUBS)
        for leaving in range(current - SUBS, current + 1):
            count = self._counts.get(leaving, 0)
            younger -= count
            if younger < limit and count > 0:
                kept = min(self._sub, (limit - 1 - younger) * self._sub // count)
                return max(1, self._until_ms((leaving + SUBS + 1) * self._sub - kept, now_ms))
        return 1

    def reset_ms(self, now_ms: int) -> int:
        newest = max((index for index, count in self._counts.items() if count), default=None)
        return 0 if newest is None else max(0, self._until_ms((newest + SUBS + 1) * self._sub, now_ms))

    def _until_ms(self, moment: int, now_ms: int) -> int:
        return -((now_ms * SUBS - moment) // SUBS)


class TokenBucket:
    """Starts full, refills by limit / 60 000 a millisecond, may go below zero. It counts 60 000ths of a token."""

    def __init__(self) -> None:
        self._level: int | None = None
        self._filled_ms = 0

    def level(self, limit: int, now_ms: int) -> int:
        """In whole tokens, rounded down."""
        return self._refill(limit, now_ms) // MINUTE_MS

    def fits(self, limit: int, tokens: int, now_ms: int) -> bool:
        return limit > 0 and self._refill(limit, now_ms) >= min(tokens, limit) * MINUTE_MS

    def take(self, limit: int, tokens: int, now_ms: int) -> None:
        """Fewer than zero gives back."""
        if limit < 1:
            return
        self._level = min(self._refill(limit, now_ms) - tokens * MINUTE_MS, limit * MINUTE_MS)
        self._filled_ms = now_ms

    def time_to_ms(self, tokens: int, limit: int, now_ms: int) -> int | None:
        """Until there are so many; None: never."""
        if limit < 1:
            return None
        return max(0, -((self._refill(limit, now_ms) - min(tokens, limit) * MINUTE_MS) // limit))

    def _refill(self, limit: int, now_ms: int) -> int:
        if self._level is None:
            return limit * MINUTE_MS
        return min(limit * MINUTE_MS, self._level + max(0, now_ms - self._filled_ms) * limit)


class Calendar:
    """Used tokens or nano-units by window. A window that is not in it is not counted yet."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}


def units(rule: Rule, amount: Amount) -> int:
    """What a calendar rule counts of it."""
    assert rule.kind in CALENDAR
    return amount.tokens if rule.kind is RuleKind.TOKENS_PER_MONTH else amount.nano


def window_at(rule: Rule, at_ms: int) -> Window | None:
    """The calendar window that holds this moment; None if the rule was made too long before it."""
    return next((window for window in rule.windows if window.start_ms <= at_ms < window.end_ms), None)
