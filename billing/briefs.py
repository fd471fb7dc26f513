"""Roll-ups of roll-ups, for pages that look far: by hour without keys, with latencies; and by day (UTC) with keys.

A busy organisation has as many rows of `usage_hours` as it has hours, keys and tiers in use: a year of them is too much
for a page. The collector adds to these in the transaction that inserts the records, under the lock of
`rollups.lock_books`; `days.rebuild_day` mends them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, String, cast, delete, func, insert, select, tuple_
from sqlalchemy.orm import Mapped, Session, mapped_column

from billing.models import UsageHour, UsageSpan, UsageSums
from billing.rollups import HOUR_MS, ROWS_AT_ONCE, SKETCH_COLUMNS, SUM_COLUMNS, Counted, Span, add_sums, upsert
from billing.sketch import unpack_sketch
from core.db import Base

DAY_MS = 86_400_000
HOUR_KEY = ("organisation", "start_ms", "workspace", "tier")
DAY_KEY = ("organisation", "start_ms", "workspace", "key_id", "tier")

HourKey = tuple[str, int, str, str]
DayKey = tuple[str, int, str, str, str]


class _Sums(UsageSums):
    organisation: Mapped[str] = mapped_column(String(64), primary_key=True)
    start_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    workspace: Mapped[str] = mapped_column(String(64), primary_key=True)
    tier: Mapped[str] = mapped_column(String(64), primary_key=True)


class TierHour(_Sums, Base):
    """Of one hour (UTC), all keys and kinds together. The sketches are of billing/sketch.py, in ms."""

    __tablename__ = "usage_tier_hours"
    __table_args__ = (Index(None, "start_ms"), {"sqlite_with_rowid": False})

    first_token_sketch: Mapped[bytes] = mapped_column(LargeBinary)
    total_sketch: Mapped[bytes] = mapped_column(LargeBinary)


class KeyDay(_Sums, Base):
    """Of one day (UTC), all kinds together."""

    __tablename__ = "usage_key_days"
    __table_args__ = (Index(None, "start_ms"), {"sqlite_with_rowid": False})

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)


def add_to_briefs(session: Session, records: Sequence[Counted]) -> None:
    """Count records that were inserted in this transaction. The caller has called lock_books."""
    hours: dict[HourKey, Span] = {}
    days: dict[DayKey, list[int]] = {}
    for record in records:
        at_ms = record.admitted_ms
        hours.setdefault((record.organisation, at_ms - at_ms % HOUR_MS, record.workspace, record.tier), Span()).add(
            record
        )
        day = (record.organisation, at_ms - at_ms % DAY_MS, record.workspace, record.key_id, record.tier)
        sums = days.setdefault(day, [0] * len(SUM_COLUMNS))
        add_sums(sums, record)
    _merge_stored(session, hours)
    upsert(session, TierHour, HOUR_KEY, _hour_rows(hours))
    upsert(session, KeyDay, DAY_KEY, _day_rows(days), adding=True)


def wrong_briefs(session: Session, at_ms: int, from_ms: int = 0) -> int:
    """How many rows of the day that holds at_ms do not say what the hours of each key say, or what the quarters say in
    those of its hours that begin at from_ms or later.
    """
    day_ms = at_ms - at_ms % DAY_MS
    since_ms = max(day_ms, from_ms)
    hours, days = _right_hours(session, day_ms, since_ms), _right_days(session, day_ms)
    wrong = len(_stored_hours(session, day_ms, since_ms) ^ _as_set(hours))
    return wrong + len(_stored_days(session, day_ms) ^ set(days.items()))


def rebuild_briefs(session: Session, at_ms: int) -> int:
    """Make the day say it; how many rows were wrong. Writes nothing if none was. The caller has called lock_books."""
    day_ms = at_ms - at_ms % DAY_MS
    wrong = wrong_briefs(session, at_ms)
    if wrong:
        hours, days = _right_hours(session, day_ms, day_ms), _right_days(session, day_ms)
        for model, rows in ((TierHour, _hour_rows(hours)), (KeyDay, _day_rows(days))):
            session.execute(delete(model).where(model.start_ms >= day_ms, model.start_ms < day_ms + DAY_MS))
            if rows:
                session.execute(insert(model), rows)
    return wrong


def _merge_stored(session: Session, hours: dict[HourKey, Span]) -> None:
    columns = [getattr(TierHour, name) for name in (*HOUR_KEY, *SUM_COLUMNS, *SKETCH_COLUMNS)]
    keys = sorted(hours)
    for at in range(0, len(keys), ROWS_AT_ONCE):
        wanted = tuple_(*columns[: len(HOUR_KEY)]).in_(keys[at : at + ROWS_AT_ONCE])
        for row in session.execute(select(*columns).where(wanted)):
            _add(hours[tuple(row[: len(HOUR_KEY)])], row[len(HOUR_KEY) :])


def _add(span: Span, stored: Sequence[Any]) -> None:
    """`stored`: sums and sketches of a row."""
    span.sums = [mine + theirs for mine, theirs in zip(span.sums, stored, strict=False)]
    span.first_token.update(unpack_sketch(stored[-2]))
    span.total.update(unpack_sketch(stored[-1]))


def _right_hours(session: Session, day_ms: int, since_ms: int) -> dict[HourKey, Span]:
    """By the quarters of the day."""
    columns = [getattr(UsageSpan, name) for name in (*HOUR_KEY, *SUM_COLUMNS, *SKETCH_COLUMNS)]
    query = select(*columns).where(UsageSpan.start_ms >= since_ms, UsageSpan.start_ms < day_ms + DAY_MS)
    hours: dict[HourKey, Span] = {}
    for organisation, start_ms, workspace, tier, *stored in session.execute(
        query.execution_options(yield_per=ROWS_AT_ONCE)
    ):
        _add(hours.setdefault((organisation, start_ms - start_ms % HOUR_MS, workspace, tier), Span()), stored)
    return hours


def _right_days(session: Session, day_ms: int) -> dict[DayKey, tuple[int, ...]]:
    """By the hours of the day."""
    hour = UsageHour
    groups = (hour.organisation, hour.workspace, hour.key_id, hour.tier)
    sums = (cast(func.sum(getattr(hour, name)), BigInteger) for name in SUM_COLUMNS)
    query = select(*groups, *sums).where(hour.start_ms >= day_ms, hour.start_ms < day_ms + DAY_MS).group_by(*groups)
    return {
        (organisation, day_ms, workspace, key_id, tier): tuple(values)
        for organisation, workspace, key_id, tier, *values in session.execute(query)
    }


def _stored_hours(session: Session, day_ms: int, since_ms: int) -> set[tuple[Any, ...]]:
    columns = [getattr(TierHour, name) for name in (*HOUR_KEY, *SUM_COLUMNS, *SKETCH_COLUMNS)]
    query = select(*columns).where(TierHour.start_ms >= since_ms, TierHour.start_ms < day_ms + DAY_MS)
    return {tuple(row) for row in session.execute(query)}


def _stored_days(session: Session, day_ms: int) -> set[tuple[DayKey, tuple[int, ...]]]:
    columns = [getattr(KeyDay, name) for name in (*DAY_KEY, *SUM_COLUMNS)]
    found = session.execute(select(*columns).where(KeyDay.start_ms == day_ms))
    return {(tuple(row[: len(DAY_KEY)]), tuple(row[len(DAY_KEY) :])) for row in found}


def _as_set(hours: Mapping[HourKey, Span]) -> set[tuple[Any, ...]]:
    return {(*key, *span.sums, *span.sketches()) for key, span in hours.items()}


def _hour_rows(hours: Mapping[HourKey, Span]) -> list[dict[str, Any]]:
    names = (*HOUR_KEY, *SUM_COLUMNS, *SKETCH_COLUMNS)
    return [dict(zip(names, (*key, *hours[key].sums, *hours[key].sketches()), strict=True)) for key in sorted(hours)]


def _day_rows(days: Mapping[DayKey, Sequence[int]]) -> list[dict[str, Any]]:
    return [dict(zip(DAY_KEY + SUM_COLUMNS, (*key, *days[key]), strict=True)) for key in sorted(days)]
