"""What rules count with, beside the log of requests: a bucket, and calendar windows."""

from dataclasses import dataclass

from core.queue.rules import CALENDAR, Rule, RuleKind, Window

MINUTE_MS = 60_000
OPEN_RETRY_MS = 1_000


@dataclass(frozen=True, slots=True)
class Amount:
    """What one request reserves or has used."""

    tokens: int
    nano: int

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.nano - other.nano)


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
