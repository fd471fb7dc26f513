"""A day so far, and the same weekday a week before up to the same time of day."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.calendar import days
from billing.rollups import SPAN_MS
from billing.usage import DAY_MS, Latencies, UsageLine, UsageQuery, latencies, report
from core.queue.rules import Window

SHARES = (0.5, 0.95)


@dataclass(frozen=True, slots=True)
class DaySums:
    """Of part of a day. Numbers of the week before may be fractions: of the quarter of an hour that now cuts, as much
    counts as has passed.
    """

    requests: float
    failed: float
    prompt_tokens: float
    completion_tokens: float
    cost_nano: float

    @property
    def failed_share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


def day_of(zone: str, day: date) -> Window:
    """The day with this date, or the first after it where the zone has skipped it."""
    middle_ms = round(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 1_000
    wanted = day.isoformat()
    return next(window for window in days(zone, middle_ms - 2 * DAY_MS, middle_ms + 3 * DAY_MS) if window.id >= wanted)


def local_date(zone: str, at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms // 1_000, UTC).astimezone(ZoneInfo(zone)).date()


def today(zone: str, now_ms: int) -> Window:
    return day_of(zone, local_date(zone, now_ms))


def week_before(zone: str, now_ms: int) -> Window:
    """The same weekday, from its begin to the time that the clocks show now."""
    local = datetime.fromtimestamp(now_ms // 1_000, UTC).astimezone(ZoneInfo(zone))
    day = day_of(zone, local.date() - timedelta(days=7))
    then = datetime.combine(local.date() - timedelta(days=7), local.time(), ZoneInfo(zone))
    return Window(day.id, day.start_ms, min(max(round(then.timestamp()) * 1_000, day.start_ms), day.end_ms))


def sums_of(lines: Iterable[UsageLine], share: float = 1) -> DaySums:
    totals = [
        sum(getattr(line, name) for line in found) * share
        for found in (tuple(lines),)
        for name in ("requests", "failed", "prompt_tokens", "completion_tokens", "cost_nano")
    ]
    return DaySums(*totals)


def sums_until(session: Session, query: UsageQuery, until_ms: int) -> DaySums:
    """From the query's begin on, whatever its end, period and dimensions."""
    whole_ms = until_ms - until_ms % SPAN_MS
    plain = replace(query, period=None, dimensions=())
    before = report(session, replace(plain, to_ms=whole_ms), count=1) if whole_ms > query.from_ms else []
    cut = report(session, replace(plain, from_ms=whole_ms, to_ms=whole_ms + SPAN_MS), count=1)
    whole, part = sums_of(before), sums_of(cut, (until_ms - whole_ms) / SPAN_MS)
    return DaySums(
        whole.requests + part.requests,
        whole.failed + part.failed,
        whole.prompt_tokens + part.prompt_tokens,
        whole.completion_tokens + part.completion_tokens,
        whole.cost_nano + part.cost_nano,
    )


def waits_until(session: Session, query: UsageQuery, until_ms: int) -> Latencies:
    """Median and 95 %, to the end of the quarter that until_ms cuts."""
    return latencies(session, replace(query, period=None, dimensions=(), to_ms=until_ms + -until_ms % SPAN_MS), SHARES)
