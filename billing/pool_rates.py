"""How many requests a tier takes in and finishes, in the last minute, for operators."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.orm import Session

from billing.models import UsageRecord

WINDOW_MS = 60_000
LOOK_BACK_MS = 5 * WINDOW_MS  # requests that take longer are not seen to finish
MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class PoolRates:
    """Of requests that are collected: those that are still open are not among the admitted."""

    admitted_per_s: float
    finished_per_s: float


def pool_rates(session: Session, tiers: Sequence[str], now_ms: int) -> dict[str, PoolRates]:
    """By tier; those without a request are zero."""
    record, since_ms = UsageRecord, now_ms - WINDOW_MS
    admitted = func.sum(case((record.admitted_ms >= since_ms, 1), else_=0))
    finished = func.sum(case((record.settled_ms >= since_ms, 1), else_=0))
    query = (
        select(record.tier, cast(admitted, BigInteger), cast(finished, BigInteger))
        .where(record.admitted_ms >= now_ms - LOOK_BACK_MS)
        .group_by(record.tier)
    )
    found = {
        row[0]: PoolRates(row[1] * MS_PER_S / WINDOW_MS, row[2] * MS_PER_S / WINDOW_MS)
        for row in session.execute(query)
    }
    return {tier: found.get(tier, PoolRates(0, 0)) for tier in tiers}
