"""Rules over their counters: the first that refuses, reserving, extending, settling, and how each stands."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from core.errors import Refusal
from core.queue.base import Refused, RefusedBy
from core.queue.memory.counters import (
    OPEN_RETRY_MS,
    Amount,
    Calendar,
    TokenBucket,
    units,
    window_at,
)
from core.queue.memory.request_log import RequestLog
from core.queue.rules import CALENDAR, Rule, RuleKind, RuleState, Window

SPAN_MS = {RuleKind.REQUESTS_PER_SECOND: 1_000, RuleKind.REQUESTS_PER_MINUTE: 60_000}


class Limits:
    """Every counter that a rule has named so far, by kind and counter."""

    def __init__(self) -> None:
        self._logs: dict[tuple[RuleKind, str], RequestLog] = {}
        self._buckets: defaultdict[str, TokenBucket] = defaultdict(TokenBucket)
        self._open: defaultdict[str, int] = defaultdict(int)
        self._calendars: defaultdict[tuple[RuleKind, str], Calendar] = defaultdict(Calendar)

    def outdated(self, rules: Sequence[Rule], now_ms: int) -> Rule | None:
        """A calendar rule whose windows do not hold this moment: its principal is old."""
        return next((rule for rule in rules if rule.kind in CALENDAR and window_at(rule, now_ms) is None), None)

    def refusal(self, rules: Sequence[Rule], wanted: Amount, now_ms: int) -> Refused | None:
        """The first rule that `wanted` does not fit into, or that is not counted yet; nothing changes."""
        for rule in rules:
            uncounted = rule.kind in CALENDAR and self._used(rule, now_ms) is None
            if not uncounted and (not rule.hard or self._fits(rule, wanted, now_ms)):
                continue
            refusal = Refusal(
                rule=rule.kind.value,
                scope=rule.scope,
                limit=rule.limit,
                remaining=0 if uncounted else max(0, self._left(rule, now_ms)),
                retry_after_ms=0 if uncounted else self._retry_after_ms(rule, wanted, now_ms),
                tier=rule.tier,
            )
            return Refused(RefusedBy.UNSEEDED if uncounted else RefusedBy.RULE, refusal, rule=rule)
        return None

    def reserve(self, rules: Sequence[Rule], wanted: Amount, now_ms: int) -> tuple[RuleState, ...]:
        for rule in _counted_once(rules):
            match rule.kind:
                case RuleKind.REQUESTS_PER_SECOND | RuleKind.REQUESTS_PER_MINUTE:
                    self._log(rule).add(now_ms)
                case RuleKind.CONCURRENCY:
                    self._open[rule.counter] += 1
                case _:
                    self._move(rule, wanted, now_ms, now_ms)
        return self.states(rules, now_ms)

    def room(self, rules: Sequence[Rule], admitted_ms: int) -> Iterator[tuple[Rule, int]]:
        """What each hard calendar rule still lets a request have that was admitted then."""
        for rule in rules:
            if rule.kind in CALENDAR and rule.hard and (used := self._used(rule, admitted_ms)) is not None:
                yield rule, rule.limit - used

    def extend(self, rules: Sequence[Rule], more: Amount, admitted_ms: int, now_ms: int, *, same_epoch: bool) -> None:
        """More of the same request. Calendar rules count it where it was admitted, later epochs at its end."""
        for rule in _counted_once(rules):
            if same_epoch or rule.kind not in CALENDAR:
                self._move(rule, more, admitted_ms, now_ms)

    def charge(self, rules: Sequence[Rule], used: Amount, now_ms: int) -> None:
        """Something is paid that was not reserved: calendars alone count it."""
        for rule in _counted_once(rules):
            if rule.kind in CALENDAR:
                self._move(rule, used, now_ms, now_ms)

    def settle(
        self,
        rules: Sequence[Rule],
        reserved: Amount,
        used: Amount,
        admitted_ms: int,
        now_ms: int,
        *,
        same_epoch: bool,
    ) -> None:
        """A request is no longer open. A calendar that began after it never knew what it had reserved."""
        for rule in _counted_once(rules):
            if rule.kind is RuleKind.CONCURRENCY:
                self._open[rule.counter] -= 1
            elif rule.kind in CALENDAR and not same_epoch:
                self._move(rule, used, admitted_ms, now_ms)
            else:
                self._move(rule, used - reserved, admitted_ms, now_ms)

    def seed(self, rule: Rule, window: Window, used: int) -> None:
        self._calendar(rule).used.setdefault(window.id, used)

    def forget_calendars(self) -> None:
        self._calendars.clear()

    def states(self, rules: Sequence[Rule], now_ms: int) -> tuple[RuleState, ...]:
        return tuple(RuleState(rule, self._remaining(rule, now_ms), self._reset_ms(rule, now_ms)) for rule in rules)

    def _move(self, rule: Rule, amount: Amount, admitted_ms: int, now_ms: int) -> None:
        if rule.kind is RuleKind.TOKENS_PER_MINUTE:
            self._buckets[rule.counter].take(rule.limit, amount.tokens, now_ms)
        elif rule.kind in CALENDAR:
            used, window = self._calendar(rule).used, window_at(rule, admitted_ms)
            if window is not None and window.id in used:
                used[window.id] += units(rule, amount)

    def _fits(self, rule: Rule, wanted: Amount, now_ms: int) -> bool:
        if rule.kind is RuleKind.TOKENS_PER_MINUTE:
            return self._buckets[rule.counter].fits(rule.limit, wanted.tokens, now_ms)
        if rule.kind not in CALENDAR:
            return self._left(rule, now_ms) >= 1
        needed = units(rule, wanted)
        return needed == 0 or needed <= self._left(rule, now_ms)  # what costs nothing passes any cap

    def _remaining(self, rule: Rule, now_ms: int) -> int:
        """Below zero only where a rule lets it go so far."""
        left = self._left(rule, now_ms)
        return left if not rule.hard or rule.kind is RuleKind.TOKENS_PER_MINUTE else max(0, left)

    def _left(self, rule: Rule, now_ms: int) -> int:
        match rule.kind:
            case RuleKind.TOKENS_PER_MINUTE:
                return self._buckets[rule.counter].level(rule.limit, now_ms)
            case RuleKind.CONCURRENCY:
                return rule.limit - self._open[rule.counter]
            case RuleKind.REQUESTS_PER_SECOND | RuleKind.REQUESTS_PER_MINUTE:
                return rule.limit - self._log(rule).used(now_ms)
            case _:
                return rule.limit - (self._used(rule, now_ms) or 0)

    def _retry_after_ms(self, rule: Rule, wanted: Amount, now_ms: int) -> int | None:
        match rule.kind:
            case RuleKind.TOKENS_PER_MINUTE:
                return self._buckets[rule.counter].time_to_ms(wanted.tokens, rule.limit, now_ms)
            case RuleKind.CONCURRENCY:
                return OPEN_RETRY_MS
            case RuleKind.REQUESTS_PER_SECOND | RuleKind.REQUESTS_PER_MINUTE:
                return self._log(rule).retry_after_ms(rule.limit, now_ms)
            case RuleKind.TOKENS_PER_MONTH:
                return self._reset_ms(rule, now_ms)
            case _:
                return None  # a cap is raised by people

    def _reset_ms(self, rule: Rule, now_ms: int) -> int:
        match rule.kind:
            case RuleKind.TOKENS_PER_MINUTE:
                return self._buckets[rule.counter].time_to_ms(rule.limit, rule.limit, now_ms) or 0
            case RuleKind.CONCURRENCY:
                return 0  # nobody knows
            case RuleKind.REQUESTS_PER_SECOND | RuleKind.REQUESTS_PER_MINUTE:
                return self._log(rule).reset_ms(now_ms)
            case _:
                window = window_at(rule, now_ms)
                return 0 if window is None else window.end_ms - now_ms

    def _used(self, rule: Rule, at_ms: int) -> int | None:
        window = window_at(rule, at_ms)
        return None if window is None else self._calendar(rule).used.get(window.id)

    def _calendar(self, rule: Rule) -> Calendar:
        return self._calendars[rule.kind, rule.counter]

    def _log(self, rule: Rule) -> RequestLog:
        key = (rule.kind, rule.counter)
        if key not in self._logs:
            self._logs[key] = RequestLog(SPAN_MS[rule.kind])
        return self._logs[key]


def _counted_once(rules: Sequence[Rule]) -> list[Rule]:
    """A soft and a hard rule may share a counter; the first of them counts."""
    first: dict[tuple[RuleKind, str], Rule] = {}
    for rule in rules:
        first.setdefault((rule.kind, rule.counter), rule)
    return list(first.values())
