"""The three kinds of limits: what is left, when it fits again, reserving and giving back."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from core.errors import Refusal
from core.queue.rules import Rule, RuleKind, RuleState

MINUTE_MS = 60_000
SUB_WINDOW_MS = 5_000
SUB_WINDOWS = MINUTE_MS // SUB_WINDOW_MS
OPEN_RETRY_MS = 1_000


class Counter(Protocol):
    def fits(self, limit: int, tokens: int, now_ms: int, /) -> bool: ...

    def reserve(self, limit: int, tokens: int, now_ms: int, /) -> None: ...

    def settle(self, limit: int, reserved_tokens: int, used_tokens: int, now_ms: int, /) -> None: ...

    def remaining(self, limit: int, now_ms: int, /) -> int: ...

    def retry_after_ms(self, limit: int, tokens: int, now_ms: int, /) -> int | None:
        """Asked when it does not fit; None: no time cures it."""

    def reset_ms(self, limit: int, now_ms: int, /) -> int: ...


class RequestWindow:
    """Requests of the last minute: twelve whole sub-windows and, in proportion, the part of a thirteenth."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)

    def fits(self, limit: int, _tokens: int, now_ms: int) -> bool:
        return self._used(now_ms) + 1 <= limit

    def reserve(self, _limit: int, _tokens: int, now_ms: int) -> None:
        current = now_ms // SUB_WINDOW_MS
        self._counts[current] += 1
        for index in [index for index in self._counts if index < current - SUB_WINDOWS]:
            del self._counts[index]

    def settle(self, _limit: int, _reserved_tokens: int, _used_tokens: int, _now_ms: int) -> None:
        """A request that was admitted counts, whatever became of it."""

    def remaining(self, limit: int, now_ms: int) -> int:
        return max(0, limit - self._used(now_ms))

    def retry_after_ms(self, limit: int, _tokens: int, now_ms: int) -> int | None:
        """The first moment at which enough of the oldest requests have left."""
        if limit < 1:
            return None
        current = now_ms // SUB_WINDOW_MS
        younger = sum(count for index, count in self._counts.items() if index >= current - SUB_WINDOWS)
        for leaving in range(current - SUB_WINDOWS, current + 1):
            count = self._counts.get(leaving, 0)
            younger -= count
            if younger < limit and count > 0:
                kept_ms = min(SUB_WINDOW_MS, (limit - 1 - younger) * SUB_WINDOW_MS // count)
                moment_ms = (leaving + SUB_WINDOWS) * SUB_WINDOW_MS + SUB_WINDOW_MS - kept_ms
                return max(1, moment_ms - now_ms)
        return 1

    def reset_ms(self, _limit: int, now_ms: int) -> int:
        newest = max((index for index, count in self._counts.items() if count), default=None)
        return 0 if newest is None else max(0, (newest + SUB_WINDOWS + 1) * SUB_WINDOW_MS - now_ms)

    def _used(self, now_ms: int) -> int:
        """Rounded up, so that the limit is never passed."""
        current, elapsed_ms = divmod(now_ms, SUB_WINDOW_MS)
        whole = sum(count for index, count in self._counts.items() if index > current - SUB_WINDOWS)
        oldest = self._counts.get(current - SUB_WINDOWS, 0)
        return whole - (-oldest * (SUB_WINDOW_MS - elapsed_ms) // SUB_WINDOW_MS)


class TokenBucket:
    """Starts full, refills by limit / 60 000 a millisecond, may go below zero. It counts 60 000ths of a token."""

    def __init__(self) -> None:
        self._level: int | None = None
        self._filled_ms = 0

    def fits(self, limit: int, tokens: int, now_ms: int) -> bool:
        return self._refill(limit, now_ms) >= min(tokens, limit) * MINUTE_MS

    def reserve(self, limit: int, tokens: int, now_ms: int) -> None:
        self._set(self._refill(limit, now_ms) - tokens * MINUTE_MS, now_ms)

    def settle(self, limit: int, reserved_tokens: int, used_tokens: int, now_ms: int) -> None:
        level = self._refill(limit, now_ms) + (reserved_tokens - used_tokens) * MINUTE_MS
        self._set(min(level, limit * MINUTE_MS), now_ms)

    def remaining(self, limit: int, now_ms: int) -> int:
        return max(0, self._refill(limit, now_ms) // MINUTE_MS)

    def retry_after_ms(self, limit: int, tokens: int, now_ms: int) -> int | None:
        return self._time_to_ms(min(tokens, limit), limit, now_ms)

    def reset_ms(self, limit: int, now_ms: int) -> int:
        return self._time_to_ms(limit, limit, now_ms) or 0

    def _time_to_ms(self, tokens: int, limit: int, now_ms: int) -> int | None:
        if limit < 1:
            return None
        return max(0, -((self._refill(limit, now_ms) - tokens * MINUTE_MS) // limit))

    def _refill(self, limit: int, now_ms: int) -> int:
        if self._level is None:
            return limit * MINUTE_MS
        return min(limit * MINUTE_MS, self._level + max(0, now_ms - self._filled_ms) * limit)

    def _set(self, level: int, now_ms: int) -> None:
        self._level = level
        self._filled_ms = now_ms


class OpenCount:
    """Records that are not settled."""

    def __init__(self) -> None:
        self._open = 0

    def fits(self, limit: int, _tokens: int, _now_ms: int) -> bool:
        return self._open < limit

    def reserve(self, _limit: int, _tokens: int, _now_ms: int) -> None:
        self._open += 1

    def settle(self, _limit: int, _reserved_tokens: int, _used_tokens: int, _now_ms: int) -> None:
        self._open -= 1

    def remaining(self, limit: int, _now_ms: int) -> int:
        return max(0, limit - self._open)

    def retry_after_ms(self, _limit: int, _tokens: int, _now_ms: int) -> int | None:
        return OPEN_RETRY_MS

    def reset_ms(self, _limit: int, _now_ms: int) -> int:
        return 0  # nobody knows


def _new_counter(kind: RuleKind) -> Counter:
    match kind:
        case RuleKind.REQUESTS_PER_MINUTE:
            return RequestWindow()
        case RuleKind.TOKENS_PER_MINUTE:
            return TokenBucket()
        case RuleKind.CONCURRENCY:
            return OpenCount()


class Limits:
    """Every counter that a rule has named so far."""

    def __init__(self) -> None:
        self._counters: dict[tuple[RuleKind, str, str], Counter] = {}

    def refusal(self, rules: Sequence[Rule], tokens: int, now_ms: int) -> Refusal | None:
        """The first rule that `tokens` more do not fit into; nothing changes."""
        for rule in rules:
            counter = self._counter(rule)
            if not counter.fits(rule.limit, tokens, now_ms):
                return Refusal(
                    rule=rule.kind.value,
                    scope=rule.scope,
                    limit=rule.limit,
                    remaining=counter.remaining(rule.limit, now_ms),
                    retry_after_ms=counter.retry_after_ms(rule.limit, tokens, now_ms),
                )
        return None

    def reserve(self, rules: Sequence[Rule], tokens: int, now_ms: int) -> tuple[RuleState, ...]:
        states = []
        for rule in rules:
            counter = self._counter(rule)
            counter.reserve(rule.limit, tokens, now_ms)
            remaining, reset_ms = counter.remaining(rule.limit, now_ms), counter.reset_ms(rule.limit, now_ms)
            states.append(RuleState(rule, remaining, reset_ms))
        return tuple(states)

    def settle(self, rules: Sequence[Rule], reserved_tokens: int, used_tokens: int, now_ms: int) -> None:
        for rule in rules:
            self._counter(rule).settle(rule.limit, reserved_tokens, used_tokens, now_ms)

    def _counter(self, rule: Rule) -> Counter:
        key = (rule.kind, rule.scope, rule.scope_id)
        if key not in self._counters:
            self._counters[key] = _new_counter(rule.kind)
        return self._counters[key]
