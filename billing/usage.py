"""Usage as people ask for it: sums and latencies over roll-ups, by time, tier, key and workspace."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Subquery,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from billing.briefs import KeyDay, TierHour
from billing.calendar import check_time_zone, days, months
from billing.models import UsageHour, UsageRecord, UsageSpan
from billing.rollups import HOUR_MS, SPAN_MS, SUM_COLUMNS
from billing.sketch import add_sketch, quantile_ms
from core.errors import VALIDATION, PlatformError
from core.queue.rules import Window

DAY_MS = 86_400_000

GroupKey = tuple[int, *tuple[str, ...]]  # start of the period, then the dimensions grouped by


class Period(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Dimension(StrEnum):
    WORKSPACE = "workspace"
    KEY = "key"
    TIER = "tier"


# So many periods fit into one report.
PERIODS_MAX = {Period.HOUR: 31 * 24, Period.DAY: 366, Period.MONTH: 60}
RANGE_MS_MAX = 5 * 366 * DAY_MS
LATENCY_RANGE_MS_MAX = 31 * DAY_MS
CUT_HOURS_MAX = 400  # a year of days in a zone whose clocks differ by half an hour
CUT_DAYS_MAX = 62  # two for each month of the longest report; where more are cut, hours are read throughout
_COLUMN_OF = {Dimension.WORKSPACE: "workspace", Dimension.KEY: "key_id", Dimension.TIER: "tier"}
_Hours = type[UsageHour] | type[TierHour]
_Table = type[UsageSpan] | type[KeyDay] | _Hours


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What was admitted in [from_ms, to_ms), both multiples of SPAN_MS. `workspace` and `key_id` None: all of the
    organisation; `workspaces` None: whoever asks sees all of them. Without a period each line covers the whole time.
    """

    organisation: str
    from_ms: int
    to_ms: int
    workspace: str | None = None
    key_id: str | None = None
    period: Period | None = None
    dimensions: tuple[Dimension, ...] = ()
    time_zone: str = "UTC"
    workspaces: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One group. `start_ms` and `end_ms` bound its period within the query; the dimensions that were not asked for are
    None. `requests` counts every settled request, `failed` those that we failed and did not charge.
    """

    start_ms: int
    end_ms: int
    workspace: str | None
    key_id: str | None
    tier: str | None
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_nano: int
    loss_nano: int


def check_query(query: UsageQuery) -> None:
    """Raises PlatformError (VALIDATION), so that what `report` answers is bounded."""
    check_time_zone(query.time_zone)
    if query.from_ms >= query.to_ms:
        raise PlatformError(VALIDATION, "`from` lies before `to`.", param="from")
    if query.from_ms % SPAN_MS or query.to_ms % SPAN_MS:
        raise PlatformError(VALIDATION, "`from` and `to` fall on a quarter of an hour.", param="from")
    most_ms = {
        None: RANGE_MS_MAX,
        Period.HOUR: PERIODS_MAX[Period.HOUR] * HOUR_MS,
        Period.DAY: PERIODS_MAX[Period.DAY] * DAY_MS,
        Period.MONTH: RANGE_MS_MAX,
    }[query.period]
    if query.to_ms - query.from_ms > most_ms:
        raise PlatformError(VALIDATION, f"At most {most_ms // DAY_MS} days at once, by {query.period}.", param="from")


def report(session: Session, query: UsageQuery, *, after: GroupKey | None = None, count: int) -> list[UsageLine]:
    """The lines that follow `after`, at most `count`, ordered by period, workspace, key and tier."""
    periods = list(periods_of(query))
    rows = _rows(query, periods).c
    number = _number_of(rows.start_ms, periods)
    groups = [rows[_COLUMN_OF[dimension]] for dimension in Dimension if dimension in query.dimensions]
    found = (
        select(number.label("period"), *groups, *(_sum(rows[name]) for name in SUM_COLUMNS))
        .group_by("period", *groups)
        .order_by("period", *groups)
        .limit(count)
    )
    if after is not None:
        start_ms, *names = after
        if len(names) != len(groups):
            raise PlatformError(VALIDATION, "The cursor belongs to another query.", param="cursor")
        reached = bisect_right([window.start_ms for window in periods], start_ms) - 1
        found = found.where(tuple_(number, *groups) > (reached, *names))
    return [_line(query, periods, row) for row in session.execute(found)]


def group_key(line: UsageLine) -> GroupKey:
    """Where a line stands in its report."""
    names = (line.workspace, line.key_id, line.tier)
    return (line.start_ms, *(name for name in names if name is not None))


@dataclass(frozen=True, slots=True)
class Latencies:
    """Quantiles in ms, by share (see billing/sketch.py for their error); None where nothing was measured."""

    first_token_ms: dict[float, int | None]
    total_ms: dict[float, int | None]


def latencies(session: Session, query: UsageQuery, shares: Sequence[float] = (0.5, 0.95, 0.99)) -> Latencies:
    """Over everything in the query, ungrouped. Raises PlatformError (VALIDATION) for more than 31 days."""
    if query.to_ms - query.from_ms > LATENCY_RANGE_MS_MAX:
        raise PlatformError(VALIDATION, "Latencies are told for at most 31 days at once.", param="latency")
    first_token: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for table, where in _measured(query):
        sketches = select(table.first_token_sketch, table.total_sketch).where(*_within(table, query), *where)
        for first_raw, total_raw in session.execute(sketches.execution_options(yield_per=1_000)):
            add_sketch(first_token, first_raw)
            add_sketch(total, total_raw)
    return Latencies(
        {share: quantile_ms(first_token, share) for share in shares},
        {share: quantile_ms(total, share) for share in shares},
    )


def periods_of(query: UsageQuery) -> Iterator[Window]:
    """Hours, days or months of the time zone, the first and the last cut to the query."""
    if query.period is None:
        found: Iterator[Window] = iter([Window("", query.from_ms, query.to_ms)])
    elif query.period is Period.HOUR:
        found = _hours(query)
    else:
        following = days if query.period is Period.DAY else months
        found = following(query.time_zone, query.from_ms, query.to_ms)
    for window in found:
        yield Window(window.id, max(window.start_ms, query.from_ms), min(window.end_ms, query.to_ms))


def _hours(query: UsageQuery) -> Iterator[Window]:
    """Hours as the zone's clocks strike: with an offset of 30 minutes they begin at half past, UTC."""
    start_ms = query.from_ms
    zone = ZoneInfo(query.time_zone)
    while start_ms < query.to_ms:
        local = datetime.fromtimestamp(start_ms // 1000, UTC).astimezone(zone)
        into_ms = (local.minute * 60 + local.second) * 1000
        end_ms = start_ms - into_ms + HOUR_MS
        yield Window(local.strftime("%Y-%m-%dT%H"), start_ms, end_ms)
        start_ms = end_ms


def _measured(query: UsageQuery) -> list[tuple[type[UsageSpan] | type[TierHour], list[ColumnElement[bool]]]]:
    """Where latencies are read: of a key in its quarters, else in hours, and in quarters of those that are cut."""
    if query.key_id is not None:
        return [(UsageSpan, [])]
    cut = sorted({at_ms - at_ms % HOUR_MS for at_ms in (query.from_ms, query.to_ms) if at_ms % HOUR_MS})
    return [(TierHour, [TierHour.start_ms.not_in(cut)]), (UsageSpan, [UsageSpan.start_ms.in_(_quarters(cut))])]


def _rows(query: UsageQuery, periods: Sequence[Window]) -> Subquery:
    """The roll-ups of the query, the fewest that will do: days; hours of those that a period's bound cuts in two;
    quarters of such hours.
    """
    keyed = query.key_id is not None or Dimension.KEY in query.dimensions
    hours: _Hours = UsageHour if keyed else TierHour
    bounds = {query.from_ms, query.to_ms, *(window.start_ms for window in periods)}
    cut_hours = sorted({bound - bound % HOUR_MS for bound in bounds if bound % HOUR_MS})
    if len(cut_hours) > CUT_HOURS_MAX:
        return _select(UsageSpan, query).subquery()
    cut_days = sorted({bound - bound % DAY_MS for bound in bounds if bound % DAY_MS})
    by_hour, parts = [query], []
    if len(cut_days) <= CUT_DAYS_MAX and query.to_ms - query.from_ms > len(cut_days) * DAY_MS:
        parts.append(_select(KeyDay, query).where(KeyDay.start_ms.not_in(cut_days)))
        by_hour = [  # one by one, so that each is a short walk along the key
            replace(query, from_ms=max(query.from_ms, day_ms), to_ms=min(query.to_ms, day_ms + DAY_MS))
            for day_ms in cut_days
        ]
    parts += [_select(hours, each).where(hours.start_ms.not_in(cut_hours)) for each in by_hour]
    if cut_hours:
        parts.append(_select(UsageSpan, query).where(UsageSpan.start_ms.in_(_quarters(cut_hours))))
    return union_all(*parts).subquery()


def _quarters(hours: Sequence[int]) -> list[int]:
    return [hour_ms + at_ms for hour_ms in hours for at_ms in range(0, HOUR_MS, SPAN_MS)]


def _select(table: _Table, query: UsageQuery) -> Select[Any]:
    """Without keys where the table knows none: nothing is grouped or filtered by them then."""
    keyless = literal("").label("key_id")
    columns = [
        keyless if table is TierHour and name == "key_id" else getattr(table, name)
        for name in ("start_ms", *_COLUMN_OF.values(), *SUM_COLUMNS)
    ]
    return select(*columns).where(*_within(table, query))


def _number_of(at_ms: ColumnElement[int], periods: Sequence[Window]) -> ColumnElement[int]:
    """SQL for the number of the period that a roll-up lies in. Between two changes of the clock all hours, or days, are
    equally long, so one division numbers them; each stretch of equal length is one branch.
    """
    stretches = list(_stretches(periods))
    branches = []
    for first, length_ms, end_ms in stretches:
        start_ms = periods[first].start_ms
        numbered = literal(first, BigInteger) + (at_ms - start_ms) // length_ms
        branches.append((at_ms < end_ms, numbered))
    return case(*branches, else_=literal(len(periods) - 1, BigInteger))


def _stretches(periods: Sequence[Window]) -> Iterator[tuple[int, int, int]]:
    """Runs of equally long periods: number of the first, length, end."""
    first = 0
    for number, window in enumerate(periods):
        length_ms = periods[first].end_ms - periods[first].start_ms
        following = periods[number + 1] if number + 1 < len(periods) else None
        if following is None or following.end_ms - following.start_ms != length_ms:
            yield first, length_ms, window.end_ms
            first = number + 1


def _within(table: Any, query: UsageQuery) -> list[ColumnElement[bool]]:
    where = [
        table.organisation == query.organisation,
        table.start_ms >= query.from_ms,
        table.start_ms < query.to_ms,
    ]
    if query.workspace is not None:
        where.append(table.workspace == query.workspace)
    if query.key_id is not None and table is not TierHour:
        where.append(table.key_id == query.key_id)
    if query.workspaces is not None:
        where.append(table.workspace.in_(sorted(query.workspaces)))
    return where


def _line(query: UsageQuery, periods: Sequence[Window], row: Any) -> UsageLine:
    number, *rest = row
    named = {dimension: rest.pop(0) if dimension in query.dimensions else None for dimension in Dimension}
    window = periods[number]
    return UsageLine(
        window.start_ms,
        window.end_ms,
        named[Dimension.WORKSPACE],
        named[Dimension.KEY],
        named[Dimension.TIER],
        *rest,
    )


def local_time(at_ms: int, time_zone: str) -> str:
    """ISO 8601 with the zone's offset."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)
    return moment.astimezone(ZoneInfo(time_zone)).isoformat()


@dataclass(frozen=True, slots=True)
class UsageRow:
    """`requests` counts every settled request, also those that were not charged and add no tokens."""

    tier: str
    key_id: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_nano: int


def usage_rows(session: Session, since_ms: int = 0) -> list[UsageRow]:
    """Per tier and key of the whole installation, what was admitted at or after since_ms, in the order of their names:
    from roll-ups, and from the records of the one hour that since_ms cuts.
    """
    whole_ms = -(-since_ms // HOUR_MS) * HOUR_MS
    names = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano")
    hours = select(
        UsageHour.tier, UsageHour.key_id, UsageHour.requests, *(getattr(UsageHour, name) for name in names)
    ).where(UsageHour.start_ms >= whole_ms)
    edge = select(
        UsageRecord.tier,
        UsageRecord.key_id,
        literal(1, BigInteger).label("requests"),
        *(getattr(UsageRecord, name) for name in names),
    ).where(UsageRecord.admitted_ms >= since_ms, UsageRecord.admitted_ms < whole_ms)
    both = union_all(hours, edge).subquery()
    query = select(both.c.tier, both.c.key_id, *(_sum(both.c[name]) for name in ("requests", *names)))
    query = query.group_by(both.c.tier, both.c.key_id).order_by(both.c.tier, both.c.key_id)
    return [UsageRow(*row) for row in session.execute(query)]


def _sum(column: ColumnElement[int] | InstrumentedAttribute[int]) -> ColumnElement[int]:
    return cast(func.sum(column), BigInteger)  # Postgres sums BIGINT into NUMERIC
