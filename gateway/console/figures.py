"""What the Overview shows, read in one go: figures of today beside those of last week, the last two weeks, the newest
requests and refusals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.accounts import Available, available
from billing.calendar import days
from billing.models import UsageHour, UsageRecord
from billing.requests import RequestFilter, list_requests
from billing.rollups import SPAN_MS
from billing.today import DaySums, day_of, local_date, sums_of, sums_until, today, waits_until, week_before
from billing.usage import DAY_MS, Dimension, Latencies, Period, UsageLine, UsageQuery, report
from core.meter.credit import Level
from core.meter.refusals import READ_MAX, RefusalEvent, RefusalLog
from core.queue.rules import Window
from gateway.accounts.roles import Permission
from gateway.console.visitor import Place

DAYS = 14
PACE_DAYS = 7
LOW_DAYS = 3
NEWEST = 5
LINES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """Whose usage somebody may see: an organisation, or some of its workspaces."""

    organisation: str
    workspaces: frozenset[str] | None
    zone: str

    def query(self, from_ms: int, to_ms: int) -> UsageQuery:
        return UsageQuery(self.organisation, from_ms, to_ms, time_zone=self.zone, workspaces=self.workspaces)


def seen_by(place: Place) -> Seen:
    return Seen(place.id, place.workspaces(Permission.USAGE_READ), place.zone)


@dataclass(frozen=True, slots=True)
class LastWeek:
    """Of the same weekday, up to `until_ms`; worth asking for again when a quarter of an hour has passed."""

    quarter: int
    sums: DaySums
    waits: Latencies


@dataclass(frozen=True, slots=True)
class Figures:
    """`hours` are today's, `newest` the newest requests of all time."""

    day: Window
    hours: list[UsageLine]
    sums: DaySums
    waits: Latencies
    before: LastWeek
    newest: list[UsageRecord]


@dataclass(frozen=True, slots=True)
class Balance:
    """`reserved_nano` None: Redis does not answer. `lasts_days`: at the pace of the last seven days; None: nothing was
    spent.
    """

    available_nano: int
    reserved_nano: int | None
    limit_nano: int
    lasts_days: float | None

    @property
    def low(self) -> bool:
        return self.available_nano <= 0 or (self.lasts_days is not None and self.lasts_days < LOW_DAYS)


def figures(session: Session, seen: Seen, now_ms: int, known: Figures | None = None) -> Figures:
    """`known`: from a moment ago; what cannot have changed since is taken from it."""
    day = today(seen.zone, now_ms)
    until_ms = now_ms + SPAN_MS - now_ms % SPAN_MS
    query = seen.query(day.start_ms, until_ms)
    hours = report(session, replace(query, period=Period.HOUR), count=LINES_MAX)
    sums = sums_of(hours)
    same_day = known is not None and known.day == day
    unchanged = known is not None and same_day and known.sums == sums
    waits = known.waits if known is not None and unchanged else waits_until(session, query, now_ms)
    before = None if known is None or not same_day else known.before
    if before is None or before.quarter != until_ms:
        before = last_week(session, seen, now_ms, until_ms)
    wanted = RequestFilter(seen.organisation, seen.workspaces)
    return Figures(day, hours, sums, waits, before, list_requests(session, wanted, None, NEWEST).records)


def last_week(session: Session, seen: Seen, now_ms: int, quarter: int) -> LastWeek:
    window = week_before(seen.zone, now_ms)
    query = seen.query(window.start_ms, window.end_ms + -window.end_ms % SPAN_MS)
    if window.end_ms == window.start_ms:
        return LastWeek(quarter, sums_of(()), Latencies({}, {}))
    return LastWeek(quarter, sums_until(session, query, window.end_ms), waits_until(session, query, window.end_ms))


def two_weeks(session: Session, seen: Seen, now_ms: int) -> tuple[list[Window], list[UsageLine]]:
    """The last days, today included, and what was used on them by tier."""
    first = day_of(seen.zone, local_date(seen.zone, now_ms) - timedelta(days=DAYS - 1))
    last = today(seen.zone, now_ms)
    query = replace(seen.query(first.start_ms, last.end_ms), period=Period.DAY, dimensions=(Dimension.TIER,))
    return list(days(seen.zone, first.start_ms, last.end_ms)), report(session, query, count=LINES_MAX)


def has_usage(session: Session, seen: Seen) -> bool:
    query = select(UsageHour.requests).where(UsageHour.organisation == seen.organisation)
    if seen.workspaces is not None:
        query = query.where(UsageHour.workspace.in_(sorted(seen.workspaces)))
    return session.scalars(query.limit(1)).first() is not None


def balance(account: Available, level: Level | None, lines: Sequence[UsageLine], today_ms: int) -> Balance:
    """`lines`: those of `two_weeks`. What Redis holds free can be spent like what SQL has left."""
    free_nano = account.available_nano + (0 if level is None else level.available_nano)
    week = [line.cost_nano for line in lines if today_ms - PACE_DAYS * DAY_MS <= line.start_ms < today_ms]
    pace_nano = sum(week) / PACE_DAYS
    lasts_days = max(0.0, free_nano / pace_nano) if pace_nano else None
    return Balance(free_nano, None if level is None else level.reserved_nano, account.limit_nano, lasts_days)


def account_of(session: Session, organisation: str) -> Available:
    return available(session, organisation)


async def newest_refusals(log: RefusalLog, seen: Seen, count: int) -> list[RefusalEvent]:
    """The youngest first, of the last day. Raises what Redis raises when it is away."""
    found = await log.read(seen.organisation, 0, count if seen.workspaces is None else READ_MAX)
    if seen.workspaces is not None:
        found = [event for event in found if event.workspace in seen.workspaces]
    return found[:count]
