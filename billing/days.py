"""Usage of whole organisations by day and month (UTC), all keys and kinds of a tier together: for reports over the
installation, which would read millions of hourly roll-ups.

The collector adds to them in the transaction that inserts the records, under the lock of `rollups.lock_books`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, String, cast, delete, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, mapped_column

from billing.briefs import rebuild_briefs, wrong_briefs
from billing.models import UsageHour, UsageSums
from billing.rollups import SUM_COLUMNS, Counted, add_sums, lock_books, upsert
from core.db import Base

DAY_MS = 86_400_000
KEY_COLUMNS = ("start_ms", "tier", "organisation")

Key = tuple[int, str, str]
Rows = dict[Key, tuple[int, ...]]


class _Sums(UsageSums):
    start_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tier: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(64), primary_key=True)


class RevenueDay(_Sums, Base):
    __tablename__ = "revenue_days"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's own way of declaring it


class RevenueMonth(_Sums, Base):
    __tablename__ = "revenue_months"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's own way of declaring it


def day_start_ms(at_ms: int) -> int:
    return at_ms - at_ms % DAY_MS


def month_start_ms(at_ms: int, later: int = 0) -> int:
    """Of the month that holds at_ms, or of the one so many months later."""
    moment = datetime.fromtimestamp(at_ms // 1_000, UTC)
    number = moment.year * 12 + moment.month - 1 + later
    return round(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1_000


def add_to_days(session: Session, records: Sequence[Counted]) -> None:
    """Count records that were inserted in this transaction. The caller has called lock_books."""
    for model, start_of in ((RevenueDay, day_start_ms), (RevenueMonth, month_start_ms)):
        sums: dict[Key, list[int]] = {}
        for record in records:
            key = (start_of(record.admitted_ms), record.tier, record.organisation)
            known = sums.setdefault(key, [0] * len(SUM_COLUMNS))
            add_sums(known, record)
        upsert(session, model, KEY_COLUMNS, _rows(sums), adding=True)


def next_day_ms(session: Session, from_ms: int) -> int | None:
    """The first day from from_ms on of which roll-ups tell."""
    found = [
        session.execute(select(func.min(column)).where(column >= from_ms)).scalar_one()
        for column in (UsageHour.start_ms, RevenueDay.start_ms)
    ]
    return min((day_start_ms(at_ms) for at_ms in found if at_ms is not None), default=None)


def wrong_rows(session: Session, at_ms: int, from_ms: int = 0) -> int:
    """How many rows of the day that holds at_ms are not the sums of its hours, and how many of its month are not those
    of its days; with those of billing/briefs.py, of the hours that begin at from_ms or later.
    """
    wrong = sum(len(set(stored.items()) ^ set(right.items())) for _, stored, right in _compared(session, at_ms))
    return wrong + wrong_briefs(session, at_ms, from_ms)


def rebuild_day(session: Session, at_ms: int) -> int:
    """Make the day say what its hours say, and its month what its days say; how many rows were wrong."""
    lock_books(session)
    wrong = rebuild_briefs(session, at_ms)
    for model in (RevenueDay, RevenueMonth):
        stored, right = next((one, other) for each, one, other in _compared(session, at_ms) if each is model)
        differing = set(stored.items()) ^ set(right.items())
        if differing:
            start_ms = day_start_ms(at_ms) if model is RevenueDay else month_start_ms(at_ms)
            session.execute(delete(model).where(model.start_ms == start_ms))
            if right:
                session.execute(insert(model), _rows(right))
        wrong += len(differing)
    return wrong


def _compared(session: Session, at_ms: int) -> list[tuple[type[RevenueDay] | type[RevenueMonth], Rows, Rows]]:
    day_ms, month_ms = day_start_ms(at_ms), month_start_ms(at_ms)
    hours = _summed(session, UsageHour, day_ms, day_ms, day_ms + DAY_MS)
    days = _summed(session, RevenueDay, month_ms, month_ms, month_start_ms(at_ms, 1))
    return [
        (RevenueDay, _summed(session, RevenueDay, day_ms, day_ms, day_ms + 1), hours),
        (RevenueMonth, _summed(session, RevenueMonth, month_ms, month_ms, month_ms + 1), days),
    ]


def _summed(
    session: Session,
    model: type[UsageHour] | type[RevenueDay] | type[RevenueMonth],
    start_ms: int,
    from_ms: int,
    to_ms: int,
) -> Rows:
    """What begins in [from_ms, to_ms), by tier and organisation, as rows that begin at start_ms."""
    query = (
        select(model.tier, model.organisation, *(_sum(getattr(model, name)) for name in SUM_COLUMNS))
        .where(model.start_ms >= from_ms, model.start_ms < to_ms)
        .group_by(model.tier, model.organisation)
    )
    return {(start_ms, row[0], row[1]): tuple(row[2:]) for row in session.execute(query)}


def _rows(sums: Mapping[Key, Sequence[int]]) -> list[dict[str, Any]]:
    return [dict(zip(KEY_COLUMNS + SUM_COLUMNS, (*key, *sums[key]), strict=True)) for key in sorted(sums)]


def _sum(column: InstrumentedAttribute[int]) -> Any:
    return cast(func.sum(column), BigInteger)
