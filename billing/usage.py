"""Usage as people ask for it: sums over usage records."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.elements import ColumnElement

from billing.models import UsageRecord


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
    """Per tier and key, what was admitted at or after since_ms, in the order of their names."""
    query = (
        select(
            UsageRecord.tier,
            UsageRecord.key_id,
            func.count(),
            _sum(UsageRecord.prompt_tokens),
            _sum(UsageRecord.completion_tokens),
            _sum(UsageRecord.cached_tokens),
            _sum(UsageRecord.cost_nano),
        )
        .where(UsageRecord.admitted_ms >= since_ms)
        .group_by(UsageRecord.tier, UsageRecord.key_id)
        .order_by(UsageRecord.tier, UsageRecord.key_id)
    )
    return [UsageRow(*row) for row in session.execute(query)]


def _sum(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    return cast(func.sum(column), BigInteger)  # Postgres sums BIGINT into NUMERIC
