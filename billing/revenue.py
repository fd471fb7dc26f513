"""Revenue over the whole installation: usage by day or month, tier and organisation, and what the ledger booked.

Usage counts when its request was admitted, the ledger when it was booked; periods are days (UTC). So the two are equal
but for requests that were admitted on one side of a bound and booked on the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Select, Subquery, cast, func, literal, select, union_all
from sqlalchemy.orm import Session

from billing.days import DAY_MS, RevenueDay, RevenueMonth, month_start_ms
from billing.journal import (
    BREAKAGE,
    CASH,
    LOSS,
    PROMO,
    REVENUE_LOST,
    REVENUE_PAID,
    REVENUE_PROMO,
    LedgerHour,
    own_sums,
    sealed_until_ms,
)
from billing.rollups import SUM_COLUMNS
from core.errors import VALIDATION, PlatformError

RANGE_MS_MAX = 5 * 366 * DAY_MS
DAYS_MAX = 62  # of a report by day
USAGE = "usage"


@dataclass(frozen=True, slots=True)
class Span:
    """Whole days (UTC): [from_ms, to_ms)."""

    from_ms: int
    to_ms: int

    @property
    def days(self) -> int:
        return (self.to_ms - self.from_ms) // DAY_MS


@dataclass(frozen=True, slots=True)
class Revenue:
    """`cost_nano` was charged, `loss_nano` nobody paid. `start_ms`: of the day or month within the span; `tier` and
    `organisation` are empty where all are together.
    """

    start_ms: int
    tier: str
    organisation: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_nano: int
    loss_nano: int


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger booked in a span, in nano-units. `paid`, `promo` and `lost` are usage by who pays for it;
    `corrected` was given back or taken out of revenue; `given` is promo and plan credit, `taken_in` paid credit,
    `expired` the credit that nobody used in time, `borne` our own loss, corrections included.
    """

    paid_nano: int
    promo_nano: int
    lost_nano: int
    corrected_nano: int
    given_nano: int
    taken_in_nano: int
    expired_nano: int
    borne_nano: int

    @property
    def usage_nano(self) -> int:
        return self.paid_nano + self.promo_nano + self.lost_nano


def check_span(span: Span) -> Span:
    """The span again. Raises PlatformError (VALIDATION)."""
    if span.from_ms % DAY_MS or span.to_ms % DAY_MS or span.from_ms >= span.to_ms:
        raise PlatformError(VALIDATION, "The first day lies before the last.", param="from")
    if span.to_ms - span.from_ms > RANGE_MS_MAX:
        raise PlatformError(VALIDATION, f"At most {RANGE_MS_MAX // DAY_MS} days at once.", param="from")
    return span


def revenue_by_tier(session: Session, span: Span, *, by_day: bool = False) -> list[Revenue]:
    """By month, or by day for DAYS_MAX at most, and tier: those with usage, in this order."""
    if by_day and span.days > DAYS_MAX:
        raise PlatformError(VALIDATION, f"At most {DAYS_MAX} days at once, by day.", param="from")
    rows = (_days(span, None) if by_day else _months(span)).c
    query = (
        select(rows.start_ms, rows.tier, literal(""), *(_sum(rows[name]) for name in SUM_COLUMNS))
        .group_by(rows.start_ms, rows.tier)
        .order_by(rows.start_ms, rows.tier)
    )
    return [Revenue(*row) for row in session.execute(query)]


def revenue_by_organisation(session: Session, span: Span, count: int, tier: str | None = None) -> list[Revenue]:
    """Those with usage, of this tier if one is named, the largest first; at most `count`."""
    rows = _months(span).c
    cost = _sum(rows.cost_nano)
    query = select(
        literal(span.from_ms, BigInteger), literal(""), rows.organisation, *(_sum(rows[n]) for n in SUM_COLUMNS)
    )
    if tier is not None:
        query = query.where(rows.tier == tier)
    query = query.group_by(rows.organisation).order_by(cost.desc(), rows.organisation).limit(count)
    return [Revenue(*row) for row in session.execute(query)]


def booked_in(session: Session, span: Span) -> Booked:
    """From the sums of sealed hours, and from the journal for the hours after them."""
    sealed_ms = sealed_until_ms(session)
    kept = (
        select(LedgerHour.account, LedgerHour.kind, cast(func.sum(LedgerHour.amount_nano), BigInteger))
        .where(LedgerHour.hour_ms >= span.from_ms, LedgerHour.hour_ms < span.to_ms)
        .group_by(LedgerHour.account, LedgerHour.kind)
    )
    sums: dict[tuple[str, str], int] = {}
    young_ms = max(span.from_ms, sealed_ms)
    young = own_sums(session, young_ms, span.to_ms) if young_ms < span.to_ms else []
    for account, kind, nano in (*((row[0], row[1], row[2]) for row in session.execute(kept)), *young):
        sums[account, kind] = sums.get((account, kind), 0) + nano
    return _booked(sums)


def total_of(lines: Sequence[Revenue], start_ms: int) -> Revenue:
    sums = (sum(getattr(line, name) for line in lines) for name in SUM_COLUMNS)
    return Revenue(start_ms, "", "", *sums)


def _booked(sums: Mapping[tuple[str, str], int]) -> Booked:
    def of(account: str) -> int:
        return sum(nano for (name, _), nano in sums.items() if name == account)

    paid, promo, lost = (sums.get((account, USAGE), 0) for account in (REVENUE_PAID, REVENUE_PROMO, REVENUE_LOST))
    return Booked(
        paid_nano=paid,
        promo_nano=promo,
        lost_nano=lost,
        corrected_nano=of(REVENUE_PAID) + of(REVENUE_PROMO) + of(REVENUE_LOST) - paid - promo - lost,
        given_nano=-of(PROMO),
        taken_in_nano=-of(CASH),
        expired_nano=of(BREAKAGE),
        borne_nano=-of(LOSS),
    )


def _months(span: Span) -> Subquery:
    """Rows of whole months; of those that the span cuts, the rows of their days under the month's start."""
    whole_ms = month_start_ms(span.from_ms)
    if whole_ms != span.from_ms:
        whole_ms = month_start_ms(span.from_ms, 1)
    end_ms = month_start_ms(span.to_ms)
    if whole_ms > end_ms:  # within one month
        return _days(span, month_start_ms(span.from_ms))
    parts = [_select(RevenueMonth, Span(whole_ms, end_ms), None)]
    if span.from_ms < whole_ms:
        parts.append(_select(RevenueDay, Span(span.from_ms, whole_ms), month_start_ms(span.from_ms)))
    if end_ms < span.to_ms:
        parts.append(_select(RevenueDay, Span(end_ms, span.to_ms), end_ms))
    return union_all(*parts).subquery()


def _days(span: Span, start_ms: int | None) -> Subquery:
    return _select(RevenueDay, span, start_ms).subquery()


def _select(model: type[RevenueDay] | type[RevenueMonth], span: Span, start_ms: int | None) -> Select[Any]:
    """`start_ms` None: each row's own."""
    start = model.start_ms if start_ms is None else literal(start_ms, BigInteger).label("start_ms")
    return select(start, model.tier, model.organisation, *(getattr(model, name) for name in SUM_COLUMNS)).where(
        model.start_ms >= span.from_ms, model.start_ms < span.to_ms
    )


def _sum(column: Any) -> Any:
    return cast(func.sum(column), BigInteger)
