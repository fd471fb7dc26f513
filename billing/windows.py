"""What SQL knows to be used in a calendar window, to begin a counter in Redis with: at the first request of a window,
for a new rule, after a restart. What is settled and not collected at that moment is missing: mostly a second's.
"""

import asyncio
from collections.abc import Sequence

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from billing.models import UsageSpan
from core.db import Database
from core.meter.credit import CounterStore
from core.queue.rules import Rule, RuleKind, Window

_SCOPES = {"organisation": UsageSpan.organisation, "workspace": UsageSpan.workspace, "key": UsageSpan.key_id}


async def seed_counters(
    counters: CounterStore, database: Database, organisation: str, wanted: Sequence[tuple[Rule, Window]]
) -> None:
    """Tell Redis what SQL knows of these windows of one organisation; what is counted there already stays as it is.
    Raises DatabaseUnavailableError, or what Redis raises.
    """
    known = await asyncio.to_thread(_used, database, organisation, wanted)
    for (rule, window), used in zip(wanted, known, strict=True):
        await counters.seed(rule, window, used)


def _used(database: Database, organisation: str, wanted: Sequence[tuple[Rule, Window]]) -> list[int]:
    with database.reading() as session:
        return [_used_in_window(session, organisation, rule, window) for rule, window in wanted]


def _used_in_window(session: Session, organisation: str, rule: Rule, window: Window) -> int:
    """Tokens or nano-units, from the roll-ups: windows begin and end with a quarter of an hour in every time zone."""
    tokens = rule.kind is RuleKind.TOKENS_PER_MONTH
    counted = UsageSpan.prompt_tokens + UsageSpan.completion_tokens if tokens else UsageSpan.cost_nano
    query = select(func.coalesce(cast(func.sum(counted), BigInteger), 0)).where(
        UsageSpan.organisation == organisation,
        UsageSpan.start_ms >= window.start_ms,
        UsageSpan.start_ms < window.end_ms,
        _SCOPES[rule.scope] == rule.scope_id,
    )
    if rule.tier:
        query = query.where(UsageSpan.tier == rule.tier)
    return session.scalars(query).one()
